//! What was kept of a unit's reservations.
#![no_main]

use strongroom_iscsi::scsi::Reservations;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(taken) = Reservations::take_up(bytes)
        && let Some(kept) = taken.kept()
    {
        assert_eq!(Reservations::take_up(&kept), Some(taken));
    }
});
