//! Replies as JSON: gathered whole, or event by event as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::error::ApiError;
use super::gate::{RequestId, fresh_id, unix_seconds};
use super::observer::Ticket;
use super::openai::Delivery;
use crate::backend::{BackendError, ReplyStream};
use crate::types::{Finish, ReplyEvent, TokenLogprob, ToolCallPiece, Usage};

/// A comment is sent after this long without an event, so that no proxy between here and the client
/// takes a text that is held back for a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const FINGERPRINT: &str = concat!("fp_unlearn_proxy_", env!("CARGO_PKG_VERSION"));

/// What is the same in all chunks of a reply.
#[derive(Debug)]
pub(super) struct Envelope {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
}

impl Envelope {
    pub(super) fn new(id_prefix: &str, object: &'static str, model: &str) -> Self {
        let model = model.to_owned();
        Self { id: fresh_id(id_prefix), object, created: unix_seconds(), model }
    }

    pub(super) fn wrap(&self, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        })
    }

    pub(super) fn wrap_whole(&self, choices: &[Value], usage: Usage) -> Value {
        let mut body = self.wrap(choices);
        body["usage"] = usage_object(usage);
        body
    }
}

/// How an endpoint writes the entries of `choices` in its chunks.
pub(super) trait Chunks: Send + 'static {
    /// What precedes all text, one entry per chunk.
    fn opening(&mut self) -> Vec<Value>;

    fn text(&mut self, choice: usize, text: &str, logprobs: &[TokenLogprob]) -> Value;

    /// `None` where the endpoint has no calls.
    fn call(&mut self, choice: usize, piece: ToolCallPiece) -> Option<Value>;

    fn finished(&mut self, choice: usize, finish: Finish) -> Value;
}

/// A streamed reply and what its failures need.
pub(super) struct Streamed<C> {
    pub(super) events: ReplyStream,
    pub(super) chunks: C,
    pub(super) envelope: Envelope,
    pub(super) delivery: Delivery,
    pub(super) ticket: Ticket,
    pub(super) request_id: RequestId,
    /// The field that holds the prompt.
    pub(super) prompt: &'static str,
}

impl<C: Chunks> Streamed<C> {
    /// The response. Dropping its body drops the events, which cancels the work behind them.
    pub(super) fn into_response(mut self) -> Response {
        self.ticket.streaming();
        let opening = self.chunks.opening();
        let ready = opening.into_iter().map(|it| self.frame(it)).collect();
        let pump = Pump { reply: Some(self), ready };
        let frames = stream::unfold(pump, |mut pump| async move {
            let frame = pump.next().await?;
            Some((Ok::<Bytes, Infallible>(frame), pump))
        });
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ];
        (headers, Body::from_stream(frames)).into_response()
    }

    fn frame(&self, choice: Value) -> Bytes {
        let mut chunk = self.envelope.wrap(&[choice]);
        if self.delivery.include_usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk)
    }

    /// The frame of an event, if it has one.
    fn write(&mut self, event: ReplyEvent) -> Option<Bytes> {
        self.ticket.note(&event);
        match event {
            ReplyEvent::Text { text, logprobs, .. } if text.is_empty() && logprobs.is_empty() => {
                None
            }
            ReplyEvent::Text { choice, text, logprobs } => {
                let entry = self.chunks.text(choice, &text, &logprobs);
                Some(self.frame(entry))
            }
            ReplyEvent::ToolCall { choice, piece } => {
                let entry = self.chunks.call(choice, piece)?;
                Some(self.frame(entry))
            }
            ReplyEvent::Finished { choice, finish } => {
                let entry = self.chunks.finished(choice, finish);
                Some(self.frame(entry))
            }
            ReplyEvent::Done(usage) => {
                self.ticket.finish(200);
                self.delivery.include_usage.then(|| {
                    let chunk = self.envelope.wrap_whole(&[], usage);
                    data(&chunk)
                })
            }
        }
    }

    fn fail(mut self, error: &BackendError) -> Bytes {
        let error = ApiError::logged(error, self.prompt, &self.request_id.0);
        self.ticket.finish(error.status().as_u16());
        data(&error.body())
    }
}

