//! Users, roles, rights, organisations, keys, sessions, tokens, audit; who may do what.
//!
//! [`Identity`] is all of it over an open catalogue. A request shows a [`Credential`];
//! [`Identity::authenticate`] makes a [`Principal`] of it, and [`decide()`] says whether that one may
//! do an operation to an [`Object`]. Every change goes through one kind of transaction, which locks
//! the end of the audit trail: so changes are in a row, on all nodes, and none is without its line.
//!
//! What is safe beside what, on one node or many, and by what:
//!
//! | what | with | by |
//! |---|---|---|
//! | a change | another change | the row `audit_head`, locked from its first statement |
//! | a change | a line of another service | the same row, locked from that line on |
//! | a change | reading who acts | the cache's generation; another node sees it within a second |
//! | a login | other logins of the account | `backoff.rs`: eight at once, one after failures |
//! | a code of the second factor | the same code | one statement that moves the last step on |
//! | a refresh token | the same token | one statement that replaces its hash |
//! | a signed request | the same request | the key of the table `nonces` |
//! | an approval | its second use | one statement that marks it used |
//! | hashing a password | other hashing | two at once, 64 wait, more are turned away |
//!
//! Users may come from elsewhere: [`DirectorySettings`] tells of LDAP servers, [`IssuerSettings`] of
//! issuers of tokens. It knows no HTTP: what issuers publish is fetched by whoever can, see
//! [`Fetch`].

mod admin_token;
mod approvals;
mod arrival;
mod audit;
mod authenticate;
mod backoff;
mod builtin;
mod cache;
mod change;
mod clock;
mod decide;
mod directories;
mod error;
mod fetch;
mod identity;
mod issuers;
mod keys;
mod login;
mod logins;
mod organisations;
mod origin;
mod passphrase;
mod password;
mod policy;
mod principal;
mod rights;
mod roles;
mod seal;
mod second_factor;
mod secret;
mod sessions;
mod signed;
mod sources;
mod tls;
mod tokens;
mod totp;
mod trial;
mod users;

pub use admin_token::{SetUpError, ShownToken, TokenInfo, TokenState};
pub use approvals::{Admission, CLASSES, Class, FourEyes, FourEyesSet};
pub use audit::{
    Deed, Fault, FaultKind, Protocol, SenderSettings, Sending, Verdict, Who, to_json, to_syslog,
};
pub use authenticate::Credential;
pub use builtin::{ADMINISTRATOR, Builtin, ROLES};
pub use clock::Clock;
pub use decide::{Decision, FOUR_EYES, OWN_PASSWORD, Object, decide};
pub use directories::DirectorySettings;
pub use error::{AuthError, Error, Result};
pub use fetch::{Fetch, Fetching, Wanted};
pub use identity::{FirstRun, Identity, check_key};
pub use issuers::IssuerSettings;
pub use keys::{KeyChange, KeySpec};
pub use logins::Logins;
pub use organisations::OrganisationChange;
pub use origin::Origin;
pub use passphrase::passphrase;
pub use policy::Policy;
pub use principal::{Narrowing, Principal, Rights, Via, effective, spread};
pub use rights::{Right, RightSet, UnknownRight};
pub use roles::RoleSpec;
pub use seal::ApplianceKey;
pub use second_factor::Enrolment;
pub use secret::Secret;
pub use sessions::{Life, Opened, Pair};
pub use signed::SignedRequest;
pub use sources::{GroupRole, SourceSpec, Sourced};
pub use tls::client_config;
pub use tokens::JwtLife;
pub use trial::{Trial, TrialStep};
pub use users::{UserChange, UserSpec};
