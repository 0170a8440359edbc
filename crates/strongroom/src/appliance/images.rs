//! Images of an appliance.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use strongroom_client::Client;
use strongroom_client::types::Items;

use super::ApplianceArgs;
use crate::exit::{Context, Done, usage};
use crate::output::{print_table, size, table};

/// An image.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Image {
    pub(super) id: i64,
    root: String,
    name: String,
    kind: String,
    host: String,
    tags: Vec<String>,
    complete: bool,
    created_at: String,
    files: u64,
    size: u64,
    new_size: u64,
    stored_size: u64,
}

/// The filter for the images of a pool, when one is named.
fn of_pool(client: &Client, pool: Option<&str>) -> Result<Option<String>> {
    let pool = pool.map(|name| super::pool(client, Some(name))).transpose()?;
    Ok(pool.map(|pool| format!("pool_id:=={}", pool.id)))
}

/// The newest image of that name, or the one with that number or those digits of its id.
pub(super) fn find(client: &Client, pool: Option<&str>, what: &str) -> Result<Image> {
    let pool = of_pool(client, pool)?;
    let pool = pool.as_deref().map(|filter| ("filter", filter));
    let newest = |query: &[(&str, &str)]| -> Result<Option<Image>> {
        let mut all = vec![("sort", "created_at:desc"), ("limit", "1")];
        all.extend(pool);
        all.extend(query);
        let images: Items<Image> = client.get("/v1/images", &all)?;
        Ok(images.items.into_iter().next())
    };
    if what == "latest" {
        return newest(&[])?.ok_or_else(|| usage("the appliance has no images"));
    }
    if let Some(image) = newest(&[("filter", &format!("name:=={what}"))])? {
        return Ok(image);
    }
    if what.parse::<i64>().is_ok()
        && let Some(image) = newest(&[("filter", &format!("id:=={what}"))])?
    {
        return Ok(image);
    }
    if what.len() >= 4 && what.bytes().all(|b| b.is_ascii_hexdigit()) {
        let filter = format!("root:=|{what}");
        let mut query = vec![("filter", filter.as_str()), ("limit", "1000")];
        query.extend(pool);
        let images: Items<Image> = client.get("/v1/images", &query)?;
        let mut found = images.items.into_iter().filter(|i| i.root.starts_with(what));
        match (found.next(), found.next()) {
            (Some(image), None) => return Ok(image),
            (Some(_), Some(_)) => return Err(usage(format!("several images begin with {what}"))),
            (None, _) => {}
        }
    }
    Err(usage(format!("there is no image {what}: see `strongroom images list`")))
}

/// Lists images, the oldest first.
pub(crate) fn list(
    context: &Context,
    pool: Option<&str>,
    name: Option<&str>,
    tags: &[String],
    host: Option<&str>,
) -> Result<Done> {
    let client = ApplianceArgs::default().client_or_env()?;
    let mut filters: Vec<String> = of_pool(&client, pool)?.into_iter().collect();
    filters.extend(name.map(|name| format!("name:=={name}")));
    filters.extend(host.map(|host| format!("host:=={host}")));
    let mut query = vec![("sort", "created_at:asc"), ("limit", "10000")];
    query.extend(filters.iter().map(|filter| ("filter", filter.as_str())));
    let images: Items<Image> = client.get("/v1/images", &query)?;
    let wanted = |image: &&Image| tags.iter().all(|tag| image.tags.contains(tag));
    if context.out.json {
        for image in images.items.iter().filter(wanted) {
            context.out.document(&serde_json::to_value(image)?)?;
        }
        return Ok(Done::Well);
    }
    let titles =
        [">ID", "ROOT", "NAME", "TIME", "HOST", ">FILES", ">SIZE", ">NEW", ">STORED", "TAGS"];
    let mut table = table(&titles);
    for image in images.items.iter().filter(wanted) {
        let root: String = image.root.chars().take(12).collect();
        table.add_row(vec![
            image.id.to_string(),
            root,
            image.name.clone() + if image.complete { "" } else { " (incomplete)" },
            image.created_at.clone(),
            image.host.clone(),
            image.files.to_string(),
            size(image.size),
            size(image.new_size),
            size(image.stored_size),
            image.tags.join(","),
        ]);
    }
    print_table(&mut std::io::stdout().lock(), &table)?;
    Ok(Done::Well)
}
