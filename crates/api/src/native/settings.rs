//! Settings: what an administrator may change while the appliance runs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_appliance as known;
use strongroom_identity::Right;
use utoipa::{IntoParams, ToSchema};

use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Body, Group, IfMatch, Items, Path, Tagged, delete, get, patch};

pub(super) fn group() -> Group {
    Group::new(
        "Settings",
        "What may be changed while the appliance runs. All of it takes effect without a restart, \
         on other nodes of the same catalogue within seconds. What must be known before the \
         catalogue opens is in the configuration file.",
        [
            get("/v1/settings", "settings.list", "All settings", list)
                .needs(Right::SettingsView, On::Appliance),
            get("/v1/settings/{setting}", "settings.show", "A setting", show)
                .needs(Right::SettingsView, On::Appliance)
                .fails([Code::NotFound]),
            patch("/v1/settings/{setting}", "settings.change", "Change a setting", change)
                .needs(Right::SettingsManage, On::Appliance)
                .fails([Code::NotFound, Code::Invalid])
                .recorded_by_service(),
            delete(
                "/v1/settings/{setting}",
                "settings.reset",
                "Put a setting back to its default",
                reset,
            )
            .needs(Right::SettingsManage, On::Appliance)
            .fails([Code::NotFound])
            .recorded_by_service(),
        ],
    )
}

/// A setting.
#[derive(Debug, Serialize, ToSchema)]
struct Setting {
    /// Its name.
    key: &'static str,
    /// What it is, a whole number of its unit.
    value: u64,
    /// What it counts: `seconds`, `hours`, `days`, or `things`, as its meaning says.
    unit: &'static str,
    /// What it is when nobody says.
    default: u64,
    /// The least that it may be.
    least: u64,
    /// The most that it may be.
    most: u64,
    /// Where the value comes from: `default`, or `set`.
    source: &'static str,
    /// What it means.
    meaning: &'static str,
    /// When it was last changed.
    changed_at: Option<Timestamp>,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::Setting> for Setting {
    fn from(setting: known::Setting) -> Self {
        let known::Definition { key, unit, default, least, most, meaning } = *setting.definition;
        Self {
            key,
            value: setting.value,
            unit: unit.name(),
            default,
            least,
            most,
            source: match setting.source {
                known::Source::Default => "default",
                known::Source::Set => "set",
            },
            meaning,
            changed_at: setting.changed_at,
            version: setting.version,
        }
    }
}

/// Which setting.
#[derive(Debug, Deserialize, IntoParams)]
struct SettingPath {
    /// The setting's key.
    setting: String,
}

/// What a setting is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeSetting {
    /// Its new value.
    value: i64,
}

async fn list(call: Call) -> Result<Items<Setting>> {
    let all = call.app().settings().list().await?;
    let items = all.into_iter().map(Setting::from).collect();
    Ok(Items { items, more: false, count: None })
}

fn tagged(setting: known::Setting) -> Tagged<Setting> {
    let version = setting.version;
    Tagged(setting.into(), version)
}

async fn show(call: Call, Path(path): Path<SettingPath>) -> Result<Tagged<Setting>> {
    Ok(tagged(call.app().settings().show(&path.setting).await?))
}

async fn change(
    call: Call,
    Path(path): Path<SettingPath>,
    IfMatch(version): IfMatch,
    Body(body): Body<ChangeSetting>,
) -> Result<Tagged<Setting>> {
    let (settings, by) = (call.app().settings(), call.principal()?);
    Ok(tagged(settings.change(by, &path.setting, body.value, version).await?))
}

async fn reset(
    call: Call,
    Path(path): Path<SettingPath>,
    IfMatch(version): IfMatch,
) -> Result<Tagged<Setting>> {
    let (settings, by) = (call.app().settings(), call.principal()?);
    Ok(tagged(settings.reset(by, &path.setting, version).await?))
}
