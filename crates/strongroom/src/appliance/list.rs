//! Lists: the one language of all of them, as options.

use std::collections::HashSet;
use std::io::Write;

use anyhow::Result;
use serde_json::Value;
use strongroom_client::Client;
use strongroom_client::types::{Items, ListMetadata};

use super::resource::{self, Resource};
use crate::exit::{Context, Done, usage};
use crate::output::{self, print_table};

/// How many are asked for at once with `--all`.
const PAGE: usize = 1000;
/// What the help of each list says of filters.
pub(crate) const LANGUAGE: &str = "\
Filters are FIELD:OPERATOR VALUE without the space: `==` equal, `!=` not, `=|` contains, `>=` and
`<=` bounds, `=b` has one of these bits. All must hold; several `==` for one field mean any of them.
Times are RFC 3339. --fields tells which fields there are, and what they hold.";

/// Which items of a list, and how they are shown.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Listing {
    /// Only those that this fits; may be given several times
    #[arg(long, value_name = "FILTER", help_heading = "Which of them")]
    pub(crate) filter: Vec<String>,
    /// In this order: FIELD or FIELD:desc, several with commas
    #[arg(long, value_name = "FIELDS", help_heading = "Which of them")]
    pub(crate) sort: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", conflicts_with = "all", help_heading = "Which of them")]
    pub(crate) limit: Option<u32>,
    /// Leave out the first N
    #[arg(long, value_name = "N", conflicts_with = "all", help_heading = "Which of them")]
    pub(crate) offset: Option<u64>,
    /// All of them, however many there are
    #[arg(long, help_heading = "Which of them")]
    pub(crate) all: bool,
    /// Only say how many there are
    #[arg(long, conflicts_with_all = ["all", "sort", "limit", "offset", "columns"],
          help_heading = "Which of them")]
    pub(crate) count: bool,
    /// These fields as the table's columns, with commas between them
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', help_heading = "Which of them")]
    pub(crate) columns: Vec<String>,
    /// Only say which fields the list can be filtered and sorted by
    #[arg(long, conflicts_with_all = ["filter", "sort", "limit", "offset", "all", "count", "columns"],
          help_heading = "Which of them")]
    pub(crate) fields: bool,
}

/// [`Listing`], where words can be searched.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    pub(crate) list: Listing,
    /// Only those with this text in them; several: with any of them
    #[arg(long, value_name = "TEXT", conflicts_with = "fields", help_heading = "Which of them")]
    pub(crate) keyword: Vec<String>,
}

impl Listing {
    /// Whether anything is asked for that only an appliance's lists have.
    pub(crate) fn is_given(&self) -> bool {
        let Self { filter, sort, limit, offset, all, count, columns, fields } = self;
        let options = sort.is_some() || limit.is_some() || offset.is_some();
        !filter.is_empty() || !columns.is_empty() || options || *all || *count || *fields
    }
}

impl SearchArgs {
    /// Whether anything is asked for that only an appliance's lists have.
    pub(crate) fn is_given(&self) -> bool {
        self.list.is_given() || !self.keyword.is_empty()
    }

    /// Prints the list.
    pub(crate) fn run(&self, context: &Context, client: &Client, of: &Resource) -> Result<Done> {
        run(context, client, of, &self.list, &Only { keywords: &self.keyword, ..Only::default() })
    }
}

impl Listing {
    /// Prints the list.
    pub(crate) fn run(&self, context: &Context, client: &Client, of: &Resource) -> Result<Done> {
        run(context, client, of, self, &Only::default())
    }
}

/// What else the items of a list must be like.
#[derive(Default)]
pub(crate) struct Only<'a> {
    /// They have any of these in them.
    pub(crate) keywords: &'a [String],
    /// These filters fit.
    pub(crate) filters: Vec<String>,
    /// What no filter can say.
    pub(crate) is: Option<&'a dyn Fn(&Value) -> bool>,
}

