//! Copies of protected text, word by word: runs of n-grams ("shingles") of words that stand in it.

use std::ops::Range;

use super::{Detector, DetectorError};
use crate::text::normalise;
use crate::types::{Evidence, Place, View};

/// A longer run of letters counts as several words: some scripts write no spaces.
const MAX_WORD_CHARS: usize = 64;

/// Finds copies of at least `n + run - 1` words. One changed word costs `n` shingles: this is for
/// verbatim copies, in whatever spelling, and not for paraphrases.
#[derive(Debug)]
pub struct Shingles {
    /// Of every shingle of the protected texts; sorted, each once.
    hashes: Vec<u64>,
    n: usize,
    run: usize,
}

/// A word of a normalised text.
#[derive(Debug, Clone)]
struct Word {
    span: Range<usize>,
    hash: u64,
}

impl Shingles {
    /// A detector of copies of `texts`: `run` shingles of `n` words in a row.
    ///
    /// # Errors
    ///
    /// [`DetectorError::NothingProtected`] when no text has `n` words.
    pub fn new(texts: &[String], n: usize, run: usize) -> Result<Self, DetectorError> {
        let (n, run) = (n.max(1), run.max(1));
        let mut hashes = Vec::new();
        for text in texts {
            let words = words(&normalise(text).text);
            hashes.extend(shingles(&words, n));
        }
        hashes.sort_unstable();
        hashes.dedup();
        hashes.shrink_to_fit();
        if hashes.is_empty() {
            return Err(DetectorError::NothingProtected { n });
        }
        Ok(Self { hashes, n, run })
    }

    /// Runs of shingles that are protected, by the words that they start with.
    fn runs(&self, words: &[Word]) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (at, hash) in shingles(words, self.n).enumerate() {
            if self.hashes.binary_search(&hash).is_err() {
                continue;
            }
            match runs.last_mut() {
                Some(last) if last.end == at => last.end = at + 1,
                _ => runs.push(at..at + 1),
            }
        }
        runs
    }

    /// The first copy in a part of a text that still grows, and from which byte on later text could make
    /// one: a run at the end, or the last words, which are too few for a shingle. A word that touches
    /// the end is not whole yet unless the text is `finished`.
    #[must_use]
    pub fn growing(&self, text: &str, finished: bool) -> (Option<Range<usize>>, usize) {
        let view = normalise(text);
        let all = words(&view.text);
        let open = all.last().is_some_and(|it| it.span.end == view.text.len()) && !finished;
        let whole = &all[..all.len() - usize::from(open)];
        let runs = self.runs(whole);
        let copy = runs.iter().find(|it| it.len() >= self.run);
        let copy = copy.map(|it| view.original_span(self.span(whole, it)));
        // The run that the next word could lengthen.
        let last = runs.last().filter(|it| it.end + self.n - 1 == whole.len());
        let begun = (whole.len() + 1).saturating_sub(self.n);
        let first = last.map_or(begun, |it| it.start.min(begun));
        let hold =
            all.get(first).map_or(text.len(), |it| view.original_span(it.span.clone()).start);
        (copy, hold)
    }

    /// The bytes of the normalised text that a run covers.
    fn span(&self, words: &[Word], run: &Range<usize>) -> Range<usize> {
        words[run.start].span.start..words[run.end + self.n - 2].span.end
    }
}

impl Detector for Shingles {
    fn name(&self) -> &'static str {
        "shingles"
    }

    /// One piece of evidence for each run, which scores its part of the length that makes a copy.
    fn inspect(&self, place: Place, text: &str) -> Result<Vec<Evidence>, DetectorError> {
        let view = normalise(text);
        let words = words(&view.text);
        let evidence = |run: Range<usize>| Evidence {
            detector: self.name(),
            score: (run.len() as f32 / self.run as f32).min(1.0),
            place,
            span: view.original_span(self.span(&words, &run)),
            view: View::Normalised,
            entity: None,
        };
        Ok(self.runs(&words).into_iter().map(evidence).collect())
    }
}

