//! Handlers: typed functions whose types are the documentation.

use std::pin::Pin;

use axum::response::Response;

use super::answer::Answer;
use super::part::{Part, Received};
use super::shape::Shape;
use crate::call::Call;
use crate::problem::Result;

/// What a handler gives when it is run.
pub(super) type Running = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

/// A function `async fn(Call, parts...) -> Result<impl Answer>`.
pub trait Handler<Parts>: Send + Sync + 'static {
    /// What its types say.
    fn shape() -> Shape;
    /// Reads the parts and runs it.
    fn run(&self, call: Call, request: Received) -> Running;
}

/// The same, its types forgotten.
pub(super) trait Run: Send + Sync {
    fn run(&self, call: Call, request: Received) -> Running;
}

/// A handler and the types of its parts.
pub(super) struct Typed<H, P> {
    handler: H,
    parts: std::marker::PhantomData<fn(P)>,
}

impl<H, P> Typed<H, P> {
    pub(super) fn new(handler: H) -> Self {
        Self { handler, parts: std::marker::PhantomData }
    }
}

impl<P: 'static, H: Handler<P>> Run for Typed<H, P> {
    fn run(&self, call: Call, request: Received) -> Running {
        self.handler.run(call, request)
    }
}

macro_rules! handlers {
    ($(($($part:ident),*))*) => {$(
        impl<F, Fut, A, $($part),*> Handler<($($part,)*)> for F
        where
            F: Fn(Call, $($part),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Result<A>> + Send + 'static,
            A: Answer,
            $($part: Part,)*
        {
            fn shape() -> Shape {
                let mut shape = Shape::default();
                $($part::describe(&mut shape);)*
                A::describe(&mut shape);
                shape
            }

            #[allow(non_snake_case, unused_mut, unused_variables, reason = "one macro for any number of parts")]
            fn run(&self, call: Call, mut request: Received) -> Running {
                let handler = self.clone();
                Box::pin(async move {
                    $(let $part = $part::take(&mut request).await?;)*
                    drop(request);
                    Ok(handler(call, $($part),*).await?.respond())
                })
            }
        }
    )*};
}

handlers! {
    ()
    (P1)
    (P1, P2)
    (P1, P2, P3)
    (P1, P2, P3, P4)
}
