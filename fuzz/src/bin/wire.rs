//! What appliances and readers say to each other: answers, cut anywhere, and requests.
#![no_main]

use strongroom_archive::wire::{Parser, Request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(Request::decode(&request.encode()).as_ref(), Ok(&request));
    }
    // As one open piece, so that its parts are reached without guessing lengths; then as it is.
    let len = (bytes.len() as u32).to_le_bytes();
    let piece = [&len[..], &len[..], bytes].concat();
    for answer in [&piece[..], bytes] {
        let (mut whole, mut cut) = (Parser::default(), Parser::default());
        let (mut parts, mut again) = (0, 0);
        let read = whole.feed(answer, &mut |_| {
            parts += 1;
            Ok(())
        });
        let mut steps = answer.chunks(7);
        let read_again = steps.try_for_each(|bytes| {
            cut.feed(bytes, &mut |_| {
                again += 1;
                Ok(())
            })
        });
        assert_eq!((read.is_ok(), parts), (read_again.is_ok(), again));
    }
});
