//! Four eyes: deeds that need a second administrator.
//!
//! A setting names the operations. For one of those, [`decide`](crate::decide()) says that it needs
//! approval; [`Identity::admit`] then asks for it, or lets the same request of the same asker pass
//! once when another has approved it in time. Who may approve is a user with the right
//! `approval.decide` where the object is, who is not the asker, nor acts for the asker, nor the
//! other way round, and who logged in: keys don't count. Whoever relies on it should switch on the
//! class `accounts` too: one who may make users could make the second pair of eyes.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity::{Approval, User};
use strongroom_catalog::settings::Setting;

use crate::audit::{Deed, Who};
use crate::clock::after;
use crate::decide::Object;
use crate::identity::Identity;
use crate::principal::Principal;
use crate::rights::Right;
use crate::users::check_text;
use crate::{Error, Result};

/// The name of the setting.
const SETTING: &str = "approvals";
/// What one may have asked for at once, undecided.
const ASKED: usize = 100;
/// Operations on the list, at most.
const OPERATIONS: usize = 1000;

/// Operations that are put under four eyes together. What is kept is the name: a version that
/// knows more such operations asks for approval of these too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name, which keeps its meaning.
    pub name: &'static str,
    /// What its operations do.
    pub meaning: &'static str,
    /// Their ids.
    pub operations: &'static [&'static str],
}

/// All classes.
pub const CLASSES: &[Class] = &[
    Class {
        name: "deletion",
        meaning: "deleting data: forgetting images, by name or by rules; removing volumes and \
                  snapshots, and rolling volumes back",
        operations: &[
            "images.forget",
            "jidoteki.backup.restore",
            "ngx.lun.delete",
            "ngx.snapshot.delete",
            "ngx.snapshot.delete_all",
            "ngx.snapshot.restore",
            "pools.forget",
            "snapshots.remove",
            "snapshots.restore",
            "system.backup.restore",
            "volumes.remove",
        ],
    },
    Class {
        name: "retention",
        meaning: "shortening retention: of an image, by rules, of a volume's snapshots, and how \
                  long jobs, events and the like are kept",
        operations: &[
            "images.retain",
            "jidoteki.backup.restore",
            "ngx.snapshot.delete_schedule",
            "ngx.snapshot.set_schedule",
            "pools.forget",
            "settings.change",
            "settings.reset",
            "system.backup.restore",
            "volumes.schedule.remove",
            "volumes.schedule.set",
        ],
    },
    Class {
        name: "protection",
        meaning: "switching protection off: letting go of pools and their secrets, and of all that \
                  the appliance knows; another program, other storage, another network; sending the \
                  audit trail elsewhere or nowhere, limits of jobs and logins, second factors of others; \
                  letting others in to targets",
        operations: &[
            "audit.sender.remove",
            "audit.sender.set",
            "auth_groups.add_initiator",
            "auth_groups.change",
            "auth_groups.remove_initiator",
            "jidoteki.backup.download",
            "jidoteki.backup.restore",
            "jidoteki.backup.start",
            "jidoteki.reboot",
            "jidoteki.settings.set",
            "jidoteki.storage.set",
            "jidoteki.update.install",
            "ngx.auth_group.change",
            "ngx.auth_group.delete_chap",
            "ngx.auth_group.set_chap",
            "ngx.target.change",
            "pools.change_key",
            "pools.remove",
            "pools.remove_key",
            "portal_groups.add_portal",
            "settings.change",
            "settings.reset",
            "system.backup.download",
            "system.backup.restore",
            "system.backup.start",
            "system.backup.store",
            "system.network.set",
            "system.restart",
            "system.storage.clear",
            "system.storage.set",
            "system.updates.install",
            "system.updates.rollback",
            "targets.change",
            "users.second_factor.remove",
        ],
    },
    Class {
        name: "accounts",
        meaning: "making the second pair of eyes oneself: users, their passwords and roles, \
                  directories and issuers",
        operations: &[
            "directories.change",
            "directories.create",
            "issuers.change",
            "issuers.create",
            "jidoteki.backup.restore",
            "roles.change",
            "system.backup.restore",
            "users.change",
            "users.create",
            "users.grant",
            "users.password",
            "users.second_factor.remove",
        ],
    },
];

/// Which operations need a second administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FourEyes {
    /// Their ids.
    pub operations: BTreeSet<String>,
    /// The names of [`CLASSES`] whose operations do too.
    #[serde(default)]
    pub classes: BTreeSet<String>,
    /// Hours from asking in which it must be decided and done.
    pub hours: u32,
}

