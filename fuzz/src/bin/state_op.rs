//! The steps of a pool's history, as the journal holds them, and the state they add up to.
#![no_main]

use strongroom_engine::clock::ClockMark;
use strongroom_engine::codec::{Reader, Writer};
use strongroom_engine::state::{Op, State};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mark = [0; 18];
    let Ok(clock) = ClockMark::decode(&mut Reader::new(&mark)) else { return };
    let mut state = State::new(clock);
    let mut reader = Reader::new(bytes);
    while let Ok(op) = Op::decode(&mut reader) {
        let mut writer = Writer::new();
        op.encode(&mut writer);
        assert_eq!(Op::decode(&mut Reader::new(&writer.finish())).as_ref(), Ok(&op));
        state.apply(op);
    }
    // A snapshot builds the same state.
    let mut again = State::new(clock);
    state.snapshot().into_iter().for_each(|op| again.apply(op));
    assert_eq!(again, state);
});
