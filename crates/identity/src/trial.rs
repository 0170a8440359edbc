//! Whether a directory or an issuer works, step by step.

use strongroom_catalog::identity::SourceGrant;

use crate::Result;
use crate::audit::Deed;
use crate::identity::Identity;
use crate::principal::Principal;
use crate::sources::{GroupRole, Settings, Sourced};

/// A step of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialStep {
    /// Its name: of a directory `connect`, `tls`, `bind`, `search`, `password`, `groups`; of an
    /// issuer `keys`, `token`.
    pub name: &'static str,
    /// Whether it went well.
    pub ok: bool,
    /// What was found, or what is wrong.
    pub detail: String,
}

/// What came of a trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// The steps, up to the first that failed.
    pub steps: Vec<TrialStep>,
    /// The groups of the user it was about, as they are compared.
    pub groups: Vec<String>,
    /// The roles that those have here.
    pub roles: Vec<GroupRole>,
}

impl Trial {
    /// The step that failed.
    pub fn failed(&self) -> Option<&TrialStep> {
        self.steps.iter().find(|step| !step.ok)
    }

    pub(crate) fn step(&mut self, name: &'static str, ok: bool, detail: impl Into<String>) {
        self.steps.push(TrialStep { name, ok, detail: detail.into() });
    }
}

impl Identity {
    /// Finds the roles of the groups, and writes down that it was tried.
    pub(crate) async fn end_trial<S: Settings>(
        &self,
        by: &Principal,
        source: &Sourced<S>,
        mut trial: Trial,
    ) -> Result<Trial> {
        let mapped = SourceGrant::of_source(source.row.id);
        let mapped = self.inner.catalog.find::<SourceGrant>(mapped).await?;
        let has = mapped.into_iter().filter(|grant| trial.groups.contains(&grant.folded));
        trial.roles = has.map(GroupRole::from).collect();
        let deed = Deed::new(&format!("{}.test", S::NOUN), &source.row.name);
        let deed = match trial.failed() {
            Some(step) => deed.failed(format!("failed: {}", step.name)),
            None => deed,
        };
        self.record(by, deed).await?;
        Ok(trial)
    }
}
