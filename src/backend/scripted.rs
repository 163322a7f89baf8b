//! A backend that says what it was told to say, for tests of everything around it.

use std::sync::Mutex;

use async_trait::async_trait;
use futures::StreamExt;

use super::{Backend, BackendError, Capabilities, ModelCard, ReplyStream};
use crate::types::{Finish, ReplyEvent, Request, Scored, TokenLogprob, ToolCallPiece, Usage};

/// The only model of a [`Scripted`] backend.
const MODEL: &str = "scripted";

/// Answers every request with the same pieces of text, one event each, choice by choice.
#[derive(Debug)]
pub struct Scripted {
    pieces: Vec<String>,
    /// Of one call, made where there is anything to call.
    calls: Vec<ToolCallPiece>,
    capabilities: Capabilities,
    seen: Mutex<Vec<Request>>,
}

impl Scripted {
    /// A backend that says these pieces.
    #[must_use]
    pub fn new(pieces: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            pieces: pieces.into_iter().map(Into::into).collect(),
            calls: Vec::new(),
            capabilities: Capabilities { scoring: true, tools: true, ..Capabilities::default() },
            seen: Mutex::new(Vec::new()),
        }
    }

    /// The same, which then calls a function with these pieces of arguments when one is on offer.
    #[must_use]
    pub fn calling(mut self, name: &str, arguments: &[&str]) -> Self {
        let begin = ToolCallPiece {
            id: "call_scripted".to_owned(),
            name: name.to_owned(),
            ..ToolCallPiece::default()
        };
        let more = arguments
            .iter()
            .map(|it| ToolCallPiece { arguments: (*it).to_owned(), ..ToolCallPiece::default() });
        self.calls = std::iter::once(begin).chain(more).collect();
        self
    }

    /// The same with other capabilities.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// The requests that arrived, oldest first.
    ///
    /// # Panics
    ///
    /// When a thread panicked while it recorded a request.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("nothing panics while it records").clone()
    }

    fn record(&self, request: &Request) -> Result<(), BackendError> {
        self.admits(request)?;
        self.seen.lock().expect("nothing panics while it records").push(request.clone());
        if request.corruption.is_some() && !self.capabilities.embeddings {
            return Err(BackendError::Unsupported { what: "corrupted embeddings" });
        }
        if !request.tools.is_empty() && !self.capabilities.tools {
            return Err(BackendError::NoTools);
        }
        if request.offset.is_some() && !self.capabilities.offsets {
            return Err(BackendError::Unsupported { what: "logit offsets" });
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Scripted {
    fn admits(&self, request: &Request) -> Result<Option<usize>, BackendError> {
        if request.model != MODEL {
            return Err(BackendError::UnknownModel { model: request.model.clone() });
        }
        Ok(None)
    }

    async fn generate(&self, request: Request) -> Result<ReplyStream, BackendError> {
        self.record(&request)?;
        let mut events = Vec::new();
        for choice in 0..request.n {
            for piece in &self.pieces {
                let token = TokenLogprob {
                    bytes: piece.as_bytes().to_vec(),
                    logprob: -1.0,
                    top: Vec::new(),
                };
                let logprobs = request.logprobs.map(|_| vec![token]).unwrap_or_default();
                events.push(ReplyEvent::Text { choice, text: piece.clone(), logprobs });
            }
            let offered = !request.tools.offered.is_empty();
            let calls = if offered { self.calls.as_slice() } else { &[] };
            let pieces = calls.iter().cloned();
            events.extend(pieces.map(|piece| ReplyEvent::ToolCall { choice, piece }));
            let finish = if calls.is_empty() { Finish::Stop } else { Finish::ToolCalls };
            events.push(ReplyEvent::Finished { choice, finish });
        }
        let completion_tokens = self.pieces.len() * request.n;
        events.push(ReplyEvent::Done(Usage { prompt_tokens: 3, completion_tokens }));
        Ok(futures::stream::iter(events.into_iter().map(Ok)).boxed())
    }

    async fn score(
        &self,
        request: Request,
        continuation: &str,
        end_of_turn: bool,
    ) -> Result<Scored, BackendError> {
        if !self.capabilities.scoring {
            return Err(BackendError::Unsupported { what: "scoring" });
        }
        self.record(&request)?;
        let tokens = continuation.split_whitespace().count() + usize::from(end_of_turn);
        Ok(Scored { logprobs: vec![-1.0; tokens], greedy: vec![false; tokens] })
    }

    async fn models(&self) -> Result<Vec<ModelCard>, BackendError> {
        Ok(vec![ModelCard { id: MODEL.to_owned(), context_length: None }])
    }

    fn detokenise(&self, _: &[u32]) -> Result<String, BackendError> {
        Err(BackendError::Unsupported { what: "prompts of token ids" })
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }
}