/// The words of a normalised text: runs of letters and digits.
fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut chars = 0;
    for (start, c) in text.char_indices() {
        if !c.is_alphanumeric() {
            chars = 0;
            continue;
        }
        let end = start + c.len_utf8();
        match words.last_mut() {
            Some(last) if chars > 0 && chars < MAX_WORD_CHARS => {
                last.span.end = end;
                last.hash = mix(last.hash, u64::from(u32::from(c)));
                chars += 1;
            }
            _ => {
                words.push(Word { span: start..end, hash: mix(0, u64::from(u32::from(c))) });
                chars = 1;
            }
        }
    }
    words
}

/// A hash for each `n` words in a row.
fn shingles(words: &[Word], n: usize) -> impl Iterator<Item = u64> {
    words.windows(n).map(|it| it.iter().fold(0, |hash, word| mix(hash, word.hash)))
}

/// A hash with one more value in it: SplitMix64's step and output function.
fn mix(hash: u64, value: u64) -> u64 {
    let z = hash.rotate_left(5).wrapping_add(0x9E37_79B9_7F4A_7C15) ^ value;
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: &str = "The cat sat on the mat, and then it went home.";

    fn shingles_of(text: &str, n: usize, run: usize) -> Shingles {
        Shingles::new(&[text.to_owned()], n, run).unwrap()
    }

    /// The copied texts, with their scores.
    #[track_caller]
    fn check(detector: &Shingles, text: &str, want: &[(&str, f32)]) {
        let seen = detector.inspect(Place::Text(0), text).unwrap();
        let seen: Vec<(&str, f32)> =
            seen.iter().map(|it| (text.get(it.span.clone()).unwrap(), it.score)).collect();
        assert_eq!(seen, want, "{text}");
    }

    #[test]
    fn runs_of_shingles_are_copies() {
        // Three words a shingle, two shingles a copy: four words.
        let detector = shingles_of(BOOK, 3, 2);
        check(&detector, "He said: cat sat on the sofa.", &[("cat sat on the", 1.0)]);
        check(
            &detector,
            "The cat sat, and then it slept.",
            &[("The cat sat", 0.5), ("and then it", 0.5)],
        );
        check(
            &detector,
            "on the mat and THEN it  we\u{200B}nt",
            &[("on the mat and THEN it  we\u{200B}nt", 1.0)],
        );
        check(&detector, "The cat has sat on a mat.", &[]);
        check(&detector, "", &[]);
    }

    #[test]
    fn what_may_become_a_copy_is_held() {
        // Three words a shingle, two shingles a copy: four words.
        let detector = shingles_of(BOOK, 3, 2);
        let held = |text: &str, finished| {
            let (copy, hold) = detector.growing(text, finished);
            let part = |it: Range<usize>| text.get(it).unwrap().to_owned();
            (copy.map(part), part(hold..text.len()))
        };
        let none = |held: &str| (None, held.to_owned());
        // Two words could begin a shingle, and the third is not whole.
        assert_eq!(held("He said the red ca", false), none("the red ca"));
        assert_eq!(held("He said the red ca ", false), none("red ca "));
        assert_eq!(held("He said the cat sat ", false), none("the cat sat "));
        assert_eq!(held("He said the cat sat down ", false), none("sat down "));
        assert_eq!(held("the cat sat on", false), none("the cat sat on"));
        let copy = |text: &str| Some(text.to_owned());
        assert_eq!(held("So the cat sat on ", false).0, copy("the cat sat on"));
        assert_eq!(held("So the cat sat on", true).0, copy("the cat sat on"));
        assert_eq!(held("So the cat sat", true).0, None);
        assert_eq!(held("", true), none(""));
    }

    #[test]
    fn texts_shorter_than_a_shingle_protect_nothing() {
        let error = Shingles::new(&["one two".to_owned()], 3, 1).unwrap_err();
        assert!(error.to_string().contains("has 3 words"), "{error}");
        let two = Shingles::new(&["one two".to_owned(), "a b c".to_owned()], 3, 1).unwrap();
        check(&two, "one two a b c", &[("a b c", 1.0)]);
    }
}
