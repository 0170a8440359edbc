//! Storage that is attached to the appliance.

use serde::{Deserialize, Serialize};
use strongroom_appliance::{StorageKind, StorageSettings, StorageStatus, StorageValue};
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::hidden::Hidden;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Body, Empty, Group, Json, delete, get, put};

pub(super) fn group() -> Group {
    let path = "/v1/system/storage";
    Group::new(
        "Storage",
        "Storage beside the data directory, attached when the appliance starts: a share of NFS, or a \
         disk by ATA over Ethernet, iSCSI or NBD. A disk of a pool can be at `path` then.",
        [
            get(path, "system.storage.show", "What is attached, and what can be", show)
                .needs(Right::SystemView, On::Appliance)
                .fails([Code::Conflict]),
            put(path, "system.storage.set", "Attach other storage from the next start on", set)
                .needs(Right::SystemManage, On::Appliance)
                .fails([Code::Invalid, Code::InProgress, Code::Conflict]),
            delete(path, "system.storage.clear", "Attach none from the next start on", clear)
                .needs(Right::SystemManage, On::Appliance)
                .fails([Code::InProgress, Code::Conflict]),
        ],
    )
}

/// Where storage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StorageWord {
    /// A directory in the data directory.
    Local,
    /// A share of an NFS server.
    Nfs,
    /// A disk by ATA over Ethernet.
    Aoe,
    /// A disk by iSCSI.
    Iscsi,
    /// A disk by the protocol of network block devices.
    Nbd,
}

impl From<StorageKind> for StorageWord {
    fn from(kind: StorageKind) -> Self {
        match kind {
            StorageKind::Local => Self::Local,
            StorageKind::Nfs => Self::Nfs,
            StorageKind::Aoe => Self::Aoe,
            StorageKind::Iscsi => Self::Iscsi,
            StorageKind::Nbd => Self::Nbd,
        }
    }
}

impl From<StorageWord> for StorageKind {
    fn from(word: StorageWord) -> Self {
        match word {
            StorageWord::Local => Self::Local,
            StorageWord::Nfs => Self::Nfs,
            StorageWord::Aoe => Self::Aoe,
            StorageWord::Iscsi => Self::Iscsi,
            StorageWord::Nbd => Self::Nbd,
        }
    }
}

/// Declares what has the values of all types, and some fields more.
macro_rules! with_values {
    (
        $(#[$meta:meta])*
        struct $name:ident {
            $($(#[$attribute:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        struct $name {
            /// Where it is.
            #[serde(rename = "type")]
            kind: StorageWord,
            /// `nfs`: options of the share, as `noacl,sync`.
            mount_options: Option<String>,
            /// `nfs`, `iscsi`, `nbd`: the server's address, IPv4 or IPv6.
            ip: Option<String>,
            /// `nfs`: the share's path on the server, as `/nfs/storage`.
            share: Option<String>,
            /// `aoe`: the disk, by shelf and slot, as `e0.1`.
            device: Option<String>,
            /// `iscsi`: the target, as `iqn.2016-01.com.example:storage.lun1`.
            target: Option<String>,
            /// `iscsi`: as whom one logs in (CHAP).
            username: Option<String>,
            /// `nbd`: the name of the device on the server.
            export_name: Option<String>,
            $($(#[$attribute])* $field: $type,)*
        }
    };
}

with_values! {
    /// What is set; null: it is not of this type. A password is not shown.
    #[derive(Debug, Serialize, ToSchema)]
    struct SystemStorageSettings {
        /// `nbd`: the server's port.
        port: Option<String>,
    }
}

/// What can be done of a type.
#[derive(Debug, Serialize, ToSchema)]
struct SystemStorageType {
    /// Which.
    #[serde(rename = "type")]
    kind: StorageWord,
    /// Whether it may be set: the configuration can leave it out.
    offered: bool,
    /// Whether this machine can attach it.
    possible: bool,
    /// Why not.
    lacks: Vec<String>,
}

/// What is set, and what came of it.
#[derive(Debug, Serialize, ToSchema)]
struct SystemStorage {
    /// What is set.
    settings: Option<SystemStorageSettings>,
    /// `nothing` is set and attached; the next start attaches or detaches it (`waits`); it is
    /// `attached`; or that has `failed`.
    #[schema(example = "attached")]
    state: &'static str,
    /// Where something is attached now.
    path: Option<String>,
    /// Why it could not be attached.
    error: Option<String>,
    /// All types.
    types: Vec<SystemStorageType>,
}

impl From<StorageStatus> for SystemStorage {
    fn from(status: StorageStatus) -> Self {
        let StorageStatus { settings, state, path, error, types, .. } = status;
        let settings = settings.map(|settings| SystemStorageSettings {
            kind: settings.kind().into(),
            mount_options: settings.text("mount_options"),
            ip: settings.text("ip"),
            share: settings.text("share"),
            device: settings.text("device"),
            target: settings.text("target"),
            username: settings.text("username"),
            export_name: settings.text("export_name"),
            port: settings.text("port"),
        });
        let types = types.into_iter().map(|one| SystemStorageType {
            kind: one.kind.into(),
            offered: one.offered,
            possible: one.lacks.is_empty(),
            lacks: one.lacks,
        });
        let path = path.map(|path| path.display().to_string());
        Self { settings, state: state.word(), path, error, types: types.collect() }
    }
}

async fn show(call: Call) -> Result<Json<SystemStorage>> {
    Ok(Json(call.app().administration().storage_options().await?.into()))
}

with_values! {
    /// Where storage is, and what is needed for that; nothing that belongs to another type.
    #[derive(Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    struct SetSystemStorage {
        /// `iscsi`: with which password. It is kept sealed.
        password: Option<Hidden>,
        /// `nbd`: the server's port.
        #[schema(minimum = 1, maximum = 65535)]
        port: Option<u16>,
    }
}

async fn set(call: Call, Body(body): Body<SetSystemStorage>) -> Result<Json<SystemStorage>> {
    let password = body.password.map(|given| given.0.expose().to_owned());
    let given = [
        ("mount_options", body.mount_options),
        ("ip", body.ip),
        ("share", body.share),
        ("device", body.device),
        ("target", body.target),
        ("username", body.username),
        ("password", password),
        ("export_name", body.export_name),
        ("port", body.port.map(|port| port.to_string())),
    ];
    let given =
        given.into_iter().filter_map(|(name, text)| Some((name, StorageValue::Text(text?))));
    let settings = StorageSettings::new(body.kind.into(), given)?;
    Ok(Json(call.app().administration().set_storage_options(settings).await?.into()))
}

async fn clear(call: Call) -> Result<Empty> {
    call.app().administration().clear_storage_options().await?;
    Ok(Empty)
}
