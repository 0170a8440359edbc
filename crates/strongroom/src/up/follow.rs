//! What is set, given to the services that go by it.

use std::sync::Arc;

use strongroom_appliance::{Settings, Values};
use strongroom_identity::{Identity, Policy};
use strongroom_protect::{Collecting, Engine, Limits};
use tokio::task::JoinHandle;

/// Gives the services what is set, now and whenever it changes, until the task is aborted.
pub(super) fn follow(settings: &Settings, identity: &Identity, engine: &Engine) -> JoinHandle<()> {
    let (settings, identity, engine) = (settings.clone(), identity.clone(), engine.clone());
    let mut changes = settings.watch();
    let apply = move |values: &Values| {
        identity.set_policy(policy(values));
        engine.set_limits(limits(values));
    };
    apply(&settings.current());
    tokio::spawn(async move {
        let told = async {
            while changes.changed().await.is_ok() {
                let values = Arc::clone(&changes.borrow_and_update());
                apply(&values);
            }
        };
        tokio::join!(told, settings.follow());
    })
}

fn policy(values: &Values) -> Policy {
    Policy {
        free_failures: values.login_free,
        free_failures_address: values.login_free_address,
        longest_wait: values.login_wait_most,
        forget_after: values.login_forget,
        shortest_password: values.password_shortest,
        sessions_per_user: values.sessions_per_user,
    }
}

/// When garbage is collected unasked.
pub(super) fn collecting(values: &Values) -> Collecting {
    Collecting {
        overwritten: values.gc_overwritten,
        free: values.gc_free,
        every: values.gc_every,
        pause: values.gc_pause,
    }
}

/// What the engine of jobs does at most.
pub(super) fn limits(values: &Values) -> Limits {
    Limits {
        slots: values.jobs_per_node,
        per_pool: values.jobs_per_pool,
        per_host: values.jobs_per_host,
        attempts: values.jobs_attempts,
        backoff: values.jobs_backoff,
        max_backoff: values.jobs_backoff_most,
    }
}
