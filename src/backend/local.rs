//! The in-process engine as a backend: renders, tokenises, lays corrupted rows over the prompt.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Backend, BackendError, Capabilities, ModelCard, ReplyStream};
use crate::engine::Engine;
use crate::engine::corruptor::Corruptor;
use crate::engine::error::EngineError;
use crate::engine::sampler::Sampler;
use crate::engine::sequence::{ChoiceEvent, Prompt, Task};
use crate::engine::tokenizer::Encoded;
use crate::types::{
    Corruption, Input, Message, OffsetPair, Place, ReplyEvent, Request, Role, Scored, Usage,
};

/// A model served by this process.
#[derive(Debug)]
pub struct Local {
    engine: Engine,
    id: String,
    /// Gives requests without a seed different draws.
    requests: AtomicU64,
    /// The corruptors of the last few corruptions, the latest first: to make one is to tokenise every
    /// surrogate of a policy, and the time that it takes would tell which requests are treated.
    corruptors: Mutex<VecDeque<Arc<Corruptor>>>,
}

/// Corruptors that are kept.
const CORRUPTORS: usize = 16;

impl Local {
    /// Serves `engine` under the model id `id`.
    #[must_use]
    pub fn new(engine: Engine, id: impl Into<String>) -> Self {
        Self { engine, id: id.into(), requests: AtomicU64::new(0), corruptors: Mutex::default() }
    }

    /// Whether the request is for this model, and for what it can do.
    fn check(&self, request: &Request) -> Result<(), BackendError> {
        if request.model != self.id {
            return Err(BackendError::UnknownModel { model: request.model.clone() });
        }
        if !request.tools.is_empty() {
            return Err(BackendError::NoTools);
        }
        Ok(())
    }

    fn encode(&self, input: &Input) -> Result<Encoded, EngineError> {
        match input {
            Input::Chat(messages) => self.engine.tokenizer.encode_chat(messages),
            Input::Text(text) => self.engine.tokenizer.encode(text, true),
        }
    }

    fn corruptor(&self, corruption: &Corruption) -> Result<Arc<Corruptor>, EngineError> {
        let kept = || self.corruptors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(it) = kept().iter().find(|it| it.carries_out(corruption)) {
            return Ok(Arc::clone(it));
        }
        let made = Arc::new(Corruptor::new(
            self.engine.table.clone(),
            &self.engine.tokenizer,
            corruption.function,
            corruption.entities.clone(),
            corruption.seed,
        )?);
        let mut kept = kept();
        kept.truncate(CORRUPTORS - 1);
        kept.push_front(Arc::clone(&made));
        Ok(made)
    }
}

/// One masked span.
#[derive(Debug, Clone, Default)]
struct Masked<'a> {
    /// Positions of its tokens.
    tokens: Vec<usize>,
    /// The entity that it names.
    entity: Option<usize>,
    /// What stands for the name, where that is not the plain surrogate.
    stand_in: Option<&'a str>,
}

/// A run of masked tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Run<'a> {
    length: usize,
    entity: Option<usize>,
    stand_in: Option<&'a str>,
}

/// Tokens to corrupt, span by span, with the entity each span names. `continuation` is where the
/// scored text lies in the rendered prompt.
fn masked<'a>(
    corruption: &'a Corruption,
    input: &Input,
    encoded: &Encoded,
    continuation: Option<&Range<usize>>,
) -> Result<Vec<Masked<'a>>, EngineError> {
    if corruption.spans.is_empty() {
        let last = match input {
            Input::Chat(messages) => messages.iter().rposition(|it| it.role == Role::User),
            Input::Text(_) => Some(0),
        };
        let text = encoded.texts.get(last.unwrap_or(0)).ok_or(EngineError::Span)?;
        let mut tokens = encoded.tokens_in(text);
        tokens.pop();
        return Ok(vec![Masked { tokens, ..Masked::default() }]);
    }
    let spans = corruption.spans.iter().map(|it| {
        let (text, span) = match it.place {
            Place::Text(at) => (encoded.texts.get(at), encoded.rendered(at, &it.span)),
            Place::Continuation => {
                let within = |text: &Range<usize>| {
                    text.start + it.span.start..(text.start + it.span.end).min(text.end)
                };
                (continuation, continuation.map(within))
            }
        };
        let (text, span) = text.zip(span).ok_or(EngineError::Span)?;
        let mut tokens = encoded.tokens_in(&span);
        // What the model cannot be made to forget must not pass for forgotten.
        if tokens.is_empty() && !text.is_empty() {
            return Err(EngineError::Span);
        }
        if it.entity.is_none() && span.end == text.end && tokens.len() > 1 {
            tokens.pop();
        }
        Ok(Masked { tokens, entity: it.entity, stand_in: it.stand_in.as_deref() })
    });
    spans.collect()
}