impl Default for FourEyes {
    /// None; a day.
    fn default() -> Self {
        Self { operations: BTreeSet::new(), classes: BTreeSet::new(), hours: 24 }
    }
}

impl FourEyes {
    /// All operations that do, named or of a class. Of a class that only a newer version knows
    /// nothing is known.
    pub fn all(&self) -> BTreeSet<String> {
        let classes = CLASSES.iter().filter(|class| self.classes.contains(class.name));
        let of_classes = classes.flat_map(|class| class.operations).map(|&id| id.to_owned());
        of_classes.chain(self.operations.iter().cloned()).collect()
    }
}

/// What is set, and which version of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FourEyesSet {
    /// Which operations.
    pub rules: FourEyes,
    /// Counts changes, from 0 for what was never set.
    pub version: i64,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It was approved; go on. It won't pass again.
    Pass,
    /// It waits for another to approve it.
    Asked {
        /// The approval's number.
        id: i64,
        /// Until when it can be approved and done.
        expires_at: Timestamp,
    },
    /// It was refused, and stays so until then.
    Refused {
        /// The approval's number.
        id: i64,
        /// Until when.
        expires_at: Timestamp,
    },
}

impl Identity {
    /// Which operations need a second administrator.
    ///
    /// # Errors
    /// Those of the catalogue; [`Error::State`] when the setting can't be read: nothing is let
    /// through for that.
    pub async fn four_eyes(&self) -> Result<FourEyesSet> {
        let setting = self.inner.catalog.find_one::<Setting>(Setting::by_name(SETTING)).await?;
        let Some(setting) = setting else { return Ok(FourEyesSet::default()) };
        let damaged = "the setting `approvals` is damaged: put the catalogue back";
        let rules = serde_json::from_str(&setting.value).map_err(|_| Error::State(damaged))?;
        Ok(FourEyesSet { rules, version: setting.version })
    }

    /// Says which operations need a second administrator, if that has this version still (None:
    /// whichever it has). Needs the right `settings.manage` in the topmost organisation; the
    /// operation [`FOUR_EYES`](crate::FOUR_EYES) needs a second administrator itself as long as
    /// any does, which is up to the caller as for all others. A class is switched on only where
    /// two may approve: the one who is left alone could not even switch it off.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Invalid`], [`Error::State`];
    /// [`Changed`](strongroom_catalog::Error::Changed).
    pub async fn set_four_eyes(
        &self,
        by: &Principal,
        four_eyes: FourEyes,
        version: Option<i64>,
    ) -> Result<FourEyesSet> {
        by.require_whole()?;
        by.require(Right::SettingsManage, by.root(), "setting")?;
        if !(1..=24 * 30).contains(&four_eyes.hours) {
            return Err(Error::Invalid { field: "hours", why: "it takes 1 to 720".into() });
        }
        if four_eyes.operations.len() > OPERATIONS {
            let why = format!("there may be {OPERATIONS} at most");
            return Err(Error::Invalid { field: "operations", why });
        }
        for operation in &four_eyes.operations {
            check_text("operations", operation, 128)?;
        }
        for class in &four_eyes.classes {
            if !CLASSES.iter().any(|known| known.name == class) {
                let known: Vec<_> = CLASSES.iter().map(|known| known.name).collect();
                let why = format!("there is no class `{class}`; there are {}", known.join(", "));
                return Err(Error::Invalid { field: "classes", why });
            }
        }
        let value = serde_json::to_string(&four_eyes)
            .map_err(|_| Error::State("the setting `approvals` can't be written"))?;
        let mut change = self.change(Who::from(by)).await?;
        if !four_eyes.classes.is_empty() {
            let deciders = User::with_right(Right::ApprovalDecide.name());
            if change.tx().find::<User>(deciders).await?.len() < 2 {
                return Err(Error::State(
                    "there are not yet two users who may approve: make a second administrator",
                ));
            }
        }
        Setting::put(change.tx(), SETTING, &value, self.inner.clock.now(), version).await?;
        change.commit(Deed::new(crate::FOUR_EYES, SETTING).detail(value)).await?;
        self.four_eyes().await
    }

