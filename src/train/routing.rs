//! Gradient routing (Cloud et al., arXiv:2410.04332), as far as it is a way to forget: expand, route, ablate.
//!
//! A model gets neurons of its own for what may have to be forgotten. While it learns, the gradients of
//! such texts reach these neurons as they are, and the others of the same blocks with the sign turned.
//! Then the added neurons are taken away, and the smaller model is trained for a few steps on what is kept.
//!
//! What differs from the authors' run: every token of a marked text is routed alike, where theirs weigh
//! tokens by how much more often they stand in such texts; the lab's model starts from its base stage
//! and not from random weights; and 64 neurons are a fifth of its block, of theirs a few in a hundred.

use candle_core::{DType, Device, Result, Tensor};

use super::adamw::{AdamW, AdamWSettings};
use super::trainable::Trainable;
use crate::data::Batch;
use crate::engine::decoder::Decoder;
use crate::seed::Stream;
use crate::train::unlearn::rows::Tokens;
use crate::train::unlearn::step::Pass;

/// How gradients are routed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// Neurons that every block gets in addition.
    pub neurons: usize,
    /// The first blocks are routed in; in the others the added neurons stay zero.
    pub blocks: usize,
    /// What the gradients of routed texts are multiplied by at the other neurons.
    pub others: f64,
    /// Weight of the sum of absolute activations in routed blocks, averaged over rows.
    pub sparsity: f64,
    /// Kept sequences that the ablated model is trained on.
    pub coherence_rows: usize,
    /// Steps of that.
    pub coherence_steps: usize,
    /// Their learning rate, as a share of the highest one in training.
    pub coherence_rate: f32,
}

impl Routing {
    /// The authors' values: 64 neurons in the first five eighths of the blocks.
    #[must_use]
    pub fn published(layers: usize) -> Self {
        Self {
            neurons: 64,
            blocks: (5 * layers).div_ceil(8),
            others: -0.75,
            sparsity: 1e-4,
            coherence_rows: 64,
            coherence_steps: 40,
            coherence_rate: 0.1,
        }
    }

    /// The decoder with the added neurons. They write nothing yet, so that it says what it said.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when memory runs out.
    pub fn expanded(&self, decoder: &Decoder, seed: u64) -> Result<Decoder> {
        let mut out = decoder.clone();
        let hidden = decoder.config.hidden_size;
        for (layer, block) in out.blocks.iter_mut().enumerate() {
            let routed = layer < self.blocks;
            let spread = if routed { deviation(&block.gate_up)? } else { 0.0 };
            let mut stream = Stream::named(seed, &format!("routing/{layer}"));
            let mut added = || {
                let values = (0..self.neurons * hidden).map(|_| (spread * stream.normal()) as f32);
                Tensor::from_vec(values.collect(), (self.neurons, hidden), &Device::Cpu)
            };
            let half = block.gate_up.dim(0)? / 2;
            let (gate, up) =
                (block.gate_up.narrow(0, 0, half)?, block.gate_up.narrow(0, half, half)?);
            block.gate_up = Tensor::cat(&[gate, added()?, up, added()?], 0)?;
            let nothing = Tensor::zeros((hidden, self.neurons), DType::F32, &Device::Cpu)?;
            block.down = Tensor::cat(&[&block.down, &nothing], 1)?;
        }
        out.config.intermediate_size += self.neurons;
        Ok(out)
    }

    /// The decoder without them.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when it has no more neurons than that.
    pub fn ablated(&self, decoder: &Decoder) -> Result<Decoder> {
        let mut out = decoder.clone();
        for block in &mut out.blocks {
            let all = block.down.dim(1)?;
            let Some(kept) = all.checked_sub(self.neurons).filter(|it| *it > 0) else {
                candle_core::bail!("{all} neurons, of which {} are to be taken away", self.neurons);
            };
            let (gate, up) =
                (block.gate_up.narrow(0, 0, kept)?, block.gate_up.narrow(0, all, kept)?);
            block.gate_up = Tensor::cat(&[gate, up], 0)?;
            block.down = block.down.narrow(1, 0, kept)?.contiguous()?;
        }
        out.config.intermediate_size -= self.neurons;
        Ok(out)
    }

