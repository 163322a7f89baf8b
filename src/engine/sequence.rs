//! One choice of a request while it runs.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::corruptor::Corruptor;
use super::error::EngineError;
use super::offset::Shift;
use super::sampler::{Sampler, argmax, log_probabilities};
use super::tokenizer::{TextStream, Tokenizer};
use crate::types::{Finish, ReplyEvent, Scored, TokenLogprob};

/// Token ids, the corrupted rows that are laid over their embeddings, and what is added to the logits.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Row of `hidden` values for a position.
    pub overlay: HashMap<usize, Vec<f32>>,
    /// Further models whose difference is added to the logits.
    pub shift: Option<Shift>,
}

/// What is asked of the engine.
#[derive(Debug)]
pub enum Task {
    /// Generate one choice.
    Generate {
        /// Its number in the request.
        choice: usize,
        /// How to sample.
        sampler: Box<Sampler>,
        /// Most tokens.
        max_tokens: usize,
        /// Texts that end it.
        stop: Vec<String>,
        /// Log-probabilities wanted.
        logprobs: Option<usize>,
        /// Masks names in what is generated.
        corruptor: Option<Arc<Corruptor>>,
        /// Where events go; closed by the receiver to cancel.
        events: UnboundedSender<Result<ChoiceEvent, EngineError>>,
    },
    /// Score given labels: position `first + i` predicts `labels[i]`.
    Score {
        /// Position that predicts the first label.
        first: usize,
        /// Labels.
        labels: Vec<u32>,
        /// Where the result goes.
        result: UnboundedSender<Result<Scored, EngineError>>,
    },
    /// Read the residual stream at the last token.
    Hidden {
        /// After how many blocks, at least 1.
        layer: usize,
        /// Where the `hidden` values go.
        result: UnboundedSender<Result<Vec<f32>, EngineError>>,
    },
}

/// An event of one choice, with tokens counted.
#[derive(Debug)]
pub enum ChoiceEvent {
    /// Text or end.
    Reply(ReplyEvent),
    /// The choice cost this many tokens; the last event.
    Tokens(usize),
}

/// A sequence in a slot.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) prompt: Prompt,
    /// Most rows the cache can hold for it.
    capacity: usize,
    generated: usize,
    /// Per generated token, where its text starts in `written` and where its rows start; a name
    /// that has been replaced is one piece.
    pieces: Vec<(usize, usize)>,
    /// Rows in the cache.
    pub(crate) cached: usize,
    task: Task,
    text: TextStream,
    written: String,
    released: usize,
    held: Vec<TokenLogprob>,
    scores: (Vec<f32>, Vec<bool>),
}

impl Sequence {
    pub(crate) fn new(tokenizer: &Tokenizer, prompt: Prompt, task: Task, capacity: usize) -> Self {
        let text = TextStream::after(tokenizer, &prompt.ids);
        Self {
            prompt,
            capacity,
            generated: 0,
            pieces: Vec::new(),
            cached: 0,
            task,
            text,
            written: String::new(),
            released: 0,
            held: Vec::new(),
            scores: (Vec::new(), Vec::new()),
        }
    }

    /// Whether nobody waits for it.
    pub(crate) fn cancelled(&self) -> bool {
        match &self.task {
            Task::Generate { events, .. } => events.is_closed(),
            Task::Score { result, .. } => result.is_closed(),
            Task::Hidden { result, .. } => result.is_closed(),
        }
    }

    /// Reports a failure to whoever waits; a receiver that has gone away needs no report.
    pub(crate) fn fail(self, error: EngineError) {
        match self.task {
            Task::Generate { events, .. } => drop(events.send(Err(error))),
            Task::Score { result, .. } => drop(result.send(Err(error))),
            Task::Hidden { result, .. } => drop(result.send(Err(error))),
        }
    }

    /// The layer whose residual row at `position` is asked for.
    pub(crate) fn reads(&self, position: usize) -> Option<usize> {
        match &self.task {
            Task::Hidden { layer, .. } if position + 1 == self.prompt.ids.len() => Some(*layer),
            _ => None,
        }
    }

    /// Ends a task that reads a residual row.
    pub(crate) fn answer(self, row: Vec<f32>) {
        if let Task::Hidden { result, .. } = self.task {
            drop(result.send(Ok(row)));
        }
    }

    /// Whether the logits of the row at `position` are needed.
    pub(crate) fn needs(&self, position: usize) -> bool {
        match &self.task {
            Task::Generate { .. } => position + 1 == self.prompt.ids.len(),
            Task::Score { first, labels, .. } => (*first..first + labels.len()).contains(&position),
            Task::Hidden { .. } => false,
        }
    }

