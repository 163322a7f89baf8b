//! Texts as vectors, and a linear verdict on them.
//!
//! [`Hashed`] needs no file and serves by default; [`Onnx`] runs a sentence encoder; [`Joined`] is both
//! side by side. A classifier folder names the encoder that it was trained with and refuses any other.

mod convert;
pub mod fetch;
mod hashed;
mod head;
mod joined;
mod manifest;
mod onnx;
mod scorer;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use convert::{Precision, bert_to_onnx};
pub use hashed::{Hashed, MAX_DIM as HASHED_MAX_DIM, VERSION as HASHED_VERSION, WIDE_DIM};
pub use head::{Head, sigmoid};
pub use joined::Joined;
pub use manifest::{Calibration, EncoderSpec, FORMAT, HEAD_FILE, LABELS, MANIFEST_FILE, Manifest};
pub use onnx::{MAX_TOKENS, Onnx, OnnxOptions, session};
pub use scorer::{
    AnyEncoder, Scorer, WINDOW_OVERLAP, WINDOW_WORDS, most_suspicious, visit_windows,
};

/// Turns texts into vectors of one length.
pub trait Encoder: Debug + Send + Sync {
    /// Length of a vector.
    fn dim(&self) -> usize;

    /// One vector of norm 1 per text, `[texts, dim]` row after row. A text without features gives
    /// zeros.
    ///
    /// # Errors
    ///
    /// [`EmbedError::TooLong`] when a text does not fit (the caller makes windows), and the
    /// runtime's failures.
    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, EmbedError>;

    /// What a classifier must have been trained with to be used with this encoder.
    fn identity(&self) -> String;

    /// Most windows of one text that are read; more would keep a core busy for too long.
    fn most_windows(&self) -> usize {
        2048
    }
}

/// Why there is no vector or no verdict.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file says something that does not fit the rest.
    #[error("`{}`: `{key}`: {message}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Which key of it.
        key: &'static str,
        /// What is wrong, with both values.
        message: String,
    },
    /// A text is longer than the encoder reads; nothing was cut.
    #[error("text has {tokens} tokens, the encoder takes {limit}")]
    TooLong {
        /// Tokens in the text.
        tokens: usize,
        /// Most tokens.
        limit: usize,
    },
    /// A text, in all its views, has more windows than are read of one.
    #[error("text has more than {limit} windows, which this encoder would take too long over")]
    TooMany {
        /// Most windows.
        limit: usize,
    },
    /// No ONNX Runtime was found or it does not load.
    #[error("no usable ONNX Runtime at `{}`: {message}", path.display())]
    NoRuntime {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        message: String,
    },
    /// The runtime or the tokenizer failed.
    #[error("encoder failed while it {doing}: {message}")]
    Runtime {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        message: String,
    },
}

/// Brings a vector to norm 1; zeros stay.
pub fn to_unit(vector: &mut [f32]) {
    let norm = vector.iter().map(|it| it * it).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|it| *it /= norm);
    }
}

/// Reads a file, naming it when that fails.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, EmbedError> {
    std::fs::read(path).map_err(|source| EmbedError::File { path: path.to_owned(), source })
}

/// SHA-256 in lower-case hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|it| format!("{it:02x}")).collect()
}
