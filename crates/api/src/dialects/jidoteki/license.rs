//! Section 10: the licence.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use serde::Serialize;
use strongroom_appliance::{Error, Licence};
use strongroom_identity::Right;

use super::answer::{Answer, Fault, found};
use super::dispatch::Call;
use super::{Documented, Endpoint, JSON, Parameter};

const PATH: &str = "/license";
const SECTION: &str = "License";
const FOUND: Documented = Documented::found(JSON, "What it says.");

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: PATH,
        id: "jidoteki.license.set",
        summary: "Put another licence in the place of the one there is",
        section: SECTION,
        right: Right::SystemManage,
        parameters: &[Parameter::file(
            "license",
            true,
            "A licence, as docs/licences.md describes it.",
        )],
        answers: &[FOUND, Documented::bare(400, "It can't be believed; nothing changed.")],
        run: set,
    },
    Endpoint::get(
        SECTION,
        PATH,
        "jidoteki.license",
        "The licence",
        Right::SystemView,
        &[FOUND, Documented::bare(404, "There is none that can be believed.")],
        show,
    ),
];

/// In the order of the original's document.
#[derive(Debug, Serialize)]
struct License {
    app: String,
    users: u32,
    expires: String,
    name: String,
    contact: String,
}

impl From<Licence> for License {
    fn from(licence: Licence) -> Self {
        let Licence { app, users, expires, name, contact, .. } = licence;
        let expires = match expires {
            Some(day) => day.strftime("%-d %B %Y").to_string(),
            None => "never".to_owned(),
        };
        Self { app, users, expires, name, contact }
    }
}

fn set(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let text = call.form.text("license").filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Fault::bare(StatusCode::BAD_REQUEST))?;
        let set = call.app().licences(move |all| all.set(text.as_bytes()));
        Ok(found(&License::from(set.await?)))
    }
    .boxed()
}

fn show(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let licence = call.app().licences(|all| match all.current() {
            // Why it can't be believed is told natively.
            Err(Error::LicenceKept(_)) => Ok(None),
            current => current,
        });
        let licence = licence.await?;
        Ok(found(&License::from(licence.ok_or_else(Fault::not_found)?)))
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn it_is_written_as_the_document_has_it() {
        let licence = Licence {
            serial: "1".into(),
            app: "enterprise".into(),
            users: 20,
            issued: "2026-11-27".parse().unwrap(),
            expires: Some("2038-01-19".parse().unwrap()),
            name: "Enterprise Company".into(),
            contact: "cto@enterprise".into(),
        };
        let told =
            |licence: &Licence| serde_json::to_string(&License::from(licence.clone())).unwrap();
        let expected = concat!(
            r#"{"app":"enterprise","users":20,"expires":"19 January 2038","#,
            r#""name":"Enterprise Company","contact":"cto@enterprise"}"#
        );
        assert_eq!(told(&licence), expected);
        let endless = Licence { expires: None, ..licence.clone() };
        assert!(told(&endless).contains(r#""expires":"never""#));
        let padded = Licence { expires: Some("2027-03-05".parse().unwrap()), ..licence };
        assert!(told(&padded).contains(r#""expires":"5 March 2027""#));
    }
}
