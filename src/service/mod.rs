//! A backend with detectors, treatments and the window around it, and itself a [`Backend`].
//!
//! No byte of a reply leaves before every policy of the model has ruled on the request, and none
//! leaves without passing the [`Window`]. Whatever goes wrong here ends in a treated request or in no
//! reply, unless the policy says `on_error = "pass"`.

pub mod app;
mod cache;
mod copied;
mod exchange;
mod finished;
mod guard;
mod judge;
mod observe;
mod plan;
mod probe;
mod record;
pub mod reload;
mod stops;
pub mod variants;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt;

use crate::backend::{Backend, BackendError, Capabilities, ModelCard, ReplyStream};
use crate::policy::OnHit;
use crate::telemetry::{AuditLog, Metrics};
use crate::types::{Input, OffsetPair, ReplyEvent, Request, Role, Scored};
use crate::window::Window;

pub use guard::{Guard, GuardError};

use cache::{Scope, Verdicts};
use finished::{Answer, Shape, clock};
use judge::Served;
use plan::{Plan, Prepared, Watched};
use record::Recorder;

/// A guarded backend.
#[derive(Debug)]
pub struct Guarded {
    inner: Arc<dyn Backend>,
    guards: ArcSwap<Guards>,
    generations: AtomicU64,
    recorder: Recorder,
    verdicts: Verdicts,
}

/// The guards in force.
#[derive(Debug)]
struct Guards {
    list: Vec<Guard>,
    /// No other set of guards had it.
    generation: u64,
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
        let recorder = Recorder::new(metrics, audit);
        guards.iter().for_each(|it| recorder.in_force(&it.policy));
        Self {
            inner: backend,
            guards: ArcSwap::from_pointee(Guards { list: guards, generation: 0 }),
            generations: AtomicU64::new(0),
            recorder,
            verdicts: Verdicts::new(),
        }
    }

    /// Swaps the guards at once. Requests that have been ruled on keep the ones they had.
    pub fn replace(&self, guards: Vec<Guard>) {
        guards.iter().for_each(|it| self.recorder.in_force(&it.policy));
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        self.guards.store(Arc::new(Guards { list: guards, generation }));
        self.verdicts.clear();
    }

    async fn prepare(
        &self,
        request: Request,
        continuation: Option<String>,
        again: bool,
    ) -> Result<Prepared, BackendError> {
        if !request.tools.is_empty() && !self.inner.capabilities().tools {
            // Before any policy rules: an answer in the model's place would give them away.
            return Err(BackendError::NoTools);
        }
        let guards = self.guards.load_full();
        let model = request.model.clone();
        // A judge asks past the guards: its question is about the topic.
        let served = Served { backend: self.inner.as_ref(), model: &model };
        let scope = Scope { tenant: request.tenant, generation: guards.generation };
        let kept = (&self.verdicts, scope);
        let plan = Plan::new(&guards.list, served, &self.recorder, kept);
        plan.prepare(request, continuation, again).await
    }

    /// The reply to a request; `again` when an untreated one had a hit.
    async fn answer(&self, request: Request, again: bool) -> Result<Answered, BackendError> {
        let asked = request.clone();
        let (n, most, stop) = (asked.n, asked.max_tokens, &asked.stop);
        let functions = request.tools.offered.iter().map(|it| it.name.clone()).collect();
        let hits = Arc::new(AtomicUsize::new(0));
        match self.prepare(request, None, again).await? {
            Prepared::Reply { text, finish, paced, prompt_bytes, on_hit } => {
                // Without a tokenizer, four bytes a token.
                let estimate = || prompt_bytes.div_ceil(4).max(1);
                let prompt_tokens = self.inner.admits(&asked)?.unwrap_or_else(estimate);
                let answer =
                    Answer::new(until(&text, stop), finish, Shape { n, most, prompt_tokens });
                let stream = if paced {
                    match self.inner.generate(clock(&asked, prompt_bytes)).await {
                        Ok(clock) => answer.paced(clock),
                        // Filler may be more tokens than the question, which was admitted.
                        Err(BackendError::PromptTooLong { .. }) => answer.at_once(),
                        Err(error) => return Err(error),
                    }
                } else {
                    answer.at_once()
                };
                Ok(Answered { stream, hits, on_hit })
            }
            Prepared::Request {
                request, treated, window, topics, on_hit, prompt_bytes, ..
            } => {
                let Watched { patterns, copies, ending } = window;
                let continued = continued(&request.input).to_owned();
                let sent_bytes: usize = request.texts().iter().map(|it| it.len()).sum();
                // A backend that cannot count says what it was sent; that length must not show.
                let scaled = move |sent: usize| match sent_bytes {
                    0 => sent,
                    _ => (sent * prompt_bytes).div_ceil(sent_bytes),
                };
                let (stream, counted) = match treated {
                    true => self.send_treated(request, &asked, scaled).await?,
                    false => (self.inner.generate(request).await?, None),
                };
                if patterns.is_empty() && copies.is_empty() && !treated {
                    return Ok(Answered { stream, hits, on_hit });
                }
                let window = Window::over(patterns).after(&continued).offering(functions);
                let mut window = window.watching(copies);
                if treated {
                    window = window.without_logprobs();
                } else if on_hit == OnHit::ReplaceRest {
                    window = window.ending_with(ending);
                }
                let (recorder, seen) = (self.recorder.clone(), Arc::clone(&hits));
                let done = move |hits: usize| {
                    if !treated {
                        recorder.hits(&topics, hits);
                        seen.store(hits, Ordering::Relaxed);
                    }
                };
                let own = move |sent: usize| match counted {
                    Some(own) => own,
                    None if treated => scaled(sent),
                    None => sent,
                };
                Ok(Answered { stream: watch(stream, window, own, done), hits, on_hit })
            }
        }
    }

    /// Sends a treated request, whose length must not show: it is refused where the client's own would be, and
    /// where only the treated one is too long, the reply gets what is left. `scaled` makes of tokens of the
    /// treated prompt about as many as the client's has. Returns the client's own too, where they can be counted.
    async fn send_treated(
        &self,
        request: Request,
        asked: &Request,
        scaled: impl Fn(usize) -> usize,
    ) -> Result<(ReplyStream, Option<usize>), BackendError> {
        let sent = self.inner.generate(request.clone()).await;
        // Only now, so that the model does not wait for it.
        let counted = self.inner.admits(asked)?;
        let Err(BackendError::PromptTooLong { tokens, limit }) = sent else {
            return Ok((sent?, counted));
        };
        if counted.is_none() {
            let reply = asked.max_tokens.unwrap_or(0).min(tokens);
            let tokens = scaled(tokens - reply).saturating_add(reply).max(limit + 1);
            return Err(BackendError::PromptTooLong { tokens, limit });
        }
        let rest = Request { max_tokens: None, ..request };
        let sent = self.inner.generate(rest).await.map_err(|error| match error {
            BackendError::PromptTooLong { limit, .. } => {
                BackendError::PromptTooLong { tokens: limit + 1, limit }
            }
            error => error,
        });
        Ok((sent?, counted))
    }
}