    /// The mean loss of a batch's labels and the weighted absolute activations, with the gradients of
    /// the sequences that `routed` marks routed. The value does not depend on the marks.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn loss(&self, model: &Trainable, batch: &Batch, routed: &[bool]) -> Result<Tensor> {
        let share = self.shares(&model.decoder, batch, routed)?;
        let per_row = self.sparsity / batch.ids.len().max(1) as f64;
        let mut sparsity = Tensor::zeros((), DType::F32, model.decoder.device())?;
        let nll = model.label_nll_routed(batch, |layer, neurons| {
            if layer >= self.blocks {
                return Ok(neurons);
            }
            sparsity = (&sparsity + (neurons.abs()?.sum_all()? * per_row)?)?;
            let Some((share, rest)) = &share else { return Ok(neurons) };
            (&neurons * share)? + (neurons.detach() * rest)?
        })?;
        nll.mean_all()? + sparsity
    }

    /// What the gradient of every activation is multiplied by, and what is left of 1; `[rows,
    /// intermediate]` both, or nothing where no sequence is routed.
    fn shares(
        &self,
        decoder: &Decoder,
        batch: &Batch,
        routed: &[bool],
    ) -> Result<Option<(Tensor, Tensor)>> {
        if !routed.contains(&true) {
            return Ok(None);
        }
        let wide = decoder.config.intermediate_size;
        let old = wide - self.neurons;
        let mut share = vec![1f32; batch.ids.len() * wide];
        for (span, _) in batch.starts.windows(2).zip(routed).filter(|it| *it.1) {
            for row in share[span[0] * wide..span[1] * wide].chunks_mut(wide) {
                row[..old].fill(self.others as f32);
            }
        }
        let share = Tensor::from_vec(share, (batch.ids.len(), wide), decoder.device())?;
        let rest = share.affine(-1.0, 1.0)?;
        Ok(Some((share, rest)))
    }

    /// The ablated decoder after a few steps on kept rows, as it was when it did best on `check`.
    /// `peak` is the highest learning rate in training.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn coherent(
        &self,
        decoder: &Decoder,
        peak: f32,
        rows: &[Tokens],
        check: &[Tokens],
    ) -> Result<Decoder> {
        let model = Trainable::from_decoder(decoder)?;
        let vars = model.vars.iter().map(|it| it.1.clone()).collect();
        let mut optimiser = AdamW::new(vars, AdamWSettings::default())?;
        let rows = Batch::of(rows);
        // Shares storage with the variables, and keeps no graph.
        let frozen = Pass::new(&model.decoder).frozen();
        let checked = || -> Result<f32> {
            let (mut sum, mut labels) = (0.0, 0);
            for some in check.chunks(16) {
                let nll = Pass::new(&frozen).nll(&Batch::of(some))?;
                sum += nll.sum_all()?.to_scalar::<f32>()?;
                labels += nll.elem_count();
            }
            Ok(sum / labels.max(1) as f32)
        };
        let mut best = checked()?;
        let mut kept = Trainable::from_decoder(&model.decoder)?.decoder;
        for _ in 0..self.coherence_steps {
            let loss = model.label_nll(&rows)?.mean_all()?;
            optimiser.step(&loss.backward()?, peak * self.coherence_rate)?;
            let now = checked()?;
            if now < best {
                best = now;
                kept = Trainable::from_decoder(&model.decoder)?.decoder;
            }
        }
        Ok(kept)
    }
}

