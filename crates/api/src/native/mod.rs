//! The native interface, `/v1`: the whole appliance.

mod acme;
mod approvals;
mod audit;
mod backup;
mod certificate;
mod directories;
mod events;
mod hidden;
mod images;
mod ingests;
mod issuers;
mod jobs;
mod keys;
mod license;
mod me;
mod network;
mod organisations;
mod paths;
mod pieces;
mod pools;
mod readers;
mod roles;
mod sessions;
mod settings;
mod slots;
mod snapshots;
mod sources;
mod start;
mod stats;
mod storage;
mod support;
mod system;
mod token;
mod updates;
mod users;
mod volumes;
mod work;

use serde::{Deserialize, Deserializer};

pub(crate) use self::jobs::accepted;
pub(crate) use self::license::License;
use crate::route::Routes;

/// For a field of a change whose null says something: what is there is some, be it null; with
/// `#[serde(default)]` what is left out is none.
fn given<'de, D, T>(value: D) -> std::result::Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(value).map(Some)
}

/// All native routes.
pub fn routes() -> Routes {
    Routes::new(
        "Strongroom",
        TEXT,
        vec![
            sessions::group(),
            me::group(),
            pools::group(),
            slots::group(),
            images::group(),
            ingests::group(),
            readers::group(),
            volumes::group(),
            snapshots::group(),
            work::group(),
            jobs::group(),
            events::group(),
            users::group(),
            roles::group(),
            organisations::group(),
            keys::group(),
            directories::group(),
            issuers::group(),
            approvals::group(),
            settings::group(),
            stats::group(),
            audit::group(),
            system::group(),
            token::group(),
            certificate::group(),
            network::group(),
            acme::group(),
            license::group(),
            support::group(),
            storage::group(),
            backup::group(),
            updates::group(),
        ],
    )
}

const TEXT: &str = "\
Everything the appliance can do. Who asks is told by `Authorization: Bearer` with the token of a \
session, an API key, or a token of an issuer that was set up; on the appliance itself the control socket needs neither.

Errors are problem details (RFC 9457); their `code` never changes its meaning. Lists take `filter`, \
`sort`, `offset`, `limit` and, where there is something to look for, `keyword`; OPTIONS tells their \
fields and HEAD counts. What takes long is a job: the answer is 202 and names it. Times are RFC 3339 \
in UTC, sizes are bytes.

What makes something takes an `Idempotency-Key`: the same request sent again with it has the same \
answer, which is kept sealed, and makes nothing more; whether what it made is still there is another \
matter. Logging in takes none: who sends it again is not known before the answer, so that whoever \
has the key could be given another's token. It opens a second session, and the first ends unused.";
