//! A package of an update: of our own form, and of Jidoteki Admin's, whose archives are looked at as
//! they are once they were decrypted and their signature was right.
#![no_main]

use std::io::{Cursor, sink};

use strongroom_appliance::updates::{ForeignPackage, Package, UpdateVerifier, Version};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut verifier = UpdateVerifier::default();
    let _ = verifier.add_pem(bytes);
    let mut from = Cursor::new(bytes);
    if let Ok(package) = Package::read(&mut from, bytes.len() as u64) {
        let manifest = package.manifest();
        assert!(manifest.program.bytes <= bytes.len() as u64);
        // Each package has one text.
        assert!(bytes.starts_with(manifest.to_string().as_bytes()));
        assert!(package.verify(&verifier).is_err());
        let _ = package.unpack(&mut from, None, |_| Ok(sink()));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(version) = text.parse::<Version>()
    {
        assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
    }
    let dir = std::env::temp_dir().join(format!("strongroom-fuzz-{}", std::process::id()));
    let _ = std::fs::create_dir(&dir);
    let _ = ForeignPackage::fuzz(bytes, &dir);
    // Nothing is beside it.
    let _ = std::fs::remove_dir_all(&dir);
});
