//! One conversation with a directory: connect, look for somebody, see whether the password is
//! right, look for groups.

use std::collections::BTreeSet;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ldap3::{
    Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Scope, SearchEntry,
    SearchOptions, StdStream,
};
use tokio::net::TcpStream;

use super::{DirectorySettings, place};
use crate::arrival::Arrival;
use crate::secret::Secret;

/// Groups of one user that are looked at.
const GROUPS: usize = 2000;
/// Entries that one search may find.
const ENTRIES: usize = 4000;

/// Result codes of a login (RFC 4511, appendix A) that say no to this one, not that something is
/// wrong: no such entry, a name that can't be one, inappropriate authentication, invalid
/// credentials, insufficient access, unwilling (a locked account), a constraint (the same).
const REFUSED: [u32; 7] = [32, 34, 48, 49, 50, 53, 19];

/// Where a conversation can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Tls,
    Bind,
    Search,
    Password,
    Groups,
}

impl Step {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Bind => "bind",
            Self::Search => "search",
            Self::Password => "password",
            Self::Groups => "groups",
        }
    }
}

/// That the directory can't be asked: where it failed, and why.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) step: Step,
    pub(super) why: String,
}

/// Somebody who was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) dn: String,
    pub(super) arrival: Arrival,
}

/// A connection.
pub(super) struct Conversation<'a> {
    settings: &'a DirectorySettings,
    ldap: Ldap,
    limit: Duration,
}

impl<'a> Conversation<'a> {
    /// Connects, and speaks TLS where that is said.
    pub(super) async fn begin(settings: &'a DirectorySettings) -> Result<Self, Trouble> {
        let limit = Duration::from_secs(settings.timeout_seconds.into());
        let connect = |why: String| Trouble { step: Step::Connect, why };
        let url = super::url(&settings.url).map_err(|error| connect(error.to_string()))?;
        let port = url.port().unwrap_or(if url.scheme() == "ldaps" { 636 } else { 389 });
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = within(limit, TcpStream::connect((host, port))).await;
        let stream = stream.map_err(connect)?.map_err(|error| connect(error.to_string()))?;
        let stream = stream.into_std().map_err(|error| connect(error.to_string()))?;

        let tls = |why: String| Trouble { step: Step::Tls, why };
        let mut wanted = LdapConnSettings::new().set_std_stream(StdStream::Tcp(stream));
        if url.scheme() == "ldaps" || settings.start_tls {
            let config = crate::tls::client_config(settings.ca_certificate.as_deref());
            wanted = wanted.set_config(config.map_err(tls)?).set_starttls(settings.start_tls);
        }
        let opened = within(limit, LdapConnAsync::from_url_with_settings(wanted, &url)).await;
        let (connection, ldap) = opened.map_err(tls)?.map_err(|error| tls(text(&error)))?;
        // It ends with the last handle.
        tokio::spawn(async move {
            if let Err(error) = connection.drive().await {
                tracing::debug!(%error, "a directory's connection ended");
            }
        });
        Ok(Self { settings, ldap, limit })
    }

    /// Logs in to look for others: as the appliance, or as the user itself. False: the user's
    /// password is wrong.
    pub(super) async fn bind(
        &mut self,
        secret: Option<&Secret>,
        name: &str,
        password: Option<&Secret>,
    ) -> Result<bool, Trouble> {
        let trouble = |why: String| Trouble { step: Step::Bind, why };
        if let Some(template) = &self.settings.bind_template {
            let password = password.ok_or_else(|| trouble("it takes a user's password".into()))?;
            let dn = place::in_template(template, name);
            return self.log_in(&dn, password, Step::Bind).await;
        }
        let dn = self.settings.bind_dn.clone();
        if dn.is_empty() {
            return Ok(true);
        }
        // Without a password the server would let anybody in as nobody (RFC 4513, section 5.1.2).
        let secret = secret.filter(|secret| !secret.expose().is_empty());
        let secret = secret.ok_or_else(|| trouble("bind_dn has no secret: give one".into()))?;
        match self.log_in(&dn, secret, Step::Bind).await? {
            true => Ok(true),
            false => Err(trouble("the server refuses bind_dn with its secret".into())),
        }
    }

