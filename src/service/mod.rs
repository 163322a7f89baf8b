//! A backend with detectors, treatments and the window around it, and itself a [`Backend`].
//!
//! No byte of a reply leaves before every policy of the model has ruled on the request, and none
//! leaves without passing the [`Window`]. Whatever goes wrong here ends in a treated request or in no
//! reply, unless the policy says `on_error = "pass"`.

pub mod app;
mod guard;
mod observe;
mod plan;
mod record;
pub mod variants;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt;

use crate::backend::{Backend, BackendError, Capabilities, ModelCard, ReplyStream};
use crate::telemetry::{AuditLog, Metrics};
use crate::types::{Finish, Input, ReplyEvent, Request, Scored, Usage};
use crate::window::Window;

pub use guard::{Guard, GuardError};

use plan::{Plan, Prepared};
use record::Recorder;

/// A guarded backend.
#[derive(Debug)]
pub struct Guarded {
    inner: Arc<dyn Backend>,
    guards: ArcSwap<Vec<Guard>>,
    recorder: Recorder,
}

impl Guarded {
    /// Puts guards around a backend.
    #[must_use]
    pub fn new(
        backend: Arc<dyn Backend>,
        guards: Vec<Guard>,
        metrics: Arc<Metrics>,
        audit: Option<Arc<AuditLog>>,
    ) -> Self {
        let guards = ArcSwap::from_pointee(guards);
        Self { inner: backend, guards, recorder: Recorder::new(metrics, audit) }
    }

    /// Swaps the guards at once. Requests that have been ruled on keep the ones they had.
    pub fn replace(&self, guards: Vec<Guard>) {
        self.guards.store(Arc::new(guards));
    }

    async fn prepare(
        &self,
        request: Request,
        continuation: Option<String>,
    ) -> Result<Prepared, BackendError> {
        let guards = self.guards.load_full();
        let capabilities = self.inner.capabilities();
        Plan::new(&guards, &request.model, capabilities, &self.recorder)
            .prepare(request, continuation)
            .await
    }
}

#[async_trait]
impl Backend for Guarded {
    async fn generate(&self, request: Request) -> Result<ReplyStream, BackendError> {
        let (n, most, input) = (request.n, request.max_tokens, request.input.clone());
        match self.prepare(request, None).await? {
            Prepared::Reply { text, finish, prompt_bytes } => {
                // Without a tokenizer, four bytes a token.
                let estimate = || prompt_bytes.div_ceil(4).max(1);
                let prompt_tokens = self.inner.prompt_tokens(&input).unwrap_or_else(estimate);
                Ok(reply(&text, finish, Shape { n, most, prompt_tokens }))
            }
            Prepared::Request { request, treated, patterns, topics, .. } => {
                let stream = self.inner.generate(request).await?;
                if patterns.is_empty() && !treated {
                    return Ok(stream);
                }
                let window = Window::new(patterns);
                let window = if treated { window.without_logprobs() } else { window };
                let recorder = self.recorder.clone();
                let done = move |hits: usize| {
                    if !treated {
                        recorder.hits(&topics, hits);
                    }
                };
                let own = if treated { self.inner.prompt_tokens(&input) } else { None };
                Ok(watch(stream, window, own, done))
            }
        }
    }

    async fn score(
        &self,
        request: Request,
        continuation: &str,
        end_of_turn: bool,
    ) -> Result<Scored, BackendError> {
        match self.prepare(request, Some(continuation.to_owned())).await? {
            Prepared::Reply { .. } => Err(BackendError::Unsupported { what: "scoring this text" }),
            Prepared::Request { request, continuation: treated, .. } => {
                let continuation = treated.as_deref().unwrap_or(continuation);
                self.inner.score(request, continuation, end_of_turn).await
            }
        }
    }

    async fn models(&self) -> Result<Vec<ModelCard>, BackendError> {
        self.inner.models().await
    }

    fn detokenise(&self, ids: &[u32]) -> Result<String, BackendError> {
        self.inner.detokenise(ids)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn prompt_tokens(&self, input: &Input) -> Option<usize> {
        self.inner.prompt_tokens(input)
    }

    async fn ready(&self) -> bool {
        self.inner.ready().await
    }
}

/// Passes a reply through a window. After a failure nothing that was held back leaves. Usage counts
/// the client's `own` prompt, where that is known to differ from what was sent.
fn watch(
    stream: ReplyStream,
    mut window: Window,
    own: Option<usize>,
    done: impl Fn(usize) + Send + 'static,
) -> ReplyStream {
    stream
        .flat_map(move |item| {
            let events: Vec<Result<ReplyEvent, BackendError>> = match item {
                Ok(mut event) => {
                    let last = matches!(event, ReplyEvent::Done(_));
                    if let (ReplyEvent::Done(usage), Some(own)) = (&mut event, own) {
                        usage.prompt_tokens = own;
                    }
                    let events = window.push(event).into_iter().map(Ok).collect();
                    if last {
                        done(window.hits());
                    }
                    events
                }
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(events)
        })
        .boxed()
}

/// What a reply without a model imitates of one.
#[derive(Debug, Clone, Copy)]
struct Shape {
    n: usize,
    most: Option<usize>,
    prompt_tokens: usize,
}

/// A finished reply as a stream. Its tokens are estimated, a word each, so that neither usage nor a short `max_tokens` tells it from a model's.
fn reply(text: &str, finish: Finish, shape: Shape) -> ReplyStream {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let (kept, finish) = match shape.most {
        Some(most) if most < words.len() => (most, Finish::Length),
        _ => (words.len(), finish),
    };
    let mut events = Vec::new();
    for choice in 0..shape.n {
        for word in &words[..kept] {
            let (text, logprobs) = ((*word).to_owned(), Vec::new());
            events.push(ReplyEvent::Text { choice, text, logprobs });
        }
        events.push(ReplyEvent::Finished { choice, finish });
    }
    events.push(ReplyEvent::Done(Usage {
        prompt_tokens: shape.prompt_tokens,
        completion_tokens: kept * shape.n,
    }));
    futures::stream::iter(events.into_iter().map(Ok)).boxed()
}