/// A reply on its way.
struct Answered {
    stream: ReplyStream,
    /// What the window caught of an untreated reply, once it is over.
    hits: Arc<AtomicUsize>,
    on_hit: OnHit,
}

#[async_trait]
impl Backend for Guarded {
    async fn generate(&self, request: Request) -> Result<ReplyStream, BackendError> {
        let asked = request.clone();
        let answered = self.answer(request, false).await?;
        if answered.on_hit != OnHit::Restart {
            return Ok(answered.stream);
        }
        // Nothing may have left yet when the request is asked again; treated replies wait as long, so
        // that streaming tells nobody which they are.
        let events: Vec<_> = answered.stream.collect().await;
        if answered.hits.load(Ordering::Relaxed) == 0 {
            return Ok(futures::stream::iter(events).boxed());
        }
        let events: Vec<_> = self.answer(asked, true).await?.stream.collect().await;
        Ok(futures::stream::iter(events).boxed())
    }

    async fn score(
        &self,
        request: Request,
        continuation: &str,
        end_of_turn: bool,
    ) -> Result<Scored, BackendError> {
        match self.prepare(request, Some(continuation.to_owned()), false).await? {
            Prepared::Reply { .. } => Err(BackendError::Unsupported { what: "scoring this text" }),
            Prepared::Request { request, continuation: treated, .. } => {
                let continuation = treated.as_deref().unwrap_or(continuation);
                self.inner.score(request, continuation, end_of_turn).await
            }
        }
    }

    fn admits(&self, request: &Request) -> Result<Option<usize>, BackendError> {
        self.inner.admits(request)
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

    fn load_offset(&self, pair: &OffsetPair) -> Result<(), BackendError> {
        self.inner.load_offset(pair)
    }

    /// Unguarded: nobody but detectors and their measurements reads hidden states.
    async fn hidden(&self, text: &str, layer: usize) -> Result<Vec<f32>, BackendError> {
        self.inner.hidden(text, layer).await
    }

    fn weights_sha256(&self) -> Result<String, BackendError> {
        self.inner.weights_sha256()
    }

    async fn ready(&self) -> bool {
        self.inner.ready().await
    }
}

/// The text that the model continues in the middle: a raw prompt or a prefilled turn.
fn continued(input: &Input) -> &str {
    match input {
        Input::Text(text) => text,
        Input::Chat(messages) => match messages.last() {
            Some(last) if last.role == Role::Assistant => &last.content,
            _ => "",
        },
    }
}

/// A text up to the first of the stop texts in it.
fn until<'a>(text: &'a str, stops: &[String]) -> &'a str {
    let ends = stops.iter().filter_map(|it| text.find(it.as_str()));
    ends.min().and_then(|end| text.get(..end)).unwrap_or(text)
}

/// Passes a reply through a window. After a failure nothing that was held back leaves. `own` turns
/// the tokens that were sent into those of the client's own prompt.
fn watch(
    stream: ReplyStream,
    mut window: Window,
    own: impl Fn(usize) -> usize + Send + 'static,
    done: impl Fn(usize) + Send + 'static,
) -> ReplyStream {
    stream
        .flat_map(move |item| {
            let events: Vec<Result<ReplyEvent, BackendError>> = match item {
                Ok(mut event) => {
                    let last = matches!(event, ReplyEvent::Done(_));
                    if let ReplyEvent::Done(usage) = &mut event {
                        usage.prompt_tokens = own(usage.prompt_tokens);
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
