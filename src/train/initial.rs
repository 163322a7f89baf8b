//! Weights before training: small random ones with one induction circuit among them.
//!
//! An induction head (Olsson et al., arXiv:2209.11895) finds the last place where the current token
//! stood and copies what followed it. Every look-up in the context rests on one: the letter of an
//! option, a label given in an example. In transformers it forms by itself, but after some 10^8
//! tokens; a lab model trains on 10^7 and then looks nothing up (`benches/runs`, 2026-11-25). The
//! circuit is therefore laid out before training, in the spirit of mimetic initialisation (Trockman
//! and Kolter, arXiv:2305.09828). Training is free to keep, sharpen or undo it.

use candle_core::{DType, Device, Result, Tensor};

use crate::engine::decoder::{Block, Decoder};
use crate::engine::model_config::ModelConfig;
use crate::engine::rope::Rope;
use crate::seed::Stream;

/// Standard deviation of embeddings and of the projections into a block.
const STD: f64 = 0.02;

/// Score by which the previous position outdoes its neighbours.
const PREVIOUS_GAP: f64 = 5.0;

/// Squared gain of a match between the current token and a previous one.
const MATCH_GAIN: f64 = 6.0;

/// Size of the previous token's copy in the residual stream, relative to an embedding.
const COPY: f64 = 1.5;

/// Size of a looked-up token's copy in the residual stream, relative to an embedding.
const LOOKED_UP: f64 = 2.5;

