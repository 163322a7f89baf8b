//! A trained classifier of texts about a topic.

use std::ops::Range;
use std::path::Path;

use super::{Detector, DetectorError};
use crate::embed::{Manifest, OnnxOptions, Scorer};
use crate::text::{closed, common_words, decode, normalise, respell};
use crate::types::{Evidence, Place, View};

/// The classifier of a folder that `proxy-train classifier` wrote.
#[derive(Debug)]
pub struct Topic {
    manifest: Manifest,
    scorer: Scorer,
}

impl Topic {
    /// Loads a folder; a sentence encoder runs on one session with the runtime in `.runtime/`.
    ///
    /// # Errors
    ///
    /// [`DetectorError::Classifier`], which names the file and the key that are wrong.
    pub fn load(dir: &Path) -> Result<Self, DetectorError> {
        Self::load_with(dir, &OnnxOptions::default())
    }

    /// The same with a choice of runtime and number of sessions.
    ///
    /// # Errors
    ///
    /// Those of [`Topic::load`].
    pub fn load_with(dir: &Path, options: &OnnxOptions) -> Result<Self, DetectorError> {
        let (manifest, scorer) = Scorer::load(dir, options)?;
        Ok(Self { manifest, scorer })
    }

    /// The calibrated threshold: a text is about the topic when its score is at least this.
    #[must_use]
    pub fn threshold(&self) -> f32 {
        self.manifest.threshold
    }

    /// What the classifier says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

impl Detector for Topic {
    fn name(&self) -> &'static str {
        "topic"
    }

    /// One piece of evidence for the most suspicious window of all views, whatever its score; none for
    /// a text without words. What a view could not be made of counts as seen; a text of more windows
    /// than the encoder is given for one is an error.
    fn inspect(&self, place: Place, text: &str) -> Result<Vec<Evidence>, DetectorError> {
        let best = most_suspicious_view(&self.scorer, text)?;
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

/// The highest score of all views of a text, where it was, and in which view.
pub(super) fn most_suspicious_view(
    scorer: &Scorer,
    text: &str,
) -> Result<Option<(f32, Range<usize>, View)>, DetectorError> {
    let mut left = scorer.encoder.as_encoder().most_windows();
    let mut all: Vec<(f32, Range<usize>, View)> = Vec::new();
    all.extend(scorer.score(text, &mut left)?.map(|it| (it.0, it.1, View::Normalised)));
    let normalised = normalise(text);
    for view in [respell(&normalised), closed(&normalised)].into_iter().flatten() {
        if let Some((score, span)) = scorer.score(&view.text, &mut left)? {
            all.push((score, view.original_span(span), View::Respelled));
        }
    }
    let decodings = decode(text);
    let plain = common_words(text);
    for view in &decodings.views {
        // Under rot13 or reversed most texts are no language, on which the scorer was not trained.
        if view.turned && common_words(&view.text) <= plain {
            continue;
        }
        if let Some((score, span)) = scorer.score(&view.text, &mut left)? {
            all.push((score, view.original_span(span), View::Decoded));
        }
    }
    all.extend(decodings.unread.into_iter().map(|span| (1.0, span, View::Decoded)));
    Ok(all.into_iter().reduce(|best, it| if it.0 > best.0 { it } else { best }))
}
