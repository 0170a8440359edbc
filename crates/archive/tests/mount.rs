//! Mounted images, compared with their sources by programs that know nothing of us.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use strongroom_archive::backup::{Backup, Input, Progress};
use strongroom_archive::image::Image;
use strongroom_archive::mount::{MountHandle, Options, Unmounted, What, mount};
use strongroom_engine::chunker::Params;
use strongroom_engine::clock::SystemClock;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::pool::{CreateOptions, OpenMode, OpenOptions, Pool, Use};

const PACKAGES: &str = "install the Debian packages rsync, fuse3, attr, acl, coreutils";

/// A directory with a pool, a source and a mount point.
struct Bed {
    dir: tempfile::TempDir,
    pool: Arc<Pool>,
}

fn used() -> Use {
    Use { clock: Arc::new(SystemClock::new().unwrap()), threads: 2, holder: "the test".into() }
}

impl Bed {
    fn new() -> Self {
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse");
        assert!(rustix::process::getuid().is_root(), "these tests need root: they make devices");
        let dir = tempfile::tempdir().unwrap();
        for name in ["pool", "source", "mnt"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let options = CreateOptions {
            disks: vec![disk(dir.path())],
            parity: 0,
            secret: None,
            chunking: Params::default(),
            level: 1,
            pack_size: 8 << 20,
        };
        let pool = Arc::new(Pool::create(options, used()).unwrap());
        Self { dir, pool }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn source(&self) -> PathBuf {
        self.path("source")
    }

    /// Where the source is to be seen in a mounted image.
    fn copy(&self, top: &Path) -> PathBuf {
        top.join(self.source().strip_prefix("/").unwrap())
    }

    fn back_up(&self, name: &str, input: Input) -> Image {
        let backup = Backup { name: Some(name.into()), input, ..Backup::default() };
        let outcome = backup.run(self.pool.session().unwrap(), &Progress::default()).unwrap();
        assert!(outcome.troubles.is_empty(), "{:?}", outcome.troubles);
        outcome.image.unwrap()
    }

    fn back_up_source(&self, name: &str) -> Image {
        self.back_up(name, Input::Paths(vec![self.source()]))
    }

    fn mount(&self, what: What) -> MountHandle {
        let pool: Arc<Pool> = Arc::clone(&self.pool);
        let report = Arc::new(|line: &str| panic!("{line}"));
        mount(pool, what, &self.path("mnt"), Options { report, ..Options::default() }).unwrap()
    }
}

fn disk(dir: &Path) -> Arc<dyn Disk> {
    Arc::new(FsDisk::open(&dir.join("pool")).unwrap())
}

/// Runs a program that must be there and succeed; what it writes.
fn run(program: &str, arguments: &[&OsStr]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program} can't be run ({e}): {PACKAGES}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn words<'a>(text: &'a str, path: &'a Path) -> Vec<&'a OsStr> {
    text.split_whitespace().map(OsStr::new).chain([path.as_os_str()]).collect()
}

/// What rsync would do to make `to` the same as `from`.
fn differences(from: &Path, to: &Path) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    let options = "-naicAXH --delete --numeric-ids";
    let (from, to) = (slash(from), slash(to));
    let mut arguments: Vec<&OsStr> = options.split(' ').map(OsStr::new).collect();
    arguments.extend([OsStr::new(&from), OsStr::new(&to)]);
    run("rsync", &arguments)
}

