//! Section 5: starting anew.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use strongroom_appliance::Error;
use strongroom_appliance::works::APPLIANCE_RESTART;
use strongroom_identity::Right;

use super::answer::{Answer, accepted};
use super::backup::secret;
use super::dispatch::Call;
use super::{Documented, Endpoint};

const PATH: &str = "/reboot";

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint::get(
    "Administration",
    PATH,
    "jidoteki.reboot",
    "Back the appliance up, and start it anew",
    Right::SystemManage,
    &[Documented::bare(202, "A job does it.")],
    reboot,
)];

fn reboot(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let secret = secret(&call).await?;
        match call.app().administration().restart(call.asker()?, secret.as_ref()).await {
            // One that is under way goes on.
            Ok(_) | Err(Error::Busy { kind: APPLIANCE_RESTART, .. }) => Ok(accepted(PATH)),
            Err(error) => Err(error.into()),
        }
    }
    .boxed()
}
