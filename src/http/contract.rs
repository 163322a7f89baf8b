//! What becomes of every field of a request and of a reply.
//!
//! The parser reads through this table: a field that no row lets through is gone before it looks.
//! `GET /admin/contract` shows the same table.

use serde_json::{Map, Value, json};

use Handling::{Constrained, Dropped, Forwarded, Guarded};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handling {
    /// Every policy of the model reads it; it is rewritten or replaced where one rules so.
    Guarded,
    /// Only some of its values pass, and the rule says which.
    Constrained,
    /// It has no effect and goes no further.
    Dropped,
    /// It passes as it is.
    Forwarded,
}

impl Handling {
    fn as_str(self) -> &'static str {
        match self {
            Guarded => "guarded",
            Constrained => "constrained",
            Dropped => "dropped",
            Forwarded => "forwarded",
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
struct Field {
    /// As in `messages[].content`.
    path: &'static str,
    /// While no policy rules on the request.
    handling: Handling,
    /// Once one does.
    ruled: Handling,
    rule: &'static str,
}

impl Field {
    /// The same, but for requests that a policy rules on.
    const fn once_ruled(self, ruled: Handling) -> Self {
        Self { ruled, ..self }
    }
}

const fn row(path: &'static str, handling: Handling, rule: &'static str) -> Field {
    Field { path, handling, ruled: handling, rule }
}

/// One endpoint's part of the table.
#[derive(Debug)]
pub(super) struct Endpoint {
    path: &'static str,
    request: &'static [&'static [Field]],
    reply: &'static [&'static [Field]],
}

/// `/v1/chat/completions`.
pub(super) static CHAT: Endpoint = Endpoint {
    path: "/v1/chat/completions",
    request: &[CHAT_REQUEST, REQUEST],
    reply: &[CHAT_REPLY, REPLY],
};

/// `/v1/completions`.
pub(super) static TEXT: Endpoint = Endpoint {
    path: "/v1/completions",
    request: &[TEXT_REQUEST, REQUEST],
    reply: &[TEXT_REPLY, REPLY],
};

const CHAT_REQUEST: &[Field] = &[
    row("messages", Guarded, "at least one; a last message of the assistant is continued"),
    row("messages[].role", Constrained, "system, developer, user, assistant, tool, function"),
    row("messages[].content", Guarded, "whoever speaks, earlier replies and prefills included"),
    row("messages[].content[].type", Constrained, "text or refusal"),
    row("messages[].content[].text", Guarded, "parts are joined before they are read"),
    row("messages[].content[].refusal", Guarded, "as text"),
    row("messages[].tool_calls", Guarded, "the assistant's; excuses missing content"),
    row("messages[].tool_calls[].id", Constrained, "not empty; the model gets ids made here"),
    row("messages[].tool_calls[].type", Constrained, "only function"),
    row("messages[].tool_calls[].function", Guarded, ""),
    row("messages[].tool_calls[].function.name", Guarded, "unless it is on offer, see tools"),
    row("messages[].tool_calls[].function.arguments", Guarded, "as JSON, its escapes undone once"),
    row("messages[].function_call", Constrained, "excuses missing content, not sent on"),
    row("messages[].prompt_embeds", Constrained, "refused: nothing can read it"),
    row("messages[].name", Dropped, ""),
    row("messages[].tool_call_id", Constrained, "the id of a call before it; of role tool"),
    row("messages[].audio", Dropped, ""),
    row("max_completion_tokens", Forwarded, "wins over max_tokens"),
    row(
        "logprobs",
        Forwarded,
        "null from the first replaced name on, or always if a policy says so",
    )
    .once_ruled(Dropped),
    row("top_logprobs", Forwarded, RIVALS).once_ruled(Dropped),
    row("tools", Guarded, "at most 128; the local model takes none"),
    row("tools[].type", Constrained, "only function"),
    row("tools[].function", Guarded, "read as one text, JSON with its escapes undone"),
    row("tools[].function.name", Guarded, "letters, digits, _, - and ., at most 64"),
    row("tools[].function.description", Guarded, ""),
    row("tools[].function.parameters", Guarded, "the whole schema, keys and values"),
    row("tools[].function.strict", Dropped, "an enforced schema could spell a name"),
    row("tool_choice", Constrained, "none, auto, required, or a function of tools"),
    row("tool_choice.type", Constrained, "only function"),
    row("tool_choice.function", Constrained, ""),
    row("tool_choice.function.name", Constrained, "one of tools"),
    row("parallel_tool_calls", Forwarded, "has no effect without tools"),
    row("functions", Constrained, "only empty"),
    row("function_call", Constrained, "only none"),
    row("response_format", Constrained, "only of type text: a schema can ask for a name"),
    row("response_format.type", Constrained, "only text"),
    row("modalities", Constrained, "only text"),
    row("echo", Dropped, "replies never repeat the prompt, which may be a treated one"),
    row("chat_template", Dropped, "the prompt that was read is the prompt that is sent"),
    row("chat_template_kwargs", Dropped, ""),
    row("add_generation_prompt", Dropped, ""),
    row("continue_final_message", Dropped, ""),
    row("documents", Dropped, ""),
    row("prediction", Dropped, ""),
    row("audio", Dropped, ""),
    row("web_search_options", Dropped, ""),
];

