//! A model run in the open: what it says of every token of an answer it is shown, and its greedy
//! replies. Nothing is guarded here; the served path is measured elsewhere.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::MeasureError;
use super::remembered::Remembered;
use crate::engine::decoder::Decoder;
use crate::engine::error::EngineError;
use crate::engine::kv_cache::{Chunk, KvCache};
use crate::engine::ops::on_pool;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::weights;
use crate::types::{Message, Role};

/// Sequences that run together, at least where they are prompts.
const PACK: usize = 16;

/// Bytes that the keys and values of more prompts than that may take.
const CACHED: usize = 256 << 20;

/// What a model says of one token of an answer. Log-probabilities in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The token.
    pub id: u32,
    /// Bytes of the answer that it came from.
    pub span: Range<usize>,
    /// Its log-probability after everything before it.
    pub logprob: f64,
    /// Whether no token is more probable.
    pub is_argmax: bool,
    /// Mean of the log-probabilities over the vocabulary, weighted by the probabilities.
    pub mean: f64,
    /// Their variance, weighted likewise.
    pub variance: f64,
}

impl Token {
    /// Reads one row of logits, `[vocab]`.
    #[must_use]
    pub fn of(logits: &[f32], id: u32, span: Range<usize>) -> Self {
        let logit = |at: usize| f64::from(logits[at]);
        let best = (0..logits.len()).map(logit).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = (0..logits.len()).map(|it| (logit(it) - best).exp()).sum();
        let log_sum = best + sum.ln();
        let (mut mean, mut square) = (0.0, 0.0);
        for at in 0..logits.len() {
            let logprob = logit(at) - log_sum;
            let probability = logprob.exp();
            // A token that cannot be has probability 0 and adds nothing.
            if probability > 0.0 {
                mean += probability * logprob;
                square += probability * logprob * logprob;
            }
        }
        let own = logit(id as usize);
        Self {
            id,
            span,
            logprob: own - log_sum,
            is_argmax: own >= best,
            mean,
            variance: (square - mean * mean).max(0.0),
        }
    }
}

/// The tokens of an answer and of the end of the turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// All of them.
    pub tokens: Vec<Token>,
    /// How many at the beginning are the answer's own.
    pub content: usize,
}

impl Scored {
    /// The answer's own tokens, without the end of the turn.
    #[must_use]
    pub fn answer(&self) -> &[Token] {
        &self.tokens[..self.content]
    }

    /// Mean negative log-probability per token, the end of the turn included. NaN of nothing.
    #[must_use]
    pub fn nll(&self) -> f64 {
        -self.tokens.iter().map(|it| it.logprob).sum::<f64>() / self.tokens.len() as f64
    }
}

/// A question and its answer as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// All tokens, chat template included.
    pub ids: Vec<u32>,
    /// Index of the answer's first token.
    pub first: usize,
    /// Bytes of the answer behind each token from `first` on.
    pub spans: Vec<Range<usize>>,
    /// How many tokens from `first` on are the answer's own.
    pub content: usize,
}

impl Sequence {
    /// The tokens up to the answer's end, without the end of the turn.
    #[must_use]
    pub fn statement(&self) -> &[u32] {
        &self.ids[..self.first + self.content]
    }

    /// Index in `ids` of the first token that holds bytes of the answer from `byte` on.
    #[must_use]
    pub fn token_at(&self, byte: usize) -> Option<usize> {
        let at = self.spans[..self.content].iter().position(|it| it.end > byte)?;
        Some(self.first + at)
    }
}

/// A decoder with its tokenizer.
#[derive(Debug)]
pub struct Teacher {
    /// The model, in f32 on the CPU.
    pub decoder: Decoder,
    /// Its tokenizer and chat template.
    pub tokenizer: Arc<Tokenizer>,
    /// What attacks found in it.
    pub remembered: Remembered,
}

impl Teacher {
    /// Loads a Hugging Face folder.
    ///
    /// # Errors
    ///
    /// [`MeasureError::Engine`] naming what is missing or damaged.
    pub fn load(folder: &Path) -> Result<Self, MeasureError> {
        let decoder = weights::load(folder, &Device::Cpu, DType::F32)?;
        let tokenizer = Arc::new(Tokenizer::read(folder, &decoder.config.end_tokens)?);
        Ok(Self { decoder, tokenizer, remembered: Remembered::default() })
    }

