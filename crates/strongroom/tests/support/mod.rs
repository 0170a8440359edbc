//! What the journeys have in common: the binary, a place to work in, other people's tools, and a
//! tree with every kind of file.
#![allow(clippy::unwrap_used, dead_code, reason = "tests; not each journey needs all")]

pub(crate) mod authority;
pub(crate) mod database;
pub(crate) mod exported;
pub(crate) mod fused;
pub(crate) mod images;
pub(crate) mod served;
pub(crate) mod volumes;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The binary that is tested.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_strongroom");

/// A directory to work in, with a password file.
pub(crate) struct Lab {
    dir: TempDir,
}

/// What a run of the binary came to.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails unless it ended with this code.
    pub(crate) fn code(self, code: i32) -> Self {
        let out = String::from_utf8_lossy(&self.out);
        assert_eq!(self.code, code, "exit code; standard error:\n{}\noutput:\n{out}", self.err);
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.out)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let text = self.text();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("strongroom-test-").tempdir().unwrap();
        fs::write(dir.path().join("pw"), "correct horse\n").unwrap();
        fs::write(dir.path().join("wrong"), "battery staple\n").unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command in the lab, for the pool `pool` with its password.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("STRONGROOM_POOL", self.path("pool"))
            .env("STRONGROOM_PASSWORD_FILE", self.path("pw"))
            .env_remove("STRONGROOM_PASSWORD_COMMAND")
            .env_remove("STRONGROOM_KEY_FILE")
            .env_remove("STRONGROOM_CLIENT_KEY_FILE")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary with the words of this line.
    pub(crate) fn run(&self, line: &str) -> Run {
        self.run_args(line.split_whitespace())
    }

    pub(crate) fn run_args<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// Runs the binary with bytes on its standard input.
    pub(crate) fn run_with_input(&self, line: &str, input: &[u8]) -> Run {
        let mut child = self
            .command(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        drop(stdin);
        Run::of(child.wait_with_output().unwrap())
    }

    /// Makes an encrypted pool on one disk in `pool`.
    pub(crate) fn make_pool(&self) {
        self.run("pool create pool --encrypt --password-file pw").code(0);
    }

    /// Makes an encrypted pool on disks `d0`, `d1`, …
    pub(crate) fn make_pool_of(&self, layout: &str, disks: usize) {
        let mut line = format!("pool create pool --encrypt --password-file pw --layout {layout}");
        for disk in 0..disks {
            line.push_str(&format!(" --disk d{disk}"));
        }
        self.run(&line).code(0);
    }

    /// Waits until a process holds the writer's lock of the pool whose first disk this is. Trying for
    /// the lock oneself would keep the process from it now and then.
    pub(crate) fn wait_for_writer(&self, disk: &str, writer: &mut Child) {
        let holder = self.path(disk).join("pool.holder");
        let process = format!("process {}:", writer.id());
        while !fs::read_to_string(&holder).unwrap().contains(&process) {
            assert!(writer.try_wait().unwrap().is_none(), "it ended without the lock");
        }
    }

    /// The path of something in the lab as it is in an image: below a directory it was restored to.
    pub(crate) fn inside(&self, restored: &str, name: &str) -> PathBuf {
        let path = self.path(name);
        self.path(restored).join(path.strip_prefix("/").unwrap())
    }
}

/// Finds a program of the operating system, or says which is missing: a test that needs it fails.
pub(crate) fn tool(name: &str) -> Command {
    let dirs = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    let found = dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
    let path = found.unwrap_or_else(|| {
        panic!("this test needs the program {name}; `cargo xtask test` installs what is missing")
    });
    Command::new(path)
}

/// Runs a tool and fails unless it went well; what it printed.
pub(crate) fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {err}", output.status);
    output.stdout
}

/// Whether the tests may set owners, make devices, mount: they must.
pub(crate) fn must_be_root() {
    let id = output(tool("id").arg("-u"));
    assert_eq!(id, b"0\n", "this test must run as root: it sets owners and makes devices");
}

/// Fails unless two trees are the same, in the eyes of rsync: names, kinds, content, modes,
/// owners, times, hard links, devices, ACLs and extended attributes.
pub(crate) fn assert_same(left: &Path, right: &Path) {
    let with_slash = |path: &Path| {
        let mut path = path.as_os_str().to_owned();
        path.push("/");
        path
    };
    let mut rsync = tool("rsync");
    rsync.args(["-naicAXH", "--delete", "--numeric-ids"]);
    let found = output(rsync.arg(with_slash(left)).arg(with_slash(right)));
    assert!(found.is_empty(), "rsync finds differences:\n{}", String::from_utf8_lossy(&found));
}

/// Bytes that differ by seed and can't be compressed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}

