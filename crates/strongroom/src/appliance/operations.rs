//! Holds the command line to the OpenAPI document: each operation has a command, or a reason.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use clap::CommandFactory;
use serde_json::Value;

use super::operation::Operation;
use super::resource::Resource;
use super::{
    acme, approvals, audit, directories, events, images, issuers, jobs, keys, license, login, me,
    network, orgs, own_backup, pools, roles, sessions, settings, stats, storage, system, updates,
    users, volumes,
};
use crate::args::Cli;
use crate::up;

const DOCUMENT: &str = include_str!("../../../../openapi/strongroom-v1.json");

/// All operations that commands declare.
static OPERATIONS: &[&[&Operation]] = &[
    acme::OPERATIONS,
    approvals::OPERATIONS,
    audit::OPERATIONS,
    directories::OPERATIONS,
    images::OPERATIONS,
    issuers::OPERATIONS,
    jobs::OPERATIONS,
    keys::OPERATIONS,
    license::OPERATIONS,
    login::OPERATIONS,
    me::OPERATIONS,
    network::OPERATIONS,
    orgs::OPERATIONS,
    own_backup::OPERATIONS,
    updates::OPERATIONS,
    pools::OPERATIONS,
    roles::OPERATIONS,
    users::OPERATIONS,
    sessions::OPERATIONS,
    settings::OPERATIONS,
    stats::OPERATIONS,
    storage::OPERATIONS,
    system::OPERATIONS,
    up::OPERATIONS,
    volumes::OPERATIONS,
    volumes::change::OPERATIONS,
    volumes::make::OPERATIONS,
    volumes::schedule::OPERATIONS,
    volumes::snapshots::OPERATIONS,
];

/// All lists.
static LISTS: &[&Resource] = &[
    &approvals::APPROVALS,
    &audit::AUDIT,
    &directories::DIRECTORIES,
    &events::EVENTS,
    &images::IMAGES,
    &issuers::ISSUERS,
    &jobs::JOBS,
    &keys::KEYS,
    &orgs::ORGANISATIONS,
    &pools::POOLS,
    &roles::ROLES,
    &sessions::SESSIONS,
    &stats::SAMPLES,
    &users::USERS,
    &volumes::VOLUMES,
    &volumes::snapshots::SNAPSHOTS,
];

/// What has no command, and why. A name that ends in `.` stands for all that begin so.
static EXEMPT: &[(&str, &str)] = &[
    ("system.health", "for those who watch the process, not its users"),
    ("system.ready", "for those who watch the process, not its users"),
    ("system.metrics", "for Prometheus"),
    ("sessions.refresh", "for programs that hold a pair of tokens; `login` opens a session"),
    ("ingests.", "how a client hands chunks over; `backup` speaks it"),
    (
        "readers.",
        "how a client reads; `ls`, `cat`, `dump`, `mount`, `restore` and the like speak it",
    ),
    ("images.archive", "for browsers; `dump` reads by chunks"),
    ("images.browse", "for browsers; `ls` reads by chunks"),
    ("images.diff", "for browsers; `images diff` reads by chunks"),
    ("images.download", "for browsers; `cat` reads by chunks"),
    ("images.find", "for browsers; `images find` reads by chunks"),
    ("images.show", "for browsers; `images show` reads by chunks"),
];

/// What is declared: method, path and command by id.
fn declared() -> BTreeMap<String, (String, &'static str, &'static str)> {
    let mut all = BTreeMap::new();
    let mut add = |id: String, method: &str, path, command| {
        let before = all.insert(id.clone(), (method.to_owned(), path, command));
        assert!(before.is_none(), "the operation {id} is declared twice");
    };
    for operation in OPERATIONS.iter().copied().flatten() {
        let Operation { id, method, path, command } = operation;
        add((*id).to_owned(), method.as_str(), *path, *command);
    }
    for list in LISTS {
        for (method, more) in [("GET", ""), ("OPTIONS", ".fields"), ("HEAD", ".count")] {
            add(format!("{}{more}", list.id), method, list.path, list.command);
        }
    }
    all
}

fn is_exempt(id: &str) -> bool {
    EXEMPT.iter().any(|(name, _)| match name.ends_with('.') {
        true => id.starts_with(name),
        false => id == *name,
    })
}

#[test]
fn every_operation_has_a_command_or_a_reason() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let mut declared = declared();
    let mut wrong = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(id) = operation["operationId"].as_str() else { continue };
            match (declared.remove(id), is_exempt(id)) {
                (None, true) => {}
                (Some(_), true) => wrong.push(format!("{id} has a command and is exempt")),
                (None, false) => wrong.push(format!(
                    "{id} has no command: declare it with `operations!` beside the command that \
                     has it, or say in EXEMPT why it needs none"
                )),
                (Some((by, at, _)), false) => {
                    if !by.eq_ignore_ascii_case(method) || at != path {
                        wrong.push(format!("{id} is {method} {path}, and not {by} {at}"));
                    }
                }
            }
        }
    }
    wrong.extend(declared.keys().map(|id| format!("there is no operation {id}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_that_is_declared_exists() {
    let cli = Cli::command();
    for (id, (_, _, words)) in declared() {
        let mut command = &cli;
        for word in words.split(' ') {
            let found = command.find_subcommand(word);
            command = found.unwrap_or_else(|| panic!("{id}: there is no command {words}"));
        }
        assert!(!command.has_subcommands(), "{id}: {words} is a group");
    }
}

#[test]
fn lists_have_columns_that_the_answers_have() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let schemas = &document["components"]["schemas"];
    let properties = |schema: &Value| {
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        schemas[name]["properties"].clone()
    };
    for list in LISTS {
        let answer = &document["paths"][list.path]["get"]["responses"]["200"]["content"];
        let items = &answer["application/json"]["schema"]["properties"]["items"]["items"];
        for (title, field) in list.columns {
            let mut known = properties(items);
            for (at, part) in field.split('.').enumerate() {
                if at > 0 {
                    known = properties(&known);
                }
                known = known[part].take();
                assert!(!known.is_null(), "{}: {title} shows {field}", list.one);
            }
        }
    }
}
