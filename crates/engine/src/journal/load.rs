//! Reading all copies of the journal, and judging which of them tells the pool's history.

use std::fmt;
use std::io;

use super::history::{self, History, Own};
use super::record::BLOCK;
use super::source::Source;
use super::{Place, Settings};
use crate::disk::patiently;
use crate::error::{Error, Result};

/// How many files of a copy are looked at, newest first. More than two are never left, even by a
/// crash.
const FILES_PER_COPY: usize = 8;

/// What is wrong with a copy of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There is none.
    Missing,
    /// It ends earlier than others.
    Behind,
    /// It ends in the middle of a record: the writer was stopped there.
    Torn,
    /// Bytes in it are not what was written.
    Damaged,
    /// The disk gave an error.
    Unreadable(String),
    /// It belongs to another pool, or is sealed otherwise than this one's.
    Foreign,
    /// It goes on with a commit that was never confirmed, and that the other disks went on
    /// without.
    Unconfirmed,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Behind => f.write_str("is behind"),
            Self::Torn => f.write_str("ends in the middle of a record"),
            Self::Damaged => f.write_str("is damaged"),
            Self::Unreadable(why) => write!(f, "can't be read: {why}"),
            Self::Foreign => f.write_str("belongs to another pool, or is sealed in another way"),
            Self::Unconfirmed => f.write_str("ends with a commit that was never confirmed"),
        }
    }
}

/// A copy that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Which place, as an index into the list given to [`super::Journal::open`].
    pub place: usize,
    /// The disk it lies on.
    pub disk: usize,
    /// What is wrong.
    pub why: Flaw,
    /// The last generation that it leads to alone, if any.
    pub generation: Option<u64>,
}

/// What [`load`] found.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) history: History,
    pub(super) stale: Vec<Stale>,
    /// How many copies lead to some generation of the history.
    pub(super) readable: usize,
    /// Copies that are there and may lead further than the history, because they can't be read, and
    /// why. So many, with those on missing disks, that a confirmed commit may be in them alone.
    pub(super) hidden: Vec<(usize, String)>,
}

/// Why [`load`] failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A file went away between the listing and its opening: a writer rotates. Try again.
    Raced(io::Error),
    /// For good.
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(why: Error) -> Self {
        Self::Failed(why)
    }
}

/// The generation in the name of a journal file.
pub(super) fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let plain =
        digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// Where a copy stands.
#[derive(Clone, Copy, Debug)]
struct Position {
    history: usize,
    /// What it leads to alone.
    tip: Option<u64>,
    /// The same, or where it begins when its snapshot is damaged.
    at: u64,
    /// What it has beyond that, though not in one piece.
    later: Option<u64>,
}

/// All that was read.
#[derive(Debug, Default)]
struct Shelf {
    sources: Vec<Source>,
    histories: Vec<History>,
    /// For each file that was read as part of a history: which, and what it has of it.
    parts: Vec<(Option<usize>, Own)>,
    /// For each place: what is wrong with it, as far as is known.
    flaws: Vec<Option<Flaw>>,
    /// The highest generation that was written for all one can see.
    seen: u64,
    /// For each file that was read: its base, and where its last record ends in some copy.
    ends: Vec<(u64, u64)>,
    /// What could not be read.
    hidden: Vec<Hidden>,
}

/// A copy, or a file of one, that is there and can't be read.
#[derive(Debug)]
struct Hidden {
    place: usize,
    /// The base and the length of the file; none when it isn't known what there is.
    file: Option<(u64, u64)>,
    why: String,
}

/// Reads every copy, and judges.
pub(super) fn load(places: &[Option<Place>], settings: &Settings) -> Result<Loaded, Trouble> {
    let mut shelf = Shelf { flaws: vec![None; places.len()], ..Shelf::default() };
    for (index, place) in places.iter().enumerate() {
        if let Some(place) = place {
            shelf.gather(index, place, settings)?;
        }
    }
    shelf.read_all(settings)?;
    Ok(shelf.judge(places, settings)?)
}

