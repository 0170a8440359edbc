//! The tables in `docs/dialects/ngx.md`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::answer::Number;
use super::auth_group::SECRETS;
use super::{NAME, endpoints};

/// The operations, the numbers of errors, and what keys may be allowed, as Markdown.
pub fn table() -> String {
    let mut text = String::new();
    let short = |name: &'static str| name.strip_prefix("ngx.").unwrap_or(name);
    let mut write = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("a text can always be written to");
        text.push('\n');
    };
    write(format_args!("## Operations\n\n| operation | id | right | state |\n|---|---|---|---|"));
    for one in endpoints() {
        write(format_args!(
            "| `{} {}` | `{}` | `{}` | {} |",
            one.method(),
            one.path(),
            short(one.id()),
            one.right(),
            one.state
        ));
    }
    write(format_args!("\n## What a key may be allowed\n"));
    write(format_args!(
        "Every id of the table above, and these, each of which is several of them:\n"
    ));
    write(format_args!("| name | operations |\n|---|---|"));
    let mut shared: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in endpoints().iter().filter(|one| one.id() != one.permission()) {
        shared.entry(short(one.permission())).or_default().push(short(one.id()));
    }
    for (name, ids) in shared {
        let ids: Vec<_> = ids.iter().map(|id| format!("`{id}`")).collect();
        write(format_args!("| `{name}` | {} |", ids.join(", ")));
    }
    write(format_args!("| `{}` | none: secrets of CHAP are shown |", short(SECRETS)));
    write(format_args!("\nThe full names begin with `{NAME}.`; both are taken.\n"));
    write(format_args!("## Errors\n\n| code | status | meaning |\n|---|---|---|"));
    for number in Number::ALL {
        let (value, status) = (number.value(), number.status().as_u16());
        write(format_args!("| {value} | {status} | {} |", number.meaning()));
    }
    text
}
