//! Sections 1 and 2: setting the token, and changing it.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use strongroom_identity::{Error, Right, Secret, SetUpError};

use super::answer::{Answer, Fault, done};
use super::dispatch::Call;
use super::option::{PRINTABLE, TextOption};
use super::{Documented, Endpoint, Parameter};

const TOKEN: TextOption =
    TextOption { name: "newtoken", characters: PRINTABLE, least: 1, most: 255 };

const SETUP: &str = "jidoteki.setup";

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::POST,
    path: "/setup",
    id: SETUP,
    summary: "Set the token, or change it",
    section: "Setup",
    right: Right::SystemManage,
    parameters: &[Parameter::text(
        "newtoken",
        true,
        "The new token: 1 to 255 printable ASCII characters without spaces.",
    )],
    answers: &[Documented::bare(200, "It is set."), Documented::bare(400, "It can't be a token.")],
    run: setup,
}];

fn setup(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let identity = call.app().identity();
        let open = call.dialect.options.open_setup;
        let new = call.form.text("newtoken").unwrap_or_default();
        let (shown, given) = (call.shown.as_ref(), Secret::new(new.as_str()));
        match identity.set_up_admin_token(shown, &given, open, SETUP, &call.origin).await {
            Ok(()) => Ok(done()),
            Err(SetUpError::Forbidden(why)) => Err(Fault::new(StatusCode::FORBIDDEN, why)),
            Err(SetUpError::Refused) => Err(Fault::bare(StatusCode::FORBIDDEN)),
            Err(SetUpError::Failed(Error::Invalid { .. })) => Err(unfit(&new)),
            Err(SetUpError::Failed(error)) => Err(error.into()),
            Err(_) => Err(Fault::bare(StatusCode::BAD_REQUEST)),
        }
    }
    .boxed()
}

/// What is wrong with a token, in the original's words; without any when there is none.
fn unfit(new: &str) -> Fault {
    match TOKEN.check(new) {
        Err(fault) if !new.is_empty() => fault,
        _ => Fault::bare(StatusCode::BAD_REQUEST),
    }
}
