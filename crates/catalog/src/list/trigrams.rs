//! Words by their trigrams.
//!
//! A word is looked for by a few of its trigrams, the rarest: the lists of rows of all of them
//! would take long to be put together, and what is found is compared with the word anyway. Which
//! are rare is known from some of the newest rows.

use std::collections::{BTreeSet, HashMap};

use super::List;
use crate::Result;
use crate::db::{Catalog, Engine};
use crate::sql::Sql;

/// How many of a word's trigrams are looked for, if it has so many.
const TAKEN: std::ops::Range<usize> = 2..5;
/// The part of all rows that is few enough to look for no more trigrams.
const FEW: f64 = 1e-5;
/// How many rows show which trigrams are rare.
const SAMPLE: usize = 300;
/// How many rows show whether a whole word is.
const TEXTS: usize = 1000;
/// Words in so many of those rows are common: PostgreSQL finds them sooner row by row, since it
/// puts all rows with a trigram together before it looks at the first.
const COMMON: usize = 2;

/// In how many rows of a sample each trigram is.
type Frequencies = HashMap<[char; 3], u32>;

/// What the newest rows say, in lower case.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    texts: Vec<String>,
    frequencies: Frequencies,
}

impl Sample {
    fn new(texts: Vec<String>) -> Self {
        let mut frequencies = Frequencies::new();
        for trigram in texts.iter().take(SAMPLE).flat_map(|text| of(text)) {
            *frequencies.entry(trigram).or_default() += 1;
        }
        Self { texts, frequencies }
    }

    fn are_common(&self, words: &[String]) -> bool {
        let has_one = |text: &&String| words.iter().any(|word| text.contains(word.as_str()));
        self.texts.iter().filter(has_one).nth(COMMON - 1).is_some()
    }
}

/// By what to look for a list's keywords. All rows with one of the keywords fit, and others may.
#[derive(Clone, Debug)]
pub(super) struct Trigrams {
    /// SQLite's table of trigrams.
    pub(super) table: &'static str,
    /// Of each keyword those that must be there.
    pub(super) words: Vec<Vec<String>>,
    /// Whether many rows have one of the keywords.
    pub(super) common: bool,
}

impl Trigrams {
    /// As FTS5 takes them.
    pub(super) fn question(&self) -> String {
        let quoted = |trigram: &String| format!("\"{}\"", trigram.replace('"', "\"\""));
        let word = |trigrams: &Vec<String>| {
            format!("({})", trigrams.iter().map(quoted).collect::<Vec<_>>().join(" AND "))
        };
        self.words.iter().map(word).collect::<Vec<_>>().join(" OR ")
    }
}

impl List {
    /// Where to look for the keywords, if there is a table, and each has a trigram.
    pub(super) async fn trigrams(&self, catalog: &Catalog) -> Result<Option<Trigrams>> {
        let long = |keyword: &String| keyword.chars().nth(2).is_some();
        let Some(search) = self.resource.search else { return Ok(None) };
        let Some(table) = search.trigrams else { return Ok(None) };
        if self.keywords.is_empty() || !self.keywords.iter().all(long) {
            return Ok(None);
        }
        let sample = match catalog.sizes().sample(table) {
            Some(sample) => sample,
            None => {
                let mut sql = Sql::new("SELECT ");
                sql.push(search.column).push(" FROM ").push(self.resource.from);
                sql.push(" ORDER BY ").push(self.resource.key).push(" DESC LIMIT ?");
                let rows = catalog.rows(sql.bind(TEXTS as i64)).await?;
                let texts = rows.into_iter().map(|mut row| row.take());
                catalog.sizes().set_sample(table, Sample::new(texts.collect::<Result<_>>()?))
            }
        };
        let engine = catalog.engine();
        let words = self.keywords.iter().map(|word| rarest(word, &sample.frequencies, engine));
        let common = sample.are_common(&self.keywords);
        Ok(Some(Trigrams { table, words: words.collect(), common }))
    }
}

/// Its trigrams, each once.
fn of(text: &str) -> BTreeSet<[char; 3]> {
    let chars: Vec<char> = text.chars().collect();
    chars.windows(3).map(|three| [three[0], three[1], three[2]]).collect()
}

/// The rarest trigrams of a word.
fn rarest(word: &str, frequencies: &Frequencies, engine: Engine) -> Vec<String> {
    let mut trigrams: Vec<[char; 3]> = of(word).into_iter().collect();
    // To PostgreSQL words end at what is neither letter nor digit, and so do trigrams.
    let broken = |trigram: &[char; 3]| {
        engine == Engine::Postgres && !trigram.iter().all(|c| c.is_alphanumeric())
    };
    let often = |trigram: &[char; 3]| frequencies.get(trigram).copied().unwrap_or(0);
    trigrams.sort_by_key(|trigram| (broken(trigram), often(trigram)));
    let (mut taken, mut part) = (Vec::new(), 1.0);
    for trigram in trigrams.into_iter().take(TAKEN.end) {
        if taken.len() >= TAKEN.start && part < FEW {
            break;
        }
        // One that isn't in the sample may be in the next row.
        part *= f64::from(often(&trigram)).max(0.5) / SAMPLE as f64;
        taken.push(trigram.into_iter().collect());
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarest_are_asked_for() {
        let texts = ["web-01.example", "web-02.example", "mail-01.example"];
        let sample = Sample::new(texts.map(str::to_owned).to_vec());
        assert!(sample.are_common(&["-01.".into()]) && !sample.are_common(&["mail-".into()]));
        assert!(sample.are_common(&["mail-".into(), "-02.".into()]), "together they are");
        let mut frequencies = sample.frequencies;
        let asked = rarest("web-77.example", &frequencies, Engine::Sqlite);
        assert_eq!(asked.len(), TAKEN.start, "{asked:?}");
        assert!(asked.iter().all(|trigram| trigram.contains('7')), "{asked:?}");
        let asked = rarest("web-77.example", &frequencies, Engine::Postgres);
        assert_eq!(asked[0], "web", "it is in two rows, the others in three");
        assert!(asked.iter().all(|trigram| !trigram.contains('7')), "{asked:?}");
        frequencies.values_mut().for_each(|often| *often *= 100);
        let asked = rarest("web-01.example", &frequencies, Engine::Sqlite);
        assert_eq!(asked.len(), TAKEN.end, "all are in a good part of all rows: {asked:?}");
        let words = vec![rarest("a\"b", &frequencies, Engine::Sqlite), asked[..2].to_vec()];
        let question = Trigrams { table: "t", words, common: false }.question();
        assert!(question.starts_with("(\"a\"\"b\") OR (\""), "{question}");
        assert_eq!(question.matches(" AND ").count(), 1);
    }
}
