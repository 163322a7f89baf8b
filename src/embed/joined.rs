//! Two encoders side by side: what words a text has, and what it means.

use std::f32::consts::FRAC_1_SQRT_2;

use super::{EmbedError, Encoder, Hashed};

/// Hashed n-grams, and the vector of another encoder behind them, each at norm 1 / sqrt(2). Names and
/// rare words are told by the first, subjects by the second.
#[derive(Debug)]
pub struct Joined {
    hashed: Hashed,
    dense: Box<dyn Encoder>,
}

impl Joined {
    /// Both of them.
    #[must_use]
    pub fn new(hashed: Hashed, dense: Box<dyn Encoder>) -> Self {
        Self { hashed, dense }
    }

    /// The non-zero elements in ascending order of index, the dense ones last.
    ///
    /// # Errors
    ///
    /// Those of the dense encoder.
    pub fn encode_sparse(&self, text: &str) -> Result<Vec<(u32, f32)>, EmbedError> {
        let words = self.hashed.encode_sparse(text);
        let meaning = self.dense.encode(&[text])?;
        let from = self.hashed.dim();
        let meaning = meaning.into_iter().enumerate().filter(|it| it.1 != 0.0);
        let meaning = meaning.map(|(at, value)| ((from + at) as u32, value));
        Ok(words.into_iter().chain(meaning).map(|(at, it)| (at, it * FRAC_1_SQRT_2)).collect())
    }
}

impl Encoder for Joined {
    fn dim(&self) -> usize {
        self.hashed.dim() + self.dense.dim()
    }

    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, EmbedError> {
        let width = self.dim();
        let mut out = vec![0.0; texts.len() * width];
        for (row, text) in out.chunks_mut(width).zip(texts) {
            for (at, value) in self.encode_sparse(text)? {
                row[at as usize] = value;
            }
        }
        Ok(out)
    }

    fn identity(&self) -> String {
        format!("{}+{}", self.hashed.identity(), self.dense.identity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Always the vector (0, 0.6, 0.8).
    #[derive(Debug)]
    struct Fixed;

    impl Encoder for Fixed {
        fn dim(&self) -> usize {
            3
        }

        fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, EmbedError> {
            Ok([0.0, 0.6, 0.8].repeat(texts.len()))
        }

        fn identity(&self) -> String {
            "fixed".to_owned()
        }
    }

    #[test]
    fn both_halves_count_alike() {
        let joined = Joined::new(Hashed::default(), Box::new(Fixed));
        let words = Hashed::default().encode_sparse("a river");
        let sparse = joined.encode_sparse("a river").unwrap();
        assert_eq!(sparse.len(), words.len() + 2);
        assert_eq!(sparse[0], (words[0].0, words[0].1 * FRAC_1_SQRT_2));
        assert_eq!(
            sparse[words.len()..],
            [(4097, 0.6 * FRAC_1_SQRT_2), (4098, 0.8 * FRAC_1_SQRT_2)]
        );
        let norm: f32 = sparse.iter().map(|it| it.1 * it.1).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
        let dense = joined.encode(&["a river", "b"]).unwrap();
        assert_eq!(dense.len(), 2 * joined.dim());
        assert!(sparse.iter().all(|it| dense[it.0 as usize] == it.1));
        assert_eq!(joined.identity(), "hashed-1-4096+fixed");
    }
}
