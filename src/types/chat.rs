//! What a client asks: messages or text, and how to sample.

use super::{Corruption, Offset};

/// Who speaks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions of the application (`developer` is the same role under its newer name).
    System,
    /// The person or program that asks.
    User,
    /// The model, earlier in the conversation or as a prefill.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name that chat templates use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation, its content parts joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text.
    pub content: String,
}

/// What the model is to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A conversation, rendered by the model's chat template. When the last message is the
    /// assistant's, the model continues it (a prefill).
    Chat(Vec<Message>),
    /// Text, continued as it stands (`/v1/completions`). A prompt of token ids is detokenised first.
    Text(String),
}

impl Input {
    /// The texts a detector reads, in order; a span names one of them by its index here.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Chat(messages) => messages.iter().map(|it| it.content.as_str()).collect(),
            Self::Text(text) => vec![text],
        }
    }

    /// The same, to be rewritten by a treatment.
    pub fn texts_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::Chat(messages) => messages.iter_mut().map(|it| &mut it.content).collect(),
            Self::Text(text) => vec![text],
        }
    }
}

/// How tokens are drawn from the model's distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the smallest set of tokens with this much probability; 1 keeps all.
    pub top_p: f32,
    /// Keep the `k` most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Subtracted from the logit of every token that has been generated, per occurrence.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of every token that has been generated.
    pub presence_penalty: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or reply; 1 is none.
    pub repetition_penalty: f32,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes the draw repeatable.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// A request for replies, as every backend takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The id of the served model.
    pub model: String,
    /// What to continue.
    pub input: Input,
    /// How to sample.
    pub sampling: Sampling,
    /// Number of independent choices, at least 1.
    pub n: usize,
    /// Most tokens per choice; `None` is what the context leaves.
    pub max_tokens: Option<usize>,
    /// Texts that end a choice; not part of the reply. At most 4.
    pub stop: Vec<String>,
    /// Log-probabilities wanted: `Some(k)` for the sampled token and the `k` most probable.
    pub logprobs: Option<usize>,
    /// Who asks, as far as the server can tell them apart; 0 where it cannot. What was learnt from
    /// one tenant's request is never used for another's.
    pub tenant: u64,
    /// Rows of the prompt to corrupt (set by a treatment, never by a client).
    pub corruption: Option<Corruption>,
    /// What is added to the logits (set by a treatment, never by a client).
    pub offset: Option<Offset>,
}

impl Request {
    /// A request with default sampling.
    #[must_use]
    pub fn new(model: impl Into<String>, input: Input) -> Self {
        Self {
            model: model.into(),
            input,
            sampling: Sampling::default(),
            n: 1,
            max_tokens: None,
            stop: Vec::new(),
            logprobs: None,
            tenant: 0,
            corruption: None,
            offset: None,
        }
    }
}
