//! Disks, the enclosures and controllers that they are in, and which of them a directory lies on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Hardware, names, number, text};

/// Devices that are not disks of their own, by how their names begin.
const VIRTUAL: &[&str] =
    &["loop", "ram", "zram", "dm-", "md", "nbd", "sr", "fd", "mtdblock", "drbd"];
/// How deep devices may lie over each other.
const DEPTH: u32 = 16;

/// Where a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The number of the enclosure, from 1.
    pub enclosure: u32,
    /// The number of its place there.
    pub number: u32,
}

/// What disks are in: an enclosure that tells of itself (SCSI enclosure services), else the
/// controller that they are at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enclosure {
    /// Its number, from 1.
    pub number: u32,
    /// What it is: of a controller, its driver.
    pub model: String,
    /// Its number among all there are: of a controller, its address.
    pub serial: String,
    /// Whether it is a controller.
    pub is_controller: bool,
}

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhysicalDisk {
    /// What the kernel calls it.
    pub name: String,
    /// What its maker does.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its name in the world.
    pub wwid: Option<String>,
    /// Its bytes.
    pub bytes: Option<u64>,
    /// Whether it turns.
    pub rotates: Option<bool>,
    /// Whether it speaks NVMe.
    pub is_nvme: bool,
    /// Where it is.
    pub slot: Option<Slot>,
}

/// What a disk does: since the machine started, or in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Reads.
    pub reads: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
}

impl Hardware {
    /// The disks, and what they are in.
    pub fn disks(&self) -> (Vec<Enclosure>, Vec<PhysicalDisk>) {
        let mut disks: Vec<_> = self.disk_names().into_iter().map(|name| self.disk(name)).collect();
        let mut enclosures = self.services(&mut disks);
        self.controllers(&mut disks, &mut enclosures);
        (enclosures, disks)
    }

    /// What the kernel calls the disks.
    pub(super) fn disk_names(&self) -> Vec<String> {
        let mut names = names(&self.path("sys/block")).unwrap_or_default();
        names.retain(|name| !VIRTUAL.iter().any(|prefix| name.starts_with(prefix)));
        names
    }

    fn disk(&self, name: String) -> PhysicalDisk {
        let dir = self.path("sys/block").join(&name);
        let said = |files: &[&str]| files.iter().find_map(|file| text(&dir.join(file)));
        PhysicalDisk {
            model: said(&["device/model"]),
            serial: said(&["device/serial", "serial"]),
            wwid: said(&["wwid", "device/wwid"]),
            // Sectors of 512 bytes, whatever the disk has.
            bytes: number(&dir.join("size")).and_then(|sectors| sectors.checked_mul(512)),
            rotates: number(&dir.join("queue/rotational")).map(|flag| flag != 0),
            is_nvme: name.starts_with("nvme"),
            slot: None,
            name,
        }
    }

    /// Enclosures that tell of themselves; disks are given their slots in them.
    fn services(&self, disks: &mut [PhysicalDisk]) -> Vec<Enclosure> {
        let class = self.path("sys/class/enclosure");
        let mut all = Vec::new();
        for name in names(&class).unwrap_or_default() {
            let dir = class.join(&name);
            let enclosure = all.len() as u32 + 1;
            let vendor = text(&dir.join("device/vendor"));
            let model = text(&dir.join("device/model")).or(vendor);
            all.push(Enclosure {
                number: enclosure,
                model: model.unwrap_or_else(|| name.clone()),
                serial: text(&dir.join("id")).map_or(name, |id| id.trim_start_matches("0x").into()),
                is_controller: false,
            });
            for (place, component) in names(&dir).unwrap_or_default().into_iter().enumerate() {
                let component = dir.join(component);
                let Some(block) = names(&component.join("device/block")) else { continue };
                let told = number(&component.join("slot")).and_then(|slot| slot.try_into().ok());
                let number = told.unwrap_or(place as u32 + 1);
                for disk in disks.iter_mut().filter(|disk| block.contains(&disk.name)) {
                    disk.slot = Some(Slot { enclosure, number });
                }
            }
        }
        all
    }

    /// Controllers of the disks that no enclosure tells of.
    fn controllers(&self, disks: &mut [PhysicalDisk], all: &mut Vec<Enclosure>) {
        let mut at: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
        for (place, disk) in disks.iter().enumerate().filter(|(_, disk)| disk.slot.is_none()) {
            let found = fs::canonicalize(self.path("sys/block").join(&disk.name)).ok();
            if let Some(controller) = found.as_deref().and_then(controller) {
                at.entry(controller).or_default().push(place);
            }
        }
        for (path, places) in at {
            let enclosure = all.len() as u32 + 1;
            let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
            let serial = name(&path).unwrap_or_default();
            let driver = fs::canonicalize(path.join("driver")).ok().as_deref().and_then(name);
            let model = driver.unwrap_or_else(|| serial.clone());
            all.push(Enclosure { number: enclosure, model, serial, is_controller: true });
            for (number, place) in (1..).zip(places) {
                disks[place].slot = Some(Slot { enclosure, number });
            }
        }
    }

