//! What can go wrong in the engine.

use std::path::{Path, PathBuf};

/// Why the engine did not start or stopped working.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A model file is missing, damaged, or of a kind that this engine does not run.
    #[error("{}: {message}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor operation failed.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// The tokenizer rejected a text.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
    /// The chat template failed on this conversation.
    #[error("the chat template rejects this conversation: {0}")]
    Template(String),
    /// A span that a detector reported does not lie in the rendered prompt.
    #[error("a masked span does not lie in the rendered prompt")]
    Span,
    /// A model of a request's offset was not loaded with the policies.
    #[error("the model `{}` of the offset is not loaded", folder.display())]
    NotLoaded {
        /// Its folder.
        folder: PathBuf,
    },
    /// The model has no such layer.
    #[error("layer {layer} is not among the layers 1 to {layers} of the model")]
    Layer {
        /// The layer that was asked for.
        layer: usize,
        /// The model's blocks.
        layers: usize,
    },
    /// The queue is full.
    #[error("{queued} requests are waiting")]
    QueueFull {
        /// Capacity of the queue.
        queued: usize,
    },
    /// The prompt has no tokens, and nothing could follow it.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// Prompt and reply do not fit the context.
    #[error("{tokens} tokens do not fit a context of {limit}")]
    TooLong {
        /// Tokens needed.
        tokens: usize,
        /// Tokens available.
        limit: usize,
    },
    /// The worker thread has stopped.
    #[error("the engine's worker has stopped")]
    Stopped,
}

impl EngineError {
    /// A complaint about a file.
    pub fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), message: message.into() }
    }
}
