//! Forgetting images by rules, and freeing what only they had.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_catalog::events::Severity;
use strongroom_engine::pool::GcOptions;
use strongroom_storage::{Rules, Selection, Storage};

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

#[derive(Debug)]
pub(super) struct ForgetWork {
    pub(super) storage: Storage,
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
        let pool_id = run.pool_id()?;
        let ForgetParameters { selection, rules, prune } = parameters;
        let verdicts = run.wait(self.storage.judge_images(pool_id, selection, &rules))?;
        let going: Vec<_> = verdicts.iter().filter(|verdict| !verdict.stays()).collect();
        for verdict in &going {
            let image = &verdict.image;
            let text = format!("{} of {} goes", image.root, image.name);
            run.log(Severity::Info, text);
        }
        let ids: Vec<i64> = going.iter().map(|verdict| verdict.image.id).collect();
        run.hold()?;
        run.wait(self.storage.forget_images(&ids))?;
        let mut result = json!({
            "kept": verdicts.len() - ids.len(),
            "forgotten": going.iter().map(|v| v.image.root.as_str()).collect::<Vec<_>>(),
        });
        let mut warnings = false;
        if prune {
            let pool = open(run, &self.storage)?;
            (result["gc"], warnings) = collect(run, &pool, GcOptions::default())?;
        }
        Ok(Outcome { result, warnings })
    }
}