    /// The name of the disk that has a device of this number (`stat`), if it lies on one.
    pub fn disk_of(&self, device: u64) -> Option<String> {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let dir = self.path("sys/dev/block").join(format!("{major}:{minor}"));
        let dir = match fs::canonicalize(dir) {
            Ok(dir) => dir,
            // Filesystems on several devices have a number of their own.
            Err(_) => {
                let name = self.mounted(major, minor)?;
                let class = self.path("sys/class/block").join(name);
                fs::canonicalize(class).ok()?
            }
        };
        whole(&dir, DEPTH)
    }

    /// The name of the device that is mounted under this number.
    fn mounted(&self, major: u32, minor: u32) -> Option<String> {
        let text = fs::read_to_string(self.path("proc/self/mountinfo")).ok()?;
        let wanted = format!("{major}:{minor}");
        text.lines().find_map(|line| {
            let mut words = line.split(' ');
            if words.nth(2)? != wanted {
                return None;
            }
            let source = line.split(" - ").nth(1)?.split(' ').nth(1)?;
            source.strip_prefix("/dev/").filter(|name| !name.contains('/')).map(str::to_owned)
        })
    }

    /// What a disk has done since the machine started.
    pub fn traffic(&self, name: &str) -> Option<Traffic> {
        if name.contains('/') || name.starts_with('.') {
            return None;
        }
        let text = text(&self.path("sys/block").join(name).join("stat"))?;
        let mut words = text.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
        let mut next = || words.next().flatten();
        let (reads, _, read, _) = (next()?, next()?, next()?, next()?);
        let (writes, _, written) = (next()?, next()?, next()?);
        let bytes = |sectors: u64| sectors.saturating_mul(512);
        Some(Traffic { reads, read_bytes: bytes(read), writes, written_bytes: bytes(written) })
    }
}

/// The controller of a disk, by the disk's place among all devices: the last one before it that has
/// an address on a bus of PCI, else what it hangs on.
fn controller(disk: &Path) -> Option<PathBuf> {
    // `0000:00:04.0`; those of SCSI have no point.
    let is_pci = |name: &str| {
        let Some((rest, function)) = name.split_once('.') else { return false };
        let parts: Vec<_> = rest.split(':').chain([function]).collect();
        parts.len() == 4 && parts.iter().all(|part| u32::from_str_radix(part, 16).is_ok())
    };
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let pci = disk.ancestors().find(|path| name(path).is_some_and(|name| is_pci(&name)));
    let own = || disk.parent().filter(|path| name(path).as_deref() == Some("block"))?.parent();
    let found = pci.or_else(own)?;
    (!found.ends_with("virtual")).then(|| found.to_owned())
}

