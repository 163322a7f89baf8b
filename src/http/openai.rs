//! Request bodies: from JSON to [`Request`], every fault a 400 that names its field.
//!
//! Fields are read one by one from a JSON object instead of through derived types: a derived type
//! says "data did not match any variant" where a client needs the field and the rule. `null` is the
//! same as absence everywhere. Only fields of the [`contract`] are seen; others are ignored.

use std::ops::RangeInclusive;

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::contract::{self, Endpoint};
use super::error::ApiError;
use super::tools::tools;
use crate::types::{Input, Message, Request, Role, Sampling};

/// Most choices per prompt.
const MAX_N: u64 = 16;

/// Where the OpenAI API puts its limit.
const MAX_STOPS: usize = 4;

/// What a client asks, and in which form it wants the answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) delivery: Delivery,
}

/// In which form a reply is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) stream: bool,
    /// A last chunk with the usage.
    pub(super) include_usage: bool,
}

/// Reads the body of `/v1/chat/completions`.
pub(super) fn parse_chat(body: &[u8]) -> Result<Asked, ApiError> {
    let fields = Fields::parse(body, &contract::CHAT)?;
    refuse_other(&fields)?;
    let values = fields.array("messages")?.unwrap_or_default();
    if values.is_empty() {
        return Err(ApiError::invalid("messages", "`messages` must hold at least one message"));
    }
    let messages: Vec<Message> = values
        .iter()
        .enumerate()
        .map(|(index, it)| message(index, it))
        .collect::<Result<_, _>>()?;
    let mut request = shared(&fields, Input::Chat(messages))?;
    request.tools = tools(&fields, values)?;
    let newer = fields.integer("max_completion_tokens", 1..=u64::MAX)?;
    request.max_tokens = newer.map_or(request.max_tokens, |it| Some(to_usize(it)));
    request.logprobs = chat_logprobs(&fields)?;
    Ok(Asked { request, delivery: delivery(&fields)? })
}

/// What both endpoints share: everything but messages, log-probabilities and delivery.
pub(super) fn shared(fields: &Fields, input: Input) -> Result<Request, ApiError> {
    if fields.get("prompt_embeds").is_some() {
        return Err(ApiError::invalid("prompt_embeds", "this server takes no prompt embeddings"));
    }
    let model = fields
        .string("model")?
        .ok_or_else(|| ApiError::invalid("model", "you must provide a `model`"))?;
    let mut request = Request::new(model, input);
    request.sampling = sampling(fields)?;
    request.n = to_usize(fields.integer("n", 1..=MAX_N)?.unwrap_or(1));
    request.max_tokens = fields.integer("max_tokens", 1..=u64::MAX)?.map(to_usize);
    request.stop = stop(fields)?;
    Ok(request)
}

fn sampling(fields: &Fields) -> Result<Sampling, ApiError> {
    let default = Sampling::default();
    let top_p = fields.number("top_p", 0.0..=1.0)?.unwrap_or(default.top_p);
    if top_p <= 0.0 {
        return Err(ApiError::invalid("top_p", "`top_p` must be above 0 and at most 1"));
    }
    // vLLM's -1 keeps all, as 0 does here.
    let top_k = match fields.get("top_k") {
        Some(value) if value.as_i64() == Some(-1) => 0,
        _ => to_usize(fields.integer("top_k", 0..=u64::MAX)?.unwrap_or(0)),
    };
    let repetition_penalty = fields.number("repetition_penalty", 0.0..=10.0)?;
    if repetition_penalty.is_some_and(|it| it <= 0.0) {
        let message = "`repetition_penalty` must be above 0 and at most 10";
        return Err(ApiError::invalid("repetition_penalty", message));
    }
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(default.temperature),
        top_p,
        top_k,
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        repetition_penalty: repetition_penalty.unwrap_or(default.repetition_penalty),
        logit_bias: logit_bias(fields)?,
        seed: seed(fields)?,
    })
}