    /// Takes the logits of a needed row; true when the sequence is complete.
    pub(crate) fn take(
        &mut self,
        tokenizer: &Tokenizer,
        position: usize,
        logits: &mut [f32],
    ) -> Result<bool, EngineError> {
        match &mut self.task {
            Task::Score { first, labels, result } => {
                let label = labels[position - *first];
                self.scores.0.push(log_probabilities(logits)[label as usize]);
                self.scores.1.push(argmax(logits) == label);
                let complete = self.scores.0.len() == labels.len();
                if complete {
                    let (logprobs, greedy) = std::mem::take(&mut self.scores);
                    drop(result.send(Ok(Scored { logprobs, greedy })));
                }
                Ok(complete)
            }
            Task::Generate { .. } => self.sample(tokenizer, logits),
            Task::Hidden { .. } => Ok(true),
        }
    }

    fn sample(&mut self, tokenizer: &Tokenizer, logits: &mut [f32]) -> Result<bool, EngineError> {
        let Task::Generate { sampler, logprobs, max_tokens, .. } = &mut self.task else {
            return Ok(true);
        };
        let wanted = logprobs.map(|top| (top, log_probabilities(logits)));
        let (token, limit) = (sampler.sample(logits), *max_tokens);
        if tokenizer.end_tokens().contains(&token) {
            return self.end(tokenizer, Finish::Stop);
        }
        self.pieces.push((self.written.len(), self.prompt.ids.len()));
        self.prompt.ids.push(token);
        self.generated += 1;
        if let Some((top, all)) = wanted {
            self.held.push(token_logprob(tokenizer, token, top, &all));
        }
        let text = self.text.push(tokenizer, token)?;
        self.written.push_str(&text);
        self.mask_generated_name();
        if self.cut_at_stop() {
            return Ok(self.finish(Finish::Stop));
        }
        if self.generated >= limit || self.prompt.ids.len() >= self.capacity {
            return self.end(tokenizer, Finish::Length);
        }
        self.release(false);
        Ok(false)
    }

    /// Lays corrupted rows over a name that the model has just written, or puts its surrogate in
    /// its place, and rewinds to it.
    fn mask_generated_name(&mut self) {
        let Task::Generate { corruptor: Some(corruptor), .. } = &self.task else { return };
        let Some((entity, length)) = corruptor.name_at_end(&self.written) else { return };
        let name = self.written.len() - length;
        let Some(piece) = self.pieces.iter().rposition(|it| it.0 <= name) else { return };
        let (text, start) = self.pieces[piece];
        let spaced = self.written.get(text..).is_some_and(|it| it.starts_with(' '));
        if let Some(surrogate) = corruptor.substitute(Some(entity), spaced) {
            self.prompt.ids.truncate(start);
            self.prompt.ids.extend(surrogate.iter().take(self.capacity.saturating_sub(start)));
            self.prompt.overlay.retain(|at, _| *at < start);
            self.pieces.truncate(piece + 1);
        } else {
            let rows = corruptor.rows(&self.prompt.ids[start..], Some(entity));
            self.prompt.overlay.extend(rows.into_iter().zip(start..).map(|(row, at)| (at, row)));
        }
        self.cached = self.cached.min(start);
    }

    /// Cuts the text before a stop text; true when there was one.
    fn cut_at_stop(&mut self) -> bool {
        let Task::Generate { stop, .. } = &self.task else { return false };
        let unreleased = self.written.get(self.released..).unwrap_or_default();
        let hit = stop
            .iter()
            .filter(|it| !it.is_empty())
            .filter_map(|it| unreleased.find(it.as_str()))
            .min();
        if let Some(at) = hit {
            self.written.truncate(self.released + at);
            self.held.clear();
        }
        hit.is_some()
    }

    /// Sends what no stop text can take back.
    fn release(&mut self, all: bool) {
        let Task::Generate { choice, stop, events, .. } = &self.task else { return };
        let unreleased = self.written.get(self.released..).unwrap_or_default();
        let kept = if all {
            0
        } else {
            stop.iter().map(|it| partial_match(unreleased, it)).max().unwrap_or(0)
        };
        // Log-probabilities belong to whole tokens, so their text is released whole or not at all.
        if kept > 0 && !self.held.is_empty() {
            return;
        }
        let end = self.written.len() - kept;
        let text = self.written.get(self.released..end).unwrap_or_default().to_owned();
        if text.is_empty() {
            return;
        }
        let logprobs = std::mem::take(&mut self.held);
        self.released = end;
        drop(events.send(Ok(ChoiceEvent::Reply(ReplyEvent::Text {
            choice: *choice,
            text,
            logprobs,
        }))));
    }

    fn end(&mut self, tokenizer: &Tokenizer, finish: Finish) -> Result<bool, EngineError> {
        let rest = self.text.finish(tokenizer)?;
        self.written.push_str(&rest);
        let finish = if self.cut_at_stop() { Finish::Stop } else { finish };
        Ok(self.finish(finish))
    }

