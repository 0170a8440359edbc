#![allow(clippy::unwrap_used, reason = "tests")]
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use strongroom_archive::backup::{Backup, Input, Progress};
use strongroom_catalog::list::Scope;
use strongroom_catalog::{Sql, events, testing};
use strongroom_engine::id::RootId;
use strongroom_engine::pool::Meter;
use zeroize::Zeroizing;

use super::*;
use crate::volumes::Force;

/// Changes every byte, and puts the purpose in front: enough to see that it is used.
#[derive(Debug)]
pub(crate) struct TestSealer;

impl Sealer for TestSealer {
    fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        let mut sealed = purpose.as_bytes().to_vec();
        sealed.push(0);
        sealed.extend(plain.iter().map(|byte| byte ^ 0x5a));
        Ok(sealed)
    }

    fn unseal(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let rest = sealed.strip_prefix(purpose.as_bytes()).and_then(|rest| rest.strip_prefix(&[0]));
        let rest = rest.ok_or("it was sealed for something else")?;
        Ok(Zeroizing::new(rest.iter().map(|byte| byte ^ 0x5a).collect()))
    }
}

/// As one whose key is gone.
#[derive(Debug)]
struct NoKey;

impl Sealer for NoKey {
    fn seal(&self, _: &str, _: &[u8]) -> Result<Vec<u8>, String> {
        Err("the key is gone".into())
    }

    fn unseal(&self, _: &str, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        Err("the key is gone".into())
    }
}

/// A writer that can be looked at afterwards.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Bed {
    pub(crate) storage: Storage,
    dir: tempfile::TempDir,
}

impl Bed {
    pub(crate) async fn new(catalog: &Catalog) -> Self {
        let sql = "INSERT INTO organisations (id, name, created_at) VALUES (1, 'all', 0)";
        catalog.execute(Sql::new(sql)).await.unwrap();
        let storage = Storage::new(catalog.clone(), Arc::new(TestSealer), "the test").unwrap();
        Self { storage, dir: tempfile::tempdir().unwrap() }
    }

