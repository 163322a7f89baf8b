//! Where answers come from. `Guarded` wraps a [`Backend`] and is one, so that HTTP, evaluation and
//! attacks use one trait, guarded or not.

pub mod local;
pub mod scripted;
pub mod upstream;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::types::{OffsetPair, ReplyEvent, Request, Scored};

/// Events of a reply. Dropping the stream cancels the work behind it.
pub type ReplyStream = BoxStream<'static, Result<ReplyEvent, BackendError>>;

/// What a backend can do beyond text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Takes prompts with corrupted embedding rows.
    pub embeddings: bool,
    /// Shows the residual stream between its layers.
    pub hidden_states: bool,
    /// Adds the difference of two further models to the logits.
    pub offsets: bool,
    /// Computes log-probabilities of a given continuation.
    pub scoring: bool,
    /// Takes functions that the model may call.
    pub tools: bool,
}

/// A model as `/v1/models` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    /// The id clients send.
    pub id: String,
    /// Most tokens of prompt and reply together, when known.
    pub context_length: Option<usize>,
}

/// A source of replies.
#[async_trait]
pub trait Backend: std::fmt::Debug + Send + Sync {
    /// Starts a reply: text and call events per choice, one `Finished` per choice, `Done` last.
    ///
    /// # Errors
    ///
    /// When no reply could be started; later failures are items of the stream.
    async fn generate(&self, request: Request) -> Result<ReplyStream, BackendError>;

    /// Scores `continuation` after the request's input, teacher-forced. `end_of_turn` appends the
    /// end-of-turn token, as TOFU's metrics do.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where [`Capabilities::scoring`] is false.
    async fn score(
        &self,
        request: Request,
        continuation: &str,
        end_of_turn: bool,
    ) -> Result<Scored, BackendError>;

    /// The served models.
    async fn models(&self) -> Result<Vec<ModelCard>, BackendError>;

    /// Text of token ids, for prompts given as ids.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] without a tokenizer, [`BackendError::Invalid`] for unknown ids.
    fn detokenise(&self, ids: &[u32]) -> Result<String, BackendError>;

    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Reads the models of a pair, so that requests may carry it; a pair that was read before costs
    /// nothing. Blocks while it reads.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where [`Capabilities::offsets`] is false, [`BackendError::Engine`]
    /// when a model is missing or does not fit the served one.
    fn load_offset(&self, _pair: &OffsetPair) -> Result<(), BackendError> {
        Err(BackendError::Unsupported { what: "logit offsets" })
    }

    /// The residual stream after `layer` blocks (from 1) at the last token of a text as it stands:
    /// `[hidden]` in f32, before any norm.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where [`Capabilities::hidden_states`] is false,
    /// [`BackendError::PromptTooLong`] for a text that does not fit.
    async fn hidden(&self, _text: &str, _layer: usize) -> Result<Vec<f32>, BackendError> {
        Err(BackendError::Unsupported { what: "hidden states" })
    }

    /// SHA-256 of the model's weights, by which a probe knows the model that it was made for.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where [`Capabilities::hidden_states`] is false.
    fn weights_sha256(&self) -> Result<String, BackendError> {
        Err(BackendError::Unsupported { what: "hidden states" })
    }

    /// Whether [`Backend::generate`] takes the request, as far as that is known without asking a
    /// server, and the tokens of its prompt where the backend can count them. Usage and limits are those of the
    /// client's own request, so that a treatment does not show in them.
    ///
    /// # Errors
    ///
    /// What `generate` would say.
    fn admits(&self, _request: &Request) -> Result<Option<usize>, BackendError> {
        Ok(None)
    }

    /// Whether requests would be answered.
    async fn ready(&self) -> bool {
        true
    }
}

/// Why there is no reply, or no more of it. One variant per reaction of the caller.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The queue is full; the caller may retry.
    #[error("overloaded: {queued} requests are waiting")]
    Overloaded {
        /// Requests waiting when this one arrived.
        queued: usize,
    },
    /// The prompt does not fit the model.
    #[error(
        "this model's maximum context length is {limit} tokens, but the request needs {tokens} \
         ({tokens} = prompt + at least one token of reply); shorten the messages"
    )]
    PromptTooLong {
        /// Tokens the request needs.
        tokens: usize,
        /// The model's context length.
        limit: usize,
    },
    /// The served models do not include this one.
    #[error("the model `{model}` does not exist or you do not have access to it")]
    UnknownModel {
        /// As the client wrote it.
        model: String,
    },
    /// The request asks for something malformed.
    #[error("{message}")]
    Invalid {
        /// What is wrong, for the client.
        message: String,
        /// The offending field.
        param: Option<&'static str>,
    },
    /// The backend has no such ability.
    #[error("this backend does not support {what}")]
    Unsupported {
        /// The ability.
        what: &'static str,
    },
    /// The request has tools and [`Capabilities::tools`] is false.
    #[error("the local model takes no tools: send neither `tools` nor messages with `tool_calls`")]
    NoTools,
    /// A guard failed and the policy fails closed.
    #[error("the request could not be checked")]
    GuardFailed {
        /// What went wrong, for the log.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A remote server failed.
    #[error("upstream `{host}` failed")]
    Upstream {
        /// Which server.
        host: String,
        /// Its status, when it answered.
        status: Option<u16>,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The in-process engine failed.
    #[error("the engine failed")]
    Engine {
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
