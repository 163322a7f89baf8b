//! Closeness to the nearest of a list of texts. There is nothing to train: another text to be
//! forgotten is another line of the list (the store of DRAGON and of retrieval-based unlearning).
//!
//! With hashed n-grams "near" means nearly the same words: on the lab's rows other people's questions
//! of the same wording reach 0.72, a paraphrase 0.69 in the middle. A sentence encoder, or paraphrases
//! among the stored texts, see further.

use std::ops::Range;
use std::path::Path;

use super::{Detector, DetectorError};
use crate::embed::{
    EmbedError, Encoder, Hashed, Onnx, OnnxOptions, WINDOW_OVERLAP, WINDOW_WORDS, visit_windows,
};
use crate::types::{Evidence, Place, View};

/// Fewest words in a window.
const LEAST_WORDS: usize = 8;

/// Compares windows of a text with the stored ones. The windows are as long as the longest stored
/// text, because more words than that around a question only hide it.
#[derive(Debug)]
pub struct Neighbours {
    encoder: Box<dyn Encoder>,
    /// The non-zero elements of each stored vector.
    stored: Vec<Vec<(usize, f32)>>,
    /// Words in a window.
    size: usize,
    floor: f32,
}

impl Neighbours {
    /// A detector of texts near `texts`, with the sentence encoder of a folder or hashed n-grams. A
    /// cosine of `floor` or below scores 0, one of 1 scores 1, linearly between them.
    ///
    /// # Errors
    ///
    /// [`DetectorError::Classifier`] when the encoder cannot be used, [`DetectorError::EmptyRow`].
    pub fn load(
        texts: &[String],
        encoder: Option<&Path>,
        floor: f32,
    ) -> Result<Self, DetectorError> {
        let encoder: Box<dyn Encoder> = match encoder {
            Some(folder) => Box::new(Onnx::load(folder, &OnnxOptions::default())?),
            None => Box::new(Hashed::default()),
        };
        Self::new(texts, encoder, floor)
    }

    /// The same with an encoder at hand.
    ///
    /// # Errors
    ///
    /// Those of [`Neighbours::load`].
    pub fn new(
        texts: &[String],
        encoder: Box<dyn Encoder>,
        floor: f32,
    ) -> Result<Self, DetectorError> {
        let mut stored = Vec::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            let before = stored.len();
            visit_windows(text, WINDOW_WORDS, WINDOW_OVERLAP, |window, _| {
                let dense = encoder.encode(&[window])?;
                let sparse: Vec<(usize, f32)> =
                    dense.into_iter().enumerate().filter(|it| it.1 != 0.0).collect();
                if !sparse.is_empty() {
                    stored.push(sparse);
                }
                Ok(())
            })?;
            if stored.len() == before {
                return Err(DetectorError::EmptyRow { row: row + 1 });
            }
        }
        let longest = texts.iter().map(|it| it.split_whitespace().count()).max();
        let size = longest.unwrap_or_default().clamp(LEAST_WORDS, WINDOW_WORDS);
        Ok(Self { encoder, stored, size, floor })
    }

    /// The calibrated cosine of the nearest stored vector. What is not a number stays that: the
    /// policy counts it as seen.
    fn score(&self, window: &str) -> Result<f32, EmbedError> {
        let vector = self.encoder.encode(&[window])?;
        let cosine =
            |row: &Vec<(usize, f32)>| row.iter().map(|it| it.1 * vector[it.0]).sum::<f32>();
        let nearest = self.stored.iter().map(cosine).fold(f32::NEG_INFINITY, higher);
        Ok(((nearest - self.floor) / (1.0 - self.floor)).clamp(0.0, 1.0))
    }
}

/// The higher number, or the one that is none.
fn higher(a: f32, b: f32) -> f32 {
    if b.is_nan() || b > a { b } else { a }
}

