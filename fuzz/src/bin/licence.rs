//! Licences, and the keys that they are believed by.
#![no_main]

use strongroom_appliance::{LicenceSigner, LicenceVerifier, SignedLicence};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut verifier = LicenceVerifier::default();
    let _ = verifier.add_pem(bytes);
    let _ = LicenceSigner::from_pem(bytes);
    let Ok(signed) = SignedLicence::parse(bytes) else { return };
    assert!(bytes.len() <= SignedLicence::MAX);
    let text = signed.to_string();
    assert_eq!(SignedLicence::parse(text.as_bytes()).unwrap(), signed);
    // Each licence has one text, but for what ends its lines.
    let given = String::from_utf8(bytes.to_vec()).unwrap().replace("\r\n", "\n");
    assert_eq!(given.trim_end_matches(['\r', '\n']), text.trim_end());
    assert!(verifier.verify(signed).is_err());
});
