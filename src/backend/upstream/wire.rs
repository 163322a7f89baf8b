//! OpenAI's JSON as an upstream server speaks it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::{self, Calls};
use crate::types::{Finish, Input, ReplyEvent, Request, TokenLogprob, Usage};

/// The path and the body of a request. Corruption has no place in either.
pub(super) fn body(request: &Request) -> (&'static str, Value) {
    let sampling = &request.sampling;
    let mut body = json!({
        "model": request.model,
        "stream": true,
        "stream_options": { "include_usage": true },
        "n": request.n,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    });
    let mut set = |key: &str, value: Value| body[key] = value;
    let path = match &request.input {
        Input::Chat(messages) => {
            let mut messages: Vec<Value> = messages
                .iter()
                .map(|it| json!({ "role": it.role.as_str(), "content": it.content }))
                .collect();
            calls::attach(&request.tools, &mut messages);
            set("messages", messages.into());
            for (key, value) in calls::offer(&request.tools) {
                set(key, value);
            }
            if let Some(top) = request.logprobs {
                set("logprobs", true.into());
                set("top_logprobs", top.into());
            }
            "/chat/completions"
        }
        Input::Text(prompt) => {
            set("prompt", prompt.as_str().into());
            if let Some(top) = request.logprobs {
                set("logprobs", top.into());
            }
            "/completions"
        }
    };
    if let Some(most) = request.max_tokens {
        set("max_tokens", most.into());
    }
    if let Some(seed) = sampling.seed {
        // Signed, as clients send it: servers refuse what does not fit 63 bits.
        set("seed", seed.cast_signed().into());
    }
    if !request.stop.is_empty() {
        set("stop", request.stop.clone().into());
    }
    // Not every server takes the fields below, so that only a value that matters is sent.
    for (key, value, default) in [
        ("frequency_penalty", sampling.frequency_penalty, 0.0),
        ("presence_penalty", sampling.presence_penalty, 0.0),
        ("repetition_penalty", sampling.repetition_penalty, 1.0),
    ] {
        if value != default {
            set(key, value.into());
        }
    }
    if sampling.top_k > 0 {
        set("top_k", sampling.top_k.into());
    }
    if !sampling.logit_bias.is_empty() {
        let bias = sampling.logit_bias.iter().map(|(id, bias)| (id.to_string(), json!(bias)));
        set("logit_bias", Value::Object(bias.collect()));
    }
    (path, body)
}

