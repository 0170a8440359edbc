//! When snapshots of a LUN are made by themselves.

use futures_util::FutureExt;
use http::Method;
use serde::Serialize;
use strongroom_catalog::volumes::{Schedule, Volume};
use strongroom_storage::volumes::NewSchedule;
use utoipa::ToSchema;

use super::answer::{Answer, Fault, done, found};
use super::declared::{Endpoint, may, needed};
use super::dispatch::Call;
use super::{lun, snapshot};

pub(super) fn endpoints() -> Vec<Endpoint> {
    const PATH: &str = "/snapshot/schedule/{volume_id}";
    let section = snapshot::SECTION;
    vec![
        section
            .get::<ScheduleShown>(PATH, "ngx.snapshot.schedule", "The schedule of a LUN", |call| {
                show(call).boxed()
            })
            .state("of later software; 5011 when there is none; `interval` in seconds, `next_run` by the pool's clock"),
        section
            .change(Method::POST, PATH, "ngx.snapshot.set_schedule", "Give a LUN a schedule", |call| {
                set(call).boxed()
            })
            .answers::<ScheduleShown>()
            .body(const { &[
                needed("interval", "Seconds from one to the next, or a number and `m`, `h`, `d` or `w`, or `hourly`, `daily`, `weekly`."),
                needed("retention", "So many of those that it made stay."),
                may("enabled", "Whether it is in force; true when it isn't said."),
            ] })
            .state("of later software, whose units are not known: ours"),
        section
            .change(Method::DELETE, PATH, "ngx.snapshot.delete_schedule", "Take the schedule of a LUN away", |call| {
                remove(call).boxed()
            })
            .state("of later software; what it made stays"),
    ]
}

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
struct ScheduleShown {
    id: String,
    volume_id: String,
    volume_name: String,
    /// Seconds from one to the next.
    interval: String,
    /// So many of those that it made stay.
    retention: String,
    enabled: bool,
    /// Seconds since 1970, by the pool's clock; empty while it isn't in force.
    next_run: String,
}

impl ScheduleShown {
    fn of(schedule: &Schedule, volume: Volume) -> Self {
        let next = schedule.next_at.as_second().to_string();
        Self {
            id: volume.public_id.clone(),
            volume_id: volume.public_id,
            volume_name: volume.name,
            interval: schedule.every.to_string(),
            retention: schedule.keep.to_string(),
            enabled: schedule.enabled,
            next_run: if schedule.enabled { next } else { String::new() },
        }
    }
}

/// Seconds, as they may be written.
fn interval(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let unit = |unit: char| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        'w' => Some(7 * 86_400),
        _ => None,
    };
    match text.as_str() {
        "hourly" => unit('h'),
        "daily" => unit('d'),
        "weekly" => unit('w'),
        _ => match text.parse() {
            Ok(seconds) => Some(seconds),
            Err(_) => {
                let last = text.chars().last()?;
                let number = text[..text.len() - last.len_utf8()].trim().parse::<u64>().ok()?;
                number.checked_mul(unit(last)?)
            }
        },
    }
}

async fn show(call: Call) -> Answer {
    let volume = lun::find(&call, call.id()).await?;
    let schedule = call.app().storage().snapshot_schedule(volume.id).await?;
    found(&ScheduleShown::of(&schedule.ok_or_else(|| Fault::not_found("schedule"))?, volume))
}

async fn set(call: Call) -> Answer {
    let volume = lun::find(&call, call.id()).await?;
    let fields = call.fields();
    let every = interval(&fields.needed(&["interval"])?).ok_or_else(|| {
        Fault::invalid("`interval` is a number of seconds, or a number and `m`, `h`, `d` or `w`")
    })?;
    let keep = fields.number(&["retention"])?;
    let keep = keep.ok_or_else(|| Fault::invalid("`retention` is missing"))?;
    let keep = u32::try_from(keep).map_err(|_| Fault::invalid("`retention` is too large"))?;
    let new = NewSchedule { enabled: fields.switch(&["enabled"])?.unwrap_or(true), every, keep };
    let schedule = call.app().storage().set_snapshot_schedule(volume.id, new, None).await?;
    found(&ScheduleShown::of(&schedule, volume))
}

async fn remove(call: Call) -> Answer {
    let volume = lun::find(&call, call.id()).await?;
    call.app().storage().remove_snapshot_schedule(volume.id).await?;
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_in_several_ways() {
        for (text, seconds) in
            [("3600", 3600), ("15m", 900), ("2 h", 7200), ("1D", 86_400), ("weekly", 604_800)]
        {
            assert_eq!(interval(text), Some(seconds), "{text}");
        }
        for wrong in
            ["", "h", "soon", "-5", "1.5h", "99999999999999999999", "9999999999999999999w", "5µ"]
        {
            assert_eq!(interval(wrong), None, "{wrong}");
        }
    }
}
