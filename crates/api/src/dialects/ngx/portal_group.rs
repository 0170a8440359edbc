//! Portal groups: where targets are reached.

use futures_util::FutureExt;
use http::Method;
use serde::Serialize;
use strongroom_catalog::targets::PortalGroup;
use strongroom_identity::Object;
use strongroom_storage::{PortalDetails, PortalGroupDetails};
use utoipa::ToSchema;

use super::answer::{Answer, Fault, done, found};
use super::declared::{Endpoint, Over, Section, may, needed};
use super::dispatch::Call;
use super::{OWNER, auth_group, rows};

/// Addresses of the appliance: they are its own.
const SECTION: Section = Section {
    name: "Portal Group",
    reads: "ngx.portal_group.read",
    over: Over::Appliance,
    ..auth_group::SECTION
};

/// Where a target is reached when nobody says.
const PORT: &str = "3260";

pub(super) fn endpoints() -> Vec<Endpoint> {
    const STATE: &str = "of later software; `interface_name` is not known, null";
    vec![
        SECTION
            .get::<Vec<PortalGroupShort>>("/portal_group", "ngx.portal_group.list", "Portal groups", |call| {
                list(call).boxed()
            })
            .state("of later software"),
        SECTION
            .get::<Vec<PortalGroupShown>>("/portal_group/list", "ngx.portal_group.list_details", "Portal groups, with all that is known", |call| {
                details(call).boxed()
            })
            .state(STATE),
        SECTION
            .get::<PortalGroupShown>("/portal_group/{id}", "ngx.portal_group.show", "A portal group", |call| {
                show(call).boxed()
            })
            .state(STATE),
        SECTION
            .change(Method::POST, "/portal_group", "ngx.portal_group.create", "Make a portal group", |call| {
                create(call).boxed()
            })
            .answers::<PortalGroupShown>()
            .body(const { &[
                needed("name", "Its name."),
                may("listen_ips", "Its addresses, each with a port if it isn't 3260; none: it listens nowhere yet."),
            ] })
            .state("of later software; `listen_ips` may be said at once"),
        SECTION
            .change(Method::DELETE, "/portal_group/{id}", "ngx.portal_group.delete", "Delete a portal group", |call| {
                remove(call).boxed()
            })
            .state("of later software; 534 while a target has it"),
    ]
}

/// A portal group, in a list.
#[derive(Debug, Serialize, ToSchema)]
struct PortalGroupShort {
    id: String,
    name: String,
    owner: &'static str,
    /// As `id`.
    portal_id: String,
    /// As `name`.
    portal_name: String,
}

/// An address.
#[derive(Debug, Serialize, ToSchema)]
struct PortalAddress {
    id: String,
    interface_name: Option<String>,
    ip_address: String,
    owner: &'static str,
    port: u16,
    /// Whether the appliance listens there: it does while an enabled target is reached there.
    listening: u8,
}

/// A portal group.
#[derive(Debug, Serialize, ToSchema)]
struct PortalGroupShown {
    id: String,
    name: String,
    owner: &'static str,
    /// As `id`.
    portal_id: String,
    /// As `name`.
    portal_name: String,
    listen_ips: Vec<PortalAddress>,
}

impl From<PortalGroupDetails> for PortalGroupShown {
    fn from(details: PortalGroupDetails) -> Self {
        let PortalGroupDetails { group, portals } = details;
        let (id, name) = (group.public_id, group.name);
        let listen_ips = portals.into_iter().map(address).collect();
        Self {
            id: id.clone(),
            name: name.clone(),
            owner: OWNER,
            portal_id: id,
            portal_name: name,
            listen_ips,
        }
    }
}

fn address(details: PortalDetails) -> PortalAddress {
    let text = &details.portal.address;
    let (ip, port) = text.rsplit_once(':').unwrap_or((text, PORT));
    PortalAddress {
        ip_address: ip.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: port.parse().unwrap_or_default(),
        id: details.portal.public_id,
        interface_name: None,
        owner: OWNER,
        listening: details.listening.into(),
    }
}

/// The group of this id.
pub(super) async fn find(call: &Call, id: &str) -> Answer<PortalGroup> {
    let group: Option<PortalGroup> =
        call.app().catalog().find_one(PortalGroup::by_public_id(id)).await?;
    let group = group.ok_or_else(|| Fault::not_found("portal group"))?;
    call.may(&Object::of(group.organisation_id), "portal group")?;
    Ok(group)
}

async fn list(call: Call) -> Answer {
    let short = |group: PortalGroup| PortalGroupShort {
        id: group.public_id.clone(),
        name: group.name.clone(),
        owner: OWNER,
        portal_id: group.public_id,
        portal_name: group.name,
    };
    found(&rows::portal_groups(&call).await?.into_iter().map(short).collect::<Vec<_>>())
}

async fn details(call: Call) -> Answer {
    let all = rows::portal_groups(&call).await?;
    let all = call.app().storage().portal_groups(all).await?;
    found(&all.into_iter().map(PortalGroupShown::from).collect::<Vec<_>>())
}

async fn show(call: Call) -> Answer {
    let group = find(&call, call.id()).await?;
    found(&PortalGroupShown::from(call.app().storage().portal_group(group.id).await?))
}

async fn create(call: Call) -> Answer {
    let name = call.fields().needed(&["name", "portal_name"])?;
    let given = call.fields().texts(&["listen_ips"])?.unwrap_or_default();
    let addresses: Vec<String> = given.into_iter().map(with_port).collect();
    let organisation = call.principal().organisation_id;
    call.may(&Object::of(organisation), "organisation")?;
    let made = call.app().storage().create_portal_group(organisation, &name, &addresses).await?;
    found(&PortalGroupShown::from(made))
}

/// An address with its port.
fn with_port(text: String) -> String {
    match text.parse::<std::net::IpAddr>() {
        Ok(ip) => std::net::SocketAddr::new(ip, 3260).to_string(),
        Err(_) => text,
    }
}

async fn remove(call: Call) -> Answer {
    let group = find(&call, call.id()).await?;
    call.app().storage().remove_portal_group(group.id).await?;
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port() {
        for (given, with) in [
            ("192.0.2.1", "192.0.2.1:3260"),
            ("2001:db8::1", "[2001:db8::1]:3260"),
            ("192.0.2.1:99", "192.0.2.1:99"),
        ] {
            assert_eq!(with_port(given.into()), with);
        }
    }
}
