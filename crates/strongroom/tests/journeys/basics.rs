//! What holds for all commands: help, exit codes, who may write, secrets.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::support::{BINARY, Lab, noise, output, tool};

#[test]
fn errors_are_one_line_and_have_their_codes() {
    let lab = Lab::new();
    for (line, code) in [
        ("images list", 1),
        ("frobnicate", 2),
        ("backup", 2),
        ("pool create p2 --encrypt --layout mirror --disk a", 2),
        ("pool create p2 --disk a --disk b", 2),
        ("pool create p2 --chunk-size 65K", 2),
        ("backup x --immutable soon", 2),
        ("backup x --exclude [", 2),
        ("backup --stdin", 2),
    ] {
        let run = lab.run(line).code(code);
        assert!(run.err.starts_with("error: "), "{line}: {}", run.err);
        assert!(
            !run.err.contains("panicked") && !run.err.contains("RUST_BACKTRACE"),
            "{}",
            run.err
        );
        if code == 1 {
            assert_eq!(run.err.lines().count(), 1, "{}", run.err);
        }
    }
    // Nothing was made on the way.
    assert!(!lab.path("p2/pool.disks").exists());
    // No pool at all.
    let none = lab.command(["images", "list"]).env_remove("STRONGROOM_POOL").output().unwrap();
    assert_eq!(none.status.code(), Some(2));
    // An encrypted pool needs a secret.
    let mut create = lab.command(["pool", "create", "pool", "--encrypt"]);
    let none = create.env_remove("STRONGROOM_PASSWORD_FILE").output().unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("--password-file"));
}

#[test]
fn secrets_open_what_they_should() {
    let lab = Lab::new();
    lab.make_pool();
    let run = lab.run("images list --password-file wrong").code(5);
    assert!(run.err.contains("wrong password"), "{}", run.err);
    let mut list = lab.command(["images", "list"]);
    let none = list.env_remove("STRONGROOM_PASSWORD_FILE").output().unwrap();
    assert_eq!(none.status.code(), Some(5));
    lab.run_args(["images", "list", "--password-command", "cat pw"]).code(0);
    lab.run_args(["images", "list", "--password-command", "exit 1"]).code(1);
    // A second secret, of the other kind.
    fs::write(lab.path("key"), noise(7, 32)).unwrap();
    let added = lab.run("pool key add --new-key-file key --label office --json").code(0).json();
    let slot = added["added"].as_u64().unwrap();
    lab.run("images list --key-file key").code(0);
    let listed = lab.run("pool key list --json").code(0).json();
    let kinds: Vec<_> =
        listed["keys"].as_array().unwrap().iter().map(|k| k["kind"].clone()).collect();
    assert_eq!(kinds, ["password", "key file"]);
    // The first one is changed; the old one opens nothing any more.
    lab.run("pool key change 1 --new-password-file wrong").code(0);
    lab.run("images list").code(5);
    lab.run("images list --password-file wrong").code(0);
    lab.run(&format!("pool key remove {slot} --password-file wrong")).code(0);
    lab.run("images list --key-file key").code(5);
    lab.run("pool key remove 1 --password-file wrong").code(1);
    lab.run("pool rekey --password-file wrong").code(0);
    // No secret is in the pool's files or in what is printed.
    let found = tool("grep").args(["-r", "correct horse"]).arg(lab.path("pool")).output().unwrap();
    assert_eq!(found.status.code(), Some(1));
}

#[test]
fn one_process_writes_and_others_hear_who_it_is() {
    let lab = Lab::new();
    lab.make_pool();
    // A backup that waits for its input holds the pool.
    let mut writer = lab
        .command(["backup", "--stdin", "--name", "slow", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = writer.stdin.take().unwrap();
    input.write_all(&noise(1, 4 << 20)).unwrap();
    lab.wait_for_writer("pool", &mut writer);
    // Reading beside it is allowed.
    let second = lab.run("images tag slow --add x").code(4);
    assert!(second.err.contains("in use"), "{}", second.err);
    assert!(second.err.contains("strongroom backup, since 20"), "{}", second.err);
    assert!(second.err.contains(&format!("process {}", writer.id())), "{}", second.err);
    let listed = lab.run("images list --json").code(0).json();
    assert_eq!(listed["images"], serde_json::json!([]));
    drop(input);
    let mut text = String::new();
    writer.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(writer.wait().unwrap().success());
    assert!(text.contains("\"name\":\"slow\""));
    lab.run("images tag slow --add x").code(0);
}

#[test]
fn a_backup_that_is_asked_to_stop_leaves_nothing_to_be_seen() {
    let lab = Lab::new();
    lab.make_pool();
    let mut writer = lab
        .command(["backup", "--stdin", "--name", "stopped"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = writer.stdin.take().unwrap();
    input.write_all(&noise(1, 4 << 20)).unwrap();
    lab.wait_for_writer("pool", &mut writer);
    output(tool("kill").args(["-INT", &writer.id().to_string()]));
    // It may only see the end of its input once it was asked to stop, and need not read it all.
    let mut piece = noise(2, 1 << 20);
    while input.write_all(&piece).is_ok() && writer.try_wait().unwrap().is_none() {
        piece.rotate_left(1);
    }
    drop(input);
    assert_eq!(writer.wait().unwrap().code(), Some(130));
    let mut err = String::new();
    writer.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(err.contains("stopping") && err.contains("error: canceled"), "{err}");
    assert_eq!(lab.run("images list --json").code(0).json()["images"], serde_json::json!([]));
    lab.run("pool check --read-data").code(0);
}

#[test]
fn nobody_listening_is_no_error() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    for number in 0..3000 {
        fs::write(lab.path(&format!("src/a-rather-long-name-{number:05}")), b"x").unwrap();
    }
    fs::write(lab.path("src/large"), noise(1, 8 << 20)).unwrap();
    lab.make_pool();
    lab.run("backup src").code(0);
    let large = format!("src:{}/src/large", lab.path("").display());
    for args in [vec!["ls", "src", "--recursive"], vec!["cat", &large]] {
        let mut child =
            lab.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut first).unwrap();
        drop(out);
        let rest = child.wait_with_output().unwrap();
        assert_eq!(rest.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&rest.stderr), "");
    }
}

#[test]
fn shells_can_complete() {
    for (shell, check) in [("bash", "bash"), ("zsh", ""), ("fish", "")] {
        let script = output(Command::new(BINARY).args(["completions", shell]));
        let text = String::from_utf8(script).unwrap();
        assert!(text.contains("disk-replace") && text.contains("one-file-system"), "{shell}");
        if !check.is_empty() {
            let mut syntax = tool(check).arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            syntax.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(syntax.wait().unwrap().success(), "{shell} does not understand it");
        }
    }
}
