//! What asking somebody gives: an answer at once, or one to wait for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;

use crate::{DialError, Response};

/// The outcome of one request. Whoever knows the answer at once says so, and nobody has to wait for it: most answers
/// of simulated services are such, as their time is data. Everything else is a future; a reply is one itself.
pub enum Reply {
    /// The answer, until it is taken.
    Now(Option<Result<Response, DialError>>),
    /// An answer to come.
    Later(BoxFuture<'static, Result<Response, DialError>>),
}

impl Reply {
    /// An answer, or the error in its place.
    pub fn now(result: Result<Response, DialError>) -> Reply {
        Reply::Now(Some(result))
    }

    /// An answer to come.
    pub fn later(answer: impl Future<Output = Result<Response, DialError>> + Send + 'static) -> Reply {
        Reply::Later(Box::pin(answer))
    }

    /// What `change` makes of the outcome: at once if it is known.
    pub fn map(
        self,
        change: impl FnOnce(Result<Response, DialError>) -> Result<Response, DialError> + Send + 'static,
    ) -> Reply {
        match self {
            Reply::Now(result) => Reply::Now(result.map(change)),
            Reply::Later(answer) => Reply::later(async move { change(answer.await) }),
        }
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Reply {
        Reply::now(Ok(response))
    }
}

impl From<DialError> for Reply {
    fn from(error: DialError) -> Reply {
        Reply::now(Err(error))
    }
}

impl Future for Reply {
    type Output = Result<Response, DialError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Reply::Now(result) => Poll::Ready(result.take().expect("a future is not polled after its end")),
            Reply::Later(answer) => answer.as_mut().poll(context),
        }
    }
}
