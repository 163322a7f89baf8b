//! `manifest.json` of a classifier folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{EmbedError, HASHED_MAX_DIM, HASHED_VERSION, Head, read, sha256_hex};

/// The version of the folder's layout that this program reads and writes.
pub const FORMAT: u32 = 1;
/// What the two sides are called, in the order of their labels 0 and 1.
pub const LABELS: [&str; 2] = ["retain", "forget"];
/// The manifest's name in the folder.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The head's name in the folder.
pub const HEAD_FILE: &str = "head.f32";

/// What a classifier is, how it was calibrated, and what it measured on held-out rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The topic it recognises.
    pub topic: String,
    /// [`LABELS`].
    pub labels: Vec<String>,
    /// A text is flagged when its score is at least this.
    pub threshold: f32,
    /// The miss rate that was asked for.
    pub alpha: f64,
    /// The encoder that it was trained with.
    pub encoder: EncoderSpec,
    /// The head's file in the folder.
    pub head_file: String,
    /// SHA-256 of that file.
    pub head_sha256: String,
    /// Share of held-out retain rows that are flagged.
    pub false_positive_rate: f64,
    /// Share of held-out forget rows that are flagged.
    pub recall: f64,
    /// Forget rows that it was trained on.
    pub n_forget: usize,
    /// Retain rows that it was trained on.
    pub n_retain: usize,
    /// How the threshold was found.
    pub calibration: Calibration,
}

/// An encoder by what it computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EncoderSpec {
    /// The hashed n-grams.
    Hashed {
        /// Length of a vector.
        dim: usize,
        /// Version of the features.
        version: u32,
    },
    /// A sentence encoder.
    Onnx {
        /// Its folder; a relative one is relative to the classifier folder.
        path: PathBuf,
        /// SHA-256 of its `model.onnx`.
        sha256: String,
    },
    /// The hashed n-grams, and a sentence encoder's vector behind them.
    Joined {
        /// Length of the hashed part.
        dim: usize,
        /// Version of its features.
        version: u32,
        /// The encoder's folder; a relative one is relative to the classifier folder.
        path: PathBuf,
        /// SHA-256 of its `model.onnx`.
        sha256: String,
    },
    /// The residual stream of the served model at a text's last token, at norm 1.
    Hidden {
        /// After how many blocks.
        layer: usize,
        /// Width of the residual stream.
        dim: usize,
        /// SHA-256 of the model's weights.
        weights_sha256: String,
    },
}

/// The rows behind threshold and rates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// `split`, or `cross` when every row was scored by a model of the other folds.
    pub method: String,
    /// Forget rows that set the threshold.
    pub n_forget: usize,
    /// The miss rate that this many rows can vouch for; above `alpha` when they are too few.
    pub alpha_attained: f64,
    /// Forget rows behind `recall`.
    pub n_test_forget: usize,
    /// Retain rows behind `false_positive_rate`.
    pub n_test_retain: usize,
}

impl Manifest {
    /// Reads a folder's manifest and head, and checks that they belong together.
    ///
    /// # Errors
    ///
    /// [`EmbedError::File`] for a missing file, [`EmbedError::Content`] for every mismatch.
    pub fn load(dir: &Path) -> Result<(Self, Head), EmbedError> {
        let path = dir.join(MANIFEST_FILE);
        let manifest: Self =
            serde_json::from_slice(&read(&path)?).map_err(|error| EmbedError::Content {
                path: path.clone(),
                key: "(whole file)",
                message: error.to_string(),
            })?;
        manifest.check(&path)?;
        let head_path = dir.join(&manifest.head_file);
        let bytes = read(&head_path)?;
        let sha256 = sha256_hex(&bytes);
        if sha256 != manifest.head_sha256 {
            let message =
                format!("is {}, but `{}` has {sha256}", manifest.head_sha256, head_path.display());
            return Err(EmbedError::Content { path, key: "head_sha256", message });
        }
        let head = Head::from_bytes(&bytes, &head_path)?;
        manifest.check_dim(&path, &head)?;
        Ok((manifest, head))
    }

    /// The file's text.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Content`] when a number is not finite.
    pub fn to_json(&self) -> Result<String, EmbedError> {
        serde_json::to_string_pretty(self).map(|it| it + "\n").map_err(|error| {
            EmbedError::Content {
                path: MANIFEST_FILE.into(),
                key: "(whole file)",
                message: error.to_string(),
            }
        })
    }

    /// Layer, width and weights' SHA-256 of a classifier of the served model's residual stream; `dir`
    /// is for the error.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Content`] for a classifier with an encoder of its own.
    pub fn hidden(&self, dir: &Path) -> Result<(usize, usize, &str), EmbedError> {
        if let EncoderSpec::Hidden { layer, dim, weights_sha256 } = &self.encoder {
            return Ok((*layer, *dim, weights_sha256));
        }
        let message = "is not `hidden`; name the folder in a `topic`".to_owned();
        Err(EmbedError::Content { path: dir.join(MANIFEST_FILE), key: "encoder.kind", message })
    }

    fn check(&self, path: &Path) -> Result<(), EmbedError> {
        let wrong = |key, message| Err(EmbedError::Content { path: path.to_owned(), key, message });
        if self.format != FORMAT {
            return wrong("format", format!("is {}, this program reads {FORMAT}", self.format));
        }
        if self.labels != LABELS {
            return wrong("labels", format!("are {:?}, expected {LABELS:?}", self.labels));
        }
        if !(0.0..=1.0).contains(&self.threshold) {
            return wrong("threshold", format!("{} is not in 0..=1", self.threshold));
        }
        if Path::new(&self.head_file).file_name() != Some(self.head_file.as_ref()) {
            return wrong("head_file", format!("`{}` is not a plain file name", self.head_file));
        }
        if let EncoderSpec::Hashed { dim, version } | EncoderSpec::Joined { dim, version, .. } =
            self.encoder
        {
            if !(1..=HASHED_MAX_DIM).contains(&dim) {
                return wrong("encoder.dim", format!("{dim} is not in 1..={HASHED_MAX_DIM}"));
            }
            if version != HASHED_VERSION {
                let message =
                    format!("is {version}, the encoder has {HASHED_VERSION}: train again");
                return wrong("encoder.version", message);
            }
        }
        Ok(())
    }

    fn check_dim(&self, path: &Path, head: &Head) -> Result<(), EmbedError> {
        let weights = head.weights.len();
        let (dim, fits) = match self.encoder {
            EncoderSpec::Hashed { dim, .. } | EncoderSpec::Hidden { dim, .. } => {
                (dim, dim == weights)
            }
            // The sentence encoder's part is compared when that is loaded.
            EncoderSpec::Joined { dim, .. } => (dim, dim < weights),
            EncoderSpec::Onnx { .. } => return Ok(()),
        };
        if fits {
            return Ok(());
        }
        let message = format!("is {dim}, but the head has {weights} weights");
        Err(EmbedError::Content { path: path.to_owned(), key: "encoder.dim", message })
    }
}
