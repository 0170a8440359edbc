//! What the catalogue says is to be served here.

use std::collections::{BTreeMap, HashMap};

use strongroom_catalog::Catalog;
use strongroom_catalog::targets::{AuthGroup, ChapSecrets, Initiator, Lun, Portal, Target};
use strongroom_iscsi as iscsi;

use super::auth_groups;
use crate::{Error, Result, Sealer};

/// A target that is to be served.
#[derive(Debug)]
pub(super) struct WantedTarget {
    pub(super) row: Target,
    /// Who may log in; or why nobody may.
    pub(super) auth: Result<iscsi::AuthGroup, String>,
    pub(super) luns: Vec<Lun>,
}

/// What is to be served here.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) targets: BTreeMap<i64, WantedTarget>,
    /// The addresses of the portal groups that these targets have.
    pub(super) portals: BTreeMap<i64, Vec<String>>,
    /// Targets of which a volume is on this other machine.
    pub(super) elsewhere: HashMap<i64, String>,
}

impl Wanted {
    pub(super) async fn read(catalog: &Catalog, sealer: &dyn Sealer, node: &str) -> Result<Self> {
        let mut luns: HashMap<i64, Vec<Lun>> = HashMap::new();
        for lun in catalog.find::<Lun>(Lun::all()).await? {
            luns.entry(lun.target_id).or_default().push(lun);
        }
        let groups = auth(catalog, sealer).await?;
        let mut wanted = Self::default();
        for row in catalog.find::<Target>(Target::all()).await? {
            if !row.enabled {
                continue;
            }
            let luns = luns.remove(&row.id).unwrap_or_default();
            let other = luns.iter().find(|lun| !lun.node.is_empty() && lun.node != node);
            if let Some(other) = other {
                wanted.elsewhere.insert(row.id, other.node.clone());
                continue;
            }
            let auth = match row.auth_group_id {
                None => Ok(iscsi::AuthGroup::open()),
                Some(id) => match groups.get(&id) {
                    Some(auth) => auth.clone(),
                    None => Err("its auth group is gone".to_owned()),
                },
            };
            wanted.portals.entry(row.portal_group_id).or_default();
            wanted.targets.insert(row.id, WantedTarget { row, auth, luns });
        }
        for portal in catalog.find::<Portal>(Portal::all()).await? {
            if let Some(portals) = wanted.portals.get_mut(&portal.portal_group_id) {
                portals.push(portal.address);
            }
        }
        Ok(wanted)
    }
}

/// All auth groups as the servers take them, by their numbers.
async fn auth(
    catalog: &Catalog,
    sealer: &dyn Sealer,
) -> Result<HashMap<i64, Result<iscsi::AuthGroup, String>>> {
    let mut initiators: HashMap<i64, Vec<String>> = HashMap::new();
    for one in catalog.find::<Initiator>(Initiator::all()).await? {
        initiators.entry(one.auth_group_id).or_default().push(one.iqn);
    }
    let secrets = catalog.find::<ChapSecrets>(ChapSecrets::all()).await?;
    let mut secrets: HashMap<i64, ChapSecrets> =
        secrets.into_iter().map(|one| (one.id, one)).collect();
    let mut groups = HashMap::new();
    for row in catalog.find::<AuthGroup>(AuthGroup::all()).await? {
        let named = initiators.remove(&row.id).unwrap_or_default();
        // One that came between the two statements is met with the next change.
        let Some(sealed) = secrets.remove(&row.id) else { continue };
        // Nor is one open because those that it names came in between.
        if named.is_empty() && row.initiators > 0 {
            continue;
        }
        let group = auth_groups::unsealed(sealer, &row, sealed)
            .and_then(|secrets| {
                // What is kept and can't be read must not become what isn't asked for.
                match (secrets.chap.is_some(), secrets.mutual.is_some())
                    == (row.chap_user.is_some(), row.mutual_user.is_some())
                {
                    true => auth_groups::group(&secrets, named.iter().map(String::as_str)),
                    false => Err(Error::Invalid(format!("a secret of {} is missing", row.name))),
                }
            })
            .map_err(|error| error.to_string());
        groups.insert(row.id, group);
    }
    Ok(groups)
}