/// Turns events into frames, one at a time, as the connection takes them.
struct Pump<C> {
    /// `None` after the last event.
    reply: Option<Streamed<C>>,
    /// Frames that precede the next event's.
    ready: VecDeque<Bytes>,
}

impl<C: Chunks> Pump<C> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let reply = self.reply.as_mut()?;
            let Ok(event) = tokio::time::timeout(KEEP_ALIVE, reply.events.next()).await else {
                return Some(Bytes::from_static(b": ping\n\n"));
            };
            match event {
                Some(Ok(event)) => {
                    let last = matches!(event, ReplyEvent::Done(_));
                    self.ready.extend(reply.write(event));
                    if last {
                        self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
                        self.reply = None;
                    }
                }
                Some(Err(error)) => return Some(self.reply.take()?.fail(&error)),
                None => return Some(self.reply.take()?.fail(&broke_off())),
            }
        }
    }
}

/// One choice of a whole reply.
#[derive(Debug, Default)]
pub(super) struct WholeChoice {
    pub(super) text: String,
    pub(super) logprobs: Vec<TokenLogprob>,
    /// Each put together from its pieces.
    pub(super) calls: Vec<ToolCallPiece>,
    finish: Option<Finish>,
}

impl WholeChoice {
    pub(super) fn finish_reason(&self) -> &'static str {
        finish_reason(self.finish.unwrap_or(Finish::Stop))
    }

    fn call(&mut self, piece: ToolCallPiece) {
        match self.calls.iter_mut().find(|it| it.index == piece.index) {
            Some(call) => {
                call.id.push_str(&piece.id);
                call.name.push_str(&piece.name);
                call.arguments.push_str(&piece.arguments);
            }
            None => self.calls.push(piece),
        }
    }
}

/// Gathers a reply of `n` choices.
///
/// # Errors
///
/// The first error of the stream; the text before it is dropped.
pub(super) async fn gather(
    mut events: ReplyStream,
    n: usize,
    ticket: &mut Ticket,
) -> Result<(Vec<WholeChoice>, Usage), BackendError> {
    let mut choices: Vec<WholeChoice> = (0..n).map(|_| WholeChoice::default()).collect();
    while let Some(event) = events.next().await {
        let event = event?;
        ticket.note(&event);
        match event {
            ReplyEvent::Text { choice, text, logprobs } => {
                if let Some(it) = choices.get_mut(choice) {
                    it.text.push_str(&text);
                    it.logprobs.extend(logprobs);
                }
            }
            ReplyEvent::ToolCall { choice, piece } => {
                if let Some(it) = choices.get_mut(choice) {
                    it.call(piece);
                }
            }
            ReplyEvent::Finished { choice, finish } => {
                if let Some(it) = choices.get_mut(choice) {
                    it.finish = Some(finish);
                }
            }
            ReplyEvent::Done(usage) => return Ok((choices, usage)),
        }
    }
    Err(broke_off())
}

/// A refusal or failure before any part of the reply, reported to the ticket.
pub(super) fn refuse(error: ApiError, mut ticket: Ticket) -> Response {
    ticket.finish(error.status().as_u16());
    error.into_response()
}

pub(super) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ContentFilter => "content_filter",
        Finish::ToolCalls => "tool_calls",
    }
}

/// A log-probability that JSON can hold; the API writes -9999 for "impossible".
pub(super) fn nats(logprob: f32) -> f64 {
    f64::from(logprob).max(-9999.0)
}

fn usage_object(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}

/// A JSON text has no raw newline, so one `data:` line holds it.
fn data(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

fn broke_off() -> BackendError {
    BackendError::Engine { source: "the reply ended before it was done".into() }
}