/// Each masked run by its first token. Of runs that overlap, the one that begins first and is longest
/// comes whole, and of the others what sticks out.
fn apart<'a>(masked: &[Masked<'a>]) -> HashMap<usize, Run<'a>> {
    let mut order: Vec<(usize, usize, &Masked<'a>)> = masked
        .iter()
        .filter_map(|it| Some((*it.tokens.first()?, *it.tokens.last()? + 1, it)))
        .collect();
    order.sort_by_key(|it| (it.0, std::cmp::Reverse(it.1)));
    let (mut runs, mut covered) = (HashMap::new(), 0);
    for (first, end, it) in order {
        let start = first.max(covered);
        if start < end {
            // A writing stands for the whole name.
            let stand_in = it.stand_in.filter(|_| start == first);
            runs.insert(start, Run { length: end - start, entity: it.entity, stand_in });
            covered = end;
        }
    }
    runs
}

impl Local {
    /// The prompt with corrupted rows laid over masked tokens, and with masked names replaced by
    /// their surrogates under `substitute`; and where token `first` went.
    fn overlaid(
        &self,
        corruptor: &Corruptor,
        ids: &[u32],
        masked: &[Masked<'_>],
        first: usize,
    ) -> Result<(Prompt, usize), EngineError> {
        let starts = apart(masked);
        let (mut prompt, mut moved, mut at) = (Prompt::default(), None, 0);
        while at < ids.len() {
            if at >= first {
                moved.get_or_insert(prompt.ids.len());
            }
            let Some(Run { length, entity, stand_in }) = starts.get(&at) else {
                prompt.ids.push(ids[at]);
                at += 1;
                continue;
            };
            let span = &ids[at..at + length];
            let spaced = self.engine.tokenizer.bytes(span[0]).starts_with(b" ");
            if let Some(surrogate) = corruptor.substitute(*entity, spaced) {
                if let Some(text) = stand_in {
                    let text = format!("{}{text}", if spaced { " " } else { "" });
                    prompt.ids.extend(self.engine.tokenizer.encode(&text, false)?.ids);
                } else {
                    prompt.ids.extend(surrogate);
                }
            } else {
                let rows = corruptor.rows(span, *entity).into_iter();
                prompt
                    .overlay
                    .extend(rows.enumerate().map(|(it, row)| (prompt.ids.len() + it, row)));
                prompt.ids.extend(span);
            }
            at += length;
        }
        let moved = moved.unwrap_or(prompt.ids.len());
        Ok((prompt, moved))
    }
}

#[async_trait]
impl Backend for Local {
    async fn generate(&self, request: Request) -> Result<ReplyStream, BackendError> {
        self.check(&request)?;
        let encoded = self.encode(&request.input)?;
        let prompt_tokens = encoded.ids.len();
        let mut prompt = Prompt { ids: encoded.ids.clone(), ..Prompt::default() };
        let mut watch = None;
        if let Some(corruption) = &request.corruption {
            let corruptor = self.corruptor(corruption)?;
            let masked = masked(corruption, &request.input, &encoded, None)?;
            prompt = self.overlaid(&corruptor, &encoded.ids, &masked, 0)?.0;
            watch = Some(corruptor);
        }
        prompt.shift = request.offset.as_ref().map(|it| self.engine.shift(it)).transpose()?;
        let room = self.engine.context().saturating_sub(prompt.ids.len());
        let max_tokens = request.max_tokens.unwrap_or(room).max(1);
        let (events, receiver) = unbounded_channel();
        let seed = self.requests.fetch_add(1, Ordering::Relaxed);
        let tasks = (0..request.n)
            .map(|choice| Task::Generate {
                choice,
                sampler: Box::new(Sampler::new(&request.sampling, choice, seed, &prompt.ids)),
                max_tokens,
                stop: request.stop.clone(),
                logprobs: request.logprobs,
                corruptor: watch.clone(),
                events: events.clone(),
            })
            .collect();
        self.engine.submit(&prompt, tasks)?;
        Ok(reply(receiver, request.n, prompt_tokens))
    }

