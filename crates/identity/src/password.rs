//! Passwords: Argon2id, on blocking threads, few at once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::secret::Secret;
use crate::{Error, Result};

/// Hashes at once; each takes 19 MiB and a processor.
const AT_ONCE: usize = 2;
/// How many more may wait.
const WAITING: usize = 64;
/// The longest password, in bytes.
const LONGEST: usize = 1024;

/// Makes and checks hashes of passwords.
pub(crate) struct Passwords {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// What the passwords of unknown users are checked against, so that it takes as long.
    dummy: String,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords")
    }
}

impl Passwords {
    pub(crate) async fn new() -> Result<Self> {
        let mut passwords = Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: AtomicUsize::new(0),
            dummy: String::new(),
        };
        passwords.dummy = passwords.hash(Secret::new("nobody has this password")).await?;
        Ok(passwords)
    }

    /// The hash of a password, in the PHC form.
    pub(crate) async fn hash(&self, password: Secret) -> Result<String> {
        let hash = move || {
            let hash = hasher().hash_password(password.expose().as_bytes());
            hash.map(|hash| hash.to_string()).map_err(|error| Error::Hash(error.to_string()))
        };
        self.slowly(hash).await?
    }

    /// Whether it is the password of this hash. Without one it isn't, and that takes as long.
    pub(crate) async fn verify(&self, password: Secret, hash: Option<String>) -> Result<bool> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.dummy.clone());
        let verify = move || {
            if password.expose().len() > LONGEST {
                return Ok(false);
            }
            let hash = PasswordHash::new(&hash).map_err(|error| Error::Hash(error.to_string()))?;
            Ok(hasher().verify_password(password.expose().as_bytes(), &hash).is_ok() && known)
        };
        self.slowly(verify).await?
    }

    async fn slowly<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        /// Counts one who waits, even if its request is given up.
        struct Place<'a>(&'a AtomicUsize);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place(&self.waiting);
        if before >= AT_ONCE + WAITING {
            return Err(Error::Busy);
        }
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Error::Busy)?;
        let work = tokio::task::spawn_blocking(move || {
            // It ends with the work, also when nobody waits for that any more.
            let _permit = permit;
            work()
        });
        let done = work.await.map_err(|error| Error::Hash(error.to_string()));
        drop(place);
        done
    }
}

/// OWASP's second choice of parameters: 19 MiB, two passes, one lane.
fn hasher() -> Argon2<'static> {
    let params = Params::new(19 * 1024, 2, 1, None).expect("the parameters are within bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Whether it may be the password of this user; it has so many characters at least.
pub(crate) fn check(password: &Secret, user: &str, shortest: u32) -> Result<()> {
    let wrong = |why: String| Err(Error::Invalid { field: "password", why });
    let text = password.expose();
    if text.chars().count() < shortest as usize {
        return wrong(format!("it needs {shortest} characters at least"));
    }
    if text.len() > LONGEST {
        return wrong(format!("it may have {LONGEST} bytes at most"));
    }
    if text.to_lowercase() == user.to_lowercase() {
        return wrong("it must differ from the name".into());
    }
    if text.chars().all(|c| text.starts_with(c)) {
        return wrong("it needs more than one character".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_hash_only() {
        let passwords = Passwords::new().await.unwrap();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse".into()).await.unwrap());
        assert!(passwords.verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("correct horsf".into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("nobody has this password".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let passwords = Passwords::new().await.unwrap();
        passwords.waiting.store(AT_ONCE + WAITING, Ordering::Relaxed);
        assert!(matches!(passwords.hash("correct horse".into()).await, Err(Error::Busy)));
        passwords.waiting.store(0, Ordering::Relaxed);
        assert!(passwords.hash("correct horse".into()).await.is_ok());
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn weak_passwords_are_refused_with_a_reason() {
        let refused = |text: &str| check(&text.into(), "Administrator", 8).unwrap_err().to_string();
        assert!(refused("short").contains("8 characters"));
        assert!(refused("administrator").contains("differ from the name"));
        assert!(refused("aaaaaaaaaaaa").contains("more than one"));
        assert!(refused(&"ab".repeat(600)).contains("1024 bytes"));
        assert!(check(&"pässwörd".into(), "admin", 8).is_ok());
        assert!(check(&"pässwörd".into(), "admin", 9).is_err());
    }
}
