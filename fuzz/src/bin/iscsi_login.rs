//! Requests of a login, by one who may have to prove who he is.
#![no_main]

use std::sync::Arc;

use strongroom_iscsi::login::{Directory, Login, Step};
use strongroom_iscsi::pdu::Framing;
use strongroom_iscsi::{AuthGroup, Credential};

struct One(Arc<AuthGroup>);

impl Directory for One {
    type Target = ();

    fn target(&self, name: &str) -> Option<((), Arc<AuthGroup>)> {
        (name == "iqn.2026-11.org.example:t").then(|| ((), Arc::clone(&self.0)))
    }

    fn discovery(&self) -> Arc<AuthGroup> {
        Arc::clone(&self.0)
    }

    fn alias(&self, (): &()) -> Option<String> {
        None
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((flags, mut rest)) = bytes.split_first() else { return };
    let asks = flags & 1 != 0;
    let mut group = AuthGroup::open();
    if asks {
        let credential = |name, secret| Credential::new(name, secret).expect("it is long enough");
        group = group
            .users(vec![credential("user", b"secretsecret12")])
            .and_then(|group| group.mutual(credential("target", b"anothersecret1")))
            .expect("secrets differ");
    }
    let directory = One(Arc::new(group));
    let mut login = Login::new(&directory);
    while let Ok(Some((header, data, after))) = Framing::LOGIN.take(rest) {
        match login.request(&header, data) {
            Step::Send(..) => {}
            Step::Done(_, _, accepted) => {
                // Nobody guesses the answer to a random question.
                assert!(!asks);
                let terms = accepted.parameters;
                assert!(terms.first_burst <= terms.max_burst && terms.max_burst <= 1 << 20);
                assert!(terms.initiator_data >= 512);
                return;
            }
            Step::Refuse(..) => return,
        }
        rest = after;
    }
});