    /// With volumes that are settled at another pace; before there is a pool.
    pub(crate) fn paced(self, pace: volumes::Pace) -> Self {
        let mut inner = Arc::into_inner(self.storage.inner).unwrap();
        inner.pace = pace;
        Self { storage: Storage { inner: Arc::new(inner) }, ..self }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    /// A pool on one disk, at `p`, that is not encrypted.
    pub(crate) async fn pool(&self) -> strongroom_catalog::pools::Pool {
        let new =
            NewPool { encryption: Encryption::None, ..NewPool::new("main", 1, self.path("p")) };
        self.storage.create_pool(new).await.unwrap().pool
    }

    pub(crate) fn files(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let dir = self.path(name);
        for (name, content) in files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    pub(crate) async fn back_up(
        &self,
        pool: i64,
        dir: &Path,
        immutable_for: Option<i64>,
    ) -> RootId {
        self.back_up_kept(pool, dir, immutable_for, None).await
    }

    pub(crate) async fn back_up_kept(
        &self,
        pool: i64,
        dir: &Path,
        immutable_for: Option<i64>,
        keep_for: Option<i64>,
    ) -> RootId {
        let pool = self.storage.open(pool).await.unwrap();
        let backup = Backup {
            name: Some("data".into()),
            input: Input::Paths(vec![dir.to_owned()]),
            immutable_for,
            keep_for,
            ..Backup::default()
        };
        let made = tokio::task::spawn_blocking(move || {
            backup.run(pool.session().unwrap(), &Progress::default()).unwrap().image.unwrap().id
        });
        made.await.unwrap()
    }
}

fn error<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

const HOUR: i64 = 3_600_000_000_000;

#[tokio::test]
async fn a_pool_is_made_named_removed_and_imported_again() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let storage = &bed.storage;
        let disks: Vec<_> = ["a", "b", "c"].iter().map(|name| bed.path(name)).collect();
        let layout = "2+1".parse().unwrap();
        let new =
            NewPool { layout, disks: disks.clone(), ..NewPool::new("main", 1, bed.path("p")) };
        let made = storage.create_pool(new).await.unwrap();
        let passphrase = made.passphrase.clone().unwrap();
        assert_eq!(passphrase.len(), 38);
        assert!(!format!("{made:?}").contains(passphrase.as_str()));
        let id = made.pool.id;
        let twice = storage.create_pool(NewPool::new("main", 1, bed.path("q"))).await;
        assert!(error(twice).contains("main"));
        assert!(!bed.path("q").exists());
        let full = storage.create_pool(NewPool::new("other", 1, bed.path("a"))).await;
        assert!(error(full).contains("pool"));
        for bad in ["", " ", "a/b", "a:b", "a@b", "a\nb"] {
            assert!(storage.rename_pool(id, bad, None).await.is_err(), "{bad:?}");
        }
        let renamed = storage.rename_pool(id, "vault", Some(1)).await.unwrap();
        assert_eq!((renamed.name.as_str(), renamed.version), ("vault", 2));
        assert!(storage.rename_pool(id, "other", Some(1)).await.is_err());

        let source = bed.files("source", &[("x", b"hello")]);
        let root = bed.back_up(id, &source, None).await;
        let pool = storage.open(id).await.unwrap();
        assert!(error(storage.remove_pool(id, Force::No).await).contains("used"));
        assert!(Arc::ptr_eq(&pool, &storage.open(id).await.unwrap()));
        drop(pool);
        storage.remove_pool(id, Force::No).await.unwrap();
        assert!(storage.pool(id).await.is_err());

        // One disk is lost meanwhile; the directory that says where they are as well.
        fs::remove_dir_all(bed.path("p")).unwrap();
        fs::remove_dir_all(&disks[1]).unwrap();
        let import = |secret: Option<&str>| Import {
            name: "back".into(),
            organisation_id: 1,
            path: bed.path("p"),
            disks: vec![disks[2].clone(), disks[0].clone()],
            secret: secret
                .map(|text| PoolSecret::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))),
        };
        assert!(
            error(storage.import_pool(import(None), &Meter::new()).await).contains("encrypted")
        );
        assert!(
            error(storage.import_pool(import(Some("guess")), &Meter::new()).await)
                .contains("wrong")
        );
        assert!(storage.pool_named("back").await.is_err());
        // Whoever changes their mind half way has no pool.
        let stopped = Meter::new();
        stopped.cancel();
        let canceled = storage.import_pool(import(Some(&passphrase)), &stopped).await;
        assert!(canceled.unwrap_err().is_canceled());
        assert!(storage.pool_named("back").await.is_err());
        let back = storage.import_pool(import(Some(&passphrase)), &Meter::new()).await.unwrap();
        assert_eq!(back.uuid, made.pool.uuid);
        assert_eq!(
            storage.import_pool(import(Some(&passphrase)), &Meter::new()).await.unwrap().id,
            back.id
        );
        let image = storage.choose_image("data", Some(back.id), &Scope::All).await.unwrap();
        assert_eq!(image.root, root.to_string());
        let details = storage.show_pool(back.id).await.unwrap();
        assert_eq!((details.state, details.layout.as_str()), ("degraded", "2+1"));
        assert_eq!((details.images, details.files), (1, 1));
        let states: Vec<_> = details.disks.iter().map(|disk| disk.state).collect();
        assert_eq!(states, ["ok", "missing", "ok"]);

        // A new disk in its place, asked for twice as by a job that was taken up again.
        for _ in 0..2 {
            let pool = storage.replace_disk(back.id, 1, &bed.path("d")).await.unwrap();
            assert!(pool.root(root).is_some());
        }
        let kinds: Vec<_> = events::after(&catalog, 0, 99).await.unwrap();
        let kinds: Vec<_> = kinds.into_iter().map(|event| event.kind).collect();
        let told = ["pool.created", "pool.removed", "pool.imported", "pool.disk_replaced"];
        assert_eq!(kinds, told);
    })
    .await;
}

