//! Forgetting images by rules, and freeing what only they had.

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

impl ForgetWork {
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
            run.log(Severity::Info, format!("{} of {} goes", image.root, image.name));
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
        let parameters = understood::<ForgetParameters>(parameters)?;
        match parameters.rules == Rules::default() {
            true => Err("rules that keep nothing are refused: give at least one".into()),
            false => Ok(()),
        }
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let parameters: ForgetParameters = run.parameters()?;
        let Decided { kept, going } = self.decided(run, &parameters)?;
        let mut ids = Vec::new();
        for (id, _) in &going {
            // Whoever had the job before may have been cut off in the middle.
            match run.wait(self.storage.image(*id)) {
                Ok(_) => ids.push(*id),
                Err(Error::Catalog(strongroom_catalog::Error::NotFound { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        run.hold()?;
        run.wait(self.storage.forget_images(&ids))?;
        let mut result = json!({
            "kept": kept,
            "forgotten": going.iter().map(|(_, root)| root.as_str()).collect::<Vec<_>>(),
        });
        let mut warnings = false;
        if parameters.prune {
            let pool = open(run, &self.storage)?;
            (result["gc"], warnings) = collect(run, &pool, GcOptions::default())?;
        }
        Ok(Outcome { result, warnings })
    }
}
