//! Images of an appliance.

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_archive::image::parse_time;
use strongroom_client::Client;
use strongroom_client::types::Items;

use super::list::{self, Only, SearchArgs};
use super::operation::operations;
use super::pools::{DETAILS, pool};
use super::resource::Resource;
use crate::exit::{Context, Done, usage};
use crate::parse::Moment;

operations! {
    FORGET = "images.forget", DELETE "/v1/images/{image}", by "images forget";
    TAG = "images.tag", PATCH "/v1/images/{image}", by "images tag";
    KEEP = "images.keep", PUT "/v1/images/{image}/immutable", by "images immutable";
    RETAIN = "images.retain", PUT "/v1/images/{image}/retention", by "images retention";
    RESTORE = "images.restore", POST "/v1/images/{image}/restore", by "restore";
}

/// Images.
pub(crate) static IMAGES: Resource = Resource {
    one: "image",
    path: "/v1/images",
    id: "images.list",
    command: "images list",
    columns: &[
        (">ID", "id"),
        ("NAME", "name"),
        ("CREATED", "created_at"),
        ("KIND", "kind"),
        ("HOST", "host"),
        (">FILES", "files"),
        (">SIZE", "size"),
        (">NEW", "new_size"),
        (">STORED", "stored_size"),
        ("COMPLETE", "complete"),
        ("TAGS", "tags"),
        ("IMMUTABLE UNTIL", "immutable_until"),
        ("KEPT UNTIL", "expires_at"),
    ],
    sort: Some("created_at:asc"),
    limit: None,
};

/// An image.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Image {
    pub(super) id: i64,
    pub(super) pool_id: i64,
    pub(super) root: String,
    pub(super) name: String,
    pub(super) created_at: String,
}

/// The filter for the images of a pool, when one is named.
fn of_pool(client: &Client, name: Option<&str>) -> Result<Option<String>> {
    let pool = name.map(|name| pool(client, Some(name))).transpose()?;
    Ok(pool.map(|pool| format!("pool_id:=={}", pool.id)))
}

/// The newest image of that name (as `NAME@TIME`: not after that time), or the one with that number
/// or those digits of its id.
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
    if let Some((name, at)) = what.rsplit_once('@')
        && let Ok(until) = parse_time(at)
    {
        let until = format!("created_at:<={}", Timestamp::from_nanosecond(until.0.into())?);
        let name = (name != "latest").then(|| format!("name:=={name}"));
        let filters = [Some(until), name];
        let filters = filters.iter().flatten().map(|filter| ("filter", filter.as_str()));
        if let Some(image) = newest(&filters.collect::<Vec<_>>())? {
            return Ok(image);
        }
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

/// Which images are listed.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) pool: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) tags: &'a [String],
    pub(crate) search: &'a SearchArgs,
}

