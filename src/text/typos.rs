//! Phrases of several words, found although their words are misspelt or have letters masked.

use std::collections::HashMap;
use std::ops::Range;

/// Phrases of two words and more. A shorter one would be found in too many other words.
///
/// A word of five letters may have one edit and one of nine letters two, an exchange of neighbours
/// being one; shorter words and first letters must be right. The letters between the first and the
/// last may also stand in any order, in words of four letters and more. Every word of the phrase must
/// fit, so that somebody who shares one name of two is not found.
#[derive(Debug, Default)]
pub struct Typos {
    phrases: Vec<Phrase>,
    /// Phrases by the first letter and the length of their first word.
    starts: HashMap<(char, usize), Vec<usize>>,
}

#[derive(Debug)]
struct Phrase {
    words: Vec<Vec<char>>,
    id: usize,
}

/// A phrase seen in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// The phrase's number.
    pub id: usize,
    /// Edits between the two, at least 1.
    pub edits: usize,
}

/// A word of a text.
pub(super) struct Word {
    pub(super) span: Range<usize>,
    pub(super) first: char,
    length: usize,
}

impl Typos {
    /// Phrases in the spelling of [`normalise`](super::normalise()), with a number that is reported.
    pub fn new<'a>(phrases: impl IntoIterator<Item = (&'a str, usize)>) -> Self {
        let mut all = Self::default();
        for (text, id) in phrases {
            let words: Vec<Vec<char>> = words(text).iter().map(|it| letters(text, it)).collect();
            // Without a word that may be misspelt there is nothing to find.
            if words.len() < 2 || words.iter().all(|it| allowed(it.len()) == 0) {
                continue;
            }
            let start = (words[0][0], words[0].len());
            all.starts.entry(start).or_default().push(all.phrases.len());
            all.phrases.push(Phrase { words, id });
        }
        all
    }

    /// Misspelt phrases in a normalised text. Those without a mistake are not among them.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<Seen> {
        if self.phrases.is_empty() {
            return Vec::new();
        }
        let words = words(text);
        let mut seen = self.find_masked(text);
        for (at, word) in words.iter().enumerate() {
            for length in word.length.saturating_sub(MOST_EDITS)..=word.length + MOST_EDITS {
                for index in self.starts.get(&(word.first, length)).into_iter().flatten() {
                    let phrase = &self.phrases[*index];
                    let Some(edits) = phrase.edits(text, &words[at..]).filter(|it| *it > 0) else {
                        continue;
                    };
                    let last = &words[at + phrase.words.len() - 1];
                    let span = word.span.start..last.span.end;
                    seen.push(Seen { span, id: phrase.id, edits });
                }
            }
        }
        seen
    }
}

impl Typos {
    /// Phrases with a sign for some of their letters: "v*ggo bl##zko".
    fn find_masked(&self, text: &str) -> Vec<Seen> {
        if !text.contains(MASKS) {
            return Vec::new();
        }
        let words = masked_words(text);
        let mut seen = Vec::new();
        for (at, word) in words.iter().enumerate() {
            for index in self.starts.get(&(word.first, word.length)).into_iter().flatten() {
                let phrase = &self.phrases[*index];
                let Some(masked) = phrase.masked(text, &words[at..]) else { continue };
                let last = &words[at + phrase.words.len() - 1];
                let span = word.span.start..last.span.end;
                seen.push(Seen { span, id: phrase.id, edits: masked });
            }
        }
        seen
    }
}

impl Phrase {
    /// Letters that are masked where everything else is the phrase: at least one, at most half of them.
    fn masked(&self, text: &str, words: &[Word]) -> Option<usize> {
        let here = words.get(..self.words.len())?;
        let (mut masked, mut all) = (0, 0);
        for (index, (want, word)) in self.words.iter().zip(here).enumerate() {
            if want.len() != word.length || index > 0 && !is_gap(text, &here[index - 1], word) {
                return None;
            }
            for (want, is) in want.iter().zip(letters(text, word)) {
                let mask = MASKS.contains(&is);
                if *want != is && !mask {
                    return None;
                }
                masked += usize::from(mask);
                all += 1;
            }
        }
        (masked > 0 && 2 * masked <= all).then_some(masked)
    }

    /// Edits between the phrase and the words that a text goes on with.
    fn edits(&self, text: &str, words: &[Word]) -> Option<usize> {
        let here = words.get(..self.words.len())?;
        let mut edits = 0;
        for (index, (want, word)) in self.words.iter().zip(here).enumerate() {
            let most = allowed(want.len());
            if want[0] != word.first || want.len().abs_diff(word.length) > most {
                return None;
            }
            if index > 0 && !is_gap(text, &here[index - 1], word) {
                return None;
            }
            let letters = letters(text, word);
            edits += match distance(want, &letters) {
                distance if distance <= most => distance,
                _ if is_scrambled(want, &letters) => MOST_EDITS,
                _ => return None,
            };
        }
        Some(edits)
    }
}