/// A chunk of a streamed reply of either endpoint, or the whole of one.
#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<ChunkChoice>,
    usage: Option<ChunkUsage>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct ChunkChoice {
    #[serde(default)]
    index: usize,
    #[serde(alias = "message")]
    delta: Option<Delta>,
    text: Option<String>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Delta {
    content: Option<String>,
    /// What the model says instead where it declines a schema. It reaches the client as content.
    refusal: Option<String>,
    tool_calls: Option<Vec<calls::Delta>>,
}

#[derive(Debug, Deserialize)]
struct ChunkUsage {
    #[serde(default)]
    prompt_tokens: usize,
    #[serde(default)]
    completion_tokens: usize,
}

/// `content` is the chat endpoint's, the parallel lists are the legacy endpoint's.
#[derive(Debug, Deserialize)]
struct Logprobs {
    content: Option<Vec<Token>>,
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f32>>>,
    top_logprobs: Option<Vec<Option<BTreeMap<String, f32>>>>,
}

#[derive(Debug, Deserialize)]
struct Token {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    top_logprobs: Vec<Token>,
}

impl Token {
    fn bytes(self) -> Vec<u8> {
        self.bytes.unwrap_or_else(|| self.token.into_bytes())
    }
}

impl Logprobs {
    fn read(self) -> Vec<TokenLogprob> {
        if let Some(content) = self.content {
            return content.into_iter().map(chat_token).collect();
        }
        let mut logprobs = self.token_logprobs.unwrap_or_default().into_iter();
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        let tokens = self.tokens.unwrap_or_default().into_iter();
        tokens
            .map(|token| {
                let rivals = tops.next().flatten().unwrap_or_default();
                let mut top: Vec<(Vec<u8>, f32)> =
                    rivals.into_iter().map(|(text, it)| (text.into_bytes(), it)).collect();
                top.sort_by(|a, b| b.1.total_cmp(&a.1));
                let logprob = logprobs.next().flatten().unwrap_or(0.0);
                TokenLogprob { bytes: token.into_bytes(), logprob, top }
            })
            .collect()
    }
}

fn chat_token(mut token: Token) -> TokenLogprob {
    let rivals = std::mem::take(&mut token.top_logprobs);
    let logprob = token.logprob;
    let top = rivals
        .into_iter()
        .map(|it| {
            let logprob = it.logprob;
            (it.bytes(), logprob)
        })
        .collect();
    TokenLogprob { bytes: token.bytes(), logprob, top }
}

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChunkError {
    /// The data is no chunk.
    #[error("a chunk of the reply is not as OpenAI's API defines it")]
    Malformed(#[source] serde_json::Error),
    /// The server reported an error in the stream.
    #[error("the server reported an error within the reply")]
    Reported,
    /// The stream ended too early.
    #[error("the reply ended before {open} of its choices did")]
    CutOff {
        /// Choices without an end.
        open: usize,
    },
}

/// Turns chunks into events: one end per choice, nothing after it, `Done` last.
#[derive(Debug)]
pub(super) struct Chunks {
    finished: Vec<bool>,
    logprobs: bool,
    calls: Calls,
    usage: Usage,
}

impl Chunks {
    pub(super) fn new(request: &Request) -> Self {
        Self {
            finished: vec![false; request.n],
            logprobs: request.logprobs.is_some(),
            calls: Calls::new(&request.tools),
            usage: Usage::default(),
        }
    }

    /// The events of one chunk.
    pub(super) fn read(&mut self, data: &str) -> Result<Vec<ReplyEvent>, ChunkError> {
        let chunk: Chunk = serde_json::from_str(data).map_err(ChunkError::Malformed)?;
        if chunk.error.is_some_and(|it| !it.is_null()) {
            return Err(ChunkError::Reported);
        }
        if let Some(it) = chunk.usage {
            let ChunkUsage { prompt_tokens, completion_tokens } = it;
            self.usage = Usage { prompt_tokens, completion_tokens };
        }
        let mut events = Vec::new();
        for it in chunk.choices {
            let choice = it.index;
            // A choice that nobody asked for, or that has ended.
            if self.finished.get(choice).is_none_or(|finished| *finished) {
                continue;
            }
            let (said, refusal, called) = match it.delta {
                Some(delta) => (delta.content, delta.refusal, delta.tool_calls),
                None => (it.text, None, None),
            };
            let logprobs = match it.logprobs {
                // Without a text they are of something else: a call, or thoughts.
                Some(logprobs) if self.logprobs && said.is_some() => logprobs.read(),
                _ => Vec::new(),
            };
            let text = said.unwrap_or_default() + &refusal.unwrap_or_default();
            if !text.is_empty() || !logprobs.is_empty() {
                events.push(ReplyEvent::Text { choice, text, logprobs });
            }
            let pieces = self.calls.read(choice, called.unwrap_or_default());
            events.extend(pieces.into_iter().map(|piece| ReplyEvent::ToolCall { choice, piece }));
            if let Some(reason) = it.finish_reason {
                self.finished[choice] = true;
                let finish = finish(&reason, self.calls.allowed());
                events.push(ReplyEvent::Finished { choice, finish });
            }
        }
        Ok(events)
    }

    /// The last event, once the server has said all.
    pub(super) fn end(&self) -> Result<ReplyEvent, ChunkError> {
        match self.finished.iter().filter(|it| !**it).count() {
            0 => Ok(ReplyEvent::Done(self.usage)),
            open => Err(ChunkError::CutOff { open }),
        }
    }
}

fn finish(reason: &str, may_call: bool) -> Finish {
    match reason {
        "tool_calls" if may_call => Finish::ToolCalls,
        "length" => Finish::Length,
        "content_filter" => Finish::ContentFilter,
        _ => Finish::Stop,
    }
}

/// `GET /models`.
#[derive(Debug, Deserialize)]
pub(super) struct Models {
    pub(super) data: Vec<Model>,
}

/// One served model.
#[derive(Debug, Deserialize)]
pub(super) struct Model {
    pub(super) id: String,
    /// The context length, where the server tells it.
    pub(super) max_model_len: Option<usize>,
}

/// The body of an error.
#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    pub(super) error: Reason,
}

/// What went wrong, as the server puts it.
#[derive(Debug, Deserialize)]
pub(super) struct Reason {
    #[serde(default)]
    pub(super) message: String,
    /// A string by the specification, a number on some servers.
    #[serde(default)]
    pub(super) code: Value,
    #[serde(default)]
    param: Option<String>,
}

/// Fields that may be named to the client when the server refuses them.
const FIELDS: [&str; 19] = [
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "n",
    "presence_penalty",
    "prompt",
    "repetition_penalty",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
];

impl Reason {
    /// The field that the server complains about, if the client can have sent it.
    pub(super) fn field(&self) -> Option<&'static str> {
        let named = self.param.as_deref()?.split(['.', '[']).next()?;
        FIELDS.into_iter().find(|it| *it == named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Json, Tool, ToolCallPiece};

    #[test]
    fn legacy_logprobs_are_parallel_lists() {
        let mut request = Request::new("m", Input::Text(String::new()));
        request.logprobs = Some(2);
        let chunk = r#"{"choices":[{"index":0,"text":" a","logprobs":{"tokens":[" a"],
            "token_logprobs":[-0.5],"top_logprobs":[{" b":-1.0," a":-0.5}]}}]}"#;
        let events = Chunks::new(&request).read(chunk).unwrap();
        let top = vec![(b" a".to_vec(), -0.5), (b" b".to_vec(), -1.0)];
        let logprobs = vec![TokenLogprob { bytes: b" a".to_vec(), logprob: -0.5, top }];
        assert_eq!(events, [ReplyEvent::Text { choice: 0, text: " a".to_owned(), logprobs }]);
    }

    #[test]
    fn a_whole_reply_is_read_like_a_chunk() {
        let mut request = Request::new("m", Input::Text(String::new()));
        let whole = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":null,
            "tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
            "finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let finished = |finish| ReplyEvent::Finished { choice: 0, finish };
        // A call that nobody offered is not read, and ends nothing.
        let unasked = Chunks::new(&request).read(whole).unwrap();
        assert_eq!(unasked, [finished(Finish::Stop)]);
        request.tools.offered =
            vec![Tool { name: "f".to_owned(), function: Json::read(r#"{"name":"f"}"#) }];
        let mut chunks = Chunks::new(&request);
        let [id, name, arguments] = ["c", "f", "{}"].map(str::to_owned);
        let piece = ToolCallPiece { index: 0, id, name, arguments };
        let call = ReplyEvent::ToolCall { choice: 0, piece };
        assert_eq!(chunks.read(whole).unwrap(), [call, finished(Finish::ToolCalls)]);
        let usage = Usage { prompt_tokens: 1, completion_tokens: 2 };
        assert_eq!(chunks.end().unwrap(), ReplyEvent::Done(usage));
    }

    #[test]
    fn log_probabilities_of_what_is_not_read_are_not_read_either() {
        let mut request = Request::new("m", Input::Chat(Vec::new()));
        request.logprobs = Some(0);
        let chunk = |delta: &str| {
            format!(
                r#"{{"choices":[{{"index":0,"delta":{delta},"logprobs":{{"content":[{{"token":"a",
                "logprob":-1.0}}]}}}}]}}"#
            )
        };
        let mut chunks = Chunks::new(&request);
        assert_eq!(chunks.read(&chunk(r#"{"reasoning_content":"a"}"#)).unwrap(), []);
        assert_eq!(chunks.read(&chunk(r#"{"content":""}"#)).unwrap().len(), 1);
    }

    #[test]
    fn a_refusal_is_text_like_any_other() {
        let request = Request::new("m", Input::Chat(Vec::new()));
        let mut chunks = Chunks::new(&request);
        let piece = r#"{"choices":[{"index":0,"delta":{"content":null,"refusal":"I will not."}}]}"#;
        let text = "I will not.".to_owned();
        let said = ReplyEvent::Text { choice: 0, text, logprobs: Vec::new() };
        assert_eq!(chunks.read(piece).unwrap(), [said]);
    }

    #[test]
    fn only_known_fields_are_named() {
        let field = |json: &str| serde_json::from_str::<Reason>(json).unwrap().field();
        assert_eq!(field(r#"{"param":"messages[0].content"}"#), Some("messages"));
        assert_eq!(field(r#"{"param":"Basil Okafor"}"#), None);
        assert_eq!(field(r#"{"param":null}"#), None);
        assert_eq!(field("{}"), None);
    }

    #[test]
    fn a_choice_ends_once_and_strangers_are_ignored() {
        let request = Request::new("m", Input::Text(String::new()));
        let mut chunks = Chunks::new(&request);
        assert!(chunks.end().is_err());
        let end = r#"{"choices":[{"index":0,"text":"","finish_reason":"length"}]}"#;
        let finished = ReplyEvent::Finished { choice: 0, finish: Finish::Length };
        assert_eq!(chunks.read(end).unwrap(), [finished]);
        assert_eq!(chunks.read(end).unwrap(), []);
        assert_eq!(chunks.read(r#"{"choices":[{"index":7,"text":"x"}]}"#).unwrap(), []);
        assert!(chunks.end().is_ok());
    }
}