    async fn score(
        &self,
        request: Request,
        continuation: &str,
        end_of_turn: bool,
    ) -> Result<Scored, BackendError> {
        self.check(&request)?;
        let (encoded, span, first) = self.encode_continuation(&request.input, continuation)?;
        let mut ids = encoded.ids.clone();
        if end_of_turn {
            ids.extend(self.engine.tokenizer.end_of_turn());
        }
        let (mut prompt, mut first) = (Prompt { ids: ids.clone(), ..Prompt::default() }, first);
        if let Some(corruption) = &request.corruption {
            let corruptor = self.corruptor(corruption)?;
            let masked = masked(corruption, &request.input, &encoded, Some(&span))?;
            (prompt, first) = self.overlaid(&corruptor, &ids, &masked, first)?;
        }
        prompt.shift = request.offset.as_ref().map(|it| self.engine.shift(it)).transpose()?;
        let labels: Vec<u32> = prompt.ids[first..].to_vec();
        if labels.is_empty() {
            return Ok(Scored { logprobs: Vec::new(), greedy: Vec::new() });
        }
        if first == 0 {
            return Err(
                EngineError::Tokenizer("nothing precedes the scored text".to_owned()).into()
            );
        }
        let (result, mut receiver) = unbounded_channel();
        let task = Task::Score { first: first - 1, labels, result };
        self.engine.submit_waiting(prompt, task).await?;
        let scored = receiver.recv().await.ok_or(EngineError::Stopped)?;
        Ok(scored?)
    }

    fn admits(&self, request: &Request) -> Result<Option<usize>, BackendError> {
        self.check(request)?;
        let tokens = self.encode(&request.input)?.ids.len();
        self.engine.fits(tokens, request.max_tokens.unwrap_or(1).max(1))?;
        Ok(Some(tokens))
    }

    async fn models(&self) -> Result<Vec<ModelCard>, BackendError> {
        Ok(vec![ModelCard { id: self.id.clone(), context_length: Some(self.engine.context()) }])
    }

    fn detokenise(&self, ids: &[u32]) -> Result<String, BackendError> {
        if let Some(id) = ids.iter().find(|it| **it as usize >= self.engine.config.vocab_size) {
            let message = format!("token id {id} is outside the vocabulary");
            return Err(BackendError::Invalid { message, param: Some("prompt") });
        }
        Ok(self.engine.tokenizer.decode(ids)?)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            embeddings: true,
            hidden_states: true,
            offsets: true,
            scoring: true,
            tools: false,
        }
    }

    fn load_offset(&self, pair: &OffsetPair) -> Result<(), BackendError> {
        Ok(self.engine.load_offset(pair)?)
    }

    async fn hidden(&self, text: &str, layer: usize) -> Result<Vec<f32>, BackendError> {
        let ids = self.engine.tokenizer.encode(text, true)?.ids;
        let (result, mut receiver) = unbounded_channel();
        let prompt = Prompt { ids, ..Prompt::default() };
        self.engine.submit_waiting(prompt, Task::Hidden { layer, result }).await?;
        let row = receiver.recv().await.ok_or(EngineError::Stopped)?;
        Ok(row?)
    }

    fn weights_sha256(&self) -> Result<String, BackendError> {
        let none = BackendError::Unsupported { what: "probes of a model without files" };
        self.engine.weights_sha256()?.ok_or(none)
    }

    async fn ready(&self) -> bool {
        self.engine.alive()
    }
}

