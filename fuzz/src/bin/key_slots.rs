//! Key slots and the keyring, as the superblock holds them.
#![no_main]

use strongroom_engine::codec::{Reader, Writer};
use strongroom_engine::keys::{Keyring, Protection};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(protection) = Protection::decode(&mut Reader::new(bytes)) {
        let mut writer = Writer::new();
        protection.encode(&mut writer);
        let record = writer.finish();
        let again = Protection::decode(&mut Reader::new(&record));
        assert!(again.is_ok());
    }
    let _ = Keyring::decode(bytes);
});