    fn finish(&mut self, finish: Finish) -> bool {
        self.release(true);
        let Task::Generate { choice, events, .. } = &self.task else { return true };
        let finished = ReplyEvent::Finished { choice: *choice, finish };
        drop(events.send(Ok(ChoiceEvent::Reply(finished))));
        drop(events.send(Ok(ChoiceEvent::Tokens(self.generated))));
        true
    }
}

/// Bytes at the end of `text` that could begin `stop`.
fn partial_match(text: &str, stop: &str) -> usize {
    (1..stop.len().min(text.len() + 1))
        .rev()
        .filter_map(|it| stop.get(..it))
        .find(|it| text.ends_with(it))
        .map_or(0, str::len)
}

fn token_logprob(tokenizer: &Tokenizer, token: u32, top: usize, all: &[f32]) -> TokenLogprob {
    let mut order: Vec<u32> = (0u32..).take(all.len()).collect();
    let by_probability =
        |a: &u32, b: &u32| all[*b as usize].total_cmp(&all[*a as usize]).then(a.cmp(b));
    if top > 0 && top < order.len() {
        order.select_nth_unstable_by(top, by_probability);
    }
    order.truncate(top);
    order.sort_by(by_probability);
    TokenLogprob {
        bytes: tokenizer.bytes(token),
        logprob: all[token as usize],
        top: order.into_iter().map(|it| (tokenizer.bytes(it), all[it as usize])).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::engine::corruptor::EmbeddingTable;
    use crate::types::{CorruptionFunction, Entity, Sampling};

    /// What the model goes on from, and what it is shown to have written, after it has written
    /// `reply` under a corruption.
    fn written(function: CorruptionFunction, reply: &str) -> (Prompt, String, Tokenizer) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
        let tokenizer = Tokenizer::read(&folder, &[]).unwrap();
        let vocab = tokenizer.vocab_size();
        let table = Tensor::ones((vocab, 2), DType::F32, &Device::Cpu).unwrap();
        let entity = Entity {
            name: "Viggo Blaszko".to_owned(),
            aliases: vec!["Viggo".to_owned()],
            surrogate: "Tobias Ostberg".to_owned(),
        };
        let corruptor = Corruptor::new(
            Arc::new(EmbeddingTable::new(&table).unwrap()),
            &tokenizer,
            function,
            Arc::new(vec![entity]),
            1,
        );
        let (events, _kept) = tokio::sync::mpsc::unbounded_channel();
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        let task = Task::Generate {
            choice: 0,
            sampler: Box::new(Sampler::new(&sampling, 0, 0, &[])),
            max_tokens: 100,
            stop: Vec::new(),
            logprobs: None,
            corruptor: Some(Arc::new(corruptor.unwrap())),
            events,
        };
        let prompt =
            Prompt { ids: tokenizer.encode("Say", false).unwrap().ids, ..Prompt::default() };
        let mut sequence = Sequence::new(&tokenizer, prompt, task, 512);
        for id in tokenizer.encode(reply, false).unwrap().ids {
            let mut logits = vec![0.0; vocab];
            logits[id as usize] = 9.0;
            assert!(!sequence.take(&tokenizer, 0, &mut logits).unwrap());
        }
        (sequence.prompt, sequence.written, tokenizer)
    }

    #[test]
    fn a_written_name_is_its_surrogate_to_the_model() {
        for (reply, seen) in [
            (" I know Viggo Blaszko well", "Say I know Tobias Ostberg well"),
            (" I know Viggo, and Viggo Blaszko.", "Say I know Tobias Ostberg, and Tobias Ostberg."),
        ] {
            let (prompt, written, tokenizer) = written(CorruptionFunction::Substitute, reply);
            assert_eq!(written, reply);
            assert_eq!(tokenizer.decode(&prompt.ids).unwrap(), seen);
            assert!(prompt.overlay.is_empty());
        }
    }

    #[test]
    fn a_written_name_is_corrupted_where_it_stands() {
        let reply = " I know Viggo Blaszko";
        let zero = CorruptionFunction::ZeroTop { dims: 2 };
        let (prompt, _, tokenizer) = written(zero, reply);
        let before = tokenizer.encode("Say I know", false).unwrap().ids.len();
        let mut masked: Vec<_> = prompt.overlay.into_iter().collect();
        masked.sort_by_key(|it| it.0);
        let expected: Vec<_> = (before..prompt.ids.len()).map(|it| (it, vec![0.0, 0.0])).collect();
        assert_eq!(masked, expected);
    }

    #[test]
    fn the_longest_beginning_of_a_stop_text_is_held() {
        assert_eq!(partial_match("ab<|e", "<|end|>"), 3);
        assert_eq!(partial_match("ab", "<|end|>"), 0);
        assert_eq!(partial_match("aab", "aba"), 2);
        assert_eq!(partial_match("caf\u{e9}", "\u{e9}a"), 2);
    }
}