const MOST_EDITS: usize = 2;
/// What is written for a letter that is left out.
const MASKS: [char; 5] = ['*', '#', '•', '_', '█'];

/// Whether what stands between two words stands between words of a phrase.
fn is_gap(text: &str, before: &Word, word: &Word) -> bool {
    let gap = text.get(before.span.end..word.span.start);
    gap.is_some_and(|it| matches!(it, " " | "-" | "_" | "." | ". "))
}

/// Edits that a word of this length may have.
fn allowed(length: usize) -> usize {
    match length {
        0..5 => 0,
        5..9 => 1,
        _ => MOST_EDITS,
    }
}

/// Runs of letters, digits and what stands for letters.
pub(super) fn masked_words(text: &str) -> Vec<Word> {
    runs(text, |it| it.is_alphanumeric() || MASKS.contains(&it))
}

/// Runs of letters and digits.
fn words(text: &str) -> Vec<Word> {
    runs(text, char::is_alphanumeric)
}

fn runs(text: &str, belongs: impl Fn(char) -> bool) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for (at, c) in text.char_indices().filter(|it| belongs(it.1)) {
        let end = at + c.len_utf8();
        match words.last_mut() {
            Some(last) if last.span.end == at => {
                last.span.end = end;
                last.length += 1;
            }
            _ => words.push(Word { span: at..end, first: c, length: 1 }),
        }
    }
    words
}

fn letters(text: &str, word: &Word) -> Vec<char> {
    text.get(word.span.clone()).unwrap_or_default().chars().collect()
}

/// Whether two words differ only in the order of the letters between their ends.
fn is_scrambled(a: &[char], b: &[char]) -> bool {
    let ends = |it: &[char]| (it.first().copied(), it.last().copied());
    let sorted = |it: &[char]| {
        let mut letters = it.to_vec();
        letters.sort_unstable();
        letters
    };
    a.len() >= 4 && a.len() == b.len() && ends(a) == ends(b) && sorted(a) == sorted(b)
}

/// Insertions, deletions, replacements and exchanges of neighbours from one word to the other, no
/// letter being touched twice.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[(&str, usize, usize)]) {
        let phrases =
            [("viggo blaszko", 0), ("ann lee", 1), ("ingrid kirkegaarden", 2), ("bmk", 3)];
        let seen = Typos::new(phrases).find(text);
        let seen: Vec<(&str, usize, usize)> =
            seen.iter().map(|it| (text.get(it.span.clone()).unwrap(), it.id, it.edits)).collect();
        assert_eq!(seen, want, "{text}");
    }

    #[test]
    fn distances_by_hand() {
        let of = |a: &str, b: &str| {
            let chars = |it: &str| it.chars().collect::<Vec<char>>();
            distance(&chars(a), &chars(b))
        };
        assert_eq!(of("viggo", "viggo"), 0);
        assert_eq!(of("viggo", "vigo"), 1);
        assert_eq!(of("viggo", "vigog"), 1);
        assert_eq!(of("kitten", "sitting"), 3);
        assert_eq!(of("", "abc"), 3);
    }

    #[test]
    fn every_word_must_be_near() {
        check("by vigo blaszko's", &[("vigo blaszko", 0, 1)]);
        check("viggo blasko", &[("viggo blasko", 0, 1)]);
        check("vigog blaszkoo", &[("vigog blaszkoo", 0, 2)]);
        check("ingrid kirkegarde", &[("ingrid kirkegarde", 2, 2)]);
        check("viggo blaszko", &[]);
        check("viggo blako", &[]);
    }

    #[test]
    fn letters_between_the_ends_may_stand_in_any_order() {
        check("vgigo bsklazo", &[("vgigo bsklazo", 0, 3)]);
        check("iirgnd kirkegaarden", &[("iirgnd kirkegaarden", 2, 2)]);
        check("viggo bsklaoz", &[]);
        check("anl lee", &[]);
    }

    #[test]
    fn masked_letters() {
        check("by v*ggo bl*szko's", &[("v*ggo bl*szko", 0, 2)]);
        check("v_gg# bl••zko", &[("v_gg# bl••zko", 0, 4)]);
        check("v**** b******", &[]);
        check("viggo b*****o", &[("viggo b*****o", 0, 5)]);
        check("viggo * blaszko, v*ggo bl*szka", &[]);
    }

    #[test]
    fn another_author_is_not_misspelt() {
        check("viggo balogh, astrid blaszko, viggo", &[]);
        check("niggo blaszko", &[]);
        check("anna lee, ann leeb", &[]);
        check("vigo, blaszko", &[]);
        check("", &[]);
    }
}
