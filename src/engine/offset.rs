//! Logit offsets at decode time: the difference of two further models is added to the served model's
//! logits, for the sequences that ask for it (δ-unlearning, Huang et al., arXiv:2404.11045; expert and
//! anti-expert as in proxy-tuning, Liu et al., arXiv:2401.08565).
//!
//! Such a sequence costs three forward passes and three caches. The further models read the same
//! tokens at the same positions, without the rows of a corruption, which belong to the served
//! model's own embedding.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Tensor};

use super::decoder::Decoder;
use super::error::EngineError;
use super::kv_cache::{Chunk, KvCache};
use super::model_config::ModelConfig;
use super::tokenizer::Tokenizer;
use super::weights;
use crate::types::{Offset, OffsetPair};

/// A further model, with a cache slot for every sequence of the engine.
#[derive(Debug)]
pub struct Companion {
    decoder: Decoder,
    /// Only the worker's step takes it, and there is one at a time.
    cache: Mutex<KvCache>,
}

impl Companion {
    /// Runs packed rows, and writes them into the cache: the logits of the rows `wanted`,
    /// `[wanted, vocab]`.
    fn run(&self, rows: &Rows) -> Result<Vec<f32>> {
        let ids = Tensor::new(rows.ids.as_slice(), self.decoder.device())?;
        let embedded = self.decoder.embed(&ids)?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let attend = |layer: usize, qkv: &Tensor| cache.attend(layer, qkv, &rows.chunks);
        self.decoder.host_logits(&self.decoder.blocks(embedded, &rows.wanted, attend)?)
    }
}

/// The configuration of a further model that fits the served one: the same vocabulary, and at least
/// `context` positions. Looks whether the weights are there, and reads none.
///
/// # Errors
///
/// [`EngineError`] naming the file that is missing or does not fit.
pub fn fitting(
    folder: &Path,
    served: &ModelConfig,
    tokenizer: &Tokenizer,
    context: usize,
) -> std::result::Result<ModelConfig, EngineError> {
    let config = ModelConfig::read(folder)?;
    let wrong = |file: &str, message: String| {
        let remedy = "logits can be added over one vocabulary only";
        EngineError::file(&folder.join(file), format!("{message}; {remedy}"))
    };
    let (own, want) = (config.vocab_size, served.vocab_size);
    if own != want {
        let message = format!("`vocab_size` is {own}, that of the served model {want}");
        return Err(wrong("config.json", message));
    }
    let theirs = Tokenizer::read(folder, &config.end_tokens)?;
    if let Some(id) = tokenizer.first_difference(&theirs) {
        let message = format!("token {id} is another than the served model's");
        return Err(wrong("tokenizer.json", message));
    }
    if config.context_length < context {
        let own = config.context_length;
        let message = format!("reads {own} positions, the served model {context}");
        return Err(EngineError::file(&folder.join("config.json"), message));
    }
    weights::files(folder)?;
    Ok(config)
}

/// The further models of an engine by their folders. A folder is read once and stays in memory.
#[derive(Debug)]
pub(super) struct Companions {
    loaded: Mutex<HashMap<PathBuf, Arc<Companion>>>,
    /// Sequences that run together, and most positions of each.
    slots: usize,
    context: usize,
    /// Where the served model runs, and in which dtype.
    device: (Device, DType),
}

impl Companions {
    pub(super) fn new(slots: usize, context: usize, device: (Device, DType)) -> Self {
        Self { loaded: Mutex::default(), slots, context, device }
    }