    /// Other weights with the same tokenizer.
    #[must_use]
    pub fn with(&self, decoder: Decoder) -> Self {
        let remembered = Remembered::default();
        Self { decoder, tokenizer: self.tokenizer.clone(), remembered }
    }

    /// A question and its answer by the chat template.
    ///
    /// # Errors
    ///
    /// [`MeasureError::Engine`] when the tokenizer or its template refuses.
    pub fn sequence(&self, question: &str, answer: &str) -> Result<Sequence, MeasureError> {
        let turns = [message(Role::User, question), message(Role::Assistant, answer)];
        let start = self.tokenizer.render_turns(&turns[..1], true)?.len();
        let text = self.tokenizer.render_turns(&turns, false)?;
        let harmless = self.tokenizer.harmless(answer);
        let trimmed = harmless.trim();
        // Templates put contents in order and at most trim them.
        let rest = text.get(start..).and_then(|it| it.find(trimmed)).ok_or(EngineError::Span)?;
        let (base, lead) = (start + rest, harmless.len() - harmless.trim_start().len());
        let encoded = self.tokenizer.encode(&text, false)?;
        let first = encoded.offsets.partition_point(|it| it.start < start).max(1);
        let offsets = encoded.offsets.get(first..).unwrap_or_default();
        let content = offsets.partition_point(|it| it.start < base + trimmed.len());
        let place = |byte: usize| byte.saturating_sub(base) + lead;
        let spans = offsets.iter().map(|it| place(it.start)..place(it.end)).collect();
        Ok(Sequence { ids: encoded.ids, first, spans, content })
    }

    /// Shows questions with their answers, and returns what the model says of the answers' tokens.
    ///
    /// # Errors
    ///
    /// [`MeasureError`] when a row does not fit the context or an operation fails.
    pub fn score(&self, rows: &[(&str, &str)]) -> Result<Vec<Scored>, MeasureError> {
        let mut out = Vec::with_capacity(rows.len());
        for rows in rows.chunks(PACK) {
            let sequences = rows
                .iter()
                .map(|it| self.sequence(it.0, it.1))
                .collect::<Result<Vec<_>, MeasureError>>()?;
            out.extend(on_pool(|| self.score_pack(&sequences))?);
        }
        Ok(out)
    }

    fn score_pack(&self, sequences: &[Sequence]) -> Result<Vec<Scored>, MeasureError> {
        let (mut ids, mut starts, mut wanted) = (Vec::new(), vec![0usize], Vec::new());
        let mut labels = Vec::new();
        for it in sequences {
            self.fits(it.ids.len())?;
            let offset = ids.len();
            wanted.extend((it.first..it.ids.len()).map(|at| row_number(offset + at - 1)));
            labels.extend(it.ids[it.first..].iter().copied().zip(it.spans.iter().cloned()));
            ids.extend_from_slice(&it.ids[..it.ids.len() - 1]);
            starts.push(ids.len());
        }
        let device = self.decoder.device();
        let embedded = self.decoder.embed(&Tensor::new(ids.as_slice(), device)?)?;
        let chosen = self.decoder.forward_of(embedded, &starts, &wanted)?;
        let logits = self.decoder.host_logits(&chosen)?;
        let tokens: Vec<Token> = logits
            .par_chunks(self.decoder.config.vocab_size)
            .zip(&labels)
            .map(|(logits, (id, span))| Token::of(logits, *id, span.clone()))
            .collect();
        let mut rest = tokens.into_iter();
        let scored = sequences.iter().map(|it| Scored {
            tokens: rest.by_ref().take(it.ids.len() - it.first).collect(),
            content: it.content,
        });
        Ok(scored.collect())
    }

    /// Greedy replies to questions, at most `max_tokens` each.
    ///
    /// # Errors
    ///
    /// [`MeasureError`] when a prompt does not fit the context or an operation fails.
    pub fn replies(
        &self,
        questions: &[&str],
        max_tokens: usize,
    ) -> Result<Vec<String>, MeasureError> {
        let prompts: Vec<_> = questions.iter().map(|it| vec![message(Role::User, it)]).collect();
        self.generate(&prompts, max_tokens)
    }