impl Shelf {
    /// Opens the files of one copy.
    fn gather(&mut self, index: usize, place: &Place, settings: &Settings) -> Result<(), Trouble> {
        let entries = match patiently(|| place.handle.list(&place.dir)) {
            Ok(entries) => entries,
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                self.flaws[index] = Some(Flaw::Missing);
                return Ok(());
            }
            Err(why) => {
                self.hide(index, None, why.to_string());
                return Ok(());
            }
        };
        let mut files: Vec<(u64, u64)> =
            entries.iter().filter_map(|e| Some((base_of(&e.name)?, e.len))).collect();
        files.sort_unstable_by_key(|(base, _)| std::cmp::Reverse(*base));
        files.truncate(FILES_PER_COPY);
        if files.is_empty() {
            self.flaws[index] = Some(Flaw::Missing);
        }
        for (base, len) in files {
            match patiently(|| Source::open(&*place.handle, &place.path(base), index, base)) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => {
                    return Err(Trouble::Raced(why));
                }
                Err(why) => self.hide(index, Some((base, len)), why.to_string()),
                Ok(source) => {
                    let source = source?;
                    let ours = source.header.is_none_or(|header| {
                        header.pool == settings.pool
                            && header.sealing == settings.sealing.algorithm()
                    });
                    if ours {
                        self.sources.push(source);
                    } else {
                        self.flaws[index].get_or_insert(Flaw::Foreign);
                    }
                }
            }
        }
        Ok(())
    }

    fn hide(&mut self, place: usize, file: Option<(u64, u64)>, why: String) {
        self.flaws[place] = Some(Flaw::Unreadable(why.clone()));
        self.hidden.push(Hidden { place, file, why });
    }

    /// Reads the files, all copies of one file together.
    fn read_all(&mut self, settings: &Settings) -> Result<()> {
        let mut headers: Vec<_> = Vec::new();
        for header in self.sources.iter().filter_map(|source| source.header) {
            if !headers.contains(&header) {
                headers.push(header);
            }
        }
        for header in headers {
            let with = |whole: bool| {
                self.sources.iter().enumerate().filter(move |(_, source)| {
                    if whole {
                        source.header == Some(header)
                    } else {
                        source.header.is_none() && source.base == header.base
                    }
                })
            };
            let members: Vec<_> = with(true).chain(with(false)).map(|(index, _)| index).collect();
            let reading = history::read(header, &mut self.sources, &members, &settings.sealing)?;
            let history = reading.history.map(|history| {
                self.histories.push(history);
                self.histories.len() - 1
            });
            self.parts.extend(reading.own.into_iter().map(|own| (history, own)));
            self.seen = self.seen.max(reading.seen);
            self.ends.push((header.base, reading.end));
        }
        // A file has its name only once it is durable, so one without a header was whole once.
        for source in self.sources.iter_mut().filter(|source| source.header.is_none()) {
            let held = source.highest_after(BLOCK as u64, None).unwrap_or(0);
            self.seen = self.seen.max(source.base).max(held);
            if let Some(why) = source.failed.clone() {
                let file = Some((source.base, source.len()));
                self.hidden.push(Hidden { place: source.place, file, why });
            }
            self.flaws[source.place].get_or_insert(match &source.failed {
                Some(why) => Flaw::Unreadable(why.clone()),
                None => Flaw::Damaged,
            });
        }
        Ok(())
    }

    /// Where the copy stands: on its newest file that leads anywhere.
    fn position(&self, place: usize) -> Option<Position> {
        let (_, history, own) = self
            .parts
            .iter()
            .filter(|(_, own)| {
                let source = &self.sources[own.source];
                source.place == place && source.header.is_some()
            })
            .filter_map(|(history, own)| Some((self.sources[own.source].base, (*history)?, own)))
            .max_by_key(|(base, ..)| *base)?;
        let at = own.tip.unwrap_or(self.histories[history].base);
        Some(Position { history, tip: own.tip, at, later: own.later })
    }

    /// Whether what the copy has is a part of `history`.
    fn follows(&self, position: &Position, history: usize) -> bool {
        let (own, other) = (&self.histories[position.history], &self.histories[history]);
        let common = |generation: u64| {
            let file = own.lineage.file_of(generation);
            // A pool has one first generation.
            generation <= 1 || file.is_some() && file == other.lineage.file_of(generation)
        };
        // What a damaged copy has after the damage must fit as well.
        let later = position.later.unwrap_or(0).min(other.tip);
        position.history == history
            || position.at <= other.tip && common(position.at) && common(later)
    }

    /// The places whose copy is no beginning of `history`.
    fn strays(&self, positions: &[Option<Position>], history: usize) -> Vec<usize> {
        let strays = positions.iter().enumerate().filter(|(_, position)| {
            position.as_ref().is_some_and(|position| !self.follows(position, history))
        });
        strays.map(|(place, _)| place).collect()
    }

    /// Whether so many copies went on with `history` that the commit with which the copy in
    /// `place` left it can't have been confirmed: where it takes the majority of all copies to
    /// confirm one, two of the same generation can't both have been.
    fn outvoted(
        &self,
        positions: &[Option<Position>],
        place: usize,
        history: usize,
        copies: usize,
        settings: &Settings,
    ) -> bool {
        let Some(stray) = &positions[place] else { return false };
        let holders = positions
            .iter()
            .flatten()
            .filter(|position| self.follows(position, history) && position.tip >= Some(stray.at));
        2 * settings.need > copies && holders.count() >= settings.need
    }

    /// Takes the history that all copies agree on, and says what is wrong with which copy.
    fn judge(mut self, places: &[Option<Place>], settings: &Settings) -> Result<Loaded> {
        let positions: Vec<_> = (0..places.len()).map(|place| self.position(place)).collect();
        let mut candidates: Vec<usize> = (0..self.histories.len()).collect();
        candidates.sort_by_key(|c| {
            let history = &self.histories[*c];
            std::cmp::Reverse((history.tip, history.base))
        });
        let Some(first) = candidates.first().copied() else { return Err(self.nothing(places)) };
        let agreed = |chosen: &usize| {
            let mut strays = self.strays(&positions, *chosen).into_iter();
            strays.all(|place| self.outvoted(&positions, place, *chosen, places.len(), settings))
        };
        let Some(chosen) = candidates.iter().copied().find(agreed) else {
            return Err(self.diverged(places, &positions, first));
        };
        let tip = self.histories[chosen].tip;
        if self.seen > tip {
            return Err(Error::damaged(
                "the journal of the pool",
                format!(
                    "generation {} can't be read from any disk that is connected, but generation \
                     {} was written; connect the disks that are missing and try again. Nothing \
                     was changed",
                    tip.saturating_add(1),
                    self.seen
                ),
            ));
        }
        let unconfirmed = self.strays(&positions, chosen);
        let stale = places
            .iter()
            .zip(&positions)
            .enumerate()
            .filter_map(|(place, (at, position))| {
                let generation = position.as_ref().and_then(|position| position.tip);
                let why = if unconfirmed.contains(&place) {
                    Flaw::Unconfirmed
                } else {
                    self.flaw(place, position.as_ref(), chosen)?
                };
                Some(Stale { place, disk: at.as_ref()?.disk, why, generation })
            })
            .collect();
        let readable = positions.iter().flatten().count();
        let hidden = self.hidden(places, &positions, settings.need);
        Ok(Loaded { history: self.histories.swap_remove(chosen), stale, readable, hidden })
    }

    /// See [`Loaded::hidden`]. A file of which another copy was read to its end hides nothing, where
    /// it can be no other file that began at the same generation: both copies are on one disk, or
    /// two that were written apart can't both have been confirmed.
    fn hidden(
        &self,
        places: &[Option<Place>],
        positions: &[Option<Position>],
        need: usize,
    ) -> Vec<(usize, String)> {
        let disk = |place: usize| places[place].as_ref().map(|place| place.disk);
        let one_disk = (1..places.len()).all(|place| disk(place) == disk(0));
        let alike = one_disk || 2 * need > places.len();
        let is_known = |file: (u64, u64)| {
            alike && self.ends.iter().any(|(base, end)| *base == file.0 && *end >= file.1)
        };
        let mut hidden: Vec<(usize, String)> = Vec::new();
        let mut known = Vec::new();
        for Hidden { place, file, why } in &self.hidden {
            if file.is_some_and(is_known) {
                known.push(*place);
            } else if hidden.iter().all(|(other, _)| other != place) {
                hidden.push((*place, why.clone()));
            }
        }
        let is_out_of_sight = |place: &usize| {
            hidden.iter().any(|(other, _)| other == place)
                || positions[*place].is_none() && !known.contains(place)
        };
        // Fewer have no commit that isn't elsewhere, too.
        let out_of_sight = (0..places.len()).filter(is_out_of_sight).count();
        if out_of_sight < need { Vec::new() } else { hidden }
    }

    /// What is wrong with a copy that does not contradict the history.
    fn flaw(&self, place: usize, position: Option<&Position>, chosen: usize) -> Option<Flaw> {
        if let Some(flaw) = &self.flaws[place] {
            return Some(flaw.clone());
        }
        let newest = self
            .parts
            .iter()
            .filter(|(_, own)| self.sources[own.source].place == place)
            .max_by_key(|(_, own)| self.sources[own.source].base);
        let own = newest.and_then(|(_, own)| own.flaw.clone());
        let Some(position) = position else { return own.or(Some(Flaw::Damaged)) };
        let short = position.tip < Some(self.histories[chosen].tip);
        own.or(short.then_some(Flaw::Behind))
    }

    /// No copy leads anywhere.
    fn nothing(&self, places: &[Option<Place>]) -> Error {
        let list: Vec<_> = places
            .iter()
            .enumerate()
            .filter_map(|(index, place)| {
                let place = place.as_ref()?;
                let flaw = self.flaw(index, None, 0).unwrap_or(Flaw::Damaged);
                Some(format!("{} {flaw}", place.describe()))
            })
            .collect();
        let list = if list.is_empty() { "no disk is there".into() } else { list.join("; ") };
        Error::damaged(
            "the journal of the pool",
            format!("no copy of it can be read ({list}); connect the disks that are missing"),
        )
    }

    fn diverged(
        &self,
        places: &[Option<Place>],
        positions: &[Option<Position>],
        chosen: usize,
    ) -> Error {
        let name = |place: usize| match &places[place] {
            Some(place) => place.describe(),
            None => format!("disk {place}"),
        };
        let agreeing = positions.iter().enumerate().filter(|(_, position)| {
            position.as_ref().is_some_and(|position| self.follows(position, chosen))
        });
        let agreeing: Vec<_> = agreeing.map(|(place, _)| name(place)).collect();
        let others: Vec<_> = self
            .strays(positions, chosen)
            .into_iter()
            .filter_map(|place| {
                let at = positions[place].as_ref()?.at;
                Some(format!("{} (at generation {at})", name(place)))
            })
            .collect();
        let why = format!(
            "the history on {} (at generation {}) does not contain that on {}",
            agreeing.join(", "),
            self.histories[chosen].tip,
            others.join(", ")
        );
        Error::Diverged { why }
    }
}
