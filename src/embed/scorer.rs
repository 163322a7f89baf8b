//! Encoder and head together, on texts of any length.

use std::ops::Range;
use std::path::Path;

use super::{
    EmbedError, Encoder, EncoderSpec, Hashed, Head, Joined, MANIFEST_FILE, Manifest, Onnx,
    OnnxOptions,
};
use crate::text::{sentences, windows};

/// Words in a window.
pub const WINDOW_WORDS: usize = 60;
/// Words that a window shares with the one before it.
pub const WINDOW_OVERLAP: usize = 20;

/// The encoders there are.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per classifier, for the life of the process")]
pub enum AnyEncoder {
    /// Hashed n-grams, scored without a dense vector.
    Hashed(Hashed),
    /// A sentence encoder.
    Onnx(Onnx),
    /// Hashed n-grams and a sentence encoder.
    Joined(Joined),
    /// The served model, as far as a layer of it.
    Hidden(Box<dyn Encoder>),
}

impl AnyEncoder {
    /// The encoder as a trait object.
    #[must_use]
    pub fn as_encoder(&self) -> &dyn Encoder {
        match self {
            Self::Hashed(it) => it,
            Self::Onnx(it) => it,
            Self::Joined(it) => it,
            Self::Hidden(it) => it.as_ref(),
        }
    }

    /// The non-zero elements of a text's vector in ascending order of index, never the whole vector
    /// where that is mostly empty.
    ///
    /// # Errors
    ///
    /// Those of [`Encoder::encode`].
    pub fn features(&self, text: &str) -> Result<Vec<(u32, f32)>, EmbedError> {
        let dense = match self {
            Self::Hashed(it) => return Ok(it.encode_sparse(text)),
            Self::Joined(it) => return it.encode_sparse(text),
            Self::Onnx(it) => it.encode(&[text])?,
            Self::Hidden(it) => it.encode(&[text])?,
        };
        let elements = dense.into_iter().enumerate().filter(|it| it.1 != 0.0);
        Ok(elements.map(|(at, value)| (at as u32, value)).collect())
    }
}

/// Scores the most suspicious window of a text.
#[derive(Debug)]
pub struct Scorer {
    /// Makes the vectors.
    pub encoder: AnyEncoder,
    /// Judges them.
    pub head: Head,
}

impl Scorer {
    /// The scorer of a classifier folder.
    ///
    /// # Errors
    ///
    /// [`EmbedError`] when the folder does not hold together, or the encoder is not the one that
    /// the classifier was trained with.
    pub fn load(dir: &Path, options: &OnnxOptions) -> Result<(Manifest, Self), EmbedError> {
        let (manifest, head) = Manifest::load(dir)?;
        let width = head.weights.len();
        let encoder = match &manifest.encoder {
            EncoderSpec::Hashed { .. } => AnyEncoder::Hashed(hashed(dir, width)?),
            EncoderSpec::Onnx { path, sha256 } => AnyEncoder::Onnx(sentences_of(
                dir,
                (path.as_path(), sha256.as_str()),
                width,
                options,
            )?),
            EncoderSpec::Joined { dim, path, sha256, .. } => {
                let onnx =
                    sentences_of(dir, (path.as_path(), sha256.as_str()), width - dim, options)?;
                AnyEncoder::Joined(Joined::new(hashed(dir, *dim)?, Box::new(onnx)))
            }
            EncoderSpec::Hidden { .. } => {
                let message = "reads the served model; name the folder in a `probe`".to_owned();
                let path = dir.join(MANIFEST_FILE);
                return Err(EmbedError::Content { path, key: "encoder.kind", message });
            }
        };
        Ok((manifest, Self { encoder, head }))
    }

    /// A scorer of the served model's residual stream, which `encoder` gives at the manifest's layer.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Content`] when the classifier was trained on another model or on no model.
    pub fn over(
        dir: &Path,
        manifest: &Manifest,
        head: Head,
        encoder: Box<dyn Encoder>,
    ) -> Result<Self, EmbedError> {
        let (want, own) = (manifest.hidden(dir)?.2, encoder.identity());
        if own != want {
            let message = format!("is {want}, the model has {own}; train the probe again");
            let path = dir.join(MANIFEST_FILE);
            return Err(EmbedError::Content { path, key: "encoder.weights_sha256", message });
        }
        Ok(Self { encoder: AnyEncoder::Hidden(encoder), head })
    }

