//! A linear head on the served model's own residual stream (Alain and Bengio, arXiv:1610.01644): what
//! the model itself makes of a text.

use std::error::Error;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use super::topic::most_suspicious_view;
use super::{Detector, DetectorError};
use crate::embed::{EmbedError, Encoder, Manifest, Scorer, to_unit};
use crate::types::{Evidence, Place};

/// A served model that shows its residual stream.
pub trait States: Debug + Send + Sync {
    /// SHA-256 of the model's weights.
    ///
    /// # Errors
    ///
    /// [`Unread::Failed`] when the model does not show what it is.
    fn weights_sha256(&self) -> Result<String, Unread>;

    /// The residual stream after `layer` blocks (from 1) at the last token of a text, `[hidden]`.
    /// Blocks until the model has read the text.
    ///
    /// # Errors
    ///
    /// [`Unread`], without a word of the text: errors are logged.
    fn last(&self, text: &str, layer: usize) -> Result<Vec<f32>, Unread>;
}

/// Why there is nothing to see of a model.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// A text does not fit the model.
    #[error("text has {tokens} tokens, the model takes {limit}")]
    TooLong {
        /// Tokens in the text.
        tokens: usize,
        /// Most tokens.
        limit: usize,
    },
    /// The model cannot be read.
    #[error("the served model cannot be read")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// The residual stream of a model as the vectors of texts.
#[derive(Debug)]
struct Stream {
    states: Arc<dyn States>,
    layer: usize,
    dim: usize,
    weights_sha256: String,
}

impl Encoder for Stream {
    fn dim(&self) -> usize {
        self.dim
    }

    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, EmbedError> {
        let mut vectors = Vec::with_capacity(texts.len() * self.dim);
        let failed = |message| EmbedError::Runtime { doing: "read the served model", message };
        for text in texts {
            let mut vector = self.states.last(text, self.layer).map_err(|it| match it {
                Unread::TooLong { tokens, limit } => EmbedError::TooLong { tokens, limit },
                Unread::Failed(source) => failed(source.to_string()),
            })?;
            if vector.len() != self.dim {
                let (got, want) = (vector.len(), self.dim);
                return Err(failed(format!("layer {} is {got} wide, not {want}", self.layer)));
            }
            to_unit(&mut vector);
            vectors.extend(vector);
        }
        Ok(vectors)
    }

    fn identity(&self) -> String {
        self.weights_sha256.clone()
    }
}

/// The classifier of a folder that `proxy-train probe` wrote.
#[derive(Debug)]
pub struct Probe {
    threshold: f32,
    /// `None` until it has a model to read.
    scorer: Option<Scorer>,
}

impl Probe {
    /// Checks a folder; the probe fails on every text until it is over a model.
    ///
    /// # Errors
    ///
    /// [`DetectorError::Classifier`], which names the file and the key that are wrong.
    pub fn load(dir: &Path) -> Result<Self, DetectorError> {
        let (manifest, _) = Manifest::load(dir)?;
        manifest.hidden(dir)?;
        Ok(Self { threshold: manifest.threshold, scorer: None })
    }

    /// The probe of a folder over the model that it was trained on.
    ///
    /// # Errors
    ///
    /// Those of [`Probe::load`], [`DetectorError::Classifier`] for another model, and
    /// [`DetectorError::Model`] when the model does not show what it is.
    pub fn over(dir: &Path, states: Arc<dyn States>) -> Result<Self, DetectorError> {
        let (manifest, head) = Manifest::load(dir)?;
        let (layer, dim, _) = manifest.hidden(dir)?;
        let weights_sha256 = states.weights_sha256()?;
        let stream = Box::new(Stream { states, layer, dim, weights_sha256 });
        let scorer = Scorer::over(dir, &manifest, head, stream)?;
        Ok(Self { threshold: manifest.threshold, scorer: Some(scorer) })
    }

    /// The calibrated threshold: a text is about the topic when its score is at least this.
    #[must_use]
    pub fn threshold(&self) -> f32 {
        self.threshold
    }
}

