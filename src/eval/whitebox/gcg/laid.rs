//! Questions with a suffix and their answers, laid out as tokens, and the loss of the answers.

use candle_core::{Result as TensorResult, Tensor, Var};

use crate::engine::decoder::Decoder;
use crate::engine::error::EngineError;
use crate::engine::kv_cache::{Chunk, KvCache};
use crate::engine::ops::values_of;
use crate::engine::tokenizer::Tokenizer;
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::train::loss::token_nll;

/// Sequences that run together.
const PACK: usize = 64;

/// A question with a suffix and its answer, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Laid {
    /// Up to the end of the answer.
    pub(super) ids: Vec<u32>,
    /// Index of the suffix's first token.
    pub(super) suffix: usize,
    /// Index of the answer's first token.
    pub(super) first: usize,
}

impl Laid {
    /// Tokens that are fed: nothing is predicted from the last.
    pub(super) fn fed(&self) -> &[u32] {
        &self.ids[..self.ids.len() - 1]
    }

    pub(super) fn labels(&self) -> &[u32] {
        &self.ids[self.first..]
    }

    /// Rows that predict the labels, when the row of the token at `position` is `offset`.
    fn rows(&self, offset: usize, position: usize) -> impl Iterator<Item = u32> {
        let number = |row: usize| u32::try_from(row).expect("a batch has fewer than 2^32 rows");
        let first = offset + self.first - 1 - position;
        (first..first + self.labels().len()).map(number)
    }

    /// How many tokens it begins with as another does, short of those that predict a label.
    fn shared(&self, other: &Self) -> usize {
        let same = self.ids.iter().zip(other.fed()).take_while(|it| it.0 == it.1).count();
        same.min(self.first - 1)
    }
}

pub(super) fn text_of(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|it| tokenizer.bytes(*it)).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A question with a suffix and its answer; `None` where the tokenizer reads other tokens in the suffix.
pub(super) fn lay(
    teacher: &Teacher,
    (question, answer): (&str, &str),
    suffix: &[u32],
) -> Result<Option<Laid>, MeasureError> {
    let asked = format!("{question}{}", text_of(&teacher.tokenizer, suffix));
    let sequence = teacher.sequence(&asked, answer)?;
    let prompt = &sequence.ids[..sequence.first];
    let Some(at) = prompt.windows(suffix.len()).rposition(|it| it == suffix) else {
        return Ok(None);
    };
    let (ids, first) = (sequence.statement().to_vec(), sequence.first);
    let (tokens, limit) = (ids.len(), teacher.decoder.config.context_length);
    if tokens > limit {
        return Err(EngineError::TooLong { tokens, limit }.into());
    }
    Ok((first < tokens).then_some(Laid { ids, suffix: at, first }))
}

/// All questions with one suffix; `None` where one of them does not keep it.
pub(super) fn lay_all(
    teacher: &Teacher,
    rows: &[(&str, &str)],
    suffix: &[u32],
) -> Result<Option<Vec<Laid>>, MeasureError> {
    rows.iter().map(|it| lay(teacher, *it, suffix)).collect()
}

/// Mean loss of the answer's tokens, a scalar: `embedded` is `[fed tokens, hidden]`.
pub(super) fn loss(decoder: &Decoder, embedded: &Tensor, laid: &Laid) -> TensorResult<Tensor> {
    let rows: Vec<u32> = laid.rows(0, 0).collect();
    let starts = [0, embedded.dim(0)?];
    let chosen = decoder.forward_of(embedded.clone(), &starts, &rows)?;
    token_nll(&decoder.logits(&chosen)?, laid.labels())?.mean_all()
}

/// Gradient of the loss with respect to the one-hot tokens of the suffix, `[length, vocab]` row after
/// row: that of the embedded rows times the embedding table.
pub(super) fn gradient(decoder: &Decoder, laid: &Laid, length: usize) -> TensorResult<Vec<f32>> {
    let ids = Tensor::new(laid.fed(), decoder.device())?;
    let rows = Var::from_tensor(&decoder.embed(&ids)?)?;
    let grads = loss(decoder, rows.as_tensor(), laid)?.backward()?;
    let Some(grad) = grads.get(rows.as_tensor()) else {
        candle_core::bail!("the loss does not depend on the embedded rows");
    };
    let suffix = grad.narrow(0, laid.suffix, length)?.contiguous()?;
    values_of(&suffix.matmul(&decoder.embedding.t()?)?)
}

/// Mean loss of the answer's tokens, sequence by sequence. The sequence at `i` begins as that at
/// `i % begun.len()` of `begun` does, and what the two share is computed once.
pub(super) fn losses(decoder: &Decoder, begun: &[Laid], all: &[Laid]) -> TensorResult<Vec<f64>> {
    let device = decoder.device();
    let capacity = begun.iter().chain(all).map(|it| it.fed().len()).max().unwrap_or(0);
    let slots = begun.len() + PACK.min(all.len());
    let mut cache =
        KvCache::new(&decoder.config, &decoder.rope, slots, capacity, device, decoder.dtype())?;
    let run = |cache: &mut KvCache, ids: &[u32], chunks: &[Chunk], rows: &[u32]| {
        let embedded = decoder.embed(&Tensor::new(ids, device)?)?;
        decoder.blocks(embedded, rows, |layer, qkv| cache.attend(layer, qkv, chunks))
    };
    let (mut ids, mut chunks) = (Vec::<u32>::new(), Vec::new());
    for (slot, it) in begun.iter().enumerate() {
        chunks.push(Chunk { slot, row: ids.len(), rows: it.fed().len(), position: 0 });
        ids.extend_from_slice(it.fed());
    }
    run(&mut cache, &ids, &chunks, &[])?;
    let mut out = Vec::with_capacity(all.len());
    for (pack, first) in all.chunks(PACK).zip((0..).step_by(PACK)) {
        let (mut ids, mut chunks) = (Vec::<u32>::new(), Vec::new());
        let (mut rows, mut labels) = (Vec::<u32>::new(), Vec::<u32>::new());
        for (at, it) in pack.iter().enumerate() {
            let (from, slot) = ((first + at) % begun.len(), begun.len() + at);
            let position = it.shared(&begun[from]);
            cache.copy(from, slot, position)?;
            let rest = &it.fed()[position..];
            chunks.push(Chunk { slot, row: ids.len(), rows: rest.len(), position });
            rows.extend(it.rows(ids.len(), position));
            labels.extend_from_slice(it.labels());
            ids.extend_from_slice(rest);
        }
        let chosen = run(&mut cache, &ids, &chunks, &rows)?;
        let nll = values_of(&token_nll(&decoder.logits(&chosen)?, &labels)?)?;
        let mut rest = nll.as_slice();
        for it in pack {
            let (own, others) = rest.split_at(it.labels().len());
            out.push(own.iter().copied().map(f64::from).sum::<f64>() / own.len() as f64);
            rest = others;
        }
    }
    Ok(out)
}
