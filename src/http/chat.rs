//! `/v1/chat/completions`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::HttpState;
use super::error::ApiError;
use super::gate::{RequestId, fresh_id, read_body, tenant};
use super::observer::Ticket;
use super::openai::{Delivery, parse_chat};
use super::sse::{Chunks, Envelope, Streamed, WholeChoice, finish_reason, gather, nats, refuse};
use crate::backend::ReplyStream;
use crate::types::{Finish, TokenLogprob, ToolCallPiece};

/// The field that is to blame for a prompt that is too long.
const PROMPT: &str = "messages";

pub(super) async fn handle(
    State(state): State<Arc<HttpState>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let mut ticket = Ticket::start(Arc::clone(&state.metrics), "chat");
    let Started { events, model, n, delivery } = match start(&state, request, &request_id).await {
        Ok(started) => started,
        Err(error) => return refuse(error, ticket),
    };
    if delivery.stream {
        let envelope = Envelope::new("chatcmpl-", "chat.completion.chunk", &model);
        let chunks = ChatChunks { n, calls: BTreeSet::new() };
        return Streamed { events, chunks, envelope, delivery, ticket, request_id, prompt: PROMPT }
            .into_response();
    }
    match gather(events, n, &mut ticket).await {
        Ok((choices, usage)) => {
            ticket.finish(200);
            let envelope = Envelope::new("chatcmpl-", "chat.completion", &model);
            let choices: Vec<Value> = choices.iter().enumerate().map(whole_choice).collect();
            Json(envelope.wrap_whole(&choices, usage)).into_response()
        }
        Err(error) => refuse(ApiError::logged(&error, PROMPT, &request_id.0), ticket),
    }
}

struct Started {
    events: ReplyStream,
    model: String,
    n: usize,
    delivery: Delivery,
}

async fn start(state: &HttpState, request: Request, id: &RequestId) -> Result<Started, ApiError> {
    let tenant = tenant(request.headers());
    let body = read_body(request, state.max_body_bytes).await?;
    let mut asked = parse_chat(&body)?;
    asked.request.tenant = tenant;
    let (model, n) = (asked.request.model.clone(), asked.request.n);
    match state.backend.generate(asked.request).await {
        Ok(events) => Ok(Started { events, model, n, delivery: asked.delivery }),
        Err(error) => Err(ApiError::logged(&error, PROMPT, &id.0)),
    }
}

fn whole_choice((index, choice): (usize, &WholeChoice)) -> Value {
    let mut message = json!({ "role": "assistant", "content": choice.text, "refusal": null });
    if !choice.calls.is_empty() {
        if choice.text.is_empty() {
            message["content"] = Value::Null;
        }
        message["tool_calls"] = choice.calls.iter().cloned().map(call_object).collect();
    }
    json!({
        "index": index,
        "message": message,
        "logprobs": logprobs_object(&choice.logprobs),
        "finish_reason": choice.finish_reason(),
    })
}

/// A call with its id and its name, and as much of its arguments as there is.
fn call_object(call: ToolCallPiece) -> Value {
    let ToolCallPiece { id, name, arguments, .. } = call;
    let id = if id.is_empty() { fresh_id("call_") } else { id };
    json!({
        "id": id,
        "type": "function",
        "function": { "name": name, "arguments": arguments },
    })
}

/// `null` where there are none: not asked for, or the text is not the model's own.
fn logprobs_object(logprobs: &[TokenLogprob]) -> Value {
    if logprobs.is_empty() {
        return Value::Null;
    }
    let content: Vec<Value> = logprobs
        .iter()
        .map(|it| {
            let mut entry = token_object(&it.bytes, it.logprob);
            entry["top_logprobs"] =
                it.top.iter().map(|(bytes, logprob)| token_object(bytes, *logprob)).collect();
            entry
        })
        .collect();
    json!({ "content": content, "refusal": null })
}

/// `token` is lossy where a token ends inside a character; `bytes` is exact.
fn token_object(bytes: &[u8], logprob: f32) -> Value {
    json!({
        "token": String::from_utf8_lossy(bytes),
        "logprob": nats(logprob),
        "bytes": bytes,
    })
}

struct ChatChunks {
    n: usize,
    /// Choice and index of the calls that have begun.
    calls: BTreeSet<(usize, usize)>,
}

impl Chunks for ChatChunks {
    fn opening(&mut self) -> Vec<Value> {
        let delta = json!({ "role": "assistant", "content": "", "refusal": null });
        (0..self.n).map(|index| entry(index, &delta, &Value::Null, None)).collect()
    }

    fn text(&mut self, choice: usize, text: &str, logprobs: &[TokenLogprob]) -> Value {
        entry(choice, &json!({ "content": text }), &logprobs_object(logprobs), None)
    }

    fn call(&mut self, choice: usize, piece: ToolCallPiece) -> Option<Value> {
        let index = piece.index;
        let mut call = if self.calls.insert((choice, index)) {
            call_object(piece)
        } else {
            json!({ "function": { "arguments": piece.arguments } })
        };
        call["index"] = index.into();
        Some(entry(choice, &json!({ "tool_calls": [call] }), &Value::Null, None))
    }

    fn finished(&mut self, choice: usize, finish: Finish) -> Value {
        entry(choice, &json!({}), &Value::Null, Some(finish))
    }
}

fn entry(index: usize, delta: &Value, logprobs: &Value, finish: Option<Finish>) -> Value {
    json!({
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish.map(finish_reason),
    })
}
