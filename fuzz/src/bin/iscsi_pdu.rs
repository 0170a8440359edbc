//! What comes from the network before anything is known of it: frames, digests, keys and values.
#![no_main]

use strongroom_iscsi::Lun;
use strongroom_iscsi::pdu::{Framing, text};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((flags, mut rest)) = bytes.split_first() else { return };
    let framing =
        Framing { header_digest: flags & 1 != 0, data_digest: flags & 2 != 0, most_data: 8192 };
    while let Ok(Some((header, data, after))) = framing.take(rest) {
        assert!(data.len() <= 8192 && after.len() < rest.len());
        // Without additional headers, which aren't written, what was taken is written and taken again.
        if header.additional() == 0 {
            let mut written = Vec::new();
            framing.write(&mut written, header, data);
            let taken = framing.take(&written).expect("it was taken before");
            assert_eq!(taken, Some((header, data, &[][..])));
        }
        if let Some(lun) = Lun::read(header.lun_bytes()) {
            assert_eq!(Lun::read(lun.write()), Some(lun));
        }
        if let Ok(pairs) = text::read(data) {
            let mut written = Vec::new();
            pairs.iter().for_each(|(key, value)| text::write(&mut written, key, value));
            assert_eq!(text::read(&written), Ok(pairs.clone()));
            for (_, value) in pairs {
                let _ = text::number(value);
                assert!(text::binary(value, 64).is_none_or(|bytes| bytes.len() <= 64));
            }
        }
        rest = after;
    }
});