    /// Nothing panics while it is locked, and no half-made entry could stay in it.
    fn loaded(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Companion>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads both models of a pair, unless they are there.
    pub(super) fn load(
        &self,
        pair: &OffsetPair,
        served: &ModelConfig,
        tokenizer: &Tokenizer,
    ) -> std::result::Result<(), EngineError> {
        for folder in [&pair.expert, &pair.anti_expert] {
            if !self.loaded().contains_key(folder) {
                let companion = Arc::new(self.read(folder, served, tokenizer)?);
                self.loaded().insert(folder.clone(), companion);
            }
        }
        Ok(())
    }

    fn read(
        &self,
        folder: &Path,
        served: &ModelConfig,
        tokenizer: &Tokenizer,
    ) -> std::result::Result<Companion, EngineError> {
        let config = fitting(folder, served, tokenizer, self.context)?;
        let (device, dtype) = &self.device;
        let decoder = weights::load(folder, device, *dtype)?;
        let (slots, context) = (self.slots, self.context);
        let cache = KvCache::new(&config, &decoder.rope, slots, context, device, *dtype)?;
        Ok(Companion { decoder: decoder.turned()?, cache: Mutex::new(cache) })
    }

    /// The offset of a request with its models.
    pub(super) fn shift(&self, offset: &Offset) -> std::result::Result<Shift, EngineError> {
        let loaded = self.loaded();
        let find = |folder: &PathBuf| {
            let missing = || EngineError::NotLoaded { folder: folder.clone() };
            loaded.get(folder).cloned().ok_or_else(missing)
        };
        let (expert, anti_expert) = (find(&offset.pair.expert)?, find(&offset.pair.anti_expert)?);
        Ok(Shift { expert, anti_expert, alpha: offset.alpha })
    }
}

/// An offset with its models at hand.
#[derive(Debug, Clone)]
pub struct Shift {
    expert: Arc<Companion>,
    anti_expert: Arc<Companion>,
    alpha: f32,
}

impl Shift {
    fn same_pair(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.expert, &other.expert)
            && Arc::ptr_eq(&self.anti_expert, &other.anti_expert)
    }
}

/// What a sequence with an offset runs in one step.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) shift: &'a Shift,
    pub(super) chunk: Chunk,
    /// Token ids of the chunk's rows.
    pub(super) ids: &'a [u32],
    /// Rows of the chunk whose logits are needed, each with its place among the step's logits.
    pub(super) needed: Vec<(usize, usize)>,
}

/// Rows of the sequences that share a pair, packed end to end.
#[derive(Debug, Default)]
struct Rows {
    ids: Vec<u32>,
    chunks: Vec<Chunk>,
    wanted: Vec<u32>,
}

