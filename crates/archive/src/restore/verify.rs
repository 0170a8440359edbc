//! Reading back what was restored: every chunk's place must hold bytes that have its id.

use std::os::fd::OwnedFd;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Advice, OFlags};
use strongroom_engine::map::{Extent, MapReader};

use super::{Choice, Restore, Shared, content};
use crate::Result;
use crate::entry::{Body, Entry};
use crate::folder::{Folder, meta_of};
use crate::scan::passing;
use crate::tree::Dir;

struct Task {
    folder: Arc<Folder>,
    entry: Entry,
    path: Vec<u8>,
}

/// Reads everything back, on all threads.
pub(super) fn run(
    restore: &Restore,
    shared: &Shared<'_>,
    choice: &Choice,
    target: &Arc<Folder>,
    top: &Entry,
) -> Result<()> {
    let (give, take) = sync_channel::<Task>(32);
    let take = Mutex::new(take);
    let walked = std::thread::scope(|scope| {
        for _ in 0..shared.source.threads() {
            scope.spawn(|| {
                let mut buf = Vec::new();
                loop {
                    let next = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(task) = next else { return };
                    if shared.progress.is_canceled() {
                        continue;
                    }
                    match compare(shared, &task, &mut buf) {
                        Ok(()) => shared.progress.add(|p| &p.verified, 1),
                        Err(why) => shared.trouble(&task.path, format!("verifying it: {why}")),
                    }
                }
            });
        }
        let walked = walk(restore, shared, choice, target, top, |task| {
            // The threads are there until the sender is gone.
            let _ = give.send(task);
        });
        drop(give);
        walked
    });
    walked?;
    match shared.progress.is_canceled() {
        true => Err(strongroom_engine::Error::Canceled.into()),
        false => Ok(()),
    }
}

fn walk(
    restore: &Restore,
    shared: &Shared<'_>,
    choice: &Choice,
    target: &Arc<Folder>,
    top: &Entry,
    mut found: impl FnMut(Task),
) -> Result<()> {
    let mut path = Vec::new();
    let Some(frame) = restore.begin(shared, choice, target, top) else {
        if content(top).is_some() {
            found(Task { folder: Arc::clone(target), entry: top.clone(), path });
        }
        return Ok(());
    };
    let mut stack = vec![frame];
    while let Some(frame) = stack.last_mut() {
        if shared.progress.is_canceled() {
            return Ok(());
        }
        path.truncate(frame.path_len);
        let Some(step) = frame.entries.next() else {
            stack.pop();
            continue;
        };
        let entry = match step {
            Ok(entry) => entry,
            // What can't be read was told in the first pass.
            Err(error) => {
                passing(error)?;
                continue;
            }
        };
        let Some(folder) = frame.folder.clone() else { continue };
        path.push(b'/');
        path.extend_from_slice(&entry.name);
        let Some((included, plan)) = choice.look(frame, &entry, &path) else { continue };
        if let Body::Dir { node, .. } = entry.body {
            let Ok(folder) = folder.dir(&entry.name) else { continue };
            stack.push(super::Frame {
                entries: Dir::new(shared.source, node).entries(),
                entry,
                folder: Some(Arc::new(folder)),
                path_len: path.len(),
                included,
                plan,
                touched: false,
            });
        } else if included && content(&entry).is_some() {
            found(Task { folder, entry, path: path.clone() });
        }
    }
    Ok(())
}

fn compare(shared: &Shared<'_>, task: &Task, buf: &mut Vec<u8>) -> Result<(), String> {
    let Some(map) = content(&task.entry) else { return Ok(()) };
    let fd: OwnedFd =
        task.folder.file(&task.entry.name, OFlags::empty()).map_err(|e| e.to_string())?;
    let size = meta_of(&fd).map_err(|e| e.to_string())?.size;
    if size != map.len() {
        return Err(format!("it has {size} bytes, not {}", map.len()));
    }
    let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Sequential);
    for step in MapReader::new(shared.source, map, 0) {
        if shared.progress.is_canceled() {
            return Ok(());
        }
        let (offset, extent) = step.map_err(|e| e.to_string())?;
        let Extent::Data { id, len } = extent else { continue };
        buf.resize(len as usize, 0);
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(&fd, &mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(format!("it ends at {}", offset + done as u64)),
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(format!("reading at {offset}: {e}")),
            }
        }
        if !shared.source.matches(&id, buf).map_err(|e| e.to_string())? {
            return Err(format!("bytes {offset} to {} differ", offset + u64::from(len)));
        }
    }
    Ok(())
}