#[tokio::test]
async fn a_pool_that_can_not_be_entered_leaves_nothing() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let keyless = Storage::new(catalog.clone(), Arc::new(NoKey), "the test").unwrap();
        let disks: Vec<_> = ["a", "b"].iter().map(|name| bed.path(name)).collect();
        fs::create_dir_all(disks[0].join("lost+found")).unwrap();
        let new = || NewPool {
            layout: Layout::Mirror,
            disks: disks.clone(),
            ..NewPool::new("main", 1, bed.path("p"))
        };
        assert!(error(keyless.create_pool(new()).await).contains("the key is gone"));
        assert!(disks[0].join("lost+found").exists());
        assert!(bed.storage.pool_named("main").await.is_err());
        assert!(bed.storage.create_pool(new()).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn rows_follow_the_roots_whatever_happened_to_them() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let storage = &bed.storage;
        let made = storage.create_pool(NewPool::new("main", 1, bed.path("p"))).await.unwrap();
        let id = made.pool.id;
        let source = bed.files("source", &[("a", b"1")]);
        let first = bed.back_up(id, &source, None).await;
        let second = bed.back_up(id, &source, Some(HOUR)).await;
        let added = storage.sync_images(id).await.unwrap();
        assert_eq!(added, Mirrored { added: 2, ..Mirrored::default() });
        assert_eq!(storage.sync_images(id).await.unwrap(), Mirrored::default());
        let image = storage.choose_image("data", None, &Scope::All).await.unwrap();
        assert_eq!(
            (image.root.clone(), image.parent.clone()),
            (second.to_string(), Some(first.to_string()))
        );
        let nobody = Scope::Organisations(vec![7]);
        assert!(storage.choose_image("data", None, &nobody).await.is_err());
        let digits = &first.to_string()[..8];
        let found = storage.choose_image(digits, None, &Scope::All).await.unwrap();
        assert_eq!(found.root, first.to_string());

        // Labels, with the version checked.
        let change = TagChange { add: vec!["keep".into()], remove: Vec::new() };
        let tagged = storage.retag_image(image.id, change.clone(), Some(image.version)).await;
        let tagged = tagged.unwrap();
        assert_eq!((tagged.tags.join(","), tagged.id), ("keep".into(), image.id));
        assert!(error(storage.retag_image(image.id, change, Some(1)).await).contains("meanwhile"));
        let control = TagChange { add: vec!["a\nb".into()], remove: Vec::new() };
        assert!(storage.retag_image(image.id, control, None).await.is_err());

        // Immutability only grows.
        assert!(error(storage.forget_images(&[found.id, image.id]).await).contains("immutable"));
        let until = tagged.immutable_until.unwrap();
        let earlier = until - jiff::SignedDuration::from_secs(60);
        assert!(
            error(storage.keep_image_until(image.id, earlier, None).await).contains("immutable")
        );
        assert!(storage.keep_image_until(image.id, until, None).await.is_ok());
        let later = until + jiff::SignedDuration::from_hours(1);
        let kept = storage.keep_image_until(image.id, later, None).await.unwrap();
        assert_eq!(kept.immutable_until, Some(later));
        let past = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
        assert!(error(storage.keep_image_until(found.id, past, None).await).contains("is over"));

        // Rules are tried before they are used.
        let rules = Rules { last: 1, ..Rules::default() };
        let verdicts = storage.judge_images(id, Selection::default(), &rules).await.unwrap();
        let told: Vec<_> = verdicts.iter().map(|v| (v.image.id, v.reasons.join(","))).collect();
        assert_eq!(told, [(image.id, "last,immutable".into()), (found.id, String::new())]);
        let none = storage.judge_images(id, Selection::default(), &Rules::default()).await;
        assert!(error(none).contains("keeps nothing"));

        // Forgotten behind the catalogue's back, and rows that were lost.
        let pool = storage.open(id).await.unwrap();
        pool.forget(&[first]).unwrap();
        let forgetting = storage.inner.forgetting.begin(&[found.id]);
        // Who forgets it removes the row and tells of it, however fast the mirror is.
        assert_eq!(storage.sync_images(id).await.unwrap().removed, 1);
        assert_eq!(strongroom_catalog::images::find(&catalog, found.id).await.unwrap(), found);
        drop(forgetting);
        assert!(matches!(storage.show_image(found.id).await, Err(Error::Gone { .. })));
        let events = || async {
            let all = strongroom_catalog::events::after(&catalog, 0, 1000).await.unwrap();
            let of_images = all.into_iter().filter(|event| event.kind.starts_with("image."));
            of_images.map(|event| (event.kind, event.message)).collect::<Vec<_>>()
        };
        let gone = format!("the image {first} of data is no longer in its pool");
        assert_eq!(events().await, [("image.gone".to_owned(), gone)]);
        let third = bed.back_up(id, &source, None).await;
        catalog.execute(Sql::new("DELETE FROM images")).await.unwrap();
        let synced = storage.sync_images(id).await.unwrap();
        assert_eq!(synced, Mirrored { added: 2, ..Mirrored::default() });
        let third = storage.record_image(id, third, Some(9)).await.unwrap();
        assert_eq!(third.job_id, Some(9));
        let gone = storage.forget_images(&[third.id, third.id]).await.unwrap();
        assert_eq!(gone.len(), 1);
        let forgotten = format!("the image {} of data was forgotten", third.root);
        let told = events().await;
        assert_eq!(told[1..], [("image.forgotten".to_owned(), forgotten)], "once");
        assert!(storage.image(third.id).await.is_err());
        assert!(storage.record_image(id, first, None).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn the_secrets_of_a_pool_change_and_the_appliance_never_locks_itself_out() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let storage = &bed.storage;
        let secret = |text: &str| PoolSecret::Passphrase(Zeroizing::new(text.as_bytes().to_vec()));
        let id = storage.create_pool(NewPool::new("main", 1, bed.path("p"))).await.unwrap().pool.id;
        let own = storage.pool_keys(id).await.unwrap().remove(0);
        assert!(own.opened);
        let added = storage.add_pool_key(id, secret("second words"), "office").await.unwrap();
        assert_eq!((added.label.as_str(), added.opened), ("office", false));
        assert!(storage.add_pool_key(id, secret("third words"), "a\nb").await.is_err());
        let refused = storage.remove_pool_key(id, own.id).await;
        assert!(error(refused).contains("the appliance opens the pool with key slot"));
        assert!(error(storage.remove_pool_key(id, 99).await).contains("key slot"));
        assert!(error(storage.change_pool_key(id, 99, secret("words")).await).contains("key slot"));

        // Its own is changed, and it opens the pool with the new one.
        let changed = storage.change_pool_key(id, own.id, secret("own new words")).await.unwrap();
        assert_eq!(changed.id, own.id);
        storage.close_all().await;
        let slots = storage.pool_keys(id).await.unwrap();
        assert!(slots.iter().any(|slot| slot.id == own.id && slot.opened));
        let known = storage.pool(id).await.unwrap();
        assert_eq!(storage.passphrase(&known).await.unwrap().unwrap().as_str(), "own new words");

        // Cut off before the disks had it, and after: the right one is found, and kept.
        for (reached, word) in [(false, "own new words"), (true, "own third words")] {
            let sealed = secret("own third words").seal(&TestSealer, "main", &known.uuid).unwrap();
            strongroom_catalog::pools::begin_secret(&catalog, id, sealed).await.unwrap();
            if reached {
                let pool = storage.open(id).await.unwrap();
                let third = secret("own third words").open().unwrap();
                pool.change_slot(own.id, &third, strongroom_engine::keys::Stretch::DEFAULT)
                    .unwrap();
            }
            storage.close_all().await;
            storage.open(id).await.unwrap();
            assert_eq!(storage.passphrase(&known).await.unwrap().unwrap().as_str(), word);
            let next = strongroom_catalog::pools::next_secret(&catalog, id).await.unwrap();
            assert_eq!(next, None);
        }
        storage.remove_pool_key(id, added.id).await.unwrap();
        assert_eq!(storage.pool_keys(id).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn images_are_kept_for_as_long_as_they_say_and_no_longer() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let storage = &bed.storage;
        let id = bed.pool().await.id;
        let source = bed.files("s", &[("a", b"1")]);
        let over = bed.back_up_kept(id, &source, None, Some(0)).await;
        let held = bed.back_up_kept(id, &source, Some(HOUR), Some(0)).await;
        let later = bed.back_up_kept(id, &source, None, Some(HOUR)).await;
        let ever = bed.back_up(id, &source, None).await;
        storage.sync_images(id).await.unwrap();
        let row = |root: RootId| {
            let catalog = catalog.clone();
            async move { strongroom_catalog::images::of_root(&catalog, id, &root.to_string()).await }
        };
        let (a, b) = (row(later).await.unwrap(), row(ever).await.unwrap());
        let pool = storage.open(id).await.unwrap();
        let made = pool.root(later).unwrap().created;
        assert_eq!(a.expires_at, Some(mirror::time(made.plus(HOUR))));
        assert_eq!(b.expires_at, None);

        // No rule takes what says how long it is kept.
        let rules = Rules { last: 1, ..Rules::default() };
        let verdicts = storage.judge_images(id, Selection::default(), &rules).await.unwrap();
        let why = |root: RootId| {
            let found = verdicts.iter().find(|v| v.image.root == root.to_string()).unwrap();
            found.reasons.join(",")
        };
        assert_eq!((why(later), why(over), why(held)), ("retention".into(), "".into(), "immutable".into()));

        // Kept for longer by anybody, for less long only where that is allowed.
        let hours = |n| jiff::SignedDuration::from_hours(n);
        let retain = |id, until, how| storage.retain_image(id, until, how, None);
        let longer = a.expires_at.map(|at| at + hours(1));
        let changed = retain(a.id, longer, Retaining::Longer).await.unwrap();
        assert_eq!((changed.expires_at, changed.version), (longer, a.version + 1));
        let refused = retain(a.id, a.expires_at, Retaining::Longer).await;
        assert!(matches!(refused, Err(Error::Shortens)), "{refused:?}");
        assert_eq!(retain(a.id, longer, Retaining::Longer).await.unwrap(), changed);
        assert!(matches!(retain(b.id, longer, Retaining::Longer).await, Err(Error::Shortens)));
        let none = retain(a.id, None, Retaining::Longer).await.unwrap();
        assert_eq!(none.expires_at, None);
        let shorter = retain(a.id, a.expires_at, Retaining::Either).await.unwrap();
        assert_eq!(shorter.expires_at, a.expires_at);
        let past = Some(jiff::Timestamp::now() - hours(1));
        assert!(error(retain(a.id, past, Retaining::Either).await).contains("is over"));
        let stale = storage.retain_image(a.id, None, Retaining::Either, Some(1)).await;
        assert!(error(stale).contains("meanwhile"));

        // Only what is over and may go goes, by itself and of what is chosen.
        let found = storage.pools_with_expired().await.unwrap();
        assert_eq!(found.iter().map(|pool| pool.id).collect::<Vec<_>>(), [id]);
        let other = Selection { name: Some("other".into()), ..Selection::default() };
        assert_eq!(storage.forget_expired(id, &other).await.unwrap(), []);
        let gone = storage.forget_expired(id, &Selection::default()).await.unwrap();
        assert_eq!(gone.iter().map(|row| &row.root).collect::<Vec<_>>(), [&over.to_string()]);
        assert!(storage.pools_with_expired().await.unwrap().is_empty());
        for root in [held, later, ever] {
            assert!(pool.root(root).is_some() && row(root).await.is_ok());
        }
        assert!(pool.root(over).is_none() && row(over).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn what_is_in_images_can_be_looked_at_and_read() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let storage = &bed.storage;
        let id = bed.pool().await.id;
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_le_bytes()).collect();
        let source = bed.files("source", &[("a", &text), ("b", b"b"), ("c/d", b"d")]);
        let left = bed.back_up(id, &source, None).await;
        fs::write(source.join("b"), b"bb").unwrap();
        fs::write(source.join("e"), b"e").unwrap();
        let right = bed.back_up(id, &source, None).await;
        let row = |root: RootId| storage.record_image(id, root, None);
        let (left, right) = (row(left).await.unwrap(), row(right).await.unwrap());
        let top = source.as_os_str().as_encoded_bytes().to_vec();

        let first = storage.browse(left.id, top.clone(), 0, 2).await.unwrap();
        let names = |entries: &Entries| -> Vec<String> {
            let name = |e: &Entry| e.path.rsplit('/').next().unwrap().to_owned();
            entries.items.iter().map(name).collect()
        };
        assert_eq!((names(&first), first.more), (vec!["a".into(), "b".into()], true));
        assert_eq!((first.itself.kind, first.itself.entries), ("dir", Some(3)));
        let rest = storage.browse(left.id, top.clone(), 2, 2).await.unwrap();
        assert_eq!((names(&rest), rest.more), (vec!["c".into()], false));
        assert!(error(storage.browse(left.id, b"/no".to_vec(), 0, 9).await).contains("/no"));
        assert!(storage.browse(left.id, b"/../etc".to_vec(), 0, 9).await.is_err());

        let changes = storage.diff_images(left.id, right.id, top.clone(), 0, 1).await.unwrap();
        assert!(changes.more);
        let all = storage.diff_images(left.id, right.id, top.clone(), 0, 99).await.unwrap();
        assert!(!all.more && all.items[0] == changes.items[0]);
        let told: Vec<_> = all
            .items
            .iter()
            .map(|c| (c.what, c.right.as_ref().unwrap().path.rsplit('/').next().unwrap()))
            .collect();
        assert!(told.contains(&("changed", "b")) && told.contains(&("added", "e")), "{told:?}");
        assert!(all.items.iter().any(|change| change.content));

        let query = Query { min_size: Some(1000), kind: Some("file".into()), ..Query::default() };
        let found = storage.find_in_image(left.id, query, 0, 9).await.unwrap();
        assert_eq!((found.items.len(), found.more, found.unreadable), (1, false, 0));
        let wrong = Query { kind: Some("folder".into()), ..Query::default() };
        assert!(error(storage.find_in_image(left.id, wrong, 0, 9).await).contains("symlink"));

        let path = [&top[..], b"/a"].concat();
        let file = storage.open_file(left.id, path).await.unwrap();
        assert_eq!((file.name.as_str(), file.size), ("a", 400_000));
        let sink = Sink::default();
        assert_eq!(file.write(399_990, 100, sink.clone()).await.unwrap(), 10);
        assert_eq!(*sink.0.lock().unwrap(), text[399_990..]);
        assert!(error(storage.open_file(left.id, top.clone()).await).contains("not a file"));

        let sink = Sink::default();
        let troubles = storage.dump(right.id, top, Format::Tar, sink.clone()).await.unwrap();
        assert!(troubles.is_empty());
        let tar = std::mem::take(&mut *sink.0.lock().unwrap());
        assert!(tar.len() > 400_000 && tar.windows(8).any(|part| part == b"source/e"));
        let shown = storage.show_image(right.id).await.unwrap();
        assert_eq!((shown.image.files, shown.troubles), (4, 0));
    })
    .await;
}

