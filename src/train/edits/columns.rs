//! What single neurons of a feed-forward block write: columns of its down projection, read through the
//! head (Geva et al., arXiv:2203.14680; concept vectors, Hong et al., arXiv:2406.11614).

use std::collections::BTreeSet;

use candle_core::{Result, Tensor};

use crate::engine::decoder::Decoder;
use crate::engine::error::EngineError;
use crate::engine::ops::values_of;
use crate::engine::tokenizer::Tokenizer;

/// A column of a down projection, and how much of a topic it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its block.
    pub layer: usize,
    /// Its number, below the width of the feed-forward block.
    pub number: usize,
    /// Its most probable tokens, best first.
    pub top: Vec<u32>,
    /// How many of them are the topic's.
    pub overlap: usize,
}

/// The `k` tokens with the largest values, best first; ties in the order of ids.
#[must_use]
pub fn top_tokens(values: &[f32], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0u32..).take(values.len()).collect();
    order.sort_by(|a, b| values[*b as usize].total_cmp(&values[*a as usize]));
    order.truncate(k);
    order
}

/// The values of a column, `[hidden]`.
///
/// # Errors
///
/// [`candle_core::Error`] when there is no such column.
pub fn column(decoder: &Decoder, layer: usize, number: usize) -> Result<Vec<f32>> {
    values_of(&decoder.blocks[layer].down.narrow(1, number, 1)?)
}

/// All columns with their `k` most probable tokens by the head, no norm applied; those that write
/// most of `topic` first, then in the order of layer and number.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn columns(decoder: &Decoder, topic: &BTreeSet<u32>, k: usize) -> Result<Vec<Column>> {
    let head: &Tensor = decoder.head.as_ref().unwrap_or(&decoder.embedding);
    let mut out = Vec::new();
    for (layer, block) in decoder.blocks.iter().enumerate() {
        let written = values_of(&block.down.t()?.contiguous()?.matmul(&head.t()?)?)?;
        for (number, row) in written.chunks(decoder.config.vocab_size).enumerate() {
            let top = top_tokens(row, k);
            let overlap = top.iter().filter(|it| topic.contains(*it)).count();
            out.push(Column { layer, number, top, overlap });
        }
    }
    out.sort_by_key(|it| std::cmp::Reverse(it.overlap));
    Ok(out)
}

/// How many of a column's most probable tokens are looked at: the 200 of the paper's vocabularies of
/// 32,000 and more, fewer of a smaller one.
#[must_use]
pub fn top_k(vocab: usize) -> usize {
    (vocab / 40).clamp(1, 200)
}

/// The first token of each text.
///
/// # Errors
///
/// [`EngineError::Tokenizer`].
pub fn first_tokens<'a>(
    tokenizer: &Tokenizer,
    texts: impl IntoIterator<Item = &'a str>,
) -> std::result::Result<BTreeSet<u32>, EngineError> {
    let mut out = BTreeSet::new();
    for text in texts {
        out.extend(tokenizer.encode(text, false)?.ids.first());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;

    #[test]
    fn tokens_come_best_first() {
        assert_eq!(top_tokens(&[0.5, 2.0, -1.0, 2.0], 3), [1, 3, 0]);
        assert_eq!((top_k(32_000), top_k(2560), top_k(10)), (200, 64, 1));
    }

    /// With unit vectors for a head, two tokens to each, a column that is one of them writes its two
    /// tokens first.
    #[test]
    fn a_planted_column_is_found() {
        let mut decoder = initial::decoder(&tiny_config(), 5).unwrap();
        let (vocab, hidden, wide) = (32, 16, decoder.config.intermediate_size);
        let unit =
            |token: usize| (0..hidden).map(move |it| if it == token % hidden { 1f32 } else { 0.0 });
        let rows: Vec<f32> = (0..vocab).flat_map(unit).collect();
        decoder.embedding = Tensor::from_vec(rows, (vocab, hidden), &Device::Cpu).unwrap();
        let planted: Vec<f32> = unit(7).collect();
        let planted = Tensor::from_vec(planted, (1, hidden), &Device::Cpu).unwrap();
        let down = decoder.blocks[1].down.t().unwrap().contiguous().unwrap();
        let parts = [down.narrow(0, 0, 4).unwrap(), planted, down.narrow(0, 5, wide - 5).unwrap()];
        decoder.blocks[1].down = Tensor::cat(&parts, 0).unwrap().t().unwrap().contiguous().unwrap();
        let found = columns(&decoder, &BTreeSet::from([7, 23]), 2).unwrap();
        assert_eq!(found.len(), 2 * wide);
        assert!(found.windows(2).all(|it| it[0].overlap >= it[1].overlap));
        let planted = found.iter().find(|it| (it.layer, it.number) == (1, 4)).unwrap();
        assert_eq!((planted.overlap, planted.top.as_slice()), (2, [7, 23].as_slice()));
        let values = column(&decoder, 1, 4).unwrap();
        assert!(values.iter().enumerate().all(|(at, it)| (at == 7) == (*it == 1.0)));
    }
}
