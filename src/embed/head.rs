//! The linear verdict on a vector.

use std::path::Path;

use super::EmbedError;

/// A logistic regression: the probability that a text belongs to the forget set, as far as the
/// balanced training data goes. Only the calibrated threshold gives it a meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// One weight per element of a vector.
    pub weights: Vec<f32>,
    /// Added to the weighted sum.
    pub bias: f32,
}

impl Head {
    /// The score of the non-zero elements of a vector; indices past the weights count nothing.
    #[must_use]
    pub fn score_sparse(&self, vector: &[(u32, f32)]) -> f32 {
        let weight = |it: u32| self.weights.get(it as usize).copied().unwrap_or(0.0);
        sigmoid(self.bias + vector.iter().map(|it| weight(it.0) * it.1).sum::<f32>())
    }

    /// The score of a whole vector.
    #[must_use]
    pub fn score_dense(&self, vector: &[f32]) -> f32 {
        sigmoid(self.bias + self.weights.iter().zip(vector).map(|it| it.0 * it.1).sum::<f32>())
    }

    /// The file's bytes: the weights, then the bias, little-endian `f32`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.weights.iter().chain([&self.bias]).flat_map(|it| it.to_le_bytes()).collect()
    }

    /// Reads [`Head::to_bytes`]; `path` is for the error.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Content`] when the bytes are no whole numbers, none at all, or not finite.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, EmbedError> {
        let wrong = |message: String| EmbedError::Content {
            path: path.to_owned(),
            key: "weights",
            message,
        };
        let (numbers, rest) = bytes.as_chunks::<4>();
        let mut weights: Vec<f32> = numbers.iter().map(|it| f32::from_le_bytes(*it)).collect();
        if !rest.is_empty() {
            return Err(wrong(format!("{} bytes are no whole number of floats", bytes.len())));
        }
        if let Some(at) = weights.iter().position(|it| !it.is_finite()) {
            return Err(wrong(format!("number {at} is not finite")));
        }
        let bias = weights.pop().ok_or_else(|| wrong("the file is empty".to_owned()))?;
        Ok(Self { weights, bias })
    }
}

/// `1 / (1 + exp(-x))`.
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_dense_and_stored_agree() {
        let head = Head { weights: vec![1.0, -2.0, 0.5], bias: 0.25 };
        let want = sigmoid(0.25 + 1.0 - 1.0);
        assert_eq!(head.score_dense(&[1.0, 0.5, 0.0]), want);
        assert_eq!(head.score_sparse(&[(0, 1.0), (1, 0.5)]), want);
        assert_eq!(Head::from_bytes(&head.to_bytes(), Path::new("h")).unwrap(), head);
        assert!(Head::from_bytes(&[0; 5], Path::new("h")).is_err());
        assert!(Head::from_bytes(&[], Path::new("h")).is_err());
    }
}
