//! Section 9: the certificate.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use serde::Serialize;
use strongroom_appliance::tls::NewCertificate;
use strongroom_appliance::works::CERTIFICATE;
use strongroom_identity::Right;
use zeroize::Zeroizing;

use super::answer::{Answer, Fault, accepted, found};
use super::dispatch::Call;
use super::job::{LINES, log, status};
use super::{Documented, Endpoint, JSON, Parameter};

const PATH: &str = "/certs";
const SECTION: &str = "TLS";

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: PATH,
        id: "jidoteki.certs.replace",
        summary: "Show another certificate",
        section: SECTION,
        right: Right::SystemManage,
        parameters: &[
            Parameter::file("public", true, "The certificate, in PEM."),
            Parameter::file("private", true, "Its private key, in PEM, not encrypted."),
            Parameter::file("ca", false, "The certificates that it was signed with, in PEM."),
        ],
        answers: &[
            Documented::bare(202, "A job looks at it and shows it."),
            Documented::bare(400, "A file is missing."),
        ],
        run: replace,
    },
    Endpoint::get(
        SECTION,
        PATH,
        "jidoteki.certs.show",
        "How the last change of the certificate went",
        Right::SystemView,
        &[Documented::found(
            JSON,
            "`running`, `success` or `failed`, and the last ten lines of its log; null when there \
             was none.",
        )],
        show,
    ),
];

fn replace(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let given = |name: &str| call.form.bytes(name).filter(|bytes| !bytes.is_empty());
        let (Some(certificate), Some(key)) = (given("public"), given("private")) else {
            return Err(Fault::bare(StatusCode::BAD_REQUEST));
        };
        let new = NewCertificate {
            certificate: certificate.to_vec(),
            key: Zeroizing::new(key.to_vec()),
            chain: given("ca").map(|chain| chain.to_vec()).unwrap_or_default(),
        };
        let administration = call.app().administration();
        match administration.replace_certificate_later(call.asker()?, new).await {
            // As with the original, the one that runs goes on.
            Ok(_) | Err(strongroom_appliance::Error::Busy { .. }) => Ok(accepted(PATH)),
            Err(error) => Err(error.into()),
        }
    }
    .boxed()
}

#[derive(Debug, Serialize)]
struct Told {
    status: Option<&'static str>,
    log: Option<String>,
}

fn show(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let last = call.app().administration().last(CERTIFICATE, LINES).await?;
        let status = last.as_ref().map(|last| status(last.job.state));
        let log = last.map(|last| log(&last.lines)).filter(|log| !log.is_empty());
        Ok(found(&Told { status, log }))
    }
    .boxed()
}
