//! How an operation is declared.

use std::fmt;

use futures_util::future::BoxFuture;
use http::Method;
use strongroom_identity::Right;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::PREFIX;
use super::answer::{Answer, Success};
use super::dispatch::Call;

/// What answers.
pub(crate) type Run = fn(Call) -> BoxFuture<'static, Answer>;

/// On what the right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The appliance itself.
    Appliance,
    /// Any organisation: a list shows what is the caller's, and what one thing is about is asked
    /// for again when that is found.
    Any,
}

/// What is sent, in the body or in the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) meaning: &'static str,
}

/// One that must be sent.
pub(crate) const fn needed(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, required: true, meaning }
}

/// One that may be left out.
pub(crate) const fn may(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, required: false, meaning }
}

/// The schema of what is answered, and those that it names.
#[derive(Clone, Copy)]
pub(crate) struct Answered {
    pub(crate) schema: fn() -> RefOr<Schema>,
    pub(crate) named: fn(&mut Vec<(String, RefOr<Schema>)>),
}

/// An operation.
#[derive(Clone)]
pub(crate) struct Endpoint {
    method: Method,
    path: &'static str,
    id: &'static str,
    permission: &'static str,
    right: Right,
    over: Over,
    pub(crate) section: &'static str,
    pub(crate) summary: &'static str,
    /// How it differs from the original's, for the table in the documentation.
    pub(crate) state: &'static str,
    pub(crate) query: &'static [Parameter],
    pub(crate) body: &'static [Parameter],
    pub(crate) answered: Answered,
    pub(crate) run: Run,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {PREFIX}{} ({})", self.method, self.path, self.id)
    }
}

/// What the operations of a section share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    /// Its name.
    pub(crate) name: &'static str,
    /// What a key must have been allowed to read.
    pub(crate) reads: &'static str,
    /// The right to read.
    pub(crate) view: Right,
    /// The right to change.
    pub(crate) manage: Right,
    /// On what they are needed.
    pub(crate) over: Over,
}

impl Section {
    /// An operation that only reads.
    pub(crate) fn get<T: ToSchema>(
        &self,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        run: Run,
    ) -> Endpoint {
        let answered = Answered { schema: <T as PartialSchema>::schema, named: T::schemas };
        Endpoint {
            method: Method::GET,
            path,
            id,
            permission: self.reads,
            right: self.view,
            over: self.over,
            section: self.name,
            summary,
            state: "as the original",
            query: &[],
            body: &[],
            answered,
            run,
        }
    }

    /// An operation that changes something, and answers that it did.
    pub(crate) fn change(
        &self,
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        run: Run,
    ) -> Endpoint {
        let read = self.get::<Success>(path, id, summary, run);
        Endpoint { method, permission: id, right: self.manage, ..read }
    }
}

impl Endpoint {
    /// How it differs from the original's.
    pub(crate) fn state(self, state: &'static str) -> Self {
        Self { state, ..self }
    }

    /// What the query may have.
    pub(crate) fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    /// What the body has.
    pub(crate) fn body(self, body: &'static [Parameter]) -> Self {
        Self { body, ..self }
    }

    /// What is answered.
    pub(crate) fn answers<T: ToSchema>(self) -> Self {
        let answered = Answered { schema: <T as PartialSchema>::schema, named: T::schemas };
        Self { answered, ..self }
    }

    /// It needs another right than the others of its section.
    pub(crate) fn needs(self, right: Right, over: Over) -> Self {
        Self { right, over, ..self }
    }

    /// Its method.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// Its path, below the prefix.
    pub(crate) fn path(&self) -> &'static str {
        self.path
    }

    /// Its id.
    pub(crate) fn id(&self) -> &'static str {
        self.id
    }

    /// What a key must have been allowed; the id does too.
    pub(crate) fn permission(&self) -> &'static str {
        self.permission
    }

    /// The right that its user needs.
    pub(crate) fn right(&self) -> Right {
        self.right
    }

    /// On what.
    pub(crate) fn over(&self) -> Over {
        self.over
    }
}