    /// Whether the server lets this one in with this password.
    async fn log_in(&mut self, dn: &str, password: &Secret, step: Step) -> Result<bool, Trouble> {
        if dn.is_empty() || password.expose().is_empty() {
            return Ok(false);
        }
        let asked = self.ldap.with_timeout(self.limit).simple_bind(dn, password.expose()).await;
        let answer = asked.map_err(|error| Trouble { step, why: text(&error) })?;
        match answer.rc {
            0 => Ok(true),
            code if REFUSED.contains(&code) => Ok(false),
            _ => Err(Trouble { step, why: refusal(&answer) }),
        }
    }

    /// Looks for the one user who has this name.
    pub(super) async fn find(&mut self, name: &str) -> Result<Option<Found>, Trouble> {
        let settings = self.settings;
        let filter = place::in_filter(&settings.user_filter, name, "");
        let attributes: Vec<&str> = [
            &settings.name_attribute,
            &settings.id_attribute,
            &settings.full_name_attribute,
            &settings.email_attribute,
            &settings.group_attribute,
        ]
        .into_iter()
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .collect();
        let found = self.search(Step::Search, &settings.base_dn, &filter, attributes, 2).await?;
        let trouble = |why: String| Trouble { step: Step::Search, why };
        let mut found = found.into_iter();
        let entry = match (found.next(), found.next()) {
            (None, _) => return Ok(None),
            (Some(entry), None) => entry,
            (Some(_), Some(_)) => {
                return Err(trouble("user_filter finds more than one: make it narrower".into()));
            }
        };
        let lacks =
            |name: &str| trouble(format!("the entry {} has no attribute `{name}`", entry.dn));
        let id = &settings.id_attribute;
        let groups = values(&entry, &settings.group_attribute).take(GROUPS);
        let arrival = Arrival {
            external_id: external_id(&entry, id).ok_or_else(|| lacks(id))?,
            name: values(&entry, &settings.name_attribute)
                .next()
                .ok_or_else(|| lacks(&settings.name_attribute))?
                .to_owned(),
            full_name: values(&entry, &settings.full_name_attribute).next().unwrap_or("").into(),
            email: values(&entry, &settings.email_attribute).next().unwrap_or("").into(),
            groups: groups.map(place::fold_dn).collect(),
        };
        Ok(Some(Found { dn: entry.dn, arrival }))
    }

    /// Whether the password is that of the one who was found.
    pub(super) async fn proves(
        &mut self,
        found: &Found,
        password: &Secret,
    ) -> Result<bool, Trouble> {
        self.log_in(&found.dn, password, Step::Password).await
    }

    /// Asks whether somebody who isn't there may log in: what takes as long tells nothing.
    pub(super) async fn refuse(&mut self) {
        let dn = format!("cn=strongroom-nobody,{}", self.settings.base_dn);
        let _ = self.log_in(&dn, &Secret::new("strongroom-nobody"), Step::Password).await;
    }

    /// The groups that a filter finds, beside those that the user's entry lists.
    pub(super) async fn groups(
        &mut self,
        secret: Option<&Secret>,
        name: &str,
        found: &Found,
    ) -> Result<BTreeSet<String>, Trouble> {
        let settings = self.settings;
        let mut groups = found.arrival.groups.clone();
        if settings.group_filter.is_empty() {
            return Ok(groups);
        }
        // The appliance may see groups that the user may not.
        if settings.bind_template.is_none() && !settings.bind_dn.is_empty() {
            self.bind(secret, name, None).await?;
        }
        let filter = place::in_filter(&settings.group_filter, name, &found.dn);
        let base = match settings.group_base_dn.as_str() {
            "" => &settings.base_dn,
            base => base,
        };
        // No attribute: the names of the entries are enough.
        let entries = self.search(Step::Groups, base, &filter, vec!["1.1"], GROUPS).await?;
        groups.extend(entries.iter().map(|entry| place::fold_dn(&entry.dn)));
        Ok(groups)
    }

