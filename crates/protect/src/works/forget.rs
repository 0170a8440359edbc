//! Forgetting images by rules, or those whose time is over, and freeing what only they had.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_catalog::events::Severity;
use strongroom_engine::pool::GcOptions;
use strongroom_storage::{Error, Rules, Selection, Storage};

use super::gc::collect;
use super::{FORGET, open, understood};
use crate::{Alone, Failure, Outcome, Run, Work};

/// What to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForgetParameters {
    /// Which images the rules are for.
    pub selection: Selection,
    /// What stays of them.
    pub rules: Rules,
    /// Instead of rules: those go that have been kept for as long as they say themselves.
    pub expired: bool,
    /// Only say what would go.
    pub dry_run: bool,
    /// Then collect garbage.
    pub prune: bool,
}

/// What the rules came to. They are asked once: were they asked again after the job was taken up
/// again, images that came meanwhile would push out others that were to stay.
#[derive(Debug, Serialize, Deserialize)]
struct Decided {
    kept: usize,
    /// The rows of those that go, and their roots.
    going: Vec<(i64, String)>,
}

/// More than these find no room in a checkpoint.
const MAX_DECIDED: usize = 20_000;

#[derive(Debug)]
pub(super) struct ForgetWork {
    pub(super) storage: Storage,
}

impl ForgetParameters {
    fn check(&self) -> Result<(), String> {
        match (self.rules == Rules::default(), self.expired) {
            (true, false) => Err("rules that keep nothing are refused: give at least one".into()),
            (false, true) => {
                Err("give rules, or ask for what is expired: they are two jobs".into())
            }
            _ => Ok(()),
        }
    }
}

/// What a job of these came to.
struct Done {
    kept: Option<usize>,
    forgotten: Vec<String>,
}

impl ForgetWork {
    /// Forgets what is expired. Nothing is decided before: an image may be kept for longer until
    /// the moment it goes, and taken up again the same images are found.
    fn expired(&self, run: &Run, parameters: &ForgetParameters) -> Result<Done, Failure> {
        let (pool, selection) = (run.pool_id()?, &parameters.selection);
        let gone = match parameters.dry_run {
            true => run.wait(self.storage.expired_images(pool, selection))?,
            false => {
                run.hold()?;
                run.wait(self.storage.forget_expired(pool, selection))?
            }
        };
        let goes = if parameters.dry_run { "would go" } else { "went" };
        for image in &gone {
            let text = format!("{} of {} is expired and {goes}", image.root, image.name);
            run.log(Severity::Info, text);
        }
        Ok(Done { kept: None, forgotten: gone.into_iter().map(|image| image.root).collect() })
    }

    fn by_rules(&self, run: &Run, parameters: &ForgetParameters) -> Result<Done, Failure> {
        let Decided { kept, going } = self.decided(run, parameters)?;
        if parameters.dry_run {
            let forgotten = going.into_iter().map(|(_, root)| root).collect();
            return Ok(Done { kept: Some(kept), forgotten });
        }
        run.hold()?;
        let ids: Vec<i64> = going.iter().map(|(id, _)| *id).collect();
        run.wait(self.storage.forget_decided(run.pool_id()?, &ids))?;
        // Whoever had the job before may have been cut off in the middle: what is gone went.
        let (mut forgotten, mut stays) = (Vec::new(), 0);
        for (id, root) in going {
            match run.wait(self.storage.image(id)) {
                Ok(_) => {
                    run.log(Severity::Info, format!("{root} stays: it was kept for longer since"));
                    stays += 1;
                }
                Err(Error::Catalog(strongroom_catalog::Error::NotFound { .. })) => {
                    forgotten.push(root);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Done { kept: Some(kept + stays), forgotten })
    }

    fn decided(&self, run: &Run, parameters: &ForgetParameters) -> Result<Decided, Failure> {
        if let Some(Ok(decided)) = run.checkpoint().map(Decided::deserialize) {
            run.log(Severity::Info, "what goes was decided already");
            return Ok(decided);
        }
        let selection = parameters.selection.clone();
        let verdicts = self.storage.judge_images(run.pool_id()?, selection, &parameters.rules);
        let verdicts = run.wait(verdicts)?;
        let going: Vec<_> = verdicts.iter().filter(|verdict| !verdict.stays()).collect();
        for verdict in &going {
            let image = &verdict.image;
            let goes = if parameters.dry_run { "would go" } else { "goes" };
            run.log(Severity::Info, format!("{} of {} {goes}", image.root, image.name));
        }
        let going: Vec<_> = going.iter().map(|v| (v.image.id, v.image.root.clone())).collect();
        let decided = Decided { kept: verdicts.len() - going.len(), going };
        if decided.going.len() <= MAX_DECIDED {
            run.store_checkpoint(&json!(decided))?;
        }
        Ok(decided)
    }
}

impl Work for ForgetWork {
    fn kind(&self) -> &'static str {
        FORGET
    }

    fn alone(&self) -> Alone {
        Alone::OfItsKind
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        understood::<ForgetParameters>(parameters)?.check()
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let parameters: ForgetParameters = run.parameters()?;
        parameters.check().map_err(Failure::Refused)?;
        let Done { kept, forgotten } = match parameters.expired {
            true => self.expired(run, &parameters)?,
            false => self.by_rules(run, &parameters)?,
        };
        let dry_run = parameters.dry_run;
        let mut result = json!({ "dry_run": dry_run, "forgotten": forgotten });
        if let Some(kept) = kept {
            result["kept"] = kept.into();
        }
        let mut warnings = false;
        if parameters.prune {
            let pool = open(run, &self.storage)?;
            let options = GcOptions { dry_run, ..GcOptions::default() };
            (result["gc"], warnings) = collect(run, &pool, options)?;
        }
        Ok(Outcome { result, warnings })
    }
}