fn seed(fields: &Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.get("seed") else { return Ok(None) };
    // Negative seeds are legal; any one-to-one mapping will do.
    match value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)) {
        Some(seed) => Ok(Some(seed)),
        None => Err(ApiError::invalid("seed", "`seed` must be a 64-bit integer")),
    }
}

fn logit_bias(fields: &Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let rule = "`logit_bias` must map token ids to numbers from -100 to 100";
    let wrong = || ApiError::invalid("logit_bias", rule);
    let Some(value) = fields.get("logit_bias") else { return Ok(Vec::new()) };
    let entries = value.as_object().ok_or_else(wrong)?;
    entries
        .iter()
        .map(|(id, bias)| {
            let id: u32 = id.parse().ok().ok_or_else(wrong)?;
            let bias = bias.as_f64().filter(|it| (-100.0..=100.0).contains(it));
            Ok((id, bias.ok_or_else(wrong)? as f32))
        })
        .collect()
}

fn stop(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let wrong =
        || ApiError::invalid("stop", "`stop` must be a string or an array of at most 4 strings");
    let stops: Vec<String> = match fields.get("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) if stops.len() <= MAX_STOPS => stops
            .iter()
            .map(|it| it.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        Some(_) => return Err(wrong()),
    };
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::invalid("stop", "a `stop` text must not be empty"));
    }
    Ok(stops)
}

fn chat_logprobs(fields: &Fields) -> Result<Option<usize>, ApiError> {
    let wanted = fields.boolean("logprobs")?;
    let top = fields.integer("top_logprobs", 0..=20)?;
    if top.is_some() && !wanted {
        let message = "`top_logprobs` needs `logprobs` to be true";
        return Err(ApiError::invalid("top_logprobs", message));
    }
    Ok(wanted.then(|| to_usize(top.unwrap_or(0))))
}

/// Reads `stream` and `stream_options`.
pub(super) fn delivery(fields: &Fields) -> Result<Delivery, ApiError> {
    let stream = fields.boolean("stream")?;
    let Some(options) = fields.get("stream_options") else {
        return Ok(Delivery { stream, include_usage: false });
    };
    let wrong = |message| ApiError::invalid("stream_options", message);
    if !stream {
        return Err(wrong("`stream_options` needs `stream` to be true"));
    }
    let Some(options) = options.as_object() else {
        return Err(wrong("`stream_options` must be an object"));
    };
    let include_usage = match options.get("include_usage") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(it)) => *it,
        Some(_) => return Err(wrong("`stream_options.include_usage` must be true or false")),
    };
    Ok(Delivery { stream, include_usage })
}

/// Refuses what would change the reply and is not offered: silence would be a wrong answer.
fn refuse_other(fields: &Fields) -> Result<(), ApiError> {
    if fields.array("functions")?.is_some_and(|it| !it.is_empty()) {
        let message = "this server does not support `functions`; offer them as `tools`";
        return Err(ApiError::invalid("functions", message));
    }
    if fields.get("function_call").is_some_and(|it| it != "none") {
        let message = "this server does not support `function_call`; use `tool_choice`";
        return Err(ApiError::invalid("function_call", message));
    }
    if let Some(format) = fields.get("response_format")
        && format.get("type").and_then(Value::as_str) != Some("text")
    {
        let message = "this server only supports a `response_format` of type \"text\"";
        return Err(ApiError::invalid("response_format", message));
    }
    if fields.array("modalities")?.is_some_and(|it| it.iter().any(|it| it != "text")) {
        return Err(ApiError::invalid("modalities", "this server only answers in text"));
    }
    Ok(())
}