/// A matrix under construction, `[rows, columns]` in row-major order.
struct Matrix {
    data: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Matrix {
    fn normal(seed: u64, name: &str, (rows, columns): (usize, usize), std: f64) -> Self {
        let mut stream = Stream::named(seed, name);
        let data = (0..rows * columns).map(|_| (std * stream.normal()) as f32).collect();
        Self { data, rows, columns }
    }

    fn add(&mut self, row: usize, column: usize, value: f64) {
        self.data[row * self.columns + column] += value as f32;
    }

    fn tensor(self) -> Result<Tensor> {
        Tensor::from_vec(self.data, (self.rows, self.columns), &Device::Cpu)
    }
}

/// A decoder to train from scratch, the same on every machine: N(0, 0.02²), outputs of blocks
/// a fifth of GPT-2's 0.02 / sqrt(2 layers) so that the circuit is not drowned, norms at one. The
/// induction circuit is left out where it has no room (see [`has_circuit`]).
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn decoder(config: &ModelConfig, seed: u64) -> Result<Decoder> {
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let heads = config.heads * config.head_dim;
    let circuit = has_circuit(config);
    let mut deep = STD / (2.0 * config.layers as f64).sqrt();
    if circuit {
        deep /= 5.0;
    }
    let ones = || Tensor::ones(hidden, DType::F32, &Device::Cpu);
    let mut embedding = Matrix::normal(seed, "embedding", (config.vocab_size, hidden), STD);
    if circuit {
        make_room(config, &mut embedding);
    }
    let mut blocks = Vec::with_capacity(config.layers);
    for layer in 0..config.layers {
        let draw =
            |name: &str, shape, std| Matrix::normal(seed, &format!("{layer}.{name}"), shape, std);
        let mut qkv = draw("qkv", (config.qkv_width(), hidden), STD);
        let mut output = draw("output", (hidden, heads), deep);
        match layer {
            0 if circuit => previous_token(config, &mut qkv, &mut output),
            1 if circuit => induction(config, &mut qkv, &mut output),
            _ => {}
        }
        blocks.push(Block {
            attention_norm: ones()?,
            qkv: qkv.tensor()?,
            output: output.tensor()?,
            feed_forward_norm: ones()?,
            gate_up: draw("gate_up", (2 * wide, hidden), STD).tensor()?,
            down: draw("down", (hidden, wide), deep).tensor()?,
        });
    }
    let head = match config.tied_head {
        true => None,
        false => Some(Matrix::normal(seed, "head", (config.vocab_size, hidden), STD).tensor()?),
    };
    Ok(Decoder {
        embedding: embedding.tensor()?,
        blocks,
        norm: ones()?,
        head,
        rope: Rope::new(&config.rope, config.head_dim, config.context_length),
        config: config.clone(),
    })
}

/// Whether the induction circuit has room: two blocks, two heads of at least 32 with keys of their
/// own, and three times their width of residual stream, for a token, its predecessor and a constant.
#[must_use]
pub fn has_circuit(config: &ModelConfig) -> bool {
    config.layers > 1
        && config.heads > 1
        && config.heads == config.kv_heads
        && config.head_dim >= 32
        && config.hidden_size >= 3 * config.head_dim
}

/// The residual coordinate that is the same for every token.
const CONSTANT: usize = 0;

/// The first of the coordinates that tell a token from others.
const TOKEN: usize = 1;

/// The first of the `head_dim` coordinates that hold the previous token.
fn previous(config: &ModelConfig) -> usize {
    config.hidden_size - config.head_dim
}

/// The constant, as large as half of all other coordinates together.
fn constant(config: &ModelConfig) -> f64 {
    0.5 * STD * (config.hidden_size as f64).sqrt()
}

fn make_room(config: &ModelConfig, embedding: &mut Matrix) {
    let (constant, previous) = (constant(config), previous(config));
    for row in embedding.data.chunks_mut(embedding.columns) {
        row[CONSTANT] = constant as f32;
        row[previous..].iter_mut().for_each(|it| *it *= 0.05);
    }
}

/// Head 0 looks at the position before (the constant, turned by one step of the rotary embedding)
/// and copies its token.
fn previous_token(config: &ModelConfig, qkv: &mut Matrix, output: &mut Matrix) {
    let (dim, keys, values) = (config.head_dim, key_row(config), value_row(config));
    let angles: Vec<f64> = config.rope.frequencies(dim).into_iter().take(dim / 4).collect();
    // A step aside costs the sum of 1 - cos(angle) over the pairs of coordinates that turn.
    let aside: f64 = angles.iter().map(|it| 1.0 - it.cos()).sum();
    let square = PREVIOUS_GAP * (dim as f64).sqrt() / aside;
    let gain = square.sqrt() * STD / constant(config);
    for (pair, angle) in angles.iter().enumerate() {
        qkv.add(pair, CONSTANT, gain);
        qkv.add(keys + pair, CONSTANT, gain * angle.cos());
        qkv.add(keys + dim / 2 + pair, CONSTANT, gain * angle.sin());
    }
    for at in 0..dim {
        qkv.add(values + at, TOKEN + at, 1.0);
        output.add(previous(config) + at, at, COPY * STD);
    }
}

/// Heads 0 and 1 look for positions whose previous token is the current one, each by half of the
/// coordinates, on the pairs that hardly turn; they copy the tokens that stand there.
fn induction(config: &ModelConfig, qkv: &mut Matrix, output: &mut Matrix) {
    let (dim, keys, values) = (config.head_dim, key_row(config), value_row(config));
    let (half, gain) = (dim / 2, MATCH_GAIN.sqrt());
    for head in 0..2 {
        for at in 0..half {
            let pair = half / 2 + at % (half / 2);
            let row = dim * head + pair + if at < half / 2 { 0 } else { half };
            qkv.add(row, TOKEN + half * head + at, gain);
            qkv.add(keys + row, previous(config) + half * head + at, gain);
        }
        for at in (dim * head..dim * (head + 1)).take_while(|it| TOKEN + it < previous(config)) {
            qkv.add(values + at, TOKEN + at, 1.0);
            output.add(TOKEN + at, at, LOOKED_UP * STD);
        }
    }
}

fn key_row(config: &ModelConfig) -> usize {
    config.heads * config.head_dim
}

fn value_row(config: &ModelConfig) -> usize {
    (config.heads + config.kv_heads) * config.head_dim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Batch;
    use crate::engine::rope::RopeConfig;
    use crate::train::trainable::Trainable;

    fn config(layers: usize) -> ModelConfig {
        ModelConfig {
            vocab_size: 500,
            hidden_size: 128,
            intermediate_size: 320,
            layers,
            heads: 4,
            kv_heads: 4,
            head_dim: 32,
            norm_eps: 1e-5,
            rope: RopeConfig::plain(10_000.0),
            context_length: 128,
            tied_head: true,
            end_tokens: vec![1],
        }
    }

    /// Loss (nats) on the second half of sequences of 20 different random tokens said twice.
    fn loss_of_repetition(layers: usize) -> f32 {
        let model = Trainable::from_decoder(&decoder(&config(layers), 3).unwrap()).unwrap();
        let mut stream = Stream::new(9);
        let sequences: Vec<_> = (0..20)
            .map(|_| {
                let mut once: Vec<u32> = (2..500).collect();
                stream.shuffle(&mut once);
                once.truncate(20);
                let ids: Vec<u32> = once.iter().chain(&once).copied().collect();
                (ids, (0..40).map(|at| at > 20).collect::<Vec<bool>>())
            })
            .collect();
        let loss = model.label_nll(&Batch::of(&sequences)).unwrap();
        loss.mean_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn what_stood_before_is_looked_up_without_training() {
        let uniform = 500f32.ln();
        let (with, without) = (loss_of_repetition(6), loss_of_repetition(1));
        assert!((without - uniform).abs() < 0.1, "{without} {uniform}");
        assert!(with < uniform - 0.5, "{with} {uniform}");
    }
}
