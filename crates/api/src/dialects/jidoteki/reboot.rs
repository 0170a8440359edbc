//! Section 5: starting anew.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Method;
use strongroom_appliance::Error;
use strongroom_identity::Right;

use super::answer::{Answer, accepted};
use super::backup::secret;
use super::dispatch::Call;
use super::{Documented, Endpoint};

const PATH: &str = "/reboot";

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::GET,
    path: PATH,
    id: "jidoteki.reboot",
    summary: "Back the appliance up, and start it anew",
    section: "Administration",
    right: Right::SystemManage,
    parameters: &[],
    answers: &[Documented { status: 202, kind: None, meaning: "A job does it." }],
    run: reboot,
}];

fn reboot(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let secret = secret(&call).await?;
        match call.app().administration().restart(call.asker()?, secret.as_ref()).await {
            // One that is under way goes on.
            Ok(_) | Err(Error::Busy { .. }) => Ok(accepted(PATH)),
            Err(error) => Err(error.into()),
        }
    }
    .boxed()
}