/// Bytes that don't compress and are everywhere different.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A tree with everything that a filesystem can hold.
fn make_tree(top: &Path) {
    let at = |name: &str| top.join(name);
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("small"), b"hello\n").unwrap();
    fs::write(at("middle"), noise(1, 700_001)).unwrap();
    fs::write(at("large"), noise(2, 9 << 20)).unwrap();
    let mut sparse = File::create(at("sparse")).unwrap();
    for (i, offset) in [(1 << 20), (5 << 20) + 4096, (30 << 20)].into_iter().enumerate() {
        sparse.seek(SeekFrom::Start(offset)).unwrap();
        sparse.write_all(&noise(i as u64 + 10, 100_000)).unwrap();
    }
    sparse.set_len(40 << 20).unwrap();
    File::create(at("hole")).unwrap().set_len(60 << 20).unwrap();

    let mut deep = at("deep");
    for i in 0..40 {
        deep.push(format!("level {i} of a long way down"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), b"deep").unwrap();
    fs::create_dir(at("empty dir")).unwrap();
    for name in [&b"new\nline"[..], b"not utf-8 \xff\xfe", b" space ", b"-n", b"\\", &[b'x'; 255]] {
        fs::write(top.join(OsStr::from_bytes(name)), name).unwrap();
    }
    symlink("small", at("link")).unwrap();
    symlink("/nowhere/at all", at("dangling")).unwrap();
    symlink("x".repeat(4000), at("long link")).unwrap();
    fs::create_dir(at("other")).unwrap();
    fs::hard_link(at("middle"), at("other/same as middle")).unwrap();
    fs::hard_link(at("middle"), at("zz also")).unwrap();
    fs::hard_link(at("dangling"), at("other/same link")).unwrap();
    drop(UnixListener::bind(at("socket")).unwrap());
    run("mkfifo", &words("", &at("fifo")));
    let device = |name: &str, arguments: &str| {
        let name = at(name);
        let mut all = vec![name.as_os_str()];
        all.extend(arguments.split(' ').map(OsStr::new));
        run("mknod", &all);
    };
    device("null", "c 1 3");
    device("disk", "b 259 70000");

    let mode = |name: &str, mode: u32| {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    std::os::unix::fs::lchown(at("small"), Some(12345), Some(4_000_000_000)).unwrap();
    std::os::unix::fs::lchown(at("link"), Some(77), Some(78)).unwrap();
    mode("small", 0o6751);
    mode("other", 0o3777);
    mode("empty", 0);
    run("setfacl", &words("-m u:1234:r-x,g:567:rw-,m::rwx", &at("middle")));
    run("setfacl", &words("-d -m u:1234:r-x,g:567:rw-", &at("other")));
    run("setfattr", &words("-n user.comment -v some_text", &at("small")));
    run("setfattr", &words("-n user.binary -v 0x00ff0a00", &at("other")));
    run("setfattr", &words("-n trusted.secret -v 0x0102", &at("large")));
    let capability = "-n security.capability -v 0x0100000200040000000000000000000000000000";
    run("setfattr", &words(capability, &at("large")));
    run("setfattr", &words("-h -n trusted.of_link -v 0x01", &at("link")));
    run("touch", &words("-h -d 1969-07-20T20:17:40.123456789Z", &at("dangling")));
    run("touch", &words("-d 2038-01-19T03:14:08.000000001Z", &at("null")));
    run("touch", &words("-d 1999-12-31T23:59:59.999999999Z", &at("empty dir")));
    run("touch", &words("-d 1901-12-13T20:45:52.5Z", &at("large")));
}

#[test]
fn a_mounted_image_is_its_source_to_the_last_attribute() {
    let bed = Bed::new();
    make_tree(&bed.source());
    let image = bed.back_up_source("tree");
    let handle = bed.mount(What::Image(Box::new(image)));
    let copy = bed.copy(&bed.path("mnt"));
    assert_eq!(differences(&bed.source(), &copy), "");
    assert_eq!(differences(&copy, &bed.source()), "");

    // What rsync doesn't look at.
    let inode = |name: &str| copy.join(name).symlink_metadata().unwrap();
    let (one, two) = (inode("middle"), inode("other/same as middle"));
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 3));
    assert_ne!(inode("small").ino(), inode("large").ino());
    let ctime = |meta: fs::Metadata| (meta.ctime(), meta.ctime_nsec());
    let source = bed.source().join("small").symlink_metadata().unwrap();
    assert_eq!(ctime(inode("small")), ctime(source));
    assert_eq!(inode("hole").blocks(), 0);
    let attribute = |what: &str, path: &Path| {
        let text = run("getfattr", &words(what, path));
        text.lines().skip(1).collect::<Vec<_>>().join("\n")
    };
    for name in ["large", "small", "middle", "other", "link"] {
        let (ours, theirs) = (copy.join(name), bed.source().join(name));
        let what = "-h --absolute-names -d -e hex -m .";
        assert_eq!(attribute(what, &ours), attribute(what, &theirs), "{name}");
    }
    let acl = |path: &Path| run("getfacl", &words("-cnp", path));
    assert_eq!(acl(&copy.join("middle")), acl(&bed.source().join("middle")));
    assert!(acl(&copy.join("middle")).contains("user:1234:r-x"));

    // Read-only, and no way in by devices or set-id bits.
    let error = fs::write(copy.join("new"), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read(copy.join("null")).unwrap_err().kind(), ErrorKind::PermissionDenied);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let place = bed.path("mnt").canonicalize().unwrap();
    let line = mounts.lines().find(|line| line.contains(place.to_str().unwrap())).unwrap();
    for option in ["strongroom /", "ro,", "nosuid", "nodev", "default_permissions"] {
        assert!(line.contains(option), "{line}");
    }

    // Holes are found without reading them.
    let tar = run(
        "sh",
        &words("-c", Path::new(&format!("tar -cSf - -C '{}' hole sparse | wc -c", copy.display()))),
    );
    assert!(tar.trim().parse::<u64>().unwrap() < 2 << 20, "{tar}");
    assert_eq!(handle.unmount().unwrap(), Unmounted::Done);
    assert_eq!(fs::read_dir(bed.path("mnt")).unwrap().count(), 0);
}

