//! What a route is about, and to whom that belongs.

use strongroom_catalog::{Record, Row, Sql};
use strongroom_identity::{Object, Principal, Right};

use crate::app::App;
use crate::problem::Result;

/// On what a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The appliance itself.
    Appliance,
    /// Any organisation of the caller's: a list shows what belongs to those where they have the
    /// right, and a handler asks again for what a body names.
    Any,
    /// The organisation that this parameter of the path names.
    Organisation(&'static str),
    /// The pool.
    Pool(&'static str),
    /// The image.
    Image(&'static str),
    /// The volume.
    Volume(&'static str),
    /// The snapshot of a volume.
    Snapshot(&'static str),
    /// The job.
    Job(&'static str),
    /// The user.
    User(&'static str),
    /// The API key.
    Key(&'static str),
}

struct Owner {
    organisation: i64,
    pool: Option<i64>,
}

impl Record for Owner {
    const COLUMNS: &'static str = "organisation_id, pool_id";

    fn read(row: &mut Row) -> strongroom_catalog::Result<Self> {
        Ok(Self { organisation: row.take()?, pool: row.take()? })
    }
}

impl On {
    /// The parameter of the path that names it.
    pub fn parameter(self) -> Option<&'static str> {
        match self {
            Self::Appliance | Self::Any => None,
            Self::Organisation(name)
            | Self::Pool(name)
            | Self::Image(name)
            | Self::Volume(name)
            | Self::Snapshot(name)
            | Self::Job(name)
            | Self::User(name)
            | Self::Key(name) => Some(name),
        }
    }

    /// What it is called.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Appliance => "appliance",
            Self::Any | Self::Organisation(_) => "organisation",
            Self::Pool(_) => "pool",
            Self::Image(_) => "image",
            Self::Volume(_) => "volume",
            Self::Snapshot(_) => "snapshot",
            Self::Job(_) => "job",
            Self::User(_) => "user",
            Self::Key(_) => "key",
        }
    }

    /// For the documentation.
    pub fn description(self) -> String {
        match self {
            Self::Appliance => "on the appliance".to_owned(),
            Self::Any => "in an organisation; shows what belongs to those".to_owned(),
            Self::Organisation(_) => "in that organisation".to_owned(),
            _ => format!("in the organisation of the {}", self.noun()),
        }
    }

    /// For the table of routes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            _ => self.noun(),
        }
    }

    /// Finds it by the value of its parameter. None: there is none.
    pub(super) async fn find(
        self,
        app: &App,
        principal: &Principal,
        right: Right,
        value: &str,
    ) -> Result<Option<Object>> {
        // A number that isn't one names nothing.
        let id = value.parse::<i64>().ok();
        let from = match self {
            Self::Appliance => return Ok(Some(Object::APPLIANCE)),
            Self::Any => return Ok(Some(somewhere(principal, right))),
            Self::Organisation(_) => {
                "FROM (SELECT id, id AS organisation_id, CAST(NULL AS BIGINT) AS pool_id FROM organisations) AS o WHERE id = ?"
            }
            Self::Pool(_) => {
                "FROM (SELECT id, organisation_id, id AS pool_id FROM pools) AS o WHERE id = ?"
            }
            Self::Image(_) => "FROM images WHERE id = ?",
            Self::Volume(_) => "FROM volumes WHERE id = ?",
            Self::Snapshot(_) => "FROM snapshots WHERE id = ?",
            Self::Job(_) => "FROM jobs WHERE id = ?",
            Self::User(_) => {
                "FROM (SELECT id, organisation_id, CAST(NULL AS BIGINT) AS pool_id FROM users) AS o WHERE id = ?"
            }
            Self::Key(_) => {
                "FROM (SELECT id, organisation_id, CAST(NULL AS BIGINT) AS pool_id FROM api_keys) AS o WHERE id = ?"
            }
        };
        let Some(id) = id else { return Ok(None) };
        let owner: Option<Owner> = app.catalog().find_one(Sql::new(from).bind(id)).await?;
        Ok(owner.map(|owner| {
            let object = Object::of(owner.organisation);
            owner.pool.map_or(object.clone(), |pool| object.in_pool(pool))
        }))
    }
}

/// An organisation in which the principal has the right, for a list; its own when there is none.
fn somewhere(principal: &Principal, right: Right) -> Object {
    use strongroom_catalog::list::Scope;
    match principal.scope(right) {
        Scope::All => Object::of(principal.root()),
        Scope::Organisations(ids) => {
            Object::of(ids.first().copied().unwrap_or(principal.organisation_id))
        }
    }
}