fn message(index: usize, value: &Value) -> Result<Message, ApiError> {
    let wrong = |what: &str| ApiError::invalid("messages", format!("`messages[{index}]` {what}"));
    let Some(fields) = value.as_object() else { return Err(wrong("must be an object")) };
    let role = match fields.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        Some(_) => return Err(wrong("has an unknown `role`")),
        None => return Err(wrong("must have a `role`")),
    };
    if fields.get("prompt_embeds").is_some_and(|it| !it.is_null()) {
        return Err(wrong("holds prompt embeddings, which this server does not take"));
    }
    let content = match fields.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) if parts.is_empty() => return Err(wrong("has no content parts")),
        Some(Value::Array(parts)) => {
            parts.iter().map(part).collect::<Result<String, _>>().map_err(wrong)?
        }
        None | Some(Value::Null) if role == Role::Assistant && called_a_tool(fields) => {
            String::new()
        }
        None | Some(Value::Null) => return Err(wrong("must have `content`")),
        Some(_) => return Err(wrong("must have a string or an array of parts as `content`")),
    };
    Ok(Message { role, content })
}

fn called_a_tool(message: &Map<String, Value>) -> bool {
    let calls = message.get("tool_calls").and_then(Value::as_array);
    calls.is_some_and(|it| !it.is_empty())
        || message.get("function_call").is_some_and(Value::is_object)
}

/// The text of a content part.
fn part(value: &Value) -> Result<&str, &'static str> {
    let name = match value.get("type").and_then(Value::as_str) {
        Some("text") => "text",
        // An assistant's earlier refusal, as the SDKs send it back.
        Some("refusal") => "refusal",
        Some("prompt_embeds") => {
            return Err("holds prompt embeddings, which this server does not take");
        }
        Some(_) => return Err("has a content part that is not text; this server only takes text"),
        None => return Err("has a content part without a `type`"),
    };
    let text = value.get(name).and_then(Value::as_str);
    text.ok_or("has a text part whose text is not a string")
}

/// The top level of a request body.
#[derive(Debug)]
pub(super) struct Fields {
    fields: Map<String, Value>,
    endpoint: &'static Endpoint,
}

impl Fields {
    /// Reads a body and leaves out what the endpoint's contract does not let through.
    pub(super) fn parse(body: &[u8], endpoint: &'static Endpoint) -> Result<Self, ApiError> {
        let message = match serde_json::from_slice(body) {
            Ok(Value::Object(mut fields)) => {
                endpoint.prune(&mut fields);
                return Ok(Self { fields, endpoint });
            }
            Ok(_) => "the request body must be a JSON object".into(),
            Err(error) => format!("the request body is not valid JSON: {error}"),
        };
        Err(ApiError::refused(StatusCode::BAD_REQUEST, message))
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        debug_assert!(self.endpoint.reads(name), "`{name}` has no row in the contract");
        self.fields.get(name).filter(|it| !it.is_null())
    }

    pub(super) fn string(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        self.read(name, "a string", Value::as_str)
    }

    /// False when absent.
    pub(super) fn boolean(&self, name: &'static str) -> Result<bool, ApiError> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    pub(super) fn array(&self, name: &'static str) -> Result<Option<&[Value]>, ApiError> {
        self.read(name, "an array", |it| it.as_array().map(Vec::as_slice))
    }

    pub(super) fn integer(
        &self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let rule = match (range.start(), range.end()) {
            (low, &u64::MAX) => format!("an integer of at least {low}"),
            (low, high) => format!("an integer from {low} to {high}"),
        };
        self.read(name, &rule, |it| it.as_u64().filter(|it| range.contains(it)))
    }

    fn number(
        &self,
        name: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, ApiError> {
        let rule = format!("a number from {} to {}", range.start(), range.end());
        let read = |it: &Value| it.as_f64().filter(|it| range.contains(it));
        Ok(self.read(name, &rule, read)?.map(|it| it as f32))
    }

    fn read<'a, T>(
        &'a self,
        name: &'static str,
        rule: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(it) => Ok(Some(it)),
                None => Err(ApiError::invalid(name, format!("`{name}` must be {rule}"))),
            },
        }
    }
}

/// Limits are far below the width of any integer; larger ones mean "no limit".
pub(super) fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
