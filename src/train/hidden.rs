//! A model's own residual stream as the features of a classifier, for probes.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::embed::{EmbedError, Encoder, to_unit};
use crate::engine::decoder::Decoder;
use crate::engine::error::EngineError;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::weights;

/// Texts that one pass reads.
const TEXTS: usize = 32;

/// The residual stream after some of a model's blocks, at the last token of a text.
#[derive(Debug)]
pub struct HiddenEncoder {
    /// With no more blocks than are read.
    decoder: Decoder,
    tokenizer: Tokenizer,
    weights_sha256: String,
}

impl HiddenEncoder {
    /// Loads a model folder as far as `layer` blocks.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Runtime`] for a layer outside the model, and for a folder that is damaged.
    pub fn load(folder: &Path, layer: usize) -> Result<Self, EmbedError> {
        Self::read(folder, layer).map_err(|it| failed(&it))
    }

    fn read(folder: &Path, layer: usize) -> Result<Self, EngineError> {
        let mut decoder = weights::load(folder, &Device::Cpu, DType::F32)?;
        let layers = decoder.config.layers;
        if !(1..=layers).contains(&layer) {
            return Err(EngineError::Layer { layer, layers });
        }
        decoder.blocks.truncate(layer);
        let tokenizer = Tokenizer::read(folder, &decoder.config.end_tokens)?;
        Ok(Self { decoder, tokenizer, weights_sha256: weights::sha256(folder)? })
    }

    /// The stream of some texts, `[texts, hidden]` row after row, before any norm.
    fn rows(&self, texts: &[&str]) -> Result<Vec<f32>, EmbedError> {
        let limit = self.decoder.config.context_length;
        let (mut ids, mut starts, mut last) = (Vec::new(), vec![0], Vec::new());
        for text in texts {
            let encoded = self.tokenizer.encode(text, true).map_err(|it| failed(&it))?.ids;
            match encoded.len() {
                // The vector of no token; the caller has none either.
                0 => last.push(None),
                tokens if tokens > limit => return Err(EmbedError::TooLong { tokens, limit }),
                tokens => {
                    last.push(Some(ids.len() + tokens - 1));
                    ids.extend(encoded);
                    starts.push(ids.len());
                }
            }
        }
        let width = self.decoder.config.hidden_size;
        let stream = if ids.is_empty() { Vec::new() } else { self.stream(&ids, &starts)? };
        let zeros = vec![0.0; width];
        let row =
            |at: Option<usize>| at.map_or(zeros.as_slice(), |it| &stream[it * width..][..width]);
        Ok(last.into_iter().flat_map(row).copied().collect())
    }

    fn stream(&self, ids: &[u32], starts: &[usize]) -> Result<Vec<f32>, EmbedError> {
        let run = || {
            let embedded = self.decoder.embed(&Tensor::new(ids, &Device::Cpu)?)?;
            self.decoder.forward(embedded, starts)?.flatten_all()?.to_vec1::<f32>()
        };
        run().map_err(|it| failed(&EngineError::from(it)))
    }
}

fn failed(error: &impl ToString) -> EmbedError {
    EmbedError::Runtime { doing: "read the model", message: error.to_string() }
}

impl Encoder for HiddenEncoder {
    fn dim(&self) -> usize {
        self.decoder.config.hidden_size
    }

    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, EmbedError> {
        let mut vectors = Vec::with_capacity(texts.len() * self.dim());
        for some in texts.chunks(TEXTS) {
            vectors.extend(self.rows(some)?);
        }
        vectors.chunks_mut(self.dim()).for_each(to_unit);
        Ok(vectors)
    }

    fn identity(&self) -> String {
        self.weights_sha256.clone()
    }
}