/// Prints a list.
pub(crate) fn run(
    context: &Context,
    client: &Client,
    of: &Resource,
    args: &Listing,
    only: &Only<'_>,
) -> Result<Done> {
    if args.fields {
        return fields(context, client, of);
    }
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(args.filter.iter().chain(&only.filters).map(|filter| ("filter", filter.as_str())));
    query.extend(only.keywords.iter().map(|keyword| ("keyword", keyword.as_str())));
    if args.count {
        let count = client.count(of.path, &query)?;
        let document = serde_json::to_value(count)?;
        let least = if count.exact { "" } else { "at least " };
        context.out.report(None, document, |out| writeln!(out, "{least}{}", count.count))?;
        return Ok(Done::Well);
    }
    query.extend(args.sort.as_deref().or(of.sort).map(|sort| ("sort", sort)));
    let columns = of.columns(&args.columns);
    let mut rows = Vec::new();
    let mut before = HashSet::new();
    let mut offset = args.offset.unwrap_or(0);
    let limit = match args.all {
        true => Some(PAGE as u32),
        false => args.limit.or(of.limit),
    };
    let limit = limit.map(|limit| limit.to_string());
    let more = loop {
        let from = offset.to_string();
        let mut query = query.clone();
        query.extend(limit.as_deref().map(|limit| ("limit", limit)));
        query.push(("offset", &from));
        let page: Items<Value> = client.get(of.path, &query)?;
        offset += page.items.len() as u64;
        // What came meanwhile moves the others on: those of the last page are not told again.
        let mut told = HashSet::with_capacity(page.items.len());
        for item in &page.items {
            if let Some(id) = item["id"].as_i64() {
                told.insert(id);
                if before.contains(&id) {
                    continue;
                }
            }
            if only.is.is_some_and(|is| !is(item)) {
                continue;
            }
            let missing = args.columns.iter().find(|field| !resource::has(item, field));
            if let Some(field) = missing {
                return Err(usage(no_field(of, field, item)));
            }
            match context.out.json {
                true => context.out.document(item)?,
                false => rows.push(resource::row(&columns, item)),
            }
        }
        before = told;
        if !(args.all && page.more) || page.items.is_empty() || context.interrupt.is_asked() {
            break page.more;
        }
    };
    if context.interrupt.is_asked() {
        return Err(strongroom_engine::Error::Canceled.into());
    }
    if !context.out.json {
        let mut out = std::io::stdout().lock();
        match rows.is_empty() {
            true if context.out.quiet => {}
            true => writeln!(out, "no {}s", of.one)?,
            false => resource::print(&mut out, &columns, rows)?,
        }
        out.flush()?;
    }
    if more {
        let text = "there are more: --all shows all of them, --limit and --offset others";
        output::say_notes(&[text.to_owned()]);
    }
    Ok(Done::Well)
}

fn no_field(of: &Resource, field: &str, item: &Value) -> String {
    let names = item.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    let what = if "aeiou".contains(&of.one[..1]) { "an" } else { "a" };
    format!("{what} {} has no field `{field}`: it has {names}", of.one)
}

/// Tells what a list can be asked for.
fn fields(context: &Context, client: &Client, of: &Resource) -> Result<Done> {
    let call = strongroom_client::Call::new(strongroom_client::Method::OPTIONS, of.path);
    let metadata: ListMetadata = client.call(&call)?;
    let document = serde_json::to_value(&metadata)?;
    context.out.report(None, document, |out| {
        let mut table = output::table(&["FIELD", "HOLDS", "FILTERS", "SORTS", "SEARCHED", "IS"]);
        for field in &metadata.fields {
            let holds = match field.values.is_empty() || field.kind == "boolean" {
                true => field.kind.clone(),
                false => field.values.join("|"),
            };
            let yes = |yes: bool| if yes { "yes" } else { "" }.to_owned();
            table.add_row([
                field.name.clone(),
                holds,
                field.operators.join(" "),
                yes(field.sortable),
                yes(field.searched),
                field.description.clone(),
            ]);
        }
        print_table(out, &table)?;
        writeln!(out, "order: {}", metadata.order)
    })?;
    Ok(Done::Well)
}
