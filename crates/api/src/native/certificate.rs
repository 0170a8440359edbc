//! The certificate that the appliance shows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_appliance::tls::{CertificateFacts, NewCertificate};
use strongroom_identity::Right;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::hidden::Hidden;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Body, Group, Json, get, put};

pub(super) fn group() -> Group {
    let path = "/v1/system/certificate";
    Group::new(
        "Certificate",
        "What the appliance shows to clients.",
        [
            get(path, "system.certificate.show", "What the certificate says", show)
                .needs(Right::SystemView, On::Appliance)
                .fails([Code::Invalid, Code::Conflict]),
            put(path, "system.certificate.replace", "Show another certificate", replace)
                .needs(Right::SystemManage, On::Appliance)
                .fails([Code::Invalid, Code::Conflict])
                .body(4 << 20),
        ],
    )
}

/// What a certificate says of itself.
#[derive(Debug, Serialize, ToSchema)]
struct Certificate {
    /// Whose it is.
    subject: String,
    /// Who signed it.
    issuer: String,
    /// The names and addresses that it is good for.
    names: Vec<String>,
    /// From when it is valid.
    not_before: Option<Timestamp>,
    /// Until when.
    not_after: Option<Timestamp>,
    /// Its key.
    #[schema(example = "EC 256")]
    key: String,
    /// The SHA-256 of it.
    sha256: String,
}

impl From<CertificateFacts> for Certificate {
    fn from(facts: CertificateFacts) -> Self {
        let CertificateFacts { subject, issuer, names, not_before, not_after, key, sha256 } = facts;
        Self { subject, issuer, names, not_before, not_after, key, sha256 }
    }
}

async fn show(call: Call) -> Result<Json<Certificate>> {
    Ok(Json(call.app().administration().certificate().await?.into()))
}

/// Another certificate; each in PEM.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReplaceCertificate {
    /// The certificate; those that it was signed with may follow it.
    certificate: String,
    /// Its private key, RSA, EC or Ed25519, not encrypted.
    key: Hidden,
    /// Certificates that it was signed with, in any order.
    #[serde(default)]
    chain: String,
}

/// The certificate that is shown now.
#[derive(Debug, Serialize, ToSchema)]
struct ReplacedCertificate {
    /// What it says.
    certificate: Certificate,
    /// What is odd about it: it has ended, or clients may not know who signed it.
    warnings: Vec<String>,
}

async fn replace(
    call: Call,
    Body(body): Body<ReplaceCertificate>,
) -> Result<Json<ReplacedCertificate>> {
    let new = NewCertificate {
        certificate: body.certificate.into_bytes(),
        key: Zeroizing::new(body.key.0.expose().as_bytes().to_vec()),
        chain: body.chain.into_bytes(),
    };
    let (facts, warnings) = call.app().administration().replace_certificate(new).await?;
    Ok(Json(ReplacedCertificate { certificate: facts.into(), warnings }))
}