fn sha256(path: &Path) -> String {
    run("sha256sum", &words("--zero", path)).split(' ').next().unwrap().into()
}

#[test]
fn a_large_file_reads_right_in_any_order_and_by_many_threads() {
    let bed = Bed::new();
    let len = 64 << 20;
    let bytes = noise(3, len);
    fs::write(bed.source().join("file"), &bytes).unwrap();
    let image = bed.back_up_source("large");
    let handle = bed.mount(What::Image(Box::new(image)));
    let copy = bed.copy(&bed.path("mnt")).join("file");
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let (copy, bytes) = (&copy, &bytes);
            scope.spawn(move || {
                let file = File::open(copy).unwrap();
                let mut state = thread + 1;
                for _ in 0..300 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                    let at = (state >> 20) as usize % len;
                    let size = (state >> 50) as usize % 300_000;
                    let mut part = vec![0; size.min(len - at)];
                    file.read_exact_at(&mut part, at as u64).unwrap();
                    assert!(part == bytes[at..at + part.len()], "at {at}");
                }
                assert_eq!(file.read_at(&mut [0; 10], len as u64).unwrap(), 0);
            });
        }
    });
    // Once more without what the kernel has by now.
    assert_eq!(handle.unmount().unwrap(), Unmounted::Done);
    let image = strongroom_archive::image::find(&*bed.pool, "large").unwrap();
    let handle = bed.mount(What::Image(Box::new(image)));
    assert_eq!(sha256(&copy), sha256(&bed.source().join("file")));
    drop(handle);
    assert!(!copy.exists());
}