fn name(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// A tree with every kind of file and of metadata that a Linux administrator expects back.
pub(crate) fn make_tree(dir: &Path) {
    must_be_root();
    let sub = |path: &str| dir.join(path);
    fs::create_dir_all(sub("src/deep/er")).unwrap();
    fs::write(sub("empty"), b"").unwrap();
    fs::write(sub("small"), b"small\n").unwrap();
    fs::write(sub("large"), noise(1, 3_000_000)).unwrap();
    fs::write(sub("text"), "the same line again and again\n".repeat(40_000)).unwrap();
    for number in 0..300 {
        fs::write(dir.join(format!("src/file{number:03}.c")), format!("int f{number};\n")).unwrap();
    }
    // Names that are not UTF-8, or play tricks.
    fs::write(dir.join(name(b"not\xff\xfeutf8")), b"1").unwrap();
    fs::write(dir.join(name(b"new\nline")), b"2").unwrap();
    fs::write(dir.join(name(b"-rf \x1b[2J*?[a]\\")), b"3").unwrap();
    fs::write(dir.join(name(&[b'n'; 255])), b"4").unwrap();
    fs::create_dir(dir.join(name(b"d\xc3ir "))).unwrap();
    fs::write(dir.join(name(b"d\xc3ir ")).join("in it"), b"5").unwrap();
    // Deep.
    let mut deep = sub("deep");
    for level in 0..120 {
        deep.push(format!("level{level:03}"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), b"here").unwrap();
    // Links.
    fs::hard_link(sub("small"), sub("src/small-again")).unwrap();
    fs::hard_link(sub("large"), sub("large-again")).unwrap();
    symlink("small", sub("link")).unwrap();
    symlink(name(b"no\xff/where"), sub("dangling")).unwrap();
    symlink("..", sub("src/up")).unwrap();
    // Devices, FIFOs.
    output(tool("mkfifo").arg(sub("fifo")));
    output(tool("mknod").arg(sub("char")).args(["c", "1", "3"]));
    output(tool("mknod").arg(sub("block")).args(["b", "7", "200"]));
    output(tool("ln").arg(sub("fifo")).arg(sub("fifo-again")));
    // Holes at the front, in the middle and at the end.
    let sparse = fs::File::create(sub("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(&noise(2, 100_000), 10 << 20).unwrap();
    sparse.write_all_at(&noise(3, 5), (40 << 20) + 3).unwrap();
    let only_hole = fs::File::create(sub("hole")).unwrap();
    only_hole.set_len((1 << 20) + 1).unwrap();
    // Extended attributes, ACLs, capabilities.
    output(tool("setfattr").args(["-n", "user.note", "-v", "something"]).arg(sub("small")));
    let long = format!("0x{}", "ab".repeat(3000));
    output(tool("setfattr").args(["-n", "user.long", "-v", &long]).arg(sub("text")));
    output(tool("setfattr").args(["-n", "trusted.dir", "-v", "x"]).arg(sub("src")));
    output(tool("setfacl").args(["-m", "u:1234:rwx,g:99:r"]).arg(sub("text")));
    output(tool("setfacl").args(["-d", "-m", "u:1234:rx"]).arg(sub("src/deep")));
    fs::copy("/bin/true", sub("capable")).unwrap();
    output(tool("chown").arg("1:2").arg(sub("capable")));
    output(tool("setcap").arg("cap_net_raw+ep").arg(sub("capable")));
    // Owners, modes, times.
    output(tool("chown").arg("1000:1001").arg(sub("text")).arg(sub("src/deep")));
    output(tool("chown").arg("-h").arg("33:44").arg(sub("link")));
    for (mode, path) in
        [("4755", "src/file001.c"), ("0000", "src/file002.c"), ("1777", "src/deep/er")]
    {
        output(tool("chmod").arg(mode).arg(sub(path)));
    }
    for (time, path) in [
        ("1969-07-20 20:17:40.123456789 UTC", "empty"),
        ("2040-01-01 00:00:00.000000001 UTC", "src/file003.c"),
        ("2001-09-09 01:46:40.5 UTC", "link"),
        ("2020-02-02 02:02:02.020202020 UTC", "src/deep/er"),
        ("2020-02-02 02:02:02.020202020 UTC", "src"),
    ] {
        output(tool("touch").args(["-h", "-d", time]).arg(sub(path)));
    }
}

/// The bytes that the files below a directory take on disk.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    let out = output(tool("du").args(["-s", "-B1"]).arg(path));
    let text = String::from_utf8(out).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// As the last part of an argument: `IMAGE:PATH`.
pub(crate) fn at(image: &str, path: &Path) -> OsString {
    let mut text = image.as_bytes().to_vec();
    text.push(b':');
    text.extend_from_slice(path.as_os_str().as_bytes());
    OsString::from_vec(text)
}