impl Local {
    /// The input with the continuation, where the continuation's text lies, and its first token.
    fn encode_continuation(
        &self,
        input: &Input,
        continuation: &str,
    ) -> Result<(Encoded, Range<usize>, usize), EngineError> {
        match input {
            Input::Chat(messages) => {
                let mut messages = messages.clone();
                match messages.last_mut().filter(|it| it.role == Role::Assistant) {
                    Some(last) => last.content.push_str(continuation),
                    None => messages
                        .push(Message { role: Role::Assistant, content: continuation.to_owned() }),
                }
                let encoded = self.engine.tokenizer.encode_chat(&messages)?;
                let end = encoded.texts.last().map_or(0, |it| it.end);
                let span = end.saturating_sub(continuation.trim_end().len())..end;
                let first = encoded.offsets.iter().position(|it| it.end > span.start);
                let first = first.unwrap_or(encoded.ids.len());
                Ok((encoded, span, first))
            }
            Input::Text(text) => {
                let mut encoded = self.engine.tokenizer.encode(text, true)?;
                let first = encoded.ids.len();
                let more = self.engine.tokenizer.encode(continuation, false)?;
                encoded.ids.extend(more.ids);
                let shift = text.len();
                encoded
                    .offsets
                    .extend(more.offsets.iter().map(|it| it.start + shift..it.end + shift));
                Ok((encoded, shift..shift + continuation.len(), first))
            }
        }
    }
}

/// Merges the choices' events; the last one counts the tokens.
fn reply(
    receiver: UnboundedReceiver<Result<ChoiceEvent, EngineError>>,
    choices: usize,
    prompt_tokens: usize,
) -> ReplyStream {
    let start = (receiver, choices, Usage { prompt_tokens, completion_tokens: 0 }, false);
    futures::stream::unfold(start, |(mut receiver, mut left, mut usage, done)| async move {
        if done {
            return None;
        }
        while left > 0 {
            match receiver.recv().await {
                Some(Ok(ChoiceEvent::Reply(event))) => {
                    return Some((Ok(event), (receiver, left, usage, false)));
                }
                Some(Ok(ChoiceEvent::Tokens(count))) => {
                    usage.completion_tokens += count;
                    left -= 1;
                }
                Some(Err(error)) => {
                    return Some((Err(error.into()), (receiver, left, usage, true)));
                }
                None => {
                    return Some((Err(EngineError::Stopped.into()), (receiver, left, usage, true)));
                }
            }
        }
        Some((Ok(ReplyEvent::Done(usage)), (receiver, left, usage, true)))
    })
    .boxed()
}

impl From<EngineError> for BackendError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::QueueFull { queued } => Self::Overloaded { queued },
            EngineError::TooLong { tokens, limit } => Self::PromptTooLong { tokens, limit },
            EngineError::EmptyPrompt => {
                Self::Invalid { message: "the prompt is empty".to_owned(), param: Some("prompt") }
            }
            EngineError::Template(_) => {
                Self::Invalid { message: error.to_string(), param: Some("messages") }
            }
            EngineError::Span | EngineError::NotLoaded { .. } => {
                Self::GuardFailed { source: Box::new(error) }
            }
            EngineError::File { .. }
            | EngineError::Tensor(_)
            | EngineError::Tokenizer(_)
            | EngineError::Layer { .. }
            | EngineError::Stopped => Self::Engine { source: Box::new(error) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Masked, Run, apart};

    #[test]
    fn masks_that_overlap_cover_all_their_tokens() {
        let of = |tokens: &[usize], entity, stand_in| Masked {
            tokens: tokens.to_vec(),
            entity,
            stand_in,
        };
        let masked = [
            of(&[2, 3], Some(1), None),
            of(&[2, 3, 4], Some(0), Some("V-i-g")),
            of(&[4, 5, 6], None, None),
            of(&[6, 7], Some(1), Some("B-o")),
            of(&[3], Some(1), None),
            of(&[9], Some(2), None),
        ];
        let mut runs: Vec<_> = apart(&masked).into_iter().collect();
        runs.sort();
        let run = |length, entity, stand_in| Run { length, entity, stand_in };
        assert_eq!(
            runs,
            [
                (2, run(3, Some(0), Some("V-i-g"))),
                (5, run(2, None, None)),
                (7, run(1, Some(1), None)),
                (9, run(1, Some(2), None)),
            ]
        );
    }
}