#[test]
fn the_whole_pool_can_be_walked_by_name_id_and_time() {
    let bed = Bed::new();
    fs::write(bed.source().join("version"), b"one").unwrap();
    let first = bed.back_up_source("web/main");
    fs::write(bed.source().join("version"), b"two, longer").unwrap();
    let second = bed.back_up_source("web/main");
    let mut disk = noise(5, 3 << 20);
    disk[1 << 20..2 << 20].fill(0);
    fs::write(bed.path("disk.img"), &disk).unwrap();
    let block = bed.back_up("disk", Input::Block(bed.path("disk.img")));
    let dump = noise(6, 1 << 20);
    let stream = Box::new(std::io::Cursor::new(dump.clone()));
    bed.back_up("db.sql", Input::Stream(stream));

    let handle = bed.mount(What::Pool);
    let mnt = bed.path("mnt");
    let names = |dir: PathBuf| {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(mnt.clone()), ["by-id", "by-name", "by-time"]);
    assert_eq!(names(mnt.join("by-name")), ["db.sql", "disk", "web%2Fmain"]);
    let web = mnt.join("by-name/web%2Fmain");
    assert_eq!(names(web.clone()).len(), 3);
    let read = |top: PathBuf| fs::read(bed.copy(&top).join("version")).unwrap();
    assert_eq!(read(web.join("latest")), b"two, longer");
    for (image, text) in [(&first, &b"one"[..]), (&second, b"two, longer")] {
        let by_id = mnt.join("by-id").join(image.id.to_string());
        assert_eq!(read(by_id.clone()), text);
        let real = by_id.canonicalize().unwrap();
        let time = image.created.to_string().replace(':', "-");
        assert!(real.file_name().unwrap().to_str().unwrap().starts_with(&time), "{real:?}");
        assert_eq!(read(real), text);
    }
    let mut by_time = Vec::new();
    for date in names(mnt.join("by-time")) {
        let dir = mnt.join("by-time").join(date);
        by_time.extend(names(dir.clone()).into_iter().map(|name| dir.join(name)));
    }
    assert_eq!(by_time.len(), 4);
    assert!(by_time.iter().all(|path| path.metadata().unwrap().is_dir()));

    let latest = mnt.join("by-name/disk/latest");
    assert_eq!(names(latest.clone()).len(), 1, "{block:?}");
    let file = latest.join(&names(latest.clone())[0]);
    assert!(fs::read(file).unwrap() == disk);
    let latest = mnt.join("by-name/db.sql/latest");
    assert!(fs::read(latest.join(&names(latest.clone())[0])).unwrap() == dump);
    // Every name leads somewhere: find looks at each.
    run("find", &[OsStr::new("-L"), mnt.as_os_str(), OsStr::new("-size"), OsStr::new("+1")]);
    assert_eq!(fs::metadata(mnt.join("by-name/none")).unwrap_err().kind(), ErrorKind::NotFound);
    drop(handle);
}

#[test]
fn a_directory_of_many_entries_is_listed_whole() {
    const COUNT: usize = 30_000;
    let bed = Bed::new();
    let dir = bed.source().join("many");
    fs::create_dir(&dir).unwrap();
    for i in 0..COUNT {
        fs::write(dir.join(format!("file {i}")), i.to_string()).unwrap();
    }
    let image = bed.back_up_source("many");
    let handle = bed.mount(What::Image(Box::new(image)));
    let copy = bed.copy(&bed.path("mnt")).join("many");
    let list = |args: &str| run("ls", &words(args, &copy)).lines().count();
    assert_eq!(list("-U"), COUNT);
    // Now with attributes, and then what the kernel has kept of it.
    assert_eq!(list("-ln"), COUNT + 1);
    assert_eq!(list("-U"), COUNT);
    for i in (0..COUNT).step_by(997) {
        assert_eq!(fs::read_to_string(copy.join(format!("file {i}"))).unwrap(), i.to_string());
    }
    assert!(!copy.join("file 30000").exists());
    drop(handle);
}