#[tokio::test]
async fn a_pool_that_can_not_be_opened_is_left_alone_by_what_nobody_waits_for() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let storage = &bed.storage;
        let id = bed.pool().await.id;
        let source = bed.files("s", &[("a", b"1")]);
        bed.back_up_kept(id, &source, None, Some(0)).await;
        storage.sync_images(id).await.unwrap();
        storage.close_all().await;
        fs::rename(bed.path("p"), bed.path("away")).unwrap();
        let quiet = || storage.inner.quiet.holds(id, std::time::Instant::now());
        assert!(!quiet());
        assert!(storage.pools_with_expired().await.unwrap().is_empty());
        assert!(quiet());
        // Even when it is back, unless somebody opens it.
        fs::rename(bed.path("away"), bed.path("p")).unwrap();
        assert!(storage.pools_with_expired().await.unwrap().is_empty());
        assert!(storage.if_open(id).is_none());
        storage.open(id).await.unwrap();
        assert_eq!(storage.pools_with_expired().await.unwrap().len(), 1);
        assert!(!quiet());
    })
    .await;
}

#[tokio::test]
async fn who_kept_a_pool_closed_hands_it_on_open() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let storage = &bed.storage;
        let known = bed.pool().await;
        let bar = storage.close(known.id, "it is being tested").await.unwrap();
        let closed = storage.open(known.id).await;
        assert!(matches!(closed, Err(Error::Closed { .. })), "{closed:?}");
        let pool = storage.open_disks(&known).await.unwrap();
        bar.open_as(&known, Arc::clone(&pool)).await;
        assert!(Arc::ptr_eq(&storage.open(known.id).await.unwrap(), &pool));
        drop(pool);
        // Or opens it to everybody again.
        drop(storage.close(known.id, "it is being tested").await.unwrap());
        assert!(storage.open(known.id).await.is_ok());
    })
    .await;
}