const TEXT_REQUEST: &[Field] = &[
    row("prompt", Guarded, "token ids are read as the text that they stand for"),
    row("echo", Constrained, "repeats the client's own prompt; refused with logprobs"),
    row("suffix", Constrained, "only empty: text between two texts is not offered"),
    row("best_of", Constrained, "only equal to n"),
    row("logprobs", Forwarded, TEXT_RIVALS).once_ruled(Dropped),
];

const STOPS: &str = "at most 4; those that share three letters or more with a name go, and those with \
                     a listed value follow it where it is told as another one";

const RIVALS: &str = "at most 20; needs logprobs; a token is left out where it would write a word of \
                      a forgotten name, or three letters of one and more";

const TEXT_RIVALS: &str = "at most 5; null in replies from the first replaced name on; of the rivals \
                           one is left out where it would write a word of a forgotten name, or \
                           three letters of one and more";

/// What both endpoints read.
const REQUEST: &[Field] = &[
    row("model", Forwarded, "chooses the policies"),
    row("n", Constrained, "at most 16"),
    row("max_tokens", Forwarded, ""),
    row("stop", Constrained, STOPS),
    row("temperature", Forwarded, ""),
    row("top_p", Forwarded, ""),
    row("top_k", Forwarded, ""),
    row("frequency_penalty", Forwarded, ""),
    row("presence_penalty", Forwarded, ""),
    row("repetition_penalty", Forwarded, ""),
    row(
        "logit_bias",
        Forwarded,
        "would force tokens past a treatment; a policy may drop it always",
    )
    .once_ruled(Dropped),
    row("seed", Forwarded, ""),
    row("stream", Forwarded, ""),
    row("stream_options", Constrained, "needs stream"),
    row("stream_options.include_usage", Forwarded, ""),
    row("prompt_embeds", Constrained, "refused: nothing can read it"),
    row("prompt_logprobs", Dropped, "would show what the model knows of the prompt"),
    row("guided_json", Dropped, ""),
    row("guided_regex", Dropped, ""),
    row("guided_choice", Dropped, ""),
    row("guided_grammar", Dropped, ""),
    row("structured_outputs", Dropped, ""),
    row("logits_processors", Dropped, ""),
    row("allowed_token_ids", Dropped, ""),
    row("bad_words", Dropped, ""),
    row("stop_token_ids", Dropped, ""),
    row("min_p", Dropped, ""),
    row("min_tokens", Dropped, ""),
    row("ignore_eos", Dropped, ""),
    row("user", Dropped, ""),
    row("metadata", Dropped, ""),
    row("store", Dropped, ""),
];

const CHAT_REPLY: &[Field] = &[
    row("choices[].message.role", Forwarded, ""),
    row("choices[].message.content", Guarded, ""),
    row("choices[].message.refusal", Constrained, "always null: a refusal is content"),
    row("choices[].delta.role", Forwarded, ""),
    row("choices[].delta.content", Guarded, "held back while it may begin a name"),
    row("choices[].delta.refusal", Constrained, "always null: a refusal is content"),
    row("choices[].message.tool_calls", Guarded, "of a model behind the proxy; only with tools"),
    row("choices[].message.tool_calls[].id", Guarded, "made here where it holds a name"),
    row("choices[].message.tool_calls[].type", Forwarded, ""),
    row("choices[].message.tool_calls[].function.name", Guarded, "unless it is one of tools"),
    row("choices[].message.tool_calls[].function.arguments", Guarded, ARGUMENTS),
    row("choices[].message.reasoning_content", Dropped, "not read from the model"),
    row("choices[].delta.tool_calls", Guarded, "as in message"),
    row("choices[].delta.tool_calls[].index", Forwarded, ""),
    row("choices[].delta.tool_calls[].id", Guarded, "in the first piece, whole"),
    row("choices[].delta.tool_calls[].type", Forwarded, "in the first piece"),
    row("choices[].delta.tool_calls[].function.name", Guarded, "in the first piece, whole"),
    row("choices[].delta.tool_calls[].function.arguments", Guarded, "held back like a text"),
    row("choices[].delta.reasoning_content", Dropped, "not read from the model"),
];

