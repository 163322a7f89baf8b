//! `/v1/completions`, the legacy endpoint that continues raw text.
//!
//! Several prompts in one request become several backend requests; choice `i` of prompt `p` has the
//! index `p * n + i`.

use std::future::ready;
use std::sync::Arc;

use axum::extract::{Request as HttpRequest, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::stream::{SelectAll, StreamExt};
use serde_json::{Map, Value, json};

use super::HttpState;
use super::contract;
use super::error::ApiError;
use super::gate::{RequestId, read_body, tenant};
use super::observer::Ticket;
use super::openai::{Delivery, Fields, delivery, shared, to_usize};
use super::sse::{Chunks, Envelope, Streamed, WholeChoice, finish_reason, gather, nats, refuse};
use crate::backend::{Backend, BackendError, ReplyStream};
use crate::types::{Finish, Input, ReplyEvent, Request, TokenLogprob, ToolCallPiece, Usage};

/// The field that is to blame for a prompt that is too long.
const PROMPT: &str = "prompt";

/// Most prompts in one request: each takes a place in the queue.
const MAX_PROMPTS: usize = 128;

/// The legacy endpoint's limit when the client names none.
const DEFAULT_MAX_TOKENS: usize = 16;

pub(super) async fn handle(
    State(state): State<Arc<HttpState>>,
    Extension(request_id): Extension<RequestId>,
    request: HttpRequest,
) -> Response {
    let mut ticket = Ticket::start(Arc::clone(&state.metrics), "completions");
    let (asked, events) = match start(&state, request, &request_id).await {
        Ok(started) => started,
        Err(error) => return refuse(error, ticket),
    };
    let envelope = Envelope::new("cmpl-", "text_completion", &asked.request.model);
    let heads = asked.heads();
    if asked.delivery.stream {
        let chunks = TextChunks { offsets: vec![0; heads.len()], heads };
        let delivery = asked.delivery;
        return Streamed { events, chunks, envelope, delivery, ticket, request_id, prompt: PROMPT }
            .into_response();
    }
    match gather(events, heads.len(), &mut ticket).await {
        Ok((choices, usage)) => {
            ticket.finish(200);
            let choices: Vec<Value> =
                choices.iter().zip(&heads).enumerate().map(whole_choice).collect();
            Json(envelope.wrap_whole(&choices, usage)).into_response()
        }
        Err(error) => refuse(ApiError::logged(&error, PROMPT, &request_id.0), ticket),
    }
}

/// A request, but for its prompts.
struct Asked {
    /// With the first prompt as input.
    request: Request,
    prompts: Vec<String>,
    echo: bool,
    delivery: Delivery,
}

impl Asked {
    /// What precedes each choice's text: its prompt, when echoed.
    fn heads(&self) -> Vec<String> {
        let head = |prompt: &String| if self.echo { prompt.clone() } else { String::new() };
        let repeated = |prompt| std::iter::repeat_n(head(prompt), self.request.n);
        self.prompts.iter().flat_map(repeated).collect()
    }
}

async fn start(
    state: &HttpState,
    request: HttpRequest,
    id: &RequestId,
) -> Result<(Asked, ReplyStream), ApiError> {
    let tenant = tenant(request.headers());
    let body = read_body(request, state.max_body_bytes).await?;
    let mut asked = parse(&body, state.backend.as_ref(), id)?;
    asked.request.tenant = tenant;
    let requests = asked.prompts.iter().map(|prompt| {
        state
            .backend
            .generate(Request { input: Input::Text(prompt.clone()), ..asked.request.clone() })
    });
    let streams = futures::future::try_join_all(requests).await;
    match streams {
        Ok(streams) => {
            let events = merge(streams, asked.request.n);
            Ok((asked, events))
        }
        Err(error) => Err(ApiError::logged(&error, PROMPT, &id.0)),
    }
}

fn parse(body: &[u8], backend: &dyn Backend, id: &RequestId) -> Result<Asked, ApiError> {
    let fields = Fields::parse(body, &contract::TEXT)?;
    if fields.string("suffix")?.is_some_and(|it| !it.is_empty()) {
        return Err(ApiError::invalid(
            "suffix",
            "this server does not insert text before a suffix",
        ));
    }
    let echo = fields.boolean("echo")?;
    let logprobs = fields.integer("logprobs", 0..=5)?.map(to_usize);
    if echo && logprobs.is_some() {
        // The prompt's log-probabilities would show what the model knows.
        let message = "`echo` with `logprobs` is not offered on a guarded server";
        return Err(ApiError::invalid("echo", message));
    }
    let mut request = shared(&fields, Input::Text(String::new()))?;
    request.max_tokens = request.max_tokens.or(Some(DEFAULT_MAX_TOKENS));
    request.logprobs = logprobs;
    let best_of = fields.integer("best_of", 1..=u64::MAX)?.map(to_usize);
    if best_of.is_some_and(|it| it != request.n) {
        return Err(ApiError::invalid("best_of", "this server only takes `best_of` equal to `n`"));
    }
    let delivery = delivery(&fields)?;
    let prompts = prompts(fields.get(PROMPT), backend, id)?;
    Ok(Asked { request, prompts, echo, delivery })
}

/// `prompt`: a text, texts, token ids, or lists of token ids.
fn prompts(
    value: Option<&Value>,
    backend: &dyn Backend,
    id: &RequestId,
) -> Result<Vec<String>, ApiError> {
    let wrong = || {
        let message = "`prompt` must be a string, an array of strings, an array of token ids, \
                       or an array of arrays of token ids, and not empty";
        ApiError::invalid(PROMPT, message)
    };
    let items = match value {
        Some(Value::String(text)) => return Ok(vec![text.clone()]),
        Some(Value::Array(items)) if !items.is_empty() => items,
        Some(_) | None => return Err(wrong()),
    };
    if items.iter().all(Value::is_number) {
        return Ok(vec![text_of(items, backend, id)?]);
    }
    if items.len() > MAX_PROMPTS {
        let message = format!("`prompt` must hold at most {MAX_PROMPTS} prompts");
        return Err(ApiError::invalid(PROMPT, message));
    }
    if items.iter().all(Value::is_string) {
        return Ok(items.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    }
    let text = |item: &Value| match item {
        Value::Array(ids) if !ids.is_empty() => text_of(ids, backend, id),
        _ => Err(wrong()),
    };
    items.iter().map(text).collect()
}

fn text_of(ids: &[Value], backend: &dyn Backend, id: &RequestId) -> Result<String, ApiError> {
    let token = |it: &Value| it.as_u64().and_then(|it| u32::try_from(it).ok());
    let Some(ids) = ids.iter().map(token).collect::<Option<Vec<u32>>>() else {
        return Err(ApiError::invalid(PROMPT, "a token id in `prompt` is not a 32-bit integer"));
    };
    backend.detokenise(&ids).map_err(|error| match error {
        // Only here is the field to blame known.
        BackendError::Unsupported { what } => {
            ApiError::invalid(PROMPT, format!("this server does not support {what}"))
        }
        BackendError::Invalid { message, param } => {
            ApiError::invalid(param.unwrap_or(PROMPT), message)
        }
        error => ApiError::logged(&error, PROMPT, &id.0),
    })
}

/// One stream of several, each of `n` choices; one `Done` with the sum of their tokens.
fn merge(streams: Vec<ReplyStream>, n: usize) -> ReplyStream {
    let mut left = streams.len();
    let mut total = Usage::default();
    let mut merged = SelectAll::new();
    for (prompt, stream) in streams.into_iter().enumerate() {
        merged.push(stream.map(move |event| event.map(|it| shift(it, prompt * n))).boxed());
    }
    let summed = merged.filter_map(move |event| {
        ready(match event {
            Ok(ReplyEvent::Done(usage)) => {
                total.prompt_tokens += usage.prompt_tokens;
                total.completion_tokens += usage.completion_tokens;
                left -= 1;
                (left == 0).then_some(Ok(ReplyEvent::Done(total)))
            }
            other => Some(other),
        })
    });
    summed.boxed()
}

fn shift(event: ReplyEvent, by: usize) -> ReplyEvent {
    match event {
        ReplyEvent::Text { choice, text, logprobs } => {
            ReplyEvent::Text { choice: choice + by, text, logprobs }
        }
        ReplyEvent::ToolCall { choice, piece } => {
            ReplyEvent::ToolCall { choice: choice + by, piece }
        }
        ReplyEvent::Finished { choice, finish } => {
            ReplyEvent::Finished { choice: choice + by, finish }
        }
        ReplyEvent::Done(usage) => ReplyEvent::Done(usage),
    }
}

fn whole_choice((index, (choice, head)): (usize, (&WholeChoice, &String))) -> Value {
    json!({
        "text": format!("{head}{}", choice.text),
        "index": index,
        "logprobs": logprobs_object(&choice.logprobs, &mut 0),
        "finish_reason": choice.finish_reason(),
    })
}

/// The parallel arrays of the legacy format, or `null` where there are none. `offset` counts the
/// characters that precede them, and is moved past them.
fn logprobs_object(logprobs: &[TokenLogprob], offset: &mut usize) -> Value {
    if logprobs.is_empty() {
        return Value::Null;
    }
    let offsets: Vec<usize> = logprobs
        .iter()
        .map(|it| {
            let start = *offset;
            // Every byte that is no continuation byte begins a character.
            *offset += it.bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
            start
        })
        .collect();
    let top = |it: &TokenLogprob| -> Map<String, Value> {
        it.top.iter().map(|(bytes, logprob)| (name(bytes), nats(*logprob).into())).collect()
    };
    json!({
        "tokens": logprobs.iter().map(|it| name(&it.bytes)).collect::<Vec<_>>(),
        "token_logprobs": logprobs.iter().map(|it| nats(it.logprob)).collect::<Vec<_>>(),
        "top_logprobs": logprobs.iter().map(top).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}

/// A token's text; the escaped bytes of one that is not whole characters, so that names stay
/// distinct.
fn name(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            bytes.iter().fold(String::from("bytes:"), |name, byte| format!("{name}\\x{byte:02x}"))
        }
    }
}

struct TextChunks {
    /// What precedes each choice's text.
    heads: Vec<String>,
    /// Characters of each choice so far.
    offsets: Vec<usize>,
}

impl Chunks for TextChunks {
    fn opening(&mut self) -> Vec<Value> {
        let echoed = self.heads.iter().enumerate().filter(|(_, head)| !head.is_empty());
        echoed.map(|(index, head)| entry(index, head, &Value::Null, None)).collect()
    }

    fn text(&mut self, choice: usize, text: &str, logprobs: &[TokenLogprob]) -> Value {
        let mut nowhere = 0;
        let offset = self.offsets.get_mut(choice).unwrap_or(&mut nowhere);
        entry(choice, text, &logprobs_object(logprobs, offset), None)
    }

    fn call(&mut self, _: usize, _: ToolCallPiece) -> Option<Value> {
        None
    }

    fn finished(&mut self, choice: usize, finish: Finish) -> Value {
        entry(choice, "", &Value::Null, Some(finish))
    }
}

fn entry(index: usize, text: &str, logprobs: &Value, finish: Option<Finish>) -> Value {
    json!({
        "text": text,
        "index": index,
        "logprobs": logprobs,
        "finish_reason": finish.map(finish_reason),
    })
}
