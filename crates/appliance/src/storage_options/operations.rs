//! What is done with storage options.

use strongroom_protect::{Asker, Job};
use zeroize::Zeroizing;

use super::{StorageKind, StorageSettings, StorageStatus};
use crate::administration::{Administration, URGENT, blocking};
use crate::works::{self, STORAGE_SETTINGS, StorageParameters};
use crate::{Error, Result};

impl Administration {
    /// What is set, and what came of it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn storage_options(&self) -> Result<StorageStatus> {
        let storage = self.parts().storage()?.clone();
        blocking(move || storage.status()).await
    }

    /// The kinds of storage that the configuration offers.
    ///
    /// # Errors
    /// [`Error::State`] where nothing attaches storage.
    pub fn offered_storage(&self) -> Result<Vec<StorageKind>> {
        Ok(self.parts().storage()?.offered())
    }

    /// Keeps other settings, if they mean something: the next start of the process applies them.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Busy`] while a job changes them; [`Error::File`].
    pub async fn set_storage_options(&self, settings: StorageSettings) -> Result<StorageStatus> {
        settings.check()?;
        let _turn = self.parts().turn.lock().await;
        self.free(works::STORAGE_OPTIONS).await?;
        let storage = self.parts().storage()?.clone();
        blocking(move || {
            storage.keep(settings)?;
            storage.status()
        })
        .await
    }

    /// As [`Administration::set_storage_options`], by a job, and as they are said: what won't come of
    /// them is told by the job and by the start.
    ///
    /// # Errors
    /// [`Error::Storage`] for a kind that is not offered; [`Error::Busy`]; [`Error::File`]; those of
    /// the engine.
    pub async fn set_storage_options_later(
        &self,
        asker: Asker,
        settings: StorageSettings,
    ) -> Result<Job> {
        self.parts().storage()?.offers(settings.kind())?;
        let _turn = self.parts().turn.lock().await;
        self.free(works::STORAGE_OPTIONS).await?;
        let text = serde_json::to_vec(&settings);
        let text = Zeroizing::new(text.map_err(|error| Error::Storage(error.to_string()))?);
        let staged = self.parts().staged.clone();
        let name = blocking(move || staged.put(&[(STORAGE_SETTINGS, &text)])).await?;
        // Somebody waits for it, and a second try would find what the first found.
        let asker = Asker { priority: URGENT, attempts: 1, ..asker };
        let parameters = StorageParameters { staged: name };
        let object = "the storage options".to_owned();
        let asked = self.protect().ask(asker, works::STORAGE_OPTIONS, object, &parameters).await;
        if asked.is_err() {
            self.parts().staged.remove(&parameters.staged);
        }
        Ok(asked?)
    }

    /// Forgets what is set: the next start of the process detaches it. Whether anything was.
    ///
    /// # Errors
    /// [`Error::Busy`] while a job changes it; [`Error::File`].
    pub async fn clear_storage_options(&self) -> Result<bool> {
        let _turn = self.parts().turn.lock().await;
        self.free(works::STORAGE_OPTIONS).await?;
        let storage = self.parts().storage()?.clone();
        blocking(move || storage.forget()).await
    }
}