impl Detector for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    /// As `topic` reads a text: the most suspicious window of all views. Each window is a pass of the
    /// served model; not to be called on a thread that runs async tasks.
    fn inspect(&self, place: Place, text: &str) -> Result<Vec<Evidence>, DetectorError> {
        let scorer = self.scorer.as_ref().ok_or(DetectorError::NoModel)?;
        let best = most_suspicious_view(scorer, text)?;
        let evidence = |(score, span, view)| Evidence {
            detector: self.name(),
            score,
            place,
            span,
            view,
            entity: None,
        };
        Ok(best.map(evidence).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::embed::{
        Calibration, EncoderSpec, FORMAT, HEAD_FILE, Head, LABELS, MANIFEST_FILE, sha256_hex,
    };

    /// `[words, 3]` of texts of up to eight words.
    #[derive(Debug)]
    struct Words(&'static str);

    impl States for Words {
        fn weights_sha256(&self) -> Result<String, Unread> {
            Ok(self.0.to_owned())
        }

        fn last(&self, text: &str, layer: usize) -> Result<Vec<f32>, Unread> {
            assert_eq!(layer, 2);
            let tokens = text.split_whitespace().count();
            if tokens > 8 {
                return Err(Unread::TooLong { tokens, limit: 8 });
            }
            Ok(vec![tokens as f32, 3.0])
        }
    }

    fn folder(dim: usize) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let head = Head { weights: vec![5.0; dim], bias: -6.0 }.to_bytes();
        let manifest = Manifest {
            format: FORMAT,
            topic: "t".to_owned(),
            labels: LABELS.map(str::to_owned).to_vec(),
            threshold: 0.25,
            alpha: 0.01,
            encoder: EncoderSpec::Hidden { layer: 2, dim, weights_sha256: "abc".to_owned() },
            head_file: HEAD_FILE.to_owned(),
            head_sha256: sha256_hex(&head),
            false_positive_rate: 0.0,
            recall: 1.0,
            n_forget: 1,
            n_retain: 1,
            calibration: Calibration {
                method: "split".to_owned(),
                n_forget: 1,
                alpha_attained: 0.5,
                n_test_forget: 1,
                n_test_retain: 1,
            },
        };
        fs::write(dir.path().join(HEAD_FILE), head).unwrap();
        fs::write(dir.path().join(MANIFEST_FILE), manifest.to_json().unwrap()).unwrap();
        dir
    }

    /// Four words are `[4, 3]`, at norm 1 `[0.8, 0.6]`; the head makes `5 * 1.4 - 6 = 1` of it, and the
    /// score is `1 / (1 + e^-1)`.
    #[test]
    fn a_score_by_hand() {
        let dir = folder(2);
        let probe = Probe::over(dir.path(), Arc::new(Words("abc"))).unwrap();
        assert!((probe.threshold() - 0.25).abs() < 1e-6);
        let seen = probe.inspect(Place::Text(1), "where was she born").unwrap();
        assert_eq!((seen.len(), seen[0].detector, seen[0].span.clone()), (1, "probe", 0..18));
        assert!((seen[0].score - 0.731_058_6).abs() < 1e-6, "{seen:?}");
        assert!(probe.inspect(Place::Text(0), " ").unwrap().is_empty());
    }

    #[test]
    fn a_long_text_is_read_in_pieces() {
        let dir = folder(2);
        let probe = Probe::over(dir.path(), Arc::new(Words("abc"))).unwrap();
        let seen = probe.inspect(Place::Text(0), &"word ".repeat(30)).unwrap();
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn another_model_or_none_is_refused() {
        let dir = folder(2);
        let error = Probe::over(dir.path(), Arc::new(Words("abd"))).unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains("weights_sha256") && cause.contains("abd"), "{cause}");
        let without = Probe::load(dir.path()).unwrap();
        let error = without.inspect(Place::Text(0), "who").unwrap_err();
        assert!(matches!(error, DetectorError::NoModel), "{error:?}");
        let wide = folder(3);
        let wrong = Probe::over(wide.path(), Arc::new(Words("abc"))).unwrap();
        assert!(wrong.inspect(Place::Text(0), "who").is_err());
        let alone = crate::detect::Topic::load(dir.path()).unwrap_err();
        assert!(alone.source().unwrap().to_string().contains("`probe`"), "{alone:?}");
    }
}
