//! Tells the program for what it is built, and by which compiler.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = env::var("TARGET").expect("cargo says for what it builds");
    println!("cargo:rustc-env=STRONGROOM_TARGET={target}");
    let rustc = env::var_os("RUSTC").expect("cargo says which compiler it uses");
    // A compiler that doesn't say its version is left out.
    let version = Command::new(rustc).arg("--version").output();
    let version = version.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let version = version.unwrap_or_default();
    println!("cargo:rustc-env=STRONGROOM_RUSTC={}", version.lines().next().unwrap_or_default());
}