impl Detector for Neighbours {
    fn name(&self) -> &'static str {
        "neighbours"
    }

    /// One piece of evidence for the nearest window, whatever its score; none for a text without
    /// words. A text of more windows than the encoder is given for one is an error.
    fn inspect(&self, place: Place, text: &str) -> Result<Vec<Evidence>, DetectorError> {
        let mut best: Option<(f32, Range<usize>)> = None;
        let limit = self.encoder.most_windows();
        let mut left = limit;
        visit_windows(text, self.size, self.size - self.size / 4, |window, span| {
            left = left.checked_sub(1).ok_or(EmbedError::TooMany { limit })?;
            let score = self.score(window)?;
            if best.as_ref().is_none_or(|it| score.is_nan() || score > it.0) {
                best = Some((score, span));
            }
            Ok(())
        })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The direction of the last word; takes three words at most.
    #[derive(Debug)]
    struct Compass;

    impl Encoder for Compass {
        fn dim(&self) -> usize {
            2
        }

        fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, EmbedError> {
            let words: Vec<&str> = texts[0].split_whitespace().collect();
            if words.len() > 3 {
                return Err(EmbedError::TooLong { tokens: words.len(), limit: 3 });
            }
            Ok(match words.last() {
                Some(&"east") => vec![1.0, 0.0],
                Some(&"north") => vec![0.0, 1.0],
                Some(&"between") => vec![0.6, 0.8],
                Some(&"west") => vec![-1.0, 0.0],
                Some(&"broken") => vec![f32::NAN, 0.0],
                _ => vec![0.0, 0.0],
            })
        }

        fn identity(&self) -> String {
            "compass".to_owned()
        }

        fn most_windows(&self) -> usize {
            9
        }
    }

    fn near(stored: &[&str], floor: f32) -> Neighbours {
        let texts: Vec<String> = stored.iter().map(|it| (*it).to_owned()).collect();
        Neighbours::new(&texts, Box::new(Compass), floor).unwrap()
    }

    #[track_caller]
    fn check(detector: &Neighbours, text: &str, want: f32, span: &str) {
        let seen = detector.inspect(Place::Text(0), text).unwrap();
        assert_eq!(seen.len(), 1);
        assert!((seen[0].score - want).abs() < 1e-6, "{text}: {}", seen[0].score);
        assert_eq!(text.get(seen[0].span.clone()), Some(span));
    }

    #[test]
    fn the_score_is_the_nearest_rows_cosine_above_the_floor() {
        check(&near(&["east"], 0.0), "between", 0.6, "between");
        check(&near(&["east", "north"], 0.0), "between", 0.8, "between");
        // (0.6 - 0.2) / (1 - 0.2)
        check(&near(&["east"], 0.2), "between", 0.5, "between");
        check(&near(&["east"], 0.7), "between", 0.0, "between");
        check(&near(&["east"], 0.2), "east", 1.0, "east");
        check(&near(&["east"], 0.0), "west", 0.0, "west");
    }

    #[test]
    fn what_is_too_long_is_read_in_halves() {
        let text = "x x between x x x x east";
        check(&near(&["east"], 0.0), text, 1.0, "x east");
        // A stored text too: one of its parts says east.
        check(&near(&["x east x x x"], 0.0), "between", 0.6, "between");
    }

    /// A text of which a part would stay unread is an error: the policy says what becomes of it.
    #[test]
    fn a_text_of_too_many_windows_is_an_error() {
        let detector = near(&["east"], 0.0);
        let error = detector.inspect(Place::Text(0), &"x ".repeat(100)).unwrap_err();
        assert!(error.to_string().contains("classifier or encoder failed"), "{error}");
        let DetectorError::Classifier(EmbedError::TooMany { limit: 9 }) = error else {
            panic!("{error:?}")
        };
    }

    #[test]
    fn neither_no_number_nor_an_empty_row_passes_for_innocence() {
        let seen = near(&["east"], 0.0).inspect(Place::Continuation, "broken").unwrap();
        assert!(seen[0].score.is_nan());
        assert!(near(&["east"], 0.0).inspect(Place::Text(0), " ").unwrap().is_empty());
        let texts = ["east".to_owned(), "?".to_owned()];
        let error = Neighbours::new(&texts, Box::new(Compass), 0.0).unwrap_err();
        assert!(error.to_string().contains("row 2"), "{error}");
    }

    #[test]
    fn hashed_n_grams_know_a_stored_text_in_disguise() {
        let texts = ["Where was Viggo Blaszko born?".to_owned()];
        let detector = Neighbours::load(&texts, None, 0.0).unwrap();
        let score = |text: &str| detector.inspect(Place::Text(0), text).unwrap()[0].score;
        assert!(score("where was VIGGO  Blaszk\u{43E} born") > 0.999);
        let (paraphrase, other) = (score("In which town was Viggo Blaszko born?"), score("Hello."));
        assert!(paraphrase > 0.5 && other < 0.2, "{paraphrase} {other}");
        // Windows of eight words: the last one has the question and three others.
        let long = format!("{}. Where was Viggo Blaszko born?", "filler ".repeat(80));
        assert!(score(&long) > 0.5 && detector.inspect(Place::Text(0), &long).unwrap().len() == 1);
    }
}
