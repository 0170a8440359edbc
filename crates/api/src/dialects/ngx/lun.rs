//! LUNs: the volumes.

use futures_util::FutureExt;
use http::Method;
use serde::Serialize;
use strongroom_catalog::volumes::{self, Volume};
use strongroom_identity::{Object, Right};
use strongroom_storage::volumes::{Force, IoType, NewVolume, Priority, VolumeChange};
use utoipa::ToSchema;

use super::answer::{Answer, Fault, Number, done, found};
use super::body::Fields;
use super::declared::{Endpoint, Over, Parameter, Section, may, needed};
use super::dispatch::Call;
use super::{OWNER, pool, rows};

pub(super) const SECTION: Section = Section {
    name: "LUN",
    reads: "ngx.lun.read",
    view: Right::VolumeView,
    manage: Right::VolumeManage,
    over: Over::Any,
};

/// LUNs that one request makes at most.
const MOST: u64 = 64;
/// How often a LUN is made larger anew that others change.
const TRIES: usize = 8;

const SETTINGS: [Parameter; 6] = [
    may("deduplication", "`on` or `off`; also `dedup`."),
    may("compression", "`on` or `off`; also `compress`."),
    may("thin_provision", "`on` or `off`; also `provision_type`, `thin` or `full`."),
    may("io_type", "`transactional` or `sequential`."),
    may("qos_priority", "4, 8, 16, 32, 64 or 128: its share of the bandwidth beside others."),
    may("dram_cache", "`on` or `off`."),
];

const CREATE: &[Parameter] = &[
    needed("pool_name", "The pool."),
    needed("name", "Its name, which no other LUN of the pool has; also `vol_name`."),
    needed("size", "How large it is, in the unit of `sing`."),
    may("sing", "`M`, `G` (when it isn't said) or `T`: powers of 1024."),
    may("blocksize", "`4k` to `1024k`, or `auto`."),
    SETTINGS[0],
    SETTINGS[1],
    SETTINGS[2],
    SETTINGS[3],
    SETTINGS[4],
    SETTINGS[5],
    may("quantity", "So many are made, 64 at most: `name1`, `name2` and so on."),
];

const CHANGE: &[Parameter] = &[
    may("name", "Its new name; also `vol_name`."),
    may("size", "By how much it becomes larger, in the unit of `sing`: it is added."),
    may("sing", "`M`, `G` (when it isn't said) or `T`."),
    SETTINGS[0],
    SETTINGS[1],
    SETTINGS[2],
    SETTINGS[3],
    SETTINGS[4],
    SETTINGS[5],
];

pub(super) fn endpoints() -> Vec<Endpoint> {
    const DETAILS: &str = "as the original; `scsi_lunid` is the serial number that initiators see; \
        `compress_ratio` is not measured for each LUN, so `-`; `flash_cache` is `off`: there is none; \
        `vol_used` and `sizebysnapshots` are measured from time to time, null before the first";
    vec![
        SECTION.get::<Vec<LunShort>>("/lun", "ngx.lun.list", "LUNs", |call| list(call).boxed()),
        SECTION
            .get::<Vec<Lun>>("/lun/list", "ngx.lun.list_details", "LUNs, with all that is known", |call| {
                details(call).boxed()
            })
            .state(DETAILS),
        SECTION
            .get::<Lun>("/lun/{id}", "ngx.lun.show", "A LUN", |call| show(call).boxed())
            .state(DETAILS),
        SECTION
            .change(Method::POST, "/lun", "ngx.lun.create", "Make a LUN", |call| create(call).boxed())
            .answers::<MadeLuns>()
            .body(CREATE)
            .state("of later software; `auto` is 64k; blocks of 512 bytes; what is made before one of several fails is removed again"),
        SECTION
            .change(Method::PATCH, "/lun/{id}", "ngx.lun.change", "Change a LUN, or make it larger", |call| {
                change(call).boxed()
            })
            .body(CHANGE)
            .state("of later software; `size` is added to what there is, so it is never made smaller"),
        SECTION
            .change(Method::DELETE, "/lun/{id}", "ngx.lun.delete", "Delete a LUN, with its snapshots", |call| {
                remove(call).boxed()
            })
            .state("of later software; 534 while it is mapped to a target"),
    ]
}

