//! Pools with images: made, looked into, mounted and spoilt.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Lab, noise, output, tool};

/// A pool with two images of a small tree that changed in between.
pub(crate) fn two_images() -> Lab {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("src/sub/deeper")).unwrap();
    for (name, content) in
        [("same", "same"), ("grows", "a"), ("goes", "x"), ("sub/mode", "m"), ("sub/deeper/it", "i")]
    {
        fs::write(lab.path("src").join(name), content).unwrap();
    }
    fs::write(lab.path("src/turns"), "a file").unwrap();
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    fs::write(lab.path("src/grows"), "longer").unwrap();
    fs::remove_file(lab.path("src/goes")).unwrap();
    fs::create_dir(lab.path("src/new")).unwrap();
    fs::write(lab.path("src/new/thing"), noise(1, 100_000)).unwrap();
    fs::set_permissions(lab.path("src/sub/mode"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(lab.path("src/turns")).unwrap();
    fs::create_dir(lab.path("src/turns")).unwrap();
    lab.run("backup src --name tree").code(0);
    lab
}

/// The ids of the images, oldest first.
pub(crate) fn ids(lab: &Lab) -> Vec<String> {
    let list = lab.run("images list --json").code(0).json();
    let images = list["images"].as_array().unwrap();
    images.iter().map(|image| image["id"].as_str().unwrap().to_owned()).collect()
}

/// A mount that is there; unmounted in the end.
pub(crate) fn mounted(mut command: Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("mounted at"), "{first}");
    child
}

pub(crate) fn unmounted(mut child: Child) {
    output(tool("kill").args(["-INT", &child.id().to_string()]));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// All files below a directory.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut stack = vec![dir.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { stack.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Spoils the middle of every large file below a directory; how many that were.
pub(crate) fn spoil(dir: &Path) -> usize {
    let large = files(dir).into_iter().filter(|path| path.metadata().unwrap().len() > 500_000);
    let mut spoilt = 0;
    for path in large {
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let at = file.metadata().unwrap().len() / 2;
        let mut bytes = [0; 64];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
        file.write_all_at(&bytes, at).unwrap();
        spoilt += 1;
    }
    spoilt
}
