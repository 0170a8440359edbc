//! The licence.

use serde::{Deserialize, Serialize};
use strongroom_appliance::{Licence, Licences};
use strongroom_identity::Right;
use utoipa::ToSchema;

use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{Body, Group, Json, get, put};

pub(super) fn group() -> Group {
    let path = "/v1/system/license";
    Group::new(
        "Licence",
        "What the vendor says may be used, signed. Nothing is switched off without one, or when it \
         has ended: it only informs.",
        [
            get(path, "system.license.show", "The licence", show)
                .needs(Right::SystemView, On::Appliance)
                .fails([Code::NotFound, Code::Conflict]),
            put(path, "system.license.set", "Put another in its place, if it can be believed", set)
                .needs(Right::SystemManage, On::Appliance)
                .fails([Code::Conflict]),
        ],
    )
}

/// The licence.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct License {
    /// What the vendor calls it.
    serial: String,
    /// What it is for.
    app: String,
    /// For how many users.
    users: u32,
    /// The day when it was made.
    #[schema(format = Date)]
    issued: String,
    /// The last day on which it is good; null: it never ends.
    #[schema(format = Date)]
    expires: Option<String>,
    /// Whose it is.
    name: String,
    /// How to reach them.
    contact: String,
    /// `valid` or `expired`, today in UTC.
    #[schema(example = "valid")]
    state: &'static str,
}

impl From<Licence> for License {
    fn from(licence: Licence) -> Self {
        let state = licence.state_now().word();
        let Licence { serial, app, users, issued, expires, name, contact } = licence;
        let (issued, expires) = (issued.to_string(), expires.map(|day| day.to_string()));
        Self { serial, app, users, issued, expires, name, contact, state }
    }
}

async fn show(call: Call) -> Result<Json<License>> {
    let licence = call.app().licences(Licences::current).await?;
    let licence = licence.ok_or_else(|| Problem::not_found("licence"))?;
    Ok(Json(licence.into()))
}

/// A licence, as the vendor made it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetLicense {
    /// The text of the file.
    text: String,
}

async fn set(call: Call, Body(body): Body<SetLicense>) -> Result<Json<License>> {
    let set = call.app().licences(move |all| all.set(body.text.as_bytes()));
    Ok(Json(set.await?.into()))
}
