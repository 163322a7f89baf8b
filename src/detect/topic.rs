//! A trained classifier of texts about a topic.

use std::path::Path;

use super::{Detector, DetectorError};
use crate::embed::{Manifest, OnnxOptions, Scorer};
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

    /// One piece of evidence for the most suspicious window, whatever its score; none for a text
    /// without words.
    fn inspect(&self, place: Place, text: &str) -> Result<Vec<Evidence>, DetectorError> {
        let best = self.scorer.score(text)?;
        let evidence = |(score, span)| Evidence {
            detector: self.name(),
            score,
            place,
            span,
            view: View::Normalised,
            entity: None,
        };
        Ok(best.map(evidence).into_iter().collect())
    }
}
