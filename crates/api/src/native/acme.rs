//! Certificates of an authority, by ACME.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_appliance::{AcmeSettings, AcmeStatus};
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::jobs::{Job, accepted};
use super::work::asker;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Accepted, Body, Empty, Group, Json, delete, get, post, put};

pub(super) fn group() -> Group {
    let path = "/v1/system/certificate/acme";
    let manage = (Right::SystemManage, On::Appliance);
    Group::new(
        "ACME",
        "The certificate of an authority that gives it by ACME (RFC 8555). It is asked for by a job, \
         and renewed when a third of its life is left. The authority reaches the appliance by HTTP at \
         port 80 of each name: the listener `redirect` of the configuration answers there.",
        [
            get(path, "system.certificate.acme.show", "What is set, and how it is", show)
                .needs(Right::SystemView, On::Appliance)
                .fails([Code::Invalid, Code::Conflict]),
            put(path, "system.certificate.acme.set", "Have certificates of an authority", set)
                .needs(manage.0, manage.1)
                .fails([Code::Invalid, Code::InProgress, Code::Conflict]),
            delete(path, "system.certificate.acme.clear", "Have none renewed any more", clear)
                .needs(manage.0, manage.1)
                .fails([Code::InProgress, Code::Conflict]),
            post(
                "/v1/system/certificate/acme/issue",
                "system.certificate.acme.issue",
                "Ask for a certificate now",
                issue,
            )
            .needs(manage.0, manage.1)
            .fails([Code::Invalid, Code::InProgress, Code::Conflict]),
        ],
    )
}

/// What is set, and how it is.
#[derive(Debug, Serialize, ToSchema)]
struct Acme {
    /// The address of the authority's directory; null: nothing is set.
    directory: Option<String>,
    /// Who vouches for it, in PEM; null: whom the machine trusts.
    ca_certificate: Option<String>,
    /// Mail addresses that it may write to.
    contact: Vec<String>,
    /// The names that the certificate is for.
    domains: Vec<String>,
    /// Whether the authority has an account of this appliance.
    has_account: bool,
    /// When the last certificate was given.
    issued_at: Option<Timestamp>,
    /// When it ends.
    expires_at: Option<Timestamp>,
    /// When another is asked for.
    renew_at: Option<Timestamp>,
    /// When one was asked for last.
    tried_at: Option<Timestamp>,
    /// Why that failed, or why none can be asked for.
    error: Option<String>,
}

impl From<AcmeStatus> for Acme {
    fn from(status: AcmeStatus) -> Self {
        let AcmeStatus { settings, has_account, issued_at, expires_at, renew_at, tried_at, error } =
            status;
        let (directory, ca_certificate, contact, domains) = match settings {
            Some(AcmeSettings { directory, ca_certificate, contact, domains }) => {
                (Some(directory), ca_certificate, contact, domains)
            }
            None => (None, None, Vec::new(), Vec::new()),
        };
        Self {
            directory,
            ca_certificate,
            contact,
            domains,
            has_account,
            issued_at,
            expires_at,
            renew_at,
            tried_at,
            error,
        }
    }
}

async fn show(call: Call) -> Result<Json<Acme>> {
    Ok(Json(call.app().administration().acme().await?.into()))
}

/// Which authority, and what is asked of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetAcme {
    /// The address of its directory.
    #[schema(example = "https://acme-v02.api.letsencrypt.org/directory")]
    directory: String,
    /// Who vouches for it, in PEM; without it, whom the machine trusts.
    ca_certificate: Option<String>,
    /// Mail addresses that it may write to.
    #[serde(default)]
    contact: Vec<String>,
    /// The names that the certificate is for, without wildcards: 1 to 50.
    domains: Vec<String>,
    /// That you agree to its terms; it gives nothing without.
    agree_to_terms: bool,
}

async fn set(call: Call, Body(body): Body<SetAcme>) -> Result<Json<Acme>> {
    let SetAcme { directory, ca_certificate, contact, domains, agree_to_terms } = body;
    let settings = AcmeSettings { directory, ca_certificate, contact, domains };
    Ok(Json(call.app().administration().set_acme(settings, agree_to_terms).await?.into()))
}

async fn clear(call: Call) -> Result<Empty> {
    call.app().administration().clear_acme().await?;
    Ok(Empty)
}

async fn issue(call: Call) -> Result<Accepted<Job>> {
    let asker = asker(&call, 0)?;
    Ok(accepted(call.app().administration().issue_by_acme(asker).await?))
}