    async fn search(
        &mut self,
        step: Step,
        base: &str,
        filter: &str,
        attributes: Vec<&str>,
        most: usize,
    ) -> Result<Vec<SearchEntry>, Trouble> {
        let trouble = |why: String| Trouble { step, why };
        let seconds = i32::try_from(self.limit.as_secs()).unwrap_or(i32::MAX);
        let size = i32::try_from(most).unwrap_or(i32::MAX);
        let options = SearchOptions::new().timelimit(seconds).sizelimit(size);
        let ldap = self.ldap.with_search_options(options).with_timeout(self.limit);
        let work = async {
            let mut stream =
                ldap.streaming_search(base, Scope::Subtree, filter, attributes).await?;
            let mut entries = Vec::new();
            // A server that doesn't keep to the size is cut off.
            for _ in 0..ENTRIES {
                let Some(entry) = stream.next().await? else { break };
                // Whoever is elsewhere is not asked: that would send passwords there.
                if !entry.is_ref() && !entry.is_intermediate() && entries.len() < most {
                    entries.push(SearchEntry::construct(entry));
                }
            }
            Ok::<_, LdapError>((entries, stream.finish().await))
        };
        let done = within(self.limit, work).await.map_err(trouble)?;
        let (entries, answer) = done.map_err(|error| trouble(text(&error)))?;
        match answer.rc {
            // 4: more than asked for; 32: there is nothing at the base; 88: cut off here.
            0 | 4 => Ok(entries),
            88 if !entries.is_empty() => Ok(entries),
            _ => Err(trouble(refusal(&answer))),
        }
    }
}

/// Waits no longer than that.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, String> {
    let done = tokio::time::timeout(limit, work).await;
    done.map_err(|_| format!("no answer within {} seconds", limit.as_secs()))
}

/// The values of an attribute, whose name may be written in any case.
fn values<'e>(entry: &'e SearchEntry, name: &str) -> impl Iterator<Item = &'e str> {
    let found = entry.attrs.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.into_iter().flat_map(|(_, values)| values).map(String::as_str)
}

/// What never changes of an entry: text, or bytes as hexadecimal digits, as `objectGUID`.
fn external_id(entry: &SearchEntry, name: &str) -> Option<String> {
    let binary = name.eq_ignore_ascii_case("objectGUID") || name.eq_ignore_ascii_case("objectSid");
    let bytes = entry.bin_attrs.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
    if let Some(bytes) = bytes.and_then(|(_, values)| values.first()) {
        return Some(HEXLOWER.encode(bytes));
    }
    let text = values(entry, name).next()?;
    // Bytes that happen to be text are still bytes.
    Some(if binary { HEXLOWER.encode(text.as_bytes()) } else { text.to_owned() })
}

fn refusal(answer: &LdapResult) -> String {
    // The server's text may be long; what it shows is for administrators.
    let text: String = answer.text.chars().filter(|c| !c.is_control()).take(200).collect();
    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
    match answer.rc {
        10 => "the server refers to another, which is not followed: ask that one".into(),
        13 => "the server wants TLS: use ldaps://, or start_tls".into(),
        32 => format!("there is no such entry{text}"),
        code => format!("the server answers with code {code}{text}"),
    }
}

fn text(error: &LdapError) -> String {
    match error {
        LdapError::Io { source } => source.to_string(),
        LdapError::LdapResult { result } => refusal(result),
        LdapError::Timeout { .. } => "no answer in time".into(),
        other => other.to_string(),
    }
}
