//! Serves a file, or memory, as the only export of a server of NBD:
//!
//!     cargo run --release -p strongroom-nbd --example nbd_serve -- /srv/disk.img 127.0.0.1:10809
//!     cargo run --release -p strongroom-nbd --example nbd_serve -- memory:1073741824 /run/nbd.sock
//!
//! It is what the crate is measured with, against `qemu-nbd` and `nbdkit` with the same file.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use strongroom_block::testing::MemoryDevice;
use strongroom_block::{
    BlockDevice, Content, Durability, Error, Extent, Geometry, Result, Zeroing,
};
use strongroom_nbd::{Denied, Export, Exports, Listed, Options, Peer, Server};

/// A file of a filesystem that knows holes.
#[derive(Debug)]
struct FileDevice {
    file: File,
    geometry: Geometry,
}

fn failed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull => Error::NoSpace,
        _ => Error::Failed(error.to_string()),
    }
}

impl FileDevice {
    fn open(path: &str) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let size = file.metadata()?.len() / 512 * 512;
        let geometry = Geometry {
            size,
            block: 512,
            physical: 4096,
            optimal: 65536,
            read_only: false,
            thin: true,
        };
        Ok(Self { file, geometry })
    }

    fn made_durable(&self, durability: Durability) -> Result<()> {
        match durability {
            Durability::Now => self.flush(),
            Durability::Later => Ok(()),
        }
    }

    fn fallocate(&self, flags: FallocateFlags, offset: u64, length: u64) -> Result<()> {
        let done = rustix::fs::fallocate(&self.file, flags, offset, length);
        done.map_err(|error| failed(error.into()))
    }
}

impl BlockDevice for FileDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.geometry.check(offset, buffer.len() as u64)?;
        let read = self.file.read_exact_at(buffer, offset);
        read.map_err(|error| Error::Unreadable { offset, why: error.to_string() })
    }

    fn write_at(&self, offset: u64, bytes: &[u8], durability: Durability) -> Result<()> {
        self.geometry.check(offset, bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset).map_err(failed)?;
        self.made_durable(durability)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        zeroing: Zeroing,
        durability: Durability,
    ) -> Result<()> {
        self.geometry.check(offset, length)?;
        if length > 0 {
            let how = match zeroing {
                Zeroing::MayUnmap => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                Zeroing::Keep => FallocateFlags::ZERO_RANGE,
            };
            self.fallocate(how, offset, length)?;
        }
        self.made_durable(durability)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.write_zeroes(offset, length, Zeroing::MayUnmap, Durability::Later)
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(failed)
    }

    fn compare_and_write(&self, _: u64, _: &[u8], _: &[u8], _: Durability) -> Result<Option<u64>> {
        Err(Error::Unsupported("compare and write as one step"))
    }

    fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>> {
        self.geometry.check(offset, length)?;
        let (mut at, end) = (offset, offset + length);
        let mut extents = Vec::new();
        while at < end && extents.len() < most.max(1) {
            let seek = |what| match rustix::fs::seek(&self.file, what) {
                Ok(found) => Ok(found.clamp(at, end)),
                // Nothing but a hole from here on.
                Err(rustix::io::Errno::NXIO) => Ok(end),
                Err(error) => Err(Error::Unreadable { offset: at, why: error.to_string() }),
            };
            let data = seek(SeekFrom::Data(at))?;
            let (to, content) = match data > at {
                true => (data, Content::Hole),
                false => (seek(SeekFrom::Hole(at))?.max(at + 512).min(end), Content::Data),
            };
            extents.push(Extent { offset: at, length: to - at, content });
            at = to;
        }
        Ok(extents)
    }

    fn id(&self) -> [u8; 16] {
        *b"a file as device"
    }
}

/// One export, of any name.
#[derive(Debug)]
struct Only(Arc<dyn BlockDevice>);

impl Exports for Only {
    fn list(&self, _: &Peer) -> std::result::Result<Vec<Listed>, Denied> {
        Ok(vec![Listed { name: String::new(), description: String::new() }])
    }

    fn open(&self, name: &str, _: &Peer) -> std::result::Result<Export, Denied> {
        let device = Arc::clone(&self.0);
        Ok(Export {
            name: name.to_owned(),
            description: String::new(),
            device,
            read_only: false,
            watch: None,
        })
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(what), Some(at)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: serve FILE|memory:BYTES ADDRESS:PORT|SOCKET"));
    };
    let device: Arc<dyn BlockDevice> = match what.strip_prefix("memory:") {
        Some(size) => Arc::new(MemoryDevice::new(size.parse().map_err(io::Error::other)?)),
        None => Arc::new(FileDevice::open(&what)?),
    };
    let server = Server::new(Arc::new(Only(device)), Options::default());
    match at.starts_with('/') {
        true => server.listen_unix(UnixListener::bind(&at)?)?,
        false => drop(server.listen_tcp(TcpListener::bind(&at)?)?),
    }
    println!("serving {what} at {at}");
    loop {
        std::thread::park();
    }
}
