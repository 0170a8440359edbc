//! Things by the names that people know them by.

use anyhow::Result;
use strongroom_client::Client;
use strongroom_client::types::{Items, Named};

use super::resource::Resource;
use crate::exit::usage;

/// The number of what has this name; where nothing has it, `text` may be the number.
pub(crate) fn number(client: &Client, of: &Resource, text: &str) -> Result<String> {
    let filter = format!("name:=={text}");
    let found: Items<Named> = client.get(of.path, &[("filter", &filter), ("limit", "10")])?;
    match (&found.items[..], text.parse::<i64>()) {
        ([one], _) => Ok(one.id.to_string()),
        ([], Ok(number)) => Ok(number.to_string()),
        ([], Err(_)) => {
            let (one, command) = (of.one, of.command);
            Err(usage(format!("there is no {one} `{text}`: see `strongroom {command}`")))
        }
        (several, _) => {
            let ids = several.iter().map(|one| one.id.to_string()).collect::<Vec<_>>().join(", ");
            Err(usage(format!("several are called `{text}`: give the number, one of {ids}")))
        }
    }
}

/// As [`number`], as a number.
pub(crate) fn id(client: &Client, of: &Resource, text: &str) -> Result<i64> {
    Ok(number(client, of, text)?.parse()?)
}

/// The numbers of several.
pub(crate) fn ids(client: &Client, of: &Resource, names: &[String]) -> Result<Vec<i64>> {
    names.iter().map(|name| id(client, of, name)).collect()
}
