//! What a backend answers, event by event.

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// End of turn or a stop text.
    Stop,
    /// The token limit.
    Length,
    /// Withheld, where a policy says so openly.
    ContentFilter,
    /// The model waits for the results of its calls.
    ToolCalls,
}

/// The log-probability of one token and of its most probable rivals, in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token's exact bytes, which need not be whole characters.
    pub bytes: Vec<u8>,
    /// Log-probability before temperature and truncation.
    pub logprob: f32,
    /// The most probable tokens, best first.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// Tokens that a request cost, counted on the client's own prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt as the client sent it.
    pub prompt_tokens: usize,
    /// Tokens generated over all choices.
    pub completion_tokens: usize,
}

/// A piece of a call of a function. All pieces of one call have the same index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCallPiece {
    /// Which call of the choice.
    pub index: usize,
    /// By which the result will be known: whole in the first piece, empty in the others. Empty in
    /// the first one too where the backend gives none.
    pub id: String,
    /// The function, by the name that the client offered it under: whole in the first piece, empty in
    /// the others.
    pub name: String,
    /// More of the arguments, which are JSON once they are joined.
    pub arguments: String,
}

/// A piece of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyEvent {
    /// More text of a choice, whole characters only.
    Text {
        /// Which choice.
        choice: usize,
        /// The text; may be empty when only `logprobs` arrived.
        text: String,
        /// Log-probabilities of the tokens whose text this completes, when asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// More of a call of a function.
    ToolCall {
        /// Which choice.
        choice: usize,
        /// What there is more.
        piece: ToolCallPiece,
    },
    /// A choice is complete. Exactly one per choice.
    Finished {
        /// Which choice.
        choice: usize,
        /// Why.
        finish: Finish,
    },
    /// The last event of a stream.
    Done(Usage),
}

/// Log-probabilities of a given continuation, teacher-forced.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// One value per token of the continuation, in nats; the end-of-turn token last when
    /// it was asked for.
    pub logprobs: Vec<f32>,
    /// Whether each token was also the most probable one.
    pub greedy: Vec<bool>,
}

impl Scored {
    /// Length-normalised negative log-likelihood, TOFU's per-row loss, in nats per token.
    #[must_use]
    pub fn mean_nll(&self) -> f64 {
        let sum: f64 = self.logprobs.iter().map(|it| f64::from(*it)).sum();
        -sum / self.logprobs.len().max(1) as f64
    }
}