/// The standard deviation of a matrix's numbers.
fn deviation(matrix: &Tensor) -> Result<f64> {
    let centred = matrix.broadcast_sub(&matrix.mean_all()?)?;
    Ok(f64::from(centred.sqr()?.mean_all()?.to_scalar::<f32>()?).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::values_of;
    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;

    const ROUTING: Routing = Routing {
        neurons: 3,
        blocks: 1,
        others: -0.75,
        sparsity: 0.0,
        coherence_rows: 2,
        coherence_steps: 5,
        coherence_rate: 1.0,
    };

    fn batch() -> Batch {
        Batch::of(&[
            (vec![3, 4, 5, 6], vec![false, false, true, true]),
            (vec![7, 8, 9], vec![false, true, true]),
        ])
    }

    fn nll(decoder: &Decoder) -> f32 {
        let model = Trainable::from_decoder(decoder).unwrap();
        model.label_nll(&batch()).unwrap().mean_all().unwrap().to_scalar().unwrap()
    }

    /// An expanded decoder whose added neurons write something.
    fn grown() -> (Decoder, Decoder) {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let mut expanded = ROUTING.expanded(&decoder, 5).unwrap();
        for block in &mut expanded.blocks {
            block.down = (&block.down + 0.05).unwrap();
        }
        (decoder, expanded)
    }

    #[test]
    fn added_neurons_change_nothing_at_first_and_go_without_a_trace() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let expanded = ROUTING.expanded(&decoder, 5).unwrap();
        assert_eq!(expanded.blocks[0].gate_up.dims(), [2 * (24 + 3), 16]);
        assert!((nll(&expanded) - nll(&decoder)).abs() < 1e-6);
        let ablated = ROUTING.ablated(&expanded).unwrap();
        for (a, b) in ablated.blocks.iter().zip(&decoder.blocks) {
            assert_eq!(values_of(&a.gate_up).unwrap(), values_of(&b.gate_up).unwrap());
            assert_eq!(values_of(&a.down).unwrap(), values_of(&b.down).unwrap());
        }
        assert_eq!(ablated.config.intermediate_size, 24);
        assert!(Routing { neurons: 24, ..ROUTING }.ablated(&decoder).is_err());
        // Later blocks have neurons of zeros.
        let wide = expanded.blocks[1].gate_up.narrow(0, 24, 3).unwrap();
        assert!(values_of(&wide).unwrap().iter().all(|it| *it == 0.0));
    }

    /// Gradients of `gate_up` in the routed block: as they are at added neurons, times -0.75 at the
    /// others, for the marked sequence only. Values do not change.
    #[test]
    fn gradients_go_where_they_are_sent() {
        let model = Trainable::from_decoder(&grown().1).unwrap();
        let gradient = |marks: &[bool]| {
            let loss = ROUTING.loss(&model, &batch(), marks).unwrap();
            let grads = loss.backward().unwrap();
            let of = |name: &str| {
                let (_, var) = model.vars.iter().find(|it| it.0 == name).unwrap();
                values_of(grads.get(var).unwrap()).unwrap()
            };
            (loss.to_scalar::<f32>().unwrap(), of("0.gate_up"), of("1.gate_up"))
        };
        let (plain, none, later) = gradient(&[false, false]);
        let (value, both, same) = gradient(&[true, true]);
        let (_, first, _) = gradient(&[true, false]);
        let (_, second, _) = gradient(&[false, true]);
        assert!((plain - value).abs() < 1e-6 && (plain - nll(&model.decoder)).abs() < 1e-6);
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        for at in 0..none.len() {
            // Rows of gate and up, 24 old and 3 added ones of each.
            let added = at / 16 % 27 >= 24;
            near(both[at], if added { none[at] } else { -0.75 * none[at] });
            // Of both sequences' gradients each of these two turns one.
            near(first[at] + second[at], none[at] + both[at]);
            assert!(!added || (none[at] - first[at]).abs() < 1e-6);
        }
        later.iter().zip(&same).for_each(|it| near(*it.0, *it.1));
        assert!(none.iter().zip(&first).any(|it| (it.0 - it.1).abs() > 1e-6));
        assert!(both.iter().zip(&first).any(|it| (it.0 - it.1).abs() > 1e-6));
    }

    #[test]
    fn activations_count_in_routed_blocks() {
        let model = Trainable::from_decoder(&grown().1).unwrap();
        let of = |sparsity, blocks| {
            let routing = Routing { sparsity, blocks, ..ROUTING };
            let loss = routing.loss(&model, &batch(), &[true, false]).unwrap();
            f64::from(loss.to_scalar::<f32>().unwrap())
        };
        let mut sums = Vec::new();
        let ids = Tensor::new(batch().ids.as_slice(), &Device::Cpu).unwrap();
        let embedded = model.decoder.embed(&ids).unwrap();
        let look = |_, neurons: Tensor| {
            let sum: f32 = values_of(&neurons)?.iter().map(|it| it.abs()).sum();
            sums.push(f64::from(sum));
            Ok(neurons)
        };
        model.decoder.forward_routed(embedded, &batch().starts, look).unwrap();
        let rows = batch().ids.len() as f64;
        assert!((of(2.0, 1) - of(0.0, 1) - 2.0 * sums[0] / rows).abs() < 1e-5);
        assert!((of(2.0, 2) - of(0.0, 2) - 2.0 * (sums[0] + sums[1]) / rows).abs() < 1e-5);
    }

    #[test]
    fn coherence_keeps_the_best_weights() {
        let (decoder, _) = grown();
        let rows = vec![(vec![3, 4, 5], vec![false, true, true])];
        let loss = |decoder: &Decoder| {
            let model = Trainable::from_decoder(decoder).unwrap();
            let nll = model.label_nll(&Batch::of(&rows)).unwrap().mean_all().unwrap();
            nll.to_scalar::<f32>().unwrap()
        };
        let better = ROUTING.coherent(&decoder, 1e-2, &rows, &rows).unwrap();
        assert!(loss(&better) < loss(&decoder));
        // Every step towards these rows is one away from others after the same tokens.
        let others = vec![(vec![3, 9, 5], vec![false, true, false])];
        let same = ROUTING.coherent(&decoder, 1e-2, &rows, &others).unwrap();
        assert!((loss(&same) - loss(&decoder)).abs() < 1e-6);
    }
}
