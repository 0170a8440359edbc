//! The operations of the API that the command line has: each is declared once, beside the command
//! that has it, and reached only through its declaration. A test compares them with the OpenAPI
//! document.

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use strongroom_client::{Call, Client, Method};

/// An operation of the API.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Its id in the OpenAPI document.
    #[cfg_attr(not(test), expect(dead_code, reason = "the test asks for it"))]
    pub(crate) id: &'static str,
    /// Its method.
    pub(crate) method: Method,
    /// Its path; what stands in braces is filled in.
    pub(crate) path: &'static str,
    /// The words of the command that has it.
    #[cfg_attr(not(test), expect(dead_code, reason = "the test asks for it"))]
    pub(crate) command: &'static str,
}

impl Operation {
    /// A request for it; `parts` fill the braces, in order.
    pub(crate) fn call<'a>(&self, parts: &[&str]) -> Call<'a> {
        Call::to(self.method.clone(), self.path, parts)
    }

    /// Asks for it.
    pub(crate) fn ask<T: DeserializeOwned>(&self, client: &Client, parts: &[&str]) -> Result<T> {
        Ok(client.call(&self.call(parts))?)
    }

    /// Asks for it with a body.
    pub(crate) fn send<T: DeserializeOwned>(
        &self,
        client: &Client,
        parts: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        Ok(client.call(&self.call(parts).with(body)?)?)
    }

    /// As [`Operation::send`], for what is to be done once even if it must be sent again.
    pub(crate) fn make<T: DeserializeOwned>(
        &self,
        client: &Client,
        parts: &[&str],
        body: &impl Serialize,
        once: &OnceArgs,
    ) -> Result<T> {
        let call = self.call(parts).with(body)?;
        let call = match &once.idempotency_key {
            Some(key) => call.once(key)?,
            None => call.only_once()?,
        };
        Ok(client.call(&call)?)
    }

    /// Its path.
    pub(crate) fn path(&self, parts: &[&str]) -> String {
        self.call(parts).path().to_owned()
    }
}

/// Under which key something is made.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct OnceArgs {
    /// Make one, however often the same command is run with this key within a day
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

/// The query that says whether something is done although somebody is connected.
pub(crate) fn forced(force: bool) -> [(&'static str, &'static str); 1] {
    [("force", if force { "true" } else { "false" })]
}

/// Declares operations: `NAME = "id", METHOD "/path", by "command";`. One that no command uses is
/// dead code, and the compiler says so.
macro_rules! operations {
    ($($name:ident = $id:literal, $method:ident $path:literal, by $command:literal;)*) => {
        $(pub(super) static $name: $crate::appliance::operation::Operation =
            $crate::appliance::operation::Operation {
                id: $id,
                method: ::strongroom_client::Method::$method,
                path: $path,
                command: $command,
            };)*
        #[cfg(test)]
        pub(crate) static OPERATIONS: &[&$crate::appliance::operation::Operation] = &[$(&$name),*];
    };
}
pub(crate) use operations;
