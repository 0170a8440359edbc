//! Serves a plain file: `serve FILE ADDRESS [USER:SECRET]`, until it is ended.
#![allow(clippy::print_stdout, reason = "an example")]

#[path = "../tests/support/file.rs"]
mod file;

use std::path::Path;
use std::sync::Arc;

use strongroom_iscsi::scsi::{Identity, LogicalUnit};
use strongroom_iscsi::{AuthGroup, Credential, Limits, Server, Target};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, address, rest @ ..] = &arguments[..] else {
        return Err("serve FILE ADDRESS [USER:SECRET]".into());
    };
    let target = Target::new("iqn.2026-11.org.example:disk")?;
    let device = file::FileDevice::open(Path::new(file))?;
    let unit = LogicalUnit::new(Arc::new(device), Identity::default(), None)?;
    target.map(0, Arc::new(unit))?;
    if let Some((user, secret)) = rest.first().and_then(|user| user.split_once(':')) {
        let user = Credential::new(user, secret.as_bytes())?;
        target.set_auth(AuthGroup::open().users(vec![user])?);
    }
    let server = Server::new(Limits::default());
    server.add(target)?;
    println!("{}", server.listen(address.parse()?)?);
    loop {
        std::thread::park();
    }
}