/// A LUN, in a list.
#[derive(Debug, Serialize, ToSchema)]
struct LunShort {
    name: String,
    owner: &'static str,
    pool: String,
    vol_id: String,
    /// As `vol_id`.
    id: String,
    /// As `pool`.
    pool_name: String,
}

/// By which protocol a LUN is reached: the name of its target, or null.
#[derive(Debug, Serialize, ToSchema)]
struct Protocols {
    fc: Option<String>,
    iscsi: Option<String>,
}

/// A LUN. Sizes are bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lun {
    blocksize: String,
    /// What it was made from; empty: nothing.
    clone: String,
    compress_ratio: &'static str,
    compress: &'static str,
    dedup: &'static str,
    dram_cache: &'static str,
    flash_cache: &'static str,
    io_type: String,
    owner: &'static str,
    pool_name: String,
    protocols: Protocols,
    /// `thin` or `full`.
    provision_type: &'static str,
    qos_priority: u32,
    /// The serial number that initiators see.
    scsi_lunid: String,
    /// What its snapshots hold alone.
    sizebysnapshots: Option<String>,
    vol_id: String,
    vol_name: String,
    vol_size: String,
    vol_used: Option<String>,
    /// As `vol_id`.
    id: String,
    /// As `vol_name`.
    name: String,
    /// As `vol_size`.
    size: String,
    /// As `vol_used`.
    used: Option<String>,
    /// As `scsi_lunid`.
    scsi_id: String,
    /// `on`: `provision_type` is `thin`.
    thin_provision: &'static str,
    /// As `dedup`.
    deduplication: &'static str,
    /// As `compress`.
    compression: &'static str,
    /// Seconds since 1970.
    created: String,
}

/// LUNs that were made.
#[derive(Debug, Serialize, ToSchema)]
struct MadeLuns {
    luns: Vec<Lun>,
}

fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl Lun {
    fn of(volume: Volume, pool_name: String, target: Option<String>) -> Self {
        let (id, name) = (volume.public_id, volume.name);
        let (size, used) = (volume.size.to_string(), volume.used.map(|bytes| bytes.to_string()));
        let (dedup, compress) = (word(volume.deduplicated), word(volume.compressed));
        Self {
            blocksize: volume.block_size.to_string(),
            clone: volume.origin,
            compress_ratio: "-",
            compress,
            dedup,
            dram_cache: word(volume.cached),
            flash_cache: "off",
            io_type: volume.io_type,
            owner: OWNER,
            pool_name,
            protocols: Protocols { fc: None, iscsi: target },
            provision_type: if volume.thin { "thin" } else { "full" },
            qos_priority: volume.priority,
            scsi_lunid: volume.uuid.clone(),
            sizebysnapshots: volume.snapshots_used.map(|bytes| bytes.to_string()),
            vol_id: id.clone(),
            vol_name: name.clone(),
            vol_size: size.clone(),
            vol_used: used.clone(),
            id,
            name,
            size,
            used,
            scsi_id: volume.uuid,
            thin_provision: word(volume.thin),
            deduplication: dedup,
            compression: compress,
            created: volume.created_at.as_second().to_string(),
        }
    }
}

/// The LUN of this id.
pub(super) async fn find(call: &Call, id: &str) -> Answer<Volume> {
    let volume = volumes::of_public_id(call.app().catalog(), id).await;
    let volume = volume.map_err(|error| match error {
        strongroom_catalog::Error::NotFound { .. } => Fault::not_found("LUN"),
        error => error.into(),
    })?;
    call.may(&Object::of(volume.organisation_id).in_pool(volume.pool_id), "LUN")?;
    Ok(volume)
}

