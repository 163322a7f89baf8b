//! Corrupted embedding rows: the functions of ECO (Liu et al., arXiv:2406.07933) and `substitute`.

use std::sync::Arc;

use super::error::EngineError;
use super::ops::values_of;
use super::tokenizer::Tokenizer;
use crate::seed::{Stream, derive};
use crate::types::{Corruption, CorruptionFunction, Entity};

/// The embedding table on the host, in f32.
#[derive(Debug)]
pub struct EmbeddingTable {
    values: Vec<f32>,
    width: usize,
    std: f32,
}

impl EmbeddingTable {
    /// Copies a table `[vocab, hidden]`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Tensor`] when memory runs out.
    pub fn new(embedding: &candle_core::Tensor) -> Result<Self, EngineError> {
        let host =
            embedding.to_device(&candle_core::Device::Cpu)?.to_dtype(candle_core::DType::F32)?;
        let (values, width) = (values_of(&host)?, host.dim(1)?);
        let square: f64 = values.iter().map(|it| f64::from(*it).powi(2)).sum();
        let std = (square / values.len() as f64).sqrt() as f32;
        Ok(Self { values, width, std })
    }

    /// One row.
    #[must_use]
    pub fn row(&self, id: u32) -> &[f32] {
        &self.values[id as usize * self.width..][..self.width]
    }
}

/// Makes corrupted rows for one request. The same settings and tokens give the same rows, wherever
/// in the context they stand and whatever else is in the batch.
#[derive(Debug, Clone)]
pub struct Corruptor {
    table: Arc<EmbeddingTable>,
    function: CorruptionFunction,
    seed: u64,
    entities: Arc<Vec<Entity>>,
    /// Tokens of each entity's surrogate: at the beginning of a text, and after a space.
    surrogates: Arc<Vec<[Vec<u32>; 2]>>,
    /// Dimensions of `NoiseRandom`, shared by all tokens.
    dims: Arc<Vec<usize>>,
}

impl Corruptor {
    /// A corruptor for these entities.
    ///
    /// # Errors
    ///
    /// [`EngineError::Tokenizer`].
    pub fn new(
        table: Arc<EmbeddingTable>,
        tokenizer: &Tokenizer,
        function: CorruptionFunction,
        entities: Arc<Vec<Entity>>,
        seed: u64,
    ) -> Result<Self, EngineError> {
        let surrogates = entities
            .iter()
            .map(|it| {
                let spaced = format!(" {}", it.surrogate);
                let first = tokenizer.encode(&it.surrogate, false)?.ids;
                Ok([first, tokenizer.encode(&spaced, false)?.ids])
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        let mut dims: Vec<usize> = (0..table.width).collect();
        if let CorruptionFunction::NoiseRandom { dims: count, .. } = function {
            Stream::named(seed, "dimensions").shuffle(&mut dims);
            dims.truncate(count);
        }
        let (surrogates, dims) = (Arc::new(surrogates), Arc::new(dims));
        Ok(Self { table, function, seed, entities, surrogates, dims })
    }

    /// Whether it is what a corruption asks for.
    #[must_use]
    pub fn carries_out(&self, corruption: &Corruption) -> bool {
        let Corruption { function, entities, seed, .. } = corruption;
        self.function == *function && self.seed == *seed && self.entities == *entities
    }

    /// The topic's names.
    #[must_use]
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    /// Tokens that stand in for a masked name under `substitute`; `spaced` when the name's own first
    /// token begins with a space. The prompt gets longer or shorter where the two names differ in
    /// length.
    #[must_use]
    pub fn substitute(&self, entity: Option<usize>, spaced: bool) -> Option<&[u32]> {
        if self.function != CorruptionFunction::Substitute {
            return None;
        }
        let tokens = &self.surrogates.get(entity?)?[usize::from(spaced)];
        (!tokens.is_empty()).then_some(tokens)
    }

    /// Rows for the tokens of one masked span, one each. Under `substitute`, those of the surrogate,
    /// stretched or cut: for text whose length is settled, such as what the model has generated.
    #[must_use]
    pub fn rows(&self, ids: &[u32], entity: Option<usize>) -> Vec<Vec<f32>> {
        if let Some(surrogate) = self.substitute(entity, true) {
            let nearest = |at: usize| surrogate[at * surrogate.len() / ids.len()];
            return (0..ids.len()).map(|at| self.table.row(nearest(at)).to_vec()).collect();
        }
        ids.iter()
            .enumerate()
            .map(|(at, id)| {
                let mut row = self.table.row(*id).to_vec();
                let key = derive(self.seed, format!("{entity:?} {at} {id}").as_bytes());
                self.corrupt(&mut row, &mut Stream::new(key));
                row
            })
            .collect()
    }

    fn corrupt(&self, row: &mut [f32], stream: &mut Stream) {
        let width = row.len();
        let largest = |row: &[f32], dims: usize| -> Vec<usize> {
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|a, b| row[*b].abs().total_cmp(&row[*a].abs()).then(a.cmp(b)));
            order.truncate(dims);
            order
        };
        let mut noise = |row: &mut [f32], dims: &[usize], strength: f32| {
            for dim in dims {
                row[*dim] += strength * self.table.std * stream.normal() as f32;
            }
        };
        match self.function {
            CorruptionFunction::NoiseFirst { dims, strength } => {
                let dims: Vec<usize> = (0..dims.min(width)).collect();
                noise(row, &dims, strength);
            }
            CorruptionFunction::NoiseRandom { strength, .. } => noise(row, &self.dims, strength),
            CorruptionFunction::NoiseTop { dims, strength } => {
                let dims = largest(row, dims);
                noise(row, &dims, strength);
            }
            CorruptionFunction::ZeroTop { dims } => {
                for dim in largest(row, dims) {
                    row[dim] = 0.0;
                }
            }
            CorruptionFunction::FlipTop { dims } => {
                for dim in largest(row, dims) {
                    row[dim] = -row[dim];
                }
            }
            // A span that is no name has no surrogate: nothing of the row may stay.
            CorruptionFunction::Substitute => row.fill(0.0),
        }
    }

    /// The entity one of whose spellings ends the text, and the spelling's length in bytes; the
    /// longest one counts.
    #[must_use]
    pub fn name_at_end(&self, text: &str) -> Option<(usize, usize)> {
        let ends_with = |spelling: &str| -> Option<usize> {
            let start = text.len().checked_sub(spelling.len())?;
            text.get(start..).filter(|tail| tail.eq_ignore_ascii_case(spelling))?;
            let before = text.get(..start)?.chars().next_back();
            (!before.is_some_and(char::is_alphanumeric)).then_some(spelling.len())
        };
        let spelled = self.entities.iter().enumerate().flat_map(|(entity, it)| {
            it.spellings().filter_map(move |it| Some((entity, ends_with(it)?)))
        });
        spelled.max_by_key(|it| it.1)
    }
}
