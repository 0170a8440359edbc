//! The machine's parts, as the kernel tells of them: disks and where they are, processors, memory,
//! fans, power supplies. What the kernel doesn't say is not known, and nothing is put in its place.

mod disks;
mod parts;
mod rates;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::disks::{Enclosure, PhysicalDisk, Slot, Traffic};
pub use self::parts::{Battery, Fan, MemoryModule, Processor};
use self::rates::Notes;

/// The longest text of a part that is taken, in bytes.
const LONGEST: u64 = 4096;
/// Parts of one kind, at most.
const MOST: usize = 4096;

/// Looks at the machine. All of it waits for the kernel. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hardware {
    root: PathBuf,
    notes: Arc<Notes>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Hardware {
    /// Of the machine whose `/sys` and `/proc` are below this directory.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), notes: Arc::default() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// What its maker calls the machine.
    pub fn product(&self) -> Option<String> {
        self.dmi("product_name")
    }

    /// The serial number of the machine; only an administrator of it is told.
    pub fn serial(&self) -> Option<String> {
        self.dmi("product_serial")
    }

    fn dmi(&self, name: &str) -> Option<String> {
        text(&self.path("sys/class/dmi/id").join(name)).filter(|text| !is_filler(text))
    }

    /// How long the machine has run, in seconds.
    pub fn uptime(&self) -> Option<u64> {
        let text = text(&self.path("proc/uptime"))?;
        text.split(['.', ' ']).next()?.parse().ok()
    }

    /// Whether a network interface of the machine, but for its own loop, has a link.
    pub fn has_link(&self) -> Option<bool> {
        let names = names(&self.path("sys/class/net"))?;
        let has = |name: &String| {
            let dir = self.path("sys/class/net").join(name);
            // ARPHRD_ETHER; reading it fails while the interface is down.
            text(&dir.join("type")).as_deref() == Some("1")
                && text(&dir.join("carrier")).as_deref() == Some("1")
        };
        Some(names.iter().any(has))
    }

    /// The number of the device on which a directory is.
    pub fn device_of(path: &Path) -> Option<u64> {
        fs::metadata(path).ok().map(|meta| meta.dev())
    }
}

/// What makers leave in who don't fill it in.
fn is_filler(text: &str) -> bool {
    ["to be filled by o.e.m.", "default string", "not specified", "system serial number", "none"]
        .contains(&text.to_ascii_lowercase().as_str())
}

/// A small file, without the blanks around; None when it is empty.
fn text(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// The names in a directory, in order.
fn names(dir: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(dir).ok()?.take(MOST);
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_by_cached_key(|name| natural(name));
    Some(names)
}

/// By which names are ordered: `sda9` before `sda10`.
fn natural(name: &str) -> (String, u64, String) {
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (word.to_owned(), name[word.len()..].parse().unwrap_or(0), name.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_the_maker_left_out_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let hardware = Hardware::at(dir.path());
        assert_eq!(
            (hardware.product(), hardware.uptime(), hardware.has_link()),
            (None, None, None)
        );
        let dmi = dir.path().join("sys/class/dmi/id");
        fs::create_dir_all(&dmi).unwrap();
        fs::write(dmi.join("product_name"), "To Be Filled By O.E.M.\n").unwrap();
        fs::write(dmi.join("product_serial"), "RSA3Q866\n").unwrap();
        assert_eq!((hardware.product(), hardware.serial()), (None, Some("RSA3Q866".into())));
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        fs::write(dir.path().join("proc/uptime"), "2018.31 1\n").unwrap();
        assert_eq!(hardware.uptime(), Some(2018));
        let net = dir.path().join("sys/class/net");
        for (name, kind, carrier) in [("lo", "772", "1"), ("eth0", "1", "0")] {
            fs::create_dir_all(net.join(name)).unwrap();
            fs::write(net.join(name).join("type"), kind).unwrap();
            fs::write(net.join(name).join("carrier"), carrier).unwrap();
        }
        assert_eq!(hardware.has_link(), Some(false));
        fs::write(net.join("eth0/carrier"), "1\n").unwrap();
        assert_eq!(hardware.has_link(), Some(true));
    }

    #[test]
    fn this_machine_is_looked_at() {
        let hardware = Hardware::default();
        assert!(hardware.uptime().is_some());
        assert!(!hardware.processors().is_empty());
        let _ = (hardware.disks(), hardware.fans(), hardware.memory_modules(), hardware.power());
    }
}
