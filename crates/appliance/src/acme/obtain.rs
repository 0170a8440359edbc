//! Asking an authority for a certificate.

use std::time::Duration;

use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use zeroize::Zeroizing;

use super::{Acme, AcmeError, AcmeSettings, Answering, Kept};

/// How long it is waited for the authority to have looked, and for what it gives.
const PATIENCE: Duration = Duration::from_secs(120);
/// What it says of an account that it doesn't know (RFC 8555, section 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
/// Characters of what it says is wrong.
const SAID: usize = 400;

/// What it gave.
pub(super) struct Given {
    /// The certificate and those that it was signed with.
    pub(super) chain: String,
    /// Its key, which nobody else has seen.
    pub(super) key: Zeroizing<String>,
}

/// What an authority says, in one line of bounded length.
fn said(error: impl std::fmt::Display) -> String {
    let text: String = error.to_string().chars().take(SAID).collect();
    text.escape_debug().to_string()
}

impl Acme {
    /// Asks for a certificate as `kept` says.
    pub(super) async fn obtain(&self, kept: &Kept) -> Result<Given, String> {
        let domains = kept.settings.domains.iter().cloned().map(Identifier::Dns);
        let domains: Vec<_> = domains.collect();
        let wanted = NewOrder::new(&domains);
        let known = match &kept.account {
            Some(account) => {
                self.known_account(&kept.settings, account).await?.new_order(&wanted).await
            }
            None => self.new_account(&kept.settings).await?.new_order(&wanted).await,
        };
        let order = match known {
            // It has forgotten it, as one that was set up anew.
            Err(AcmeError::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
                self.new_account(&kept.settings).await?.new_order(&wanted).await
            }
            known => known,
        };
        let mut order = order.map_err(said)?;
        // They are answered until this is over.
        let _answering = self.prove(&mut order, &kept.settings.domains).await?;
        let patience = RetryPolicy::new().timeout(PATIENCE);
        let status = order.poll_ready(&patience).await.map_err(said)?;
        if !matches!(status, OrderStatus::Ready | OrderStatus::Valid) {
            return Err(refused(&mut order).await);
        }
        let key = Zeroizing::new(order.finalize().await.map_err(said)?);
        let chain = order.poll_certificate(&patience).await.map_err(said)?;
        Ok(Given { chain, key })
    }

    fn account_builder(&self, settings: &AcmeSettings) -> AccountBuilder {
        Account::builder_with_http((self.connect)(settings.ca_certificate.as_deref()))
    }

    async fn known_account(
        &self,
        settings: &AcmeSettings,
        account: &serde_json::Value,
    ) -> Result<Account, String> {
        let known: AccountCredentials = serde_json::from_value(account.clone()).map_err(said)?;
        self.account_builder(settings).from_credentials(known).await.map_err(said)
    }

    /// Makes an account at the authority, which is kept before it is used.
    async fn new_account(&self, settings: &AcmeSettings) -> Result<Account, String> {
        let contact: Vec<_> = settings.contact.iter().map(|one| format!("mailto:{one}")).collect();
        let contact: Vec<_> = contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let builder = self.account_builder(settings);
        let made = builder.create(&new, settings.directory.clone(), None).await;
        let (account, credentials) = made.map_err(said)?;
        let credentials = serde_json::to_value(&credentials).map_err(said)?;
        self.change(|kept| kept.account = Some(credentials)).map_err(said)?;
        Ok(account)
    }

    /// Answers what proves that the names are this appliance's.
    async fn prove(&self, order: &mut Order, domains: &[String]) -> Result<Vec<Answering>, String> {
        let mut answering = Vec::new();
        let mut all = order.authorizations();
        let mut looked = 0;
        while let Some(one) = all.next().await {
            let mut one = one.map_err(said)?;
            looked += 1;
            let name = one.identifier().to_string();
            if looked > domains.len() || !domains.iter().any(|it| it.eq_ignore_ascii_case(&name)) {
                return Err(said(format!("it wants a proof of {name}, which was not asked for")));
            }
            match one.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => return Err(format!("it gives no authorization: {status:?}")),
            }
            let mut challenge = one
                .challenge(ChallengeType::Http01)
                .ok_or("it does not take a proof by http-01")?;
            let answer = challenge.key_authorization();
            let put = self.challenges.put(&challenge.token, answer.as_str());
            answering.push(put.ok_or("it asks for too many proofs")?);
            challenge.set_ready().await.map_err(said)?;
        }
        Ok(answering)
    }
}

/// Why an order came to nothing, as its authorizations say.
async fn refused(order: &mut Order) -> String {
    let mut why = Vec::new();
    let mut all = order.authorizations();
    while let Some(one) = all.next().await {
        let Ok(mut one) = one else { break };
        if one.refresh().await.is_err() {
            break;
        }
        let name = one.identifier().to_string();
        for error in one.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
            let detail = error.detail.clone().unwrap_or_else(|| error.to_string());
            why.push(format!("{name}: {detail}"));
        }
    }
    match why.is_empty() {
        true => "it refused".to_owned(),
        false => said(why.join("; ")),
    }
}
