//! What is done with storage options.

use strongroom_protect::{Asker, Job};

use super::{StorageKind, StorageSettings, StorageStatus};
use crate::Result;
use crate::administration::{Administration, URGENT, blocking};
use crate::works::{self, STORAGE_SETTINGS, StorageParameters};

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
        let storage = self.parts().storage()?.clone();
        storage.offers(settings.kind())?;
        let _turn = self.parts().turn.lock().await;
        self.free(works::STORAGE_OPTIONS).await?;
        let sealed = storage.seal(&settings)?;
        let staged = self.parts().staged.clone();
        let name = blocking(move || staged.put(&[(STORAGE_SETTINGS, &sealed)])).await?;
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

    /// Attaches what the start could not, if nothing is in the way; whether it tried.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::File`].
    pub async fn attach_storage_again(&self) -> Result<bool> {
        let storage = self.parts().storage()?.clone();
        let (done, ended) = tokio::sync::oneshot::channel();
        // Not one of those that the end of the process waits for.
        std::thread::spawn(move || done.send(storage.apply_again()));
        ended.await.unwrap_or(Ok(false))
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