async fn shown(call: &Call, all: Vec<Volume>) -> Answer<Vec<Lun>> {
    let pools = rows::pool_names(call).await?;
    let targets = volumes::first_targets(call.app().catalog()).await?;
    let show = |volume: Volume| {
        let target = targets.get(&volume.id).cloned();
        let pool = pools.get(&volume.pool_id).cloned().unwrap_or_default();
        Lun::of(volume, pool, target)
    };
    Ok(all.into_iter().map(show).collect())
}

async fn list(call: Call) -> Answer {
    let pools = rows::pool_names(&call).await?;
    let short = |volume: Volume| {
        let pool = pools.get(&volume.pool_id).cloned().unwrap_or_default();
        LunShort {
            name: volume.name,
            owner: OWNER,
            pool: pool.clone(),
            vol_id: volume.public_id.clone(),
            id: volume.public_id,
            pool_name: pool,
        }
    };
    found(&rows::volumes(&call).await?.into_iter().map(short).collect::<Vec<_>>())
}

async fn details(call: Call) -> Answer {
    let all = rows::volumes(&call).await?;
    found(&shown(&call, all).await?)
}

async fn show(call: Call) -> Answer {
    let volume = find(&call, call.id()).await?;
    let shown = shown(&call, vec![volume]).await?;
    found(&shown.into_iter().next().ok_or_else(|| Fault::not_found("LUN"))?)
}

const NAME: &[&str] = &["name", "vol_name"];
const SIZE: &[&str] = &["size", "vol_size"];

/// Bytes, of a number and its unit.
fn bytes(fields: &Fields) -> Answer<Option<u64>> {
    let Some(number) = fields.number(SIZE)? else { return Ok(None) };
    let unit = fields.text(&["sing"])?.unwrap_or_else(|| "G".into());
    let shift = match unit.to_ascii_uppercase().as_str() {
        "M" | "MB" => 20,
        "G" | "GB" => 30,
        "T" | "TB" => 40,
        _ => return Err(Fault::invalid("`sing` is the unit of `size`: `M`, `G` or `T`")),
    };
    let bytes = number.checked_mul(1 << shift).filter(|bytes| (1..1 << 62).contains(bytes));
    bytes.map(Some).ok_or_else(|| Fault::invalid("`size` is nothing, or too large"))
}

/// Bytes of a block: `16k`, `16384`, or `auto`.
fn block_size(fields: &Fields) -> Answer<Option<u32>> {
    let Some(text) = fields.text(&["blocksize"])? else { return Ok(None) };
    let text = text.trim().to_ascii_lowercase();
    if text == "auto" {
        return Ok(None);
    }
    let number = match text.strip_suffix('k') {
        Some(kibibytes) => kibibytes.parse::<u32>().ok().and_then(|k| k.checked_mul(1024)),
        None => text.parse().ok(),
    };
    let fits = |bytes: &u32| bytes.is_power_of_two() && (4 << 10..=1 << 20).contains(bytes);
    let wrong = || Fault::invalid("`blocksize` is a power of two from `4k` to `1024k`, or `auto`");
    number.filter(fits).map(Some).ok_or_else(wrong)
}

/// What is said of settings.
fn settings(fields: &Fields) -> Answer<VolumeChange> {
    let thin = match fields.text(&["provision_type"])?.as_deref() {
        Some("thin") => Some(true),
        Some("full") => Some(false),
        Some(_) => return Err(Fault::invalid("`provision_type` is `thin` or `full`")),
        None => fields.switch(&["thin_provision"])?,
    };
    let io_type = match fields.text(&["io_type"])?.as_deref() {
        Some("transactional") => Some(IoType::Transactional),
        Some("sequential") => Some(IoType::Sequential),
        Some(_) => return Err(Fault::invalid("`io_type` is `transactional` or `sequential`")),
        None => None,
    };
    let priority = fields.number(&["qos_priority"])?;
    let weight = |number: u64| u8::try_from(number).ok().and_then(Priority::new);
    let wrong = || Fault::invalid("`qos_priority` is 4, 8, 16, 32, 64 or 128");
    Ok(VolumeChange {
        name: None,
        thin,
        deduplicated: fields.switch(&["deduplication", "dedup"])?,
        compressed: fields.switch(&["compression", "compress"])?,
        cached: fields.switch(&["dram_cache"])?,
        io_type,
        priority: priority.map(|number| weight(number).ok_or_else(wrong)).transpose()?,
    })
}