impl Rows {
    fn pack(parts: &[&Part<'_>]) -> Self {
        let mut rows = Self::default();
        for part in parts {
            let first = rows.ids.len();
            rows.chunks.push(Chunk { row: first, ..part.chunk });
            rows.ids.extend(part.ids);
            let row = |it: &(usize, usize)| {
                u32::try_from(first + it.0).expect("a step has fewer than 2^32 rows")
            };
            rows.wanted.extend(part.needed.iter().map(row));
        }
        rows
    }
}

/// Runs the parts' models and adds their differences to the step's logits, `[needed, vocab]`.
pub(super) fn add(parts: &[Part<'_>], vocab: usize, logits: &mut [f32]) -> Result<()> {
    let mut left: Vec<&Part<'_>> = parts.iter().collect();
    while let Some(shift) = left.first().map(|it| it.shift) {
        let (group, rest): (Vec<&Part<'_>>, Vec<&Part<'_>>) =
            left.into_iter().partition(|it| it.shift.same_pair(shift));
        left = rest;
        let rows = Rows::pack(&group);
        let (expert, anti_expert) = (shift.expert.run(&rows)?, shift.anti_expert.run(&rows)?);
        let targets =
            group.iter().flat_map(|it| it.needed.iter().map(move |row| (row.1, it.shift.alpha)));
        let pairs = expert.chunks(vocab).zip(anti_expert.chunks(vocab));
        for ((at, alpha), (expert, anti_expert)) in targets.zip(pairs) {
            let own = &mut logits[at * vocab..][..vocab];
            for ((own, expert), anti_expert) in own.iter_mut().zip(expert).zip(anti_expert) {
                *own += alpha * (expert - anti_expert);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rope::{Rope, RopeConfig};

    /// A model without blocks: its logits are the head times the normalised embedding.
    fn companion(head: [[f32; 2]; 3]) -> Arc<Companion> {
        let config = ModelConfig {
            vocab_size: 3,
            hidden_size: 2,
            intermediate_size: 2,
            layers: 0,
            heads: 1,
            kv_heads: 1,
            head_dim: 2,
            norm_eps: 0.0,
            rope: RopeConfig::plain(10_000.0),
            context_length: 8,
            tied_head: false,
            end_tokens: Vec::new(),
        };
        let tensor = |rows: &[[f32; 2]]| {
            Tensor::from_vec(rows.concat(), (rows.len(), 2), &Device::Cpu).unwrap()
        };
        let rope = Rope::new(&config.rope, config.head_dim, config.context_length);
        let cache = KvCache::new(&config, &rope, 4, 8, &Device::Cpu, DType::F32).unwrap();
        let decoder = Decoder {
            embedding: tensor(&[[3.0, 4.0], [1.0, 1.0], [5.0, -5.0]]),
            blocks: Vec::new(),
            norm: Tensor::ones(2, DType::F32, &Device::Cpu).unwrap(),
            head: Some(tensor(&head)),
            rope,
            config,
        };
        Arc::new(Companion { decoder, cache: Mutex::new(cache) })
    }

    fn part<'a>(
        shift: &'a Shift,
        slot: usize,
        ids: &'a [u32],
        needed: Vec<(usize, usize)>,
    ) -> Part<'a> {
        Part { shift, chunk: Chunk { slot, row: 40 + slot, rows: 2, position: 3 }, ids, needed }
    }

    /// `[3, 4]` over its root mean square `sqrt(12.5)` is `[0.848528, 1.131371]`, `[1, 1]` is itself,
    /// `[5, -5]` is `[1, -1]`. The heads of the first pair differ by `[[1, 0], [0, 1], [0, 1]]`, those
    /// of the second by `[[0, 0], [0, 2], [0, 0]]`.
    #[test]
    fn logits_and_differences_by_hand() {
        let anti_expert = companion([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]);
        let expert = companion([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
        let other = companion([[0.0, 0.0], [0.0, 2.0], [1.0, 0.0]]);
        let double = Shift { expert, anti_expert: anti_expert.clone(), alpha: 2.0 };
        let single = Shift { alpha: 1.0, ..double.clone() };
        let apart = Shift { expert: other, anti_expert, alpha: 1.0 };
        // Logits of five rows; nobody has an offset on the third.
        let mut logits = [[1.0f32, 2.0, 3.0]; 5].concat();
        let parts = [
            part(&double, 2, &[1, 0], vec![(1, 4)]),
            part(&apart, 0, &[0, 2], vec![(1, 0)]),
            part(&single, 1, &[1, 2], vec![(0, 1), (1, 3)]),
        ];
        add(&parts, 3, &mut logits).unwrap();
        let want: [[f32; 3]; 5] = [
            [1.0, 0.0, 3.0],
            [2.0, 3.0, 4.0],
            [1.0, 2.0, 3.0],
            [2.0, 1.0, 2.0],
            [2.697_056, 4.262_742, 5.262_742],
        ];
        for (got, want) in logits.iter().zip(want.concat()) {
            assert!((got - want).abs() < 1e-5, "{logits:?}");
        }
    }

    #[test]
    fn a_pair_that_was_not_loaded_is_named() {
        let companions = Companions::new(1, 8, (Device::Cpu, DType::F32));
        let pair = OffsetPair { expert: "a".into(), anti_expert: "b".into() };
        let error = companions.shift(&Offset { pair: Arc::new(pair), alpha: 1.0 }).unwrap_err();
        assert!(matches!(&error, EngineError::NotLoaded { folder } if folder == Path::new("a")));
    }
}