/// Lists images, the oldest first.
pub(crate) fn list(context: &Context, client: &Client, wanted: &Wanted<'_>) -> Result<Done> {
    let Wanted { pool, name, host, tags, search } = wanted;
    if search.list.count && !tags.is_empty() {
        return Err(usage(
            "labels can't be counted: leave out --tag, or use --filter 'tags:=|TEXT'",
        ));
    }
    let mut filters: Vec<String> = of_pool(client, *pool)?.into_iter().collect();
    filters.extend(name.map(|name| format!("name:=={name}")));
    filters.extend(host.map(|host| format!("host:=={host}")));
    // A part of a label fits this, too; the rest is done here.
    filters.extend(tags.first().map(|tag| format!("tags:=|{tag}")));
    let has_tags = |image: &Value| {
        let labels = image["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        tags.iter().all(|tag| labels.iter().any(|label| label == tag))
    };
    let only = Only { keywords: &search.keyword, filters, is: Some(&has_tags) };
    list::run(context, client, &IMAGES, &search.list, &only)
}

/// Changes the labels of an image.
pub(crate) fn tag(
    context: &Context,
    client: &Client,
    pool: Option<&str>,
    what: &str,
    (add, remove): (&[String], &[String]),
) -> Result<Done> {
    let image = find(client, pool, what)?;
    let body = json!({ "add": add, "remove": remove });
    let image: Value = TAG.send(client, &[&image.id.to_string()], &body)?;
    let tags = super::resource::text("tags", &image["tags"]);
    let tags = if tags.is_empty() { "none" } else { &tags };
    let text = format!("labels of image {}: {tags}", image["id"]);
    context.out.done(image, &text)?;
    Ok(Done::Well)
}

/// Makes an image immutable until then; a duration counts from the pool's time.
pub(crate) fn keep(
    context: &Context,
    client: &Client,
    pool: Option<&str>,
    what: &str,
    until: Moment,
) -> Result<Done> {
    let image = find(client, pool, what)?;
    let until = then(client, &image, until)?;
    let body = json!({ "until": until.to_string() });
    let image: Value = KEEP.send(client, &[&image.id.to_string()], &body)?;
    let until = super::resource::text("immutable_until", &image["immutable_until"]);
    let text = format!("nothing can remove image {} before {until} (pool's time)", image["id"]);
    context.out.done(image, &text)?;
    Ok(Done::Well)
}

/// The time that is meant of an image; a duration counts from the pool's time.
fn then(client: &Client, image: &Image, moment: Moment) -> Result<Timestamp> {
    let now = match moment {
        Moment::At(_) => Timestamp::now(),
        Moment::In(_) => {
            let state: Value = DETAILS.ask(client, &[&image.pool_id.to_string()])?;
            state["pool_time"].as_str().unwrap_or_default().parse()?
        }
    };
    moment.from(now).map_err(usage)
}

/// Says how long an image is kept; None: until somebody forgets it.
pub(crate) fn retain(
    context: &Context,
    client: &Client,
    pool: Option<&str>,
    what: &str,
    until: Option<Moment>,
) -> Result<Done> {
    let image = find(client, pool, what)?;
    let until = until.map(|until| then(client, &image, until)).transpose()?;
    let body = json!({ "expires_at": until.map(|until| until.to_string()) });
    let image: Value = RETAIN.send(client, &[&image.id.to_string()], &body)?;
    let text = match image["expires_at"].is_null() {
        true => format!("image {} is kept until somebody forgets it", image["id"]),
        false => {
            let at = super::resource::text("expires_at", &image["expires_at"]);
            format!("image {} is kept until {at} (pool's time)", image["id"])
        }
    };
    context.out.done(image, &text)?;
    Ok(Done::Well)
}

/// Images that are to be forgotten.
#[derive(Debug)]
pub(crate) struct Going(Vec<Image>);

impl Going {
    /// Finds them; each is forgotten once, however often it is named.
    pub(crate) fn find(client: &Client, pool: Option<&str>, names: &[String]) -> Result<Self> {
        let mut images: Vec<Image> = Vec::new();
        for name in names {
            let image = find(client, pool, name)?;
            if !images.iter().any(|other| other.id == image.id) {
                images.push(image);
            }
        }
        Ok(Self(images))
    }

    /// What is asked before.
    pub(crate) fn question(&self) -> String {
        let names = self
            .0
            .iter()
            .map(|i| format!("{} of {}, {}", i.id, i.name, super::resource::local(&i.created_at)));
        format!("Forget {}", names.collect::<Vec<_>>().join("; "))
    }

    /// Forgets them, one after the other.
    pub(crate) fn forget(&self, context: &Context, client: &Client) -> Result<Done> {
        let mut forgotten = Vec::new();
        for image in &self.0 {
            if let Err(error) = FORGET.ask::<()>(client, &[&image.id.to_string()]) {
                let before = match forgotten.len() {
                    0 => "none was forgotten".to_owned(),
                    some => format!("{some} before it were forgotten"),
                };
                return Err(
                    error.context(format!("image {} of {}; {before}", image.id, image.name))
                );
            }
            forgotten.push(image.id);
        }
        context.out.summary(None, json!({ "forgotten": forgotten }), |out| {
            for image in &self.0 {
                writeln!(out, "forgot image {} of {}", image.id, image.name)?;
            }
            writeln!(out, "`strongroom pool gc` frees what only they needed")
        })?;
        Ok(Done::Well)
    }
}