const ARGUMENTS: &str = "the JSON's escapes are undone before it is read and written again; JSON \
                         within a string of it is read as it stands";

const TEXT_REPLY: &[Field] =
    &[row("choices[].text", Guarded, "held back while it may begin a name")];

const REPLY: &[Field] = &[
    row("id", Forwarded, "made here"),
    row("object", Forwarded, ""),
    row("created", Forwarded, ""),
    row("model", Forwarded, "as the client wrote it"),
    row("system_fingerprint", Forwarded, "the proxy's, not the model's"),
    row("choices[].index", Forwarded, ""),
    row("choices[].logprobs", Forwarded, "null from the first replaced name or call on")
        .once_ruled(Dropped),
    row("choices[].finish_reason", Constrained, "content_filter only where a policy is open"),
    row("usage.prompt_tokens", Constrained, "the client's own prompt, not the treated one"),
    row("usage.completion_tokens", Forwarded, ""),
    row("usage.total_tokens", Constrained, "the sum"),
];

impl Endpoint {
    /// Whether the parser may read a field.
    pub(super) fn reads(&self, path: &str) -> bool {
        self.rows().any(|it| it.path == path && it.handling != Dropped)
    }

    /// Removes every field of a body that the parser may not read.
    pub(super) fn prune(&self, body: &mut Map<String, Value>) {
        self.prune_object("", body);
    }

    fn prune_object(&self, path: &str, fields: &mut Map<String, Value>) {
        fields.retain(|name, _| self.reads(&part(path, name)));
        for (name, value) in fields.iter_mut() {
            self.prune_value(&part(path, name), value);
        }
    }

    fn prune_value(&self, path: &str, value: &mut Value) {
        match value {
            Value::Object(fields) if self.has_parts(path) => self.prune_object(path, fields),
            Value::Array(items) => {
                let path = format!("{path}[]");
                if self.has_parts(&path) {
                    items.iter_mut().for_each(|it| self.prune_value(&path, it));
                }
            }
            _ => {}
        }
    }

    /// Whether rows name parts of this object; without any it is read as a whole.
    fn has_parts(&self, path: &str) -> bool {
        let below = |it: &Field| it.path.strip_prefix(path).is_some_and(|it| it.starts_with('.'));
        self.rows().any(below)
    }

    fn rows(&self) -> impl Iterator<Item = &'static Field> {
        self.request.iter().copied().flatten()
    }
}

fn part(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The table as JSON.
pub(super) fn table() -> Value {
    let rows = |parts: &[&[Field]]| -> Vec<Value> {
        parts.iter().copied().flatten().map(object).collect()
    };
    let endpoint = |it: &Endpoint| {
        json!({
            "path": it.path,
            "request": rows(it.request),
            "unlisted": Dropped.as_str(),
            "reply": rows(it.reply),
        })
    };
    json!({
        "handlings": {
            "guarded": "every policy of the model reads it, and it is rewritten where one rules so",
            "constrained": "only some of its values pass",
            "dropped": "it has no effect and goes no further",
            "forwarded": "it passes as it is",
        },
        "ruled": "what `handling` becomes once a policy rules that a request is about its topic",
        "endpoints": [endpoint(&CHAT), endpoint(&TEXT)],
    })
}

fn object(field: &Field) -> Value {
    json!({
        "field": field.path,
        "handling": field.handling.as_str(),
        "ruled": field.ruled.as_str(),
        "rule": field.rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_table_lets_through_is_left() {
        let mut body = json!({
            "model": "m", "user": "u", "unheard_of": 1, "logit_bias": { "1": 2 },
            "messages": [{
                "role": "user", "name": "n",
                "content": [{ "type": "text", "text": "t", "cache_control": {} }],
            }],
            "stream_options": { "include_usage": true, "include_obfuscation": true },
        });
        CHAT.prune(body.as_object_mut().unwrap());
        let left = json!({
            "model": "m", "logit_bias": { "1": 2 },
            "messages": [{ "role": "user", "content": [{ "type": "text", "text": "t" }] }],
            "stream_options": { "include_usage": true },
        });
        assert_eq!(body, left);
    }

    #[test]
    fn no_field_has_two_rows() {
        for endpoint in [&CHAT, &TEXT] {
            for parts in [endpoint.request, endpoint.reply] {
                let mut paths: Vec<&str> =
                    parts.iter().copied().flatten().map(|it| it.path).collect();
                let count = paths.len();
                paths.sort_unstable();
                paths.dedup();
                assert_eq!(paths.len(), count, "{}", endpoint.path);
            }
        }
    }
}
