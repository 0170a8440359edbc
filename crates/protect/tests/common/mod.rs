//! What the journeys share.
#![allow(clippy::unwrap_used, dead_code, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use strongroom_catalog::{Catalog, Sql};
use strongroom_protect::{Asker, Job, Limits, NewJob, Options, Protect, State};
use strongroom_storage::{Encryption, NewPool, Sealer, Storage};
use zeroize::Zeroizing;

/// It seals nothing: these tests are of jobs.
#[derive(Debug)]
pub(crate) struct Plain;

impl Sealer for Plain {
    fn seal(&self, _: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        Ok(plain.to_vec())
    }

    fn unseal(&self, _: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        Ok(Zeroizing::new(sealed.to_vec()))
    }
}

pub(crate) struct Bed {
    pub(crate) catalog: Catalog,
    pub(crate) storage: Storage,
    pub(crate) dir: tempfile::TempDir,
}

impl Bed {
    pub(crate) async fn new(catalog: &Catalog) -> Self {
        let sql = "INSERT INTO organisations (id, name, created_at) VALUES (1, 'all', 0)";
        catalog.execute(Sql::new(sql)).await.unwrap();
        let storage = Storage::new(catalog.clone(), Arc::new(Plain), "the test").unwrap();
        Self { catalog: catalog.clone(), storage, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A pool that isn't encrypted.
    pub(crate) async fn pool(&self, name: &str) -> i64 {
        let encryption = Encryption::None;
        let new = NewPool { encryption, ..NewPool::new(name, 1, self.path(name)) };
        self.storage.create_pool(new).await.unwrap().pool.id
    }

    pub(crate) async fn protect(&self, options: Options) -> Protect {
        Protect::start(self.storage.clone(), options).await.unwrap()
    }

    /// Files of pseudo-random bytes.
    pub(crate) fn files(&self, name: &str, count: usize, len: usize) -> PathBuf {
        let dir = self.path(name);
        for number in 0..count {
            let sub = dir.join(format!("d{}", number % 7));
            fs::create_dir_all(&sub).unwrap();
            let mut state = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let bytes: Vec<u8> = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .take(len)
            .collect();
            fs::write(sub.join(format!("f{number}")), bytes).unwrap();
        }
        dir
    }
}

/// Quick to look, and to believe that somebody died.
pub(crate) fn quick() -> Options {
    Options {
        tick: Duration::from_millis(50),
        lease: Duration::from_millis(1500),
        limits: Limits { backoff: Duration::from_millis(100), ..Limits::default() },
        elsewhere: Duration::from_millis(100),
        ..Options::default()
    }
}

pub(crate) fn asker() -> Asker {
    Asker { organisation_id: 1, user_name: "anna".into(), ..Asker::default() }
}

pub(crate) fn job(kind: &str, parameters: Value) -> NewJob {
    NewJob { kind: kind.into(), organisation_id: 1, parameters, ..NewJob::default() }
}

/// Waits for a job to be over, and to have come to this state.
pub(crate) async fn over(protect: &Protect, job: &Job, state: State) -> Job {
    let over = tokio::time::timeout(Duration::from_secs(60), protect.engine().wait(job.id)).await;
    let over = over.unwrap_or_else(|_| panic!("{} {} goes on for ever", job.kind, job.id)).unwrap();
    let log = protect.engine().log(over.id, 0, 100).await.unwrap();
    assert_eq!(over.state, state, "{over:?}: {log:?}");
    over
}

/// Whether two trees have the same files with the same content.
pub(crate) fn assert_same(left: &Path, right: &Path) {
    let names = |dir: &Path| -> Vec<_> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(left), names(right), "{}", left.display());
    for name in names(left) {
        let (left, right) = (left.join(&name), right.join(&name));
        if left.is_dir() {
            assert_same(&left, &right);
        } else {
            assert!(fs::read(&left).unwrap() == fs::read(&right).unwrap(), "{}", left.display());
        }
    }
}
