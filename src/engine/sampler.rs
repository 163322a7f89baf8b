//! Logits to a token: penalties, bias, temperature, truncation, seeded draw.

use std::collections::HashMap;

use crate::seed::Stream;
use crate::types::Sampling;

/// The state of one choice's sampling.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    stream: Stream,
    generated: HashMap<u32, u32>,
    prompt: Vec<u32>,
}

impl Sampler {
    /// A sampler for one choice; `seed` is used when the request names none.
    #[must_use]
    pub fn new(sampling: &Sampling, choice: usize, seed: u64, prompt: &[u32]) -> Self {
        let stream = Stream::named(sampling.seed.unwrap_or(seed), &format!("choice {choice}"));
        let penalised = (sampling.repetition_penalty - 1.0).abs() > f32::EPSILON;
        let prompt = if penalised { prompt.to_vec() } else { Vec::new() };
        Self { sampling: sampling.clone(), stream, generated: HashMap::new(), prompt }
    }

    /// Draws the next token from logits `[vocab]`, which are changed in place.
    pub fn sample(&mut self, logits: &mut [f32]) -> u32 {
        self.penalise(logits);
        let token = if self.sampling.temperature <= 0.0 || self.sampling.top_k == 1 {
            argmax(logits)
        } else {
            self.draw(logits)
        };
        *self.generated.entry(token).or_default() += 1;
        token
    }

    fn penalise(&self, logits: &mut [f32]) {
        let repetition = self.sampling.repetition_penalty;
        if (repetition - 1.0).abs() > f32::EPSILON {
            let mut seen: Vec<u32> =
                self.prompt.iter().chain(self.generated.keys()).copied().collect();
            seen.sort_unstable();
            seen.dedup();
            for token in seen {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
                }
            }
        }
        for (token, count) in &self.generated {
            logits[*token as usize] -=
                self.sampling.presence_penalty + self.sampling.frequency_penalty * *count as f32;
        }
        for (token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |it: &f32| f64::from((it - max) / self.sampling.temperature).exp();
        let mut candidates: Vec<(u32, f64)> =
            (0u32..).zip(logits).map(|(token, logit)| (token, weight(logit))).collect();
        let total: f64 = candidates.iter().map(|it| it.1).sum();
        if self.sampling.top_k > 0 || self.sampling.top_p < 1.0 {
            candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            if self.sampling.top_k > 0 {
                candidates.truncate(self.sampling.top_k);
            }
            let (mut kept, mut mass) = (0, 0.0);
            while kept < candidates.len()
                && (kept == 0 || mass < f64::from(self.sampling.top_p) * total)
            {
                mass += candidates[kept].1;
                kept += 1;
            }
            candidates.truncate(kept);
        }
        let total: f64 = candidates.iter().map(|it| it.1).sum();
        let mut left = self.stream.uniform() * total;
        for (token, weight) in &candidates {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        candidates.last().map_or(0, |it| it.0)
    }
}

/// The most probable token; the lowest id of equals.
#[must_use]
pub fn argmax(logits: &[f32]) -> u32 {
    let best = (0u32..).zip(logits).fold((0, f32::NEG_INFINITY), |best, (token, logit)| {
        if *logit > best.1 { (token, *logit) } else { best }
    });
    best.0
}

/// Log-softmax of logits, in nats.
#[must_use]
pub fn log_probabilities(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum = logits.iter().map(|it| f64::from(it - max).exp()).sum::<f64>().ln() as f32;
    logits.iter().map(|it| it - max - sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(sampling: &Sampling, draws: usize) -> Vec<usize> {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let mut counts = vec![0; 3];
        for at in 0..draws {
            let mut sampler = Sampler::new(sampling, at, 1, &[]);
            counts[sampler.sample(&mut logits.clone()) as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_in_proportion() {
        let counts = counts(&Sampling::default(), 4000);
        // Within four standard deviations, sqrt(4000 * 0.25) = 32.
        assert!((counts[0] as f64 - 2000.0).abs() < 127.0, "{counts:?}");
        assert!((counts[2] as f64 - 800.0).abs() < 102.0, "{counts:?}");
    }

    #[test]
    fn top_p_and_top_k_cut_the_tail() {
        let top_p = Sampling { top_p: 0.6, ..Sampling::default() };
        assert_eq!(counts(&top_p, 300)[2], 0);
        let top_k = Sampling { top_k: 2, ..Sampling::default() };
        assert_eq!(counts(&top_k, 300)[2], 0);
        let tiny = Sampling { top_p: 0.1, ..Sampling::default() };
        assert_eq!(counts(&tiny, 50), [50, 0, 0]);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let sampling = Sampling { seed: Some(9), ..Sampling::default() };
        let draw = |fallback| {
            let mut sampler = Sampler::new(&sampling, 0, fallback, &[]);
            (0..20).map(|_| sampler.sample(&mut [0.0; 50])).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(2));
    }

    #[test]
    fn penalties_and_bias_move_the_choice() {
        let greedy = || Sampling { temperature: 0.0, ..Sampling::default() };
        let biased = Sampling { logit_bias: vec![(2, 5.0)], ..greedy() };
        assert_eq!(Sampler::new(&biased, 0, 0, &[]).sample(&mut [3.0, 2.0, 1.0]), 2);
        let penalised = Sampling { presence_penalty: 2.0, ..greedy() };
        let mut sampler = Sampler::new(&penalised, 0, 0, &[]);
        assert_eq!(sampler.sample(&mut [3.0, 2.0]), 0);
        assert_eq!(sampler.sample(&mut [3.0, 2.0]), 1);
        let repeated = Sampling { repetition_penalty: 2.0, ..greedy() };
        assert_eq!(Sampler::new(&repeated, 0, 0, &[0]).sample(&mut [3.0, 2.0]), 1);
    }
}