/// The disk of a device that may be a part of it, or lie over it.
fn whole(dir: &Path, depth: u32) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    if dir.join("partition").exists() {
        return whole(dir.parent()?, depth);
    }
    let below = names(&dir.join("slaves")).unwrap_or_default();
    if let [one] = below.as_slice() {
        return whole(&fs::canonicalize(dir.join("slaves").join(one)).ok()?, depth);
    }
    dir.file_name().map(|name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine with an NVMe disk, two disks in an enclosure, one of them cut into partitions with
    /// a mapped device over one, and one disk behind virtio.
    fn machine() -> (tempfile::TempDir, Hardware) {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let link = |at: &str, to: &str| {
            let at = root.join(at);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            symlink(root.join(to), at).unwrap();
        };
        let pci = "sys/devices/pci0000:00";
        for (at, name) in [
            (format!("{pci}/0000:00:04.0/nvme/nvme0/nvme0n1"), "nvme0n1"),
            (format!("{pci}/0000:00:05.0/host1/target1:0:0/1:0:0:0/block/sda"), "sda"),
            (format!("{pci}/0000:00:05.0/host1/target1:0:1/1:0:1:0/block/sdb"), "sdb"),
            (format!("{pci}/0000:00:05.0/host1/target1:0:3/1:0:3:0/block/sdc"), "sdc"),
            (format!("{pci}/0000:00:06.0/virtio3/block/vda"), "vda"),
            ("sys/devices/virtual/block/loop0".into(), "loop0"),
            ("sys/devices/virtual/block/dm-0".into(), "dm-0"),
        ] {
            write(&format!("{at}/size"), "2048\n");
            write(&format!("{at}/queue/rotational"), if name == "sda" { "1" } else { "0" });
            link(&format!("sys/block/{name}"), &at);
        }
        let sda = format!("{pci}/0000:00:05.0/host1/target1:0:0/1:0:0:0");
        write(&format!("{sda}/block/sda/stat"), "  3 0 16 5 7 0 8 9 0 1 1\n");
        write(&format!("{sda}/block/sda/sda1/partition"), "1");
        link("sys/dev/block/8:1", &format!("{sda}/block/sda/sda1"));
        link("sys/dev/block/253:0", "sys/devices/virtual/block/dm-0");
        link("sys/devices/virtual/block/dm-0/slaves/sda1", &format!("{sda}/block/sda/sda1"));
        link("sys/class/block/vda", &format!("{pci}/0000:00:06.0/virtio3/block/vda"));
        write("proc/self/mountinfo", "30 1 0:44 / /srv rw - btrfs /dev/vda rw\n");
        let nvme = format!("{pci}/0000:00:04.0/nvme/nvme0");
        write(&format!("{nvme}/nvme0n1/wwid"), "eui.0025385b71b0ad9e\n");
        write(&format!("{nvme}/model"), "Samsung SSD 980 \n");
        link(&format!("{nvme}/nvme0n1/device"), &nvme);
        write("sys/bus/pci/drivers/nvme/uevent", "");
        link(&format!("{pci}/0000:00:04.0/driver"), "sys/bus/pci/drivers/nvme");
        let ses = "sys/class/enclosure/1:0:2:0";
        write(&format!("{ses}/id"), "0x50015b214087fbbf\n");
        write(&format!("{ses}/device/model"), "D2U24\n");
        write(&format!("{ses}/Slot 04/slot"), "4\n");
        link(&format!("{ses}/Slot 04/device"), &sda);
        link(&format!("{ses}/Slot 05/device"), &sda.replace("1:0:0", "1:0:1"));
        (dir, Hardware::at(root))
    }

    #[test]
    fn disks_are_where_enclosures_and_controllers_say() {
        let (_dir, hardware) = machine();
        let (enclosures, disks) = hardware.disks();
        let told: Vec<_> = enclosures.iter().map(|e| (e.number, &*e.model, &*e.serial)).collect();
        let expected = [
            (1, "D2U24", "50015b214087fbbf"),
            (2, "nvme", "0000:00:04.0"),
            (3, "0000:00:05.0", "0000:00:05.0"),
            (4, "0000:00:06.0", "0000:00:06.0"),
        ];
        assert_eq!(told, expected);
        assert!(enclosures[1].is_controller && !enclosures[0].is_controller);
        let slots: Vec<_> = disks
            .iter()
            .map(|disk| (&*disk.name, disk.slot.map(|slot| (slot.enclosure, slot.number))))
            .collect();
        // The second slot of the enclosure doesn't say its number: it is that of its place.
        assert_eq!(slots[1..3], [("sda", Some((1, 4))), ("sdb", Some((1, 2)))]);
        // The third disk of that controller is in no enclosure that tells of itself.
        assert_eq!(slots[3], ("sdc", Some((3, 1))));
        assert_eq!((slots[0], slots[4]), (("nvme0n1", Some((2, 1))), ("vda", Some((4, 1)))));
        let nvme = &disks[0];
        assert_eq!(nvme.wwid.as_deref(), Some("eui.0025385b71b0ad9e"));
        assert_eq!(nvme.model.as_deref(), Some("Samsung SSD 980"));
        assert_eq!((nvme.bytes, nvme.rotates, nvme.is_nvme), (Some(1 << 20), Some(false), true));
        assert_eq!(disks[1].rotates, Some(true));
    }

    #[test]
    fn a_directory_lies_on_the_disk_below_everything() {
        let (_dir, hardware) = machine();
        let of = |major, minor| hardware.disk_of(rustix::fs::makedev(major, minor));
        assert_eq!(of(8, 1).as_deref(), Some("sda"), "a partition");
        assert_eq!(of(253, 0).as_deref(), Some("sda"), "a mapped device over one");
        assert_eq!(of(0, 44).as_deref(), Some("vda"), "by the mount");
        assert_eq!(of(9, 9), None);
    }

    #[test]
    fn traffic_is_counted_in_bytes() {
        let (_dir, hardware) = machine();
        let expected = Traffic { reads: 3, read_bytes: 8192, writes: 7, written_bytes: 4096 };
        assert_eq!(hardware.traffic("sda"), Some(expected));
        assert_eq!(hardware.traffic("sdz"), None);
        assert_eq!(hardware.traffic("../block/sda"), None);
    }
}