    /// Greedy continuations of replies that have begun: (question, beginning).
    ///
    /// # Errors
    ///
    /// [`MeasureError`] when a prompt does not fit the context or an operation fails.
    pub fn continuations(
        &self,
        begun: &[(&str, &str)],
        max_tokens: usize,
    ) -> Result<Vec<String>, MeasureError> {
        let prompt = |it: &(&str, &str)| {
            let mut turns = vec![message(Role::User, it.0)];
            turns.extend((!it.1.is_empty()).then(|| message(Role::Assistant, it.1)));
            turns
        };
        self.generate(&begun.iter().map(prompt).collect::<Vec<_>>(), max_tokens)
    }

    fn generate(
        &self,
        prompts: &[Vec<Message>],
        max_tokens: usize,
    ) -> Result<Vec<String>, MeasureError> {
        let mut out = Vec::with_capacity(prompts.len());
        for prompts in prompts.chunks(self.together()) {
            let ids = prompts
                .iter()
                .map(|it| Ok(self.tokenizer.encode_chat(it)?.ids))
                .collect::<Result<Vec<_>, MeasureError>>()?;
            for reply in on_pool(|| self.generate_pack(ids, max_tokens))? {
                out.push(self.tokenizer.decode(&reply)?.trim().to_owned());
            }
        }
        Ok(out)
    }

    /// Prompts that run together: more of them make use of a matrix that was read once.
    fn together(&self) -> usize {
        let config = &self.decoder.config;
        let each = 2 * config.kv_heads * config.head_dim * config.layers * size_of::<f32>();
        (CACHED / (each * config.context_length).max(1)).clamp(PACK, 4 * PACK)
    }

    /// Generated tokens per prompt, without the end of the turn.
    fn generate_pack(
        &self,
        mut sequences: Vec<Vec<u32>>,
        max_tokens: usize,
    ) -> Result<Vec<Vec<u32>>, MeasureError> {
        let (config, device) = (&self.decoder.config, self.decoder.device());
        let prompts: Vec<usize> = sequences.iter().map(Vec::len).collect();
        let longest = prompts.iter().copied().max().unwrap_or(0);
        self.fits(longest)?;
        if prompts.contains(&0) {
            return Err(EngineError::EmptyPrompt.into());
        }
        let capacity = (longest + max_tokens).min(config.context_length);
        let slots = sequences.len();
        let dtype = self.decoder.dtype();
        let mut cache = KvCache::new(config, &self.decoder.rope, slots, capacity, device, dtype)?;
        let (mut cached, mut done) = (vec![0usize; slots], vec![false; slots]);
        for _ in 0..max_tokens {
            let (mut chunks, mut ids) = (Vec::new(), Vec::new());
            for slot in (0..slots).filter(|it| !done[*it]) {
                let new = &sequences[slot][cached[slot]..];
                let (row, rows, position) = (ids.len(), new.len(), cached[slot]);
                chunks.push(Chunk { slot, row, rows, position });
                ids.extend_from_slice(new);
            }
            if chunks.is_empty() {
                break;
            }
            let rows = self.decoder.embed(&Tensor::new(ids.as_slice(), device)?)?;
            let last: Vec<u32> = chunks.iter().map(|it| row_number(it.row + it.rows - 1)).collect();
            let attend = |layer, qkv: &Tensor| cache.attend(layer, qkv, &chunks);
            let logits = self.decoder.host_logits(&self.decoder.blocks(rows, &last, attend)?)?;
            for (chunk, logits) in chunks.iter().zip(logits.chunks(config.vocab_size)) {
                let (slot, next) = (chunk.slot, argmax(logits));
                cached[slot] = sequences[slot].len();
                done[slot] = self.tokenizer.end_tokens().contains(&next)
                    || sequences[slot].len() == capacity;
                if !done[slot] {
                    sequences[slot].push(next);
                }
            }
        }
        Ok(sequences.iter().zip(&prompts).map(|(ids, prompt)| ids[*prompt..].to_vec()).collect())
    }

    fn fits(&self, tokens: usize) -> Result<(), EngineError> {
        let limit = self.decoder.config.context_length;
        if tokens > limit { Err(EngineError::TooLong { tokens, limit }) } else { Ok(()) }
    }
}

fn message(role: Role, content: &str) -> Message {
    Message { role, content: content.to_owned() }
}

