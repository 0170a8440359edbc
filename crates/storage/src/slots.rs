//! The secrets that open an encrypted pool, each in a key slot. The appliance itself opens it with
//! one of them, which it keeps sealed.

use std::sync::Arc;

use strongroom_catalog::pools;
use strongroom_engine::keys::Stretch;
use strongroom_engine::pool::{Pool, SlotInfo};

use crate::{Error, PoolSecret, Result, Storage};

/// The longest label of a key slot, in bytes.
const MAX_LABEL: usize = 64;

impl Storage {
    /// The key slots of a pool; none of one that isn't encrypted.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub async fn pool_keys(&self, id: i64) -> Result<Vec<SlotInfo>> {
        Ok(self.open(id).await?.slots())
    }

    /// Adds a secret that opens a pool; its slot.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a label that can't be; the engine's `Invalid` for a pool that isn't
    /// encrypted or has all the slots it may have; those of [`Storage::open`].
    pub async fn add_pool_key(&self, id: i64, secret: PoolSecret, label: &str) -> Result<SlotInfo> {
        if label.len() > MAX_LABEL || label.chars().any(char::is_control) {
            return Err(Error::Invalid(format!(
                "a key slot's label has {MAX_LABEL} bytes at most, and no control characters"
            )));
        }
        let _turn = self.inner.changing.of(id).await;
        let (known, pool) = (self.pool(id).await?, self.open(id).await?);
        let (on, label) = (Arc::clone(&pool), label.to_owned());
        let slot =
            self.blocking(move || Ok(on.add_slot(&secret.open()?, &label, Stretch::DEFAULT)?));
        let slot = slot.await?;
        self.tell(&known, "pool.key_added", &format!("has a new key slot: {slot}")).await?;
        find(&pool, slot)
    }

    /// Gives a key slot another secret. When it is the slot with which the appliance opens the
    /// pool, it is the new secret that it keeps; cut off anywhere, it can open the pool.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`] when there is no such slot; those of
    /// [`Storage::open`].
    pub async fn change_pool_key(
        &self,
        id: i64,
        slot: u32,
        secret: PoolSecret,
    ) -> Result<SlotInfo> {
        // One that can't be taken must not be kept as if it could.
        drop(secret.open()?);
        let _turn = self.inner.changing.of(id).await;
        let known = self.pool(id).await?;
        self.settle_secret(&known).await?;
        let pool = self.open(id).await?;
        let is_own = find(&pool, slot)?.opened;
        if is_own {
            let sealed = secret.seal(&*self.inner.sealer, &known.name, &known.uuid)?;
            pools::begin_secret(&self.inner.catalog, id, sealed).await?;
        }
        let on = Arc::clone(&pool);
        // After a failure either may open it, and both are kept.
        self.blocking(move || Ok(on.change_slot(slot, &secret.open()?, Stretch::DEFAULT)?)).await?;
        if is_own {
            pools::end_secret(&self.inner.catalog, id, true).await?;
        }
        let what = format!("has a new secret in key slot {slot}");
        self.tell(&known, "pool.key_changed", &what).await?;
        find(&pool, slot)
    }

    /// Finds out which secret opens the pool when a change of it was cut off: opening it does.
    async fn settle_secret(&self, known: &pools::Pool) -> Result<()> {
        if pools::next_secret(&self.inner.catalog, known.id).await?.is_none() {
            return Ok(());
        }
        let bar = self.close(known.id, "its secret is being changed").await?;
        bar.open_as(known, self.open_disks(known).await?).await;
        match pools::next_secret(&self.inner.catalog, known.id).await? {
            None => Ok(()),
            Some(_) => Err(Error::Invalid(format!(
                "a change of the secret of {} was cut off, and disks are missing that may have \
                 it: bring them back first",
                known.name
            ))),
        }
    }

    /// Removes a key slot. That with which the appliance opens the pool stays, and the last one.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; [`Error::Invalid`]; those of [`Storage::open`].
    pub async fn remove_pool_key(&self, id: i64, slot: u32) -> Result<()> {
        let _turn = self.inner.changing.of(id).await;
        let (known, pool) = (self.pool(id).await?, self.open(id).await?);
        if find(&pool, slot)?.opened {
            return Err(Error::Invalid(format!(
                "the appliance opens the pool with key slot {slot}: give that another secret instead"
            )));
        }
        self.blocking(move || Ok(pool.remove_slot(slot)?)).await?;
        self.tell(&known, "pool.key_removed", &format!("has no key slot {slot} any more")).await
    }
}

fn find(pool: &Pool, slot: u32) -> Result<SlotInfo> {
    let found = pool.slots().into_iter().find(|known| known.id == slot);
    found.ok_or_else(|| strongroom_catalog::Error::NotFound { what: "key slot" }.into())
}