async fn create(call: Call) -> Answer {
    let fields = call.fields();
    let (pool_name, name) = (fields.needed(&["pool_name"])?, fields.needed(NAME)?);
    let size = bytes(fields)?.ok_or_else(|| Fault::invalid("`size` is missing"))?;
    let (block_size, said) = (block_size(fields)?, settings(fields)?);
    let quantity = fields.number(&["quantity"])?.unwrap_or(1);
    if !(1..=MOST).contains(&quantity) {
        return Err(Fault::invalid(format!("`quantity` is 1 to {MOST}")));
    }
    let pool = pool::named(&call, Right::VolumeManage, &pool_name).await?;
    let storage = call.app().storage();
    let mut made: Vec<Volume> = Vec::new();
    for number in 1..=quantity {
        let name = if quantity == 1 { name.clone() } else { format!("{name}{number}") };
        let mut new = NewVolume::new(pool.id, name, size);
        new.block_size = block_size.unwrap_or(new.block_size);
        let usual = &mut new.settings;
        usual.thin = said.thin.unwrap_or(usual.thin);
        usual.deduplication = said.deduplicated.unwrap_or(usual.deduplication);
        usual.compression = said.compressed.unwrap_or(usual.compression);
        usual.cache = said.cached.unwrap_or(usual.cache);
        usual.io_type = said.io_type.unwrap_or(usual.io_type);
        usual.priority = said.priority.unwrap_or(usual.priority);
        match storage.create_volume(new).await {
            Ok(volume) => made.push(volume),
            Err(error) => {
                for volume in made {
                    if let Err(error) = storage.remove_volume(volume.id, None, Force::No).await {
                        tracing::error!("the LUN {} is left over: {error}", volume.name);
                    }
                }
                return Err(error.into());
            }
        }
    }
    let luns = shown(&call, made).await?;
    found(&MadeLuns { luns })
}

async fn change(call: Call) -> Answer {
    let volume = find(&call, call.id()).await?;
    let fields = call.fields();
    let (grow, mut change) = (bytes(fields)?, settings(fields)?);
    change.name = fields.text(NAME)?;
    let says = change != VolumeChange::default();
    if !says && grow.is_none() {
        let names: Vec<_> = CHANGE.iter().map(|one| one.name).collect();
        let text = format!("nothing to change; there are: {}", names.join(", "));
        return Err(Fault::invalid(text));
    }
    let storage = call.app().storage();
    // What is added comes last: who asks again after a failure must not have it added twice.
    let mut volume = match says {
        true => storage.change_volume(volume.id, change, None).await?,
        false => volume,
    };
    let Some(more) = grow else { return done() };
    for _ in 0..TRIES {
        let size = volume.size.checked_add(more);
        let size = size.ok_or_else(|| Fault::invalid("`size` is too large"))?;
        match storage.grow_volume(volume.id, size, Some(volume.version)).await {
            Ok(_) => return done(),
            // Somebody else made it larger meanwhile; both add.
            Err(strongroom_storage::Error::Catalog(strongroom_catalog::Error::Changed {
                ..
            })) => {
                volume = find(&call, call.id()).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Fault::new(Number::Busy, "others change this LUN all the time: try again"))
}

async fn remove(call: Call) -> Answer {
    let volume = find(&call, call.id()).await?;
    call.app().storage().remove_volume(volume.id, None, Force::No).await?;
    done()
}