#[test]
fn what_is_damaged_is_an_error_and_never_wrong_bytes() {
    let bed = Bed::new();
    let bytes = noise(9, 30 << 20);
    fs::write(bed.source().join("file"), &bytes).unwrap();
    fs::write(bed.source().join("other"), b"unharmed").unwrap();
    let image = bed.back_up_source("harmed");
    let Bed { dir, pool } = bed;
    drop(pool);
    // The middle of a pack of data.
    let mut files = Vec::new();
    let mut dirs = vec![dir.path().join("pool")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                dirs.push(entry.path())
            } else {
                files.push((meta.len(), entry.path()))
            }
        }
    }
    let (len, largest) = files.into_iter().max().unwrap();
    let file = File::options().write(true).open(largest).unwrap();
    file.write_all_at(&[0x55; 100_000], len / 2).unwrap();

    let options = OpenOptions {
        disks: vec![Some(disk(dir.path()))],
        mode: OpenMode::Read,
        secret: None,
        without_index: false,
    };
    let pool = Arc::new(Pool::open(options, used()).unwrap());
    let lines = Arc::new(Mutex::new(Vec::new()));
    let report = {
        let lines = Arc::clone(&lines);
        Arc::new(move |line: &str| lines.lock().unwrap().push(line.to_string()))
    };
    let bed = Bed { dir, pool };
    let mnt = bed.path("mnt");
    let options = Options { report, ..Options::default() };
    let source: Arc<Pool> = Arc::clone(&bed.pool);
    let handle = mount(source, What::Image(Box::new(image)), &mnt, options).unwrap();
    let copy = bed.copy(&mnt);
    let file = File::open(copy.join("file")).unwrap();
    let (mut good, mut bad) = (0, 0);
    for (i, piece) in bytes.chunks(4096).enumerate() {
        let mut part = vec![0; piece.len()];
        match file.read_exact_at(&mut part, i as u64 * 4096) {
            Ok(()) => {
                assert!(part == piece, "wrong bytes in page {i}");
                good += 1;
            }
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
                bad += 1;
            }
        }
    }
    assert!(bad > 0 && good > 6000, "{good} good pages, {bad} bad ones");
    assert!(File::open(copy.join("file")).unwrap().read_to_end(&mut Vec::new()).is_err());
    assert_eq!(fs::read(copy.join("other")).unwrap(), b"unharmed");
    let lines = lines.lock().unwrap();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.contains("/source/file at byte ")));
    drop(file);
    drop(handle);
}

#[test]
fn unmounting_ends_the_one_who_waits_also_while_it_is_in_use() {
    let bed = Bed::new();
    fs::write(bed.source().join("file"), b"still here").unwrap();
    let image = bed.back_up_source("one");
    let handle = bed.mount(What::Image(Box::new(image.clone())));
    let unmounter = handle.unmounter();
    let waiting = std::thread::spawn(move || handle.run());
    assert_eq!(unmounter.unmount().unwrap(), Unmounted::Done);
    waiting.join().unwrap().unwrap();
    assert_eq!(unmounter.unmount().unwrap(), Unmounted::Done);

    // By another program.
    let handle = bed.mount(What::Image(Box::new(image.clone())));
    let waiting = std::thread::spawn(move || handle.run());
    run("umount", &words("", &bed.path("mnt")));
    waiting.join().unwrap().unwrap();

    let handle = bed.mount(What::Image(Box::new(image)));
    let mut file = File::open(bed.copy(&bed.path("mnt")).join("file")).unwrap();
    let unmounter = handle.unmounter();
    let waiting = std::thread::spawn(move || handle.run());
    assert_eq!(unmounter.unmount().unwrap(), Unmounted::Detached);
    assert_eq!(fs::read_dir(bed.path("mnt")).unwrap().count(), 0);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    drop(file);
    waiting.join().unwrap().unwrap();
}

#[test]
fn what_can_not_be_mounted_is_an_error_at_once() {
    let bed = Bed::new();
    fs::write(bed.source().join("file"), b"x").unwrap();
    let image = bed.back_up_source("one");
    let what = || What::Image(Box::new(image.clone()));
    let pool = || Arc::clone(&bed.pool);
    let options = Options { allow_other: true, ignore_permissions: true, ..Options::default() };
    assert!(mount(pool(), what(), &bed.path("mnt"), options).is_err());
    for place in ["none", "source/file"] {
        let error = mount(pool(), what(), &bed.path(place), Options::default()).unwrap_err();
        assert!(error.to_string().contains(place), "{error}");
    }
    bed.pool.forget(&[image.id]).unwrap();
    assert!(mount(pool(), what(), &bed.path("mnt"), Options::default()).is_err());
    // An empty pool has its views all the same.
    let handle = mount(pool(), What::Pool, &bed.path("mnt"), Options::default()).unwrap();
    assert_eq!(fs::read_dir(bed.path("mnt/by-name")).unwrap().count(), 0);
    drop(handle);
}