    /// The highest score of all windows and sentences and where it was; `None` for a text without
    /// words. No part of a text goes unread. Every window takes one from `left`, which begins as
    /// [`Encoder::most_windows`].
    ///
    /// # Errors
    ///
    /// [`EmbedError::TooMany`] when none is left, and those of the encoder.
    pub fn score(
        &self,
        text: &str,
        left: &mut usize,
    ) -> Result<Option<(f32, Range<usize>)>, EmbedError> {
        most_suspicious(text, |window| {
            let limit = self.encoder.as_encoder().most_windows();
            *left = left.checked_sub(1).ok_or(EmbedError::TooMany { limit })?;
            self.score_window(window)
        })
    }

    fn score_window(&self, window: &str) -> Result<f32, EmbedError> {
        Ok(self.head.score_sparse(&self.encoder.features(window)?))
    }
}

fn hashed(dir: &Path, dim: usize) -> Result<Hashed, EmbedError> {
    Hashed::new(dim).ok_or_else(|| {
        let message = format!("{dim} is no possible length");
        EmbedError::Content { path: dir.join(MANIFEST_FILE), key: "encoder.dim", message }
    })
}

/// The sentence encoder that a manifest names by folder and hash, for so many weights of a head.
fn sentences_of(
    dir: &Path,
    (path, sha256): (&Path, &str),
    width: usize,
    options: &OnnxOptions,
) -> Result<Onnx, EmbedError> {
    let onnx = Onnx::load(&dir.join(path), options)?;
    let wrong =
        |key, message| Err(EmbedError::Content { path: dir.join(MANIFEST_FILE), key, message });
    if onnx.identity() != sha256 {
        let message = format!("is {sha256}, the model has {}", onnx.identity());
        return wrong("encoder.sha256", message);
    }
    if onnx.dim() != width {
        let message = format!("the model gives {} numbers, the head has {width}", onnx.dim());
        return wrong("encoder.path", message);
    }
    Ok(onnx)
}

/// The highest score of all windows and sentences of a text and where it was; `None` for a text
/// without words.
///
/// # Errors
///
/// Those of `score`.
pub fn most_suspicious(
    text: &str,
    mut score: impl FnMut(&str) -> Result<f32, EmbedError>,
) -> Result<Option<(f32, Range<usize>)>, EmbedError> {
    let mut best: Option<(f32, Range<usize>)> = None;
    let mut read = |part: Range<usize>| {
        let text = text.get(part.clone()).expect("sentences end on character boundaries");
        visit_windows(text, WINDOW_WORDS, WINDOW_OVERLAP, |window, span| {
            let score = score(window)?;
            if best.as_ref().is_none_or(|it| score > it.0) {
                best = Some((score, part.start + span.start..part.start + span.end));
            }
            Ok(())
        })
    };
    read(0..text.len())?;
    let sentences = sentences(text);
    if sentences.len() > 1 {
        sentences.into_iter().try_for_each(read)?;
    }
    Ok(best)
}

/// Hands every window of a text (see [`windows`]) to `visit` in order, with its bytes. A window that
/// `visit` calls too long comes again in halves, so that no part of a text goes unread.
///
/// # Errors
///
/// Those of `visit`; [`EmbedError::TooLong`] where a single character is.
pub fn visit_windows(
    text: &str,
    size: usize,
    overlap: usize,
    mut visit: impl FnMut(&str, Range<usize>) -> Result<(), EmbedError>,
) -> Result<(), EmbedError> {
    let mut pending = windows(text, size, overlap);
    pending.reverse();
    while let Some(span) = pending.pop() {
        let window = text.get(span.clone()).expect("windows end on character boundaries");
        match visit(window, span.clone()) {
            Ok(()) => {}
            Err(EmbedError::TooLong { tokens, limit }) => {
                let middle = text.floor_char_boundary(span.start.midpoint(span.end));
                if middle == span.start {
                    return Err(EmbedError::TooLong { tokens, limit });
                }
                pending.push(middle..span.end);
                pending.push(span.start..middle);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
