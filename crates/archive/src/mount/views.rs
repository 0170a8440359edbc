//! The directories above the images: by name, by id and by time.
//!
//! They are made once, when the mount begins, from the list of images.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::{ChunkId, RootId};

use crate::entry::Entry;
use crate::image::{Image, Stats};
use crate::tree::name_hash;

/// What the mount knows of an image.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) id: RootId,
    pub(super) node: ChunkId,
    pub(super) name: String,
    pub(super) created: PoolTime,
    pub(super) stats: Stats,
    /// Its top, once it was read.
    pub(super) top: OnceLock<Arc<Entry>>,
}

impl From<Image> for Shown {
    fn from(image: Image) -> Self {
        Self {
            id: image.id,
            node: image.node,
            name: image.name,
            created: image.created,
            stats: image.meta.stats,
            top: OnceLock::new(),
        }
    }
}

/// Names, and the numbers of the views that have them.
pub(super) type Items = Vec<(Vec<u8>, u32)>;

/// What a view is.
#[derive(Debug)]
pub(super) enum Kind {
    /// A directory of views, by ascending name.
    Dir(Items),
    /// A symbolic link.
    Link(Vec<u8>),
    /// The top of the image with that number.
    Image(u32),
}

/// A directory or link that no image holds.
#[derive(Debug)]
pub(super) struct View {
    /// The number of the directory it is in; that of itself for the top.
    pub(super) parent: u32,
    /// Of the newest image in it.
    pub(super) time: PoolTime,
    pub(super) kind: Kind,
}

/// All views; number 0 is the top of the mount.
#[derive(Debug)]
pub(super) struct Views {
    pub(super) list: Vec<View>,
    pub(super) images: Vec<Shown>,
}

impl Views {
    /// The image alone, at the top.
    pub(super) fn of_image(image: Image) -> Self {
        let image = Shown::from(image);
        let top = View { parent: 0, time: image.created, kind: Kind::Image(0) };
        Self { list: vec![top], images: vec![image] }
    }

    /// All images, which must be sorted by age, the oldest first.
    pub(super) fn of_pool(images: Vec<Image>) -> Self {
        let images: Vec<Shown> = images.into_iter().map(Shown::from).collect();
        let newest = images.last().map_or(PoolTime(0), |image| image.created);
        let mut views = Self { list: Vec::new(), images: Vec::new() };
        let top = views.dir(0, newest);
        let by_id = views.dir(top, newest);
        let by_name = views.dir(top, newest);
        let by_time = views.dir(top, newest);
        let mut names: BTreeMap<Vec<u8>, (u32, Items)> = BTreeMap::new();
        let mut dates: BTreeMap<String, (u32, Items)> = BTreeMap::new();
        let mut ids = Vec::new();
        let mut used: HashSet<Vec<u8>> = HashSet::new();
        let mut newest_of: HashMap<u32, Vec<u8>> = HashMap::new();
        for (number, image) in images.iter().enumerate() {
            let number = number as u32;
            let time = image.created.to_string().replace(':', "-");
            let name = file_name(&image.name);
            // Two of one second: the later ones carry the first digits of their ids.
            let unique = |base: Vec<u8>, key: &[u8], used: &mut HashSet<Vec<u8>>| {
                let id = image.id.to_string();
                let longer = |digits: usize| [&base[..], b"-", &id.as_bytes()[..digits]].concat();
                let all = [base.clone(), longer(8), longer(32)];
                let full = |name: &[u8]| [key, b"/", name].concat();
                let free = all.iter().find(|name| used.insert(full(name)));
                free.unwrap_or(&all[2]).clone()
            };

            let (dir, items) = names
                .entry(name.clone())
                .or_insert_with(|| (views.dir(by_name, image.created), Vec::new()));
            let base = unique(time.clone().into_bytes(), &[b"n", &name[..]].concat(), &mut used);
            let view = views.add(*dir, image.created, Kind::Image(number));
            items.push((base.clone(), view));
            views.list[*dir as usize].time = image.created;
            newest_of.insert(*dir, base.clone());

            let path = [b"by-name/", &name[..], b"/", &base].concat();
            let to = [b"../", &path[..]].concat();
            let link = views.add(by_id, image.created, Kind::Link(to));
            ids.push((image.id.to_string().into_bytes(), link));

            let (date, clock) = time.split_once('T').unwrap_or((&time, ""));
            let (dir, items) = dates
                .entry(date.into())
                .or_insert_with(|| (views.dir(by_time, image.created), Vec::new()));
            let base = [clock.trim_end_matches('Z').as_bytes(), b"-", &name].concat();
            let base = unique(shorten(base), &[b"t", date.as_bytes()].concat(), &mut used);
            let to = [b"../../", &path[..]].concat();
            let link = views.add(*dir, image.created, Kind::Link(to));
            items.push((base, link));
            views.list[*dir as usize].time = image.created;
        }
        for (dir, items) in names.values_mut() {
            if let Some(base) = newest_of.remove(dir) {
                let time = views.list[*dir as usize].time;
                let link = views.add(*dir, time, Kind::Link(base));
                items.push((b"latest".to_vec(), link));
            }
        }
        let mut fill = |dir: u32, mut items: Items| {
            items.sort();
            views.list[dir as usize].kind = Kind::Dir(items);
        };
        let mut upper = Vec::new();
        for (name, (dir, items)) in names {
            fill(dir, items);
            upper.push((name, dir));
        }
        fill(by_name, std::mem::take(&mut upper));
        for (date, (dir, items)) in dates {
            fill(dir, items);
            upper.push((date.into_bytes(), dir));
        }
        fill(by_time, upper);
        fill(by_id, ids);
        let upper = [("by-id", by_id), ("by-name", by_name), ("by-time", by_time)];
        fill(top, upper.iter().map(|(name, view)| (name.as_bytes().to_vec(), *view)).collect());
        views.images = images;
        views
    }