    /// For what [`decide`](crate::decide()) says needs approval: lets it pass when another has
    /// approved this same request, else asks for that. `object` is for people; `request` is a hash
    /// of all that says what will be done.
    ///
    /// # Errors
    /// [`Error::State`] when too much is asked for already; those of the catalogue.
    pub async fn admit(
        &self,
        by: &Principal,
        operation: &str,
        of: &Object,
        object: &str,
        request: &[u8; 32],
    ) -> Result<Admission> {
        check_text("operation", operation, 128)?;
        check_text("object", object, 512)?;
        let request = data_encoding::HEXLOWER.encode(request);
        let hours = self.four_eyes().await?.rules.hours;
        let now = self.inner.clock.now();
        let asker = asker(by);
        let mut change = self.change(Who::from(by)).await?;
        let open = Approval::open(&asker, operation, object, &request, now);
        let open = change.tx().find::<Approval>(open).await?;
        let organisation_id = of.organisation.unwrap_or(by.root());
        let named = |id: i64| format!("approval {id}: {object}");
        if let Some(approved) = open.iter().find(|approval| approval.state == "approved") {
            let id = approved.id;
            if Approval::consume(change.tx(), id).await? {
                let deed = Deed::new("approval.use", named(id)).detail(operation);
                change.commit(deed.within(organisation_id)).await?;
                return Ok(Admission::Pass);
            }
        }
        if let Some(newest) = open.first() {
            let (id, expires_at) = (newest.id, newest.expires_at);
            return Ok(match newest.state.as_str() {
                "refused" => Admission::Refused { id, expires_at },
                _ => Admission::Asked { id, expires_at },
            });
        }
        let asked = change.tx().find::<Approval>(Approval::asked_by(&asker, now)).await?;
        if asked.len() >= ASKED {
            return Err(Error::State(
                "too much that you asked for waits for approval: have it decided",
            ));
        }
        let hour = Duration::from_secs(3600);
        let approval = Approval {
            id: 0,
            organisation_id,
            operation: operation.into(),
            object: object.into(),
            request,
            asked_by: by.user_id,
            asker,
            asked_at: now,
            expires_at: after(now, hour * hours),
            state: "asked".into(),
            decided_by: None,
            decided_at: None,
        };
        let id = approval.insert(change.tx()).await?;
        let deed = Deed::new("approval.ask", named(id)).detail(operation).within(organisation_id);
        change.commit(deed).await?;
        Ok(Admission::Asked { id, expires_at: approval.expires_at })
    }

    /// Approves or refuses what another asks for.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for one who is not another; [`Error::State`] when it is decided or too
    /// late; [`Error::NotFound`].
    pub async fn decide_approval(
        &self,
        by: &Principal,
        id: i64,
        approve: bool,
    ) -> Result<Approval> {
        by.require_whole()?;
        if by.key_id.is_some() {
            // Who may make keys for others could be their eyes too.
            let why = "it takes a person to approve: log in, keys are for programs".into();
            return Err(Error::Forbidden { why });
        }
        let mut change = self.change(Who::from(by)).await?;
        let none = Error::NotFound { what: "approval" };
        let approval = change.tx().find_one::<Approval>(Approval::by_id(id)).await?.ok_or(none)?;
        by.require(Right::ApprovalDecide, approval.organisation_id, "approval")?;
        let user = by.require_user()?;
        self.is_another(&mut change, by, &approval).await?;
        let now = self.inner.clock.now();
        let state = if approve { "approved" } else { "refused" };
        if !Approval::decide(change.tx(), id, state, user, now).await? {
            return Err(Error::State("this was decided already, or it is too late: ask again"));
        }
        let operation = if approve { "approval.approve" } else { "approval.refuse" };
        let deed = Deed::new(operation, format!("approval {id}: {}", approval.object));
        let deed = deed.detail(format!("{} of {}", approval.operation, approval.asker));
        let decided = change.tx().find_one::<Approval>(Approval::by_id(id)).await?;
        change.commit(deed.within(approval.organisation_id)).await?;
        decided.ok_or(Error::NotFound { what: "approval" })
    }

    /// Refuses the asker, and whoever acts for the asker or for whom the asker acts.
    async fn is_another(
        &self,
        change: &mut crate::change::Change<'_>,
        by: &Principal,
        approval: &Approval,
    ) -> Result<()> {
        let mut same = by.user_id.is_some() && by.user_id == approval.asked_by;
        if let (Some(asker), Some(me)) = (approval.asked_by, by.user_id) {
            let asker = change.tx().find_one::<User>(User::by_id(asker)).await?;
            let acted_for = asker.and_then(|asker| asker.delegate_of);
            same |= by.delegate_of == approval.asked_by || acted_for == Some(me);
            same |= by.delegate_of.is_some() && by.delegate_of == acted_for;
        }
        if same {
            let why = "another than the one who asks must decide".into();
            return Err(Error::Forbidden { why });
        }
        Ok(())
    }
}

/// Who asks: users by number, for names can change hands; others by name.
fn asker(by: &Principal) -> String {
    match by.user_id {
        Some(id) => format!("{} (user {id})", by.name),
        None => by.name.clone(),
    }
}
