//! A PostgreSQL server for tests: prints its URL, and ends when standard input does.
#![allow(clippy::print_stdout, reason = "its output is the URL")]

use strongroom_catalog::testing::Server;

fn main() -> std::io::Result<()> {
    let server = Server::start();
    println!("{}", server.address());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