    fn dir(&mut self, parent: u32, time: PoolTime) -> u32 {
        self.add(parent, time, Kind::Dir(Vec::new()))
    }

    fn add(&mut self, parent: u32, time: PoolTime, kind: Kind) -> u32 {
        self.list.push(View { parent, time, kind });
        (self.list.len() - 1) as u32
    }
}

/// An image's name as that of a directory; different names stay different. `/`, NUL and `%` become
/// `%` and two hexadecimal digits, as do the dots of `.` and `..`.
pub(super) fn file_name(name: &str) -> Vec<u8> {
    let dots = matches!(name, "." | "..");
    let mut out = Vec::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'/' | 0 | b'%' => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            b'.' if dots => out.extend_from_slice(b"%2E"),
            _ => out.push(byte),
        }
    }
    if out.is_empty() {
        out.push(b'%');
    }
    shorten(out)
}

/// Names that no filesystem takes are cut, and end in a hash of the whole. There is room left for
/// a time before and an id behind.
fn shorten(mut name: Vec<u8>) -> Vec<u8> {
    const LONGEST: usize = 200;
    if name.len() > LONGEST {
        let hash = format!("%-{:016x}", name_hash(&name));
        name.truncate(LONGEST - hash.len());
        name.extend_from_slice(hash.as_bytes());
    }
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::image::{ImageKind, ImageMeta};

    fn image(name: &str, seconds: i64, id: u8) -> Image {
        Image {
            id: RootId([id; 16]),
            name: name.into(),
            created: PoolTime(seconds * 1_000_000_000),
            immutable_until: None,
            node: ChunkId([id; 32]),
            meta: ImageMeta {
                kind: ImageKind::Files,
                complete: true,
                host: String::new(),
                user: String::new(),
                program: String::new(),
                paths: Vec::new(),
                tags: Vec::new(),
                excludes: Vec::new(),
                started: 0,
                ended: 0,
                parent: None,
                stats: Stats::default(),
                sealing: None,
                kept_for: None,
            },
        }
    }

    fn walk(views: &Views, view: u32, path: &str, out: &mut Vec<String>) {
        match &views.list[view as usize].kind {
            Kind::Dir(items) => {
                assert!(items.is_sorted());
                for (name, child) in items {
                    assert_eq!(views.list[*child as usize].parent, view);
                    walk(views, *child, &format!("{path}/{}", String::from_utf8_lossy(name)), out);
                }
            }
            Kind::Link(to) => out.push(format!("{path} -> {}", String::from_utf8_lossy(to))),
            Kind::Image(number) => out.push(format!("{path} = {number}")),
        }
    }

    #[test]
    fn each_image_is_found_by_name_id_and_time() {
        let images = vec![image("web", 0, 1), image("a/b", 0, 2), image("web", 0, 3)];
        let views = Views::of_pool(images);
        let mut found = Vec::new();
        walk(&views, 0, "", &mut found);
        let (one, two, three) = ("01".repeat(16), "02".repeat(16), "03".repeat(16));
        let second = "1970-01-01T00-00-00Z";
        assert_eq!(
            found,
            [
                format!("/by-id/{one} -> ../by-name/web/{second}"),
                format!("/by-id/{two} -> ../by-name/a%2Fb/{second}"),
                format!("/by-id/{three} -> ../by-name/web/{second}-03030303"),
                format!("/by-name/a%2Fb/{second} = 1"),
                format!("/by-name/a%2Fb/latest -> {second}"),
                format!("/by-name/web/{second} = 0"),
                format!("/by-name/web/{second}-03030303 = 2"),
                format!("/by-name/web/latest -> {second}-03030303"),
                format!("/by-time/1970-01-01/00-00-00-a%2Fb -> ../../by-name/a%2Fb/{second}"),
                format!("/by-time/1970-01-01/00-00-00-web -> ../../by-name/web/{second}"),
                format!(
                    "/by-time/1970-01-01/00-00-00-web-03030303 -> ../../by-name/web/{second}-03030303"
                ),
            ]
        );
    }

    #[test]
    fn no_image_name_makes_a_path_of_its_own() {
        for (name, shown) in [("", "%"), (".", "%2E"), ("..", "%2E%2E"), ("a%/", "a%25%2F")] {
            assert_eq!(file_name(name), shown.as_bytes());
        }
        let (long, other) = ("x".repeat(300), "x".repeat(299));
        assert!(file_name(&long).len() <= 200);
        assert_ne!(file_name(&long), file_name(&other));
    }
}
