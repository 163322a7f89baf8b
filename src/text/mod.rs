//! Views of a text: what a reader sees in it, and windows of it. Every offset handed out is a byte
//! offset of the original text.

mod capitals;
mod codes;
pub mod decode;
pub mod disguise;
mod escapes;
pub mod joined;
pub mod likeness;
pub mod normalise;
mod orders;
pub mod repeats;
pub mod respell;
pub mod scattered;
pub mod seams;
pub mod shifted;
pub mod typos;
pub mod values;

use std::ops::Range;

pub use capitals::{begins_alike, in_capitals};
pub use decode::{Decoded, Decodings, decode};
pub use joined::Joined;
pub use likeness::alike;
pub use normalise::{Normalised, normalise};
pub use orders::{FEWEST_JOINED, last_first, other_orders};
pub use respell::respell;
pub use scattered::Scattered;
pub use seams::closed;
pub use shifted::Shifted;
pub use typos::Typos;
pub use values::Values;

/// Words that an English text cannot do without, and that are none under rot13 or reversed.
const COMMON: [&str; 16] = [
    "the", "of", "and", "is", "who", "what", "where", "when", "which", "how", "to", "in", "by",
    "for", "about", "tell",
];

/// How many of its words are among the commonest of English.
#[must_use]
pub fn common_words(text: &str) -> usize {
    let words = text.split(|it: char| !it.is_alphanumeric());
    words.filter(|word| COMMON.iter().any(|it| it.eq_ignore_ascii_case(word))).count()
}

/// A longer run without whitespace counts as several words: some scripts write no spaces.
const MAX_WORD_CHARS: usize = 64;

/// The words of a text, in bytes, split at whitespace.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut length = 0;
    for (at, c) in text.char_indices() {
        if c.is_whitespace() || length == MAX_WORD_CHARS {
            words.extend(start.take().map(|it| it..at));
            length = 0;
        }
        if !c.is_whitespace() {
            start.get_or_insert(at);
            length += 1;
        }
    }
    words.extend(start.map(|it| it..text.len()));
    words
}

/// Words that a sentence must have to stand alone; a shorter one belongs to the next.
const FEWEST_WORDS: usize = 4;
/// Most sentences of a text; of more, neighbours count as one.
const MOST_SENTENCES: usize = 128;

/// The sentences of a text: everything in it but whitespace lies in one of at most 128. A harmless
/// sentence beside another one does not hide it.
#[must_use]
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let ends = |word: &str| {
        let word = word.trim_end_matches(['"', '\'', ')', '”', '’']);
        word.ends_with(['.', '?', '!', '。', '？', '！', ';'])
    };
    let (mut sentences, mut start, mut count) = (Vec::<Range<usize>>::new(), None, 0);
    let mut end = 0;
    for word in words(text) {
        let from = *start.get_or_insert(word.start);
        count += 1;
        end = word.end;
        if count >= FEWEST_WORDS && text.get(word).is_some_and(ends) {
            sentences.push(from..end);
            (start, count) = (None, 0);
        }
    }
    sentences.extend(start.map(|it| it..end));
    let together = sentences.len().div_ceil(MOST_SENTENCES).max(1);
    sentences.chunks(together).map(|it| it[0].start..it[it.len() - 1].end).collect()
}

/// Overlapping windows that cover every word of a text: `size` words each, of which `overlap` are
/// the previous window's. The last window ends with the text and may be shorter; a text without
/// words has none.
///
/// # Panics
///
/// When `overlap` is not below `size`.
#[must_use]
pub fn windows(text: &str, size: usize, overlap: usize) -> Vec<Range<usize>> {
    assert!(overlap < size, "windows that overlap wholly never advance");
    let words = words(text);
    let mut windows = Vec::new();
    let mut first = 0;
    while first < words.len() {
        let last = (first + size).min(words.len());
        windows.push(words[first].start..words[last - 1].end);
        if last == words.len() {
            break;
        }
        first += size - overlap;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_every_word_and_overlap() {
        let text = "a b c d e f g";
        let texts = |size, overlap| -> Vec<&str> {
            windows(text, size, overlap).into_iter().map(|it| text.get(it).unwrap()).collect()
        };
        assert_eq!(texts(4, 1), ["a b c d", "d e f g"]);
        assert_eq!(texts(3, 1), ["a b c", "c d e", "e f g"]);
        assert_eq!(texts(60, 20), [text]);
        assert!(windows(" \n", 4, 1).is_empty());
    }

    #[test]
    fn sentences_end_with_a_mark_and_have_four_words() {
        let text = " Hi. Where was he born? (It rains in Bergen.)  Yes";
        let of = |text: &'static str| -> Vec<&str> {
            sentences(text).into_iter().map(|it| text.get(it).unwrap()).collect()
        };
        assert_eq!(of(text), ["Hi. Where was he born?", "(It rains in Bergen.)", "Yes"]);
        assert!(of(" ").is_empty());
        let many = sentences(&"a b c d. ".repeat(1000));
        assert_eq!((many.len(), many[0].clone()), (125, 0..71));
    }

    #[test]
    fn a_text_without_spaces_is_still_split() {
        let text = "漢".repeat(200);
        assert_eq!(windows(&text, 2, 1).len(), 3);
        assert_eq!(windows(&text, 2, 1).last().unwrap().end, text.len());
    }
}