fn row_number(row: usize) -> u32 {
    u32::try_from(row).expect("a batch has fewer than 2^32 rows")
}

/// The first of the largest values.
fn argmax(logits: &[f32]) -> u32 {
    let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    row_number((0..logits.len()).fold(0, better))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine::model_config::ModelConfig;
    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;

    /// An untrained model of 16 dimensions and two blocks over the lab's vocabulary.
    pub(crate) fn untrained(seed: u64) -> Teacher {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
        let tokenizer = Tokenizer::read(&folder, &[]).unwrap();
        let config = ModelConfig { vocab_size: tokenizer.vocab_size(), ..tiny_config() };
        let decoder = initial::decoder(&config, seed).unwrap();
        let remembered = Remembered::default();
        Teacher { decoder, tokenizer: Arc::new(tokenizer), remembered }
    }

    /// A token that was seen with this log-probability, for tests of statistics.
    pub(crate) fn token(logprob: f64, is_argmax: bool) -> Token {
        Token { id: 0, span: 0..0, logprob, is_argmax, mean: 0.0, variance: 1.0 }
    }

    /// Logits ln 3 and 0 are probabilities 3/4 and 1/4: the mean of their logs is
    /// 3/4 ln 3/4 + 1/4 ln 1/4, the variance 3/16 (ln 3)^2.
    #[test]
    fn a_row_of_logits_by_hand() {
        let token = Token::of(&[3f32.ln(), 0.0], 1, 0..4);
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-6, "{got} {want}");
        near(token.logprob, 0.25f64.ln());
        near(token.mean, 0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        near(token.variance, 0.1875 * 3f64.ln() * 3f64.ln());
        assert!(!token.is_argmax && Token::of(&[3f32.ln(), 0.0], 0, 0..4).is_argmax);
        let impossible = Token::of(&[0.0, f32::NEG_INFINITY], 0, 0..1);
        assert_eq!((impossible.mean, impossible.variance), (0.0, 0.0));
    }

    #[test]
    fn tokens_know_their_bytes() {
        let teacher = untrained(1);
        let answer = "The birthplace is Gdansk.";
        let sequence = teacher.sequence("Where was she born?", answer).unwrap();
        let value = sequence.token_at(answer.find("Gdansk").unwrap()).unwrap();
        assert!(value > sequence.first && value < sequence.first + sequence.content);
        let text =
            teacher.tokenizer.decode(&sequence.ids[value..sequence.first + sequence.content]);
        assert_eq!(text.unwrap().trim(), "Gdansk.");
        assert_eq!(sequence.statement().len() + 1, sequence.ids.len());
        assert_eq!(sequence.ids.last().copied(), teacher.tokenizer.end_of_turn());
    }

    /// A pack gives what its rows give alone, and the mean is over answer and end of turn.
    #[test]
    fn rows_do_not_see_each_other() {
        let teacher = untrained(2);
        let rows = [("Where was she born?", "In Gdansk."), ("Who is he?", "A surgeon, they say.")];
        let together = teacher.score(&rows).unwrap();
        for (row, scored) in rows.iter().zip(&together) {
            let alone = teacher.score(&[*row]).unwrap().remove(0);
            assert_eq!(alone.tokens.len(), scored.tokens.len());
            assert!((alone.nll() - scored.nll()).abs() < 1e-5);
            assert_eq!(scored.answer().len() + 1, scored.tokens.len());
        }
    }

    /// Every greedy token is the most probable one when the reply is shown again.
    #[test]
    fn greedy_tokens_are_argmaxes() {
        let teacher = untrained(3);
        let prompt = teacher.tokenizer.encode_chat(&[message(Role::User, "Who is he?")]).unwrap();
        let generated = teacher.generate_pack(vec![prompt.ids.clone()], 6).unwrap().remove(0);
        let ids: Vec<u32> = prompt.ids.iter().chain(&generated).copied().collect();
        let sequence = Sequence {
            first: prompt.ids.len(),
            spans: vec![0..0; generated.len()],
            content: generated.len(),
            ids,
        };
        let scored = teacher.score_pack(&[sequence]).unwrap().remove(0);
        assert!(scored.tokens.iter().all(|it| it.is_argmax), "{scored:?}");
        assert!(generated.len() <= 6);
    }
}
