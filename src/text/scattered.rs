//! Names with something pushed between their letters.

use std::collections::HashMap;
use std::ops::Range;

/// Letters that a name must have: shorter ones are scattered over harmless words.
const FEWEST_LETTERS: usize = 8;
/// Most characters between two letters of a word.
const WITHIN: usize = 1;
/// Most characters between two words.
const BETWEEN: usize = 3;
/// Most initials between two words.
const INITIALS: usize = 4;

/// Finds names whose letters stand in their order, at most one foreign character between any two
/// of a word and three, or initials, between words: `V!ig5go _Blaszko`, `ViggoQBlaszko`, `Viggo J. M. Blaszko`.
#[derive(Debug, Default)]
pub struct Scattered {
    names: Vec<Name>,
    by_first: HashMap<char, Vec<usize>>,
}

#[derive(Debug)]
struct Name {
    words: Vec<String>,
    /// Each with the most characters that may stand before it.
    letters: Vec<(char, usize)>,
    id: usize,
}

impl Scattered {
    /// Names in normalised spelling, with a number each. Those that are too short are left out.
    pub fn new<'a>(names: impl Iterator<Item = (&'a str, usize)>) -> Self {
        let mut this = Self::default();
        for (name, id) in names {
            let letters = letters(name);
            if let (Some((first, _)), true) = (letters.first(), letters.len() >= FEWEST_LETTERS) {
                this.by_first.entry(*first).or_default().push(this.names.len());
                this.names.push(Name { words: words(name), letters, id });
            }
        }
        this
    }

    /// Spans of normalised text with the numbers of their names. Each character begins at most one
    /// try per name, and a try goes on only as long as it matches.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<(Range<usize>, usize)> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let glyphs: Vec<(usize, char)> = text.char_indices().collect();
        let mut found = Vec::new();
        for (at, (start, first)) in glyphs.iter().enumerate() {
            for index in self.by_first.get(first).into_iter().flatten() {
                let name = &self.names[*index];
                let Some(last) = end(&glyphs, at, &name.letters[1..]) else { continue };
                let span = *start..glyphs[last].0 + glyphs[last].1.len_utf8();
                let written = text.get(span.clone()).unwrap_or_default();
                if !(parted(written) && words(written) == name.words) {
                    found.push((span, name.id));
                }
            }
        }
        found
    }
}

/// Whether signs part two words as they do two people, "Viggo, Blaszko", and not in a record of one.
fn parted(text: &str) -> bool {
    let mut signs = text.split(char::is_alphanumeric);
    signs.any(|it| it.contains([',', ';', '.', ':']) && it.contains(char::is_whitespace))
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|it: char| !it.is_alphanumeric()).filter(|it| !it.is_empty());
    words.map(str::to_owned).collect()
}

fn letters(name: &str) -> Vec<(char, usize)> {
    let mut letters = Vec::new();
    let mut gap = WITHIN;
    for c in name.chars() {
        if c.is_alphanumeric() {
            letters.push((c, gap));
            gap = WITHIN;
        } else {
            gap = BETWEEN;
        }
    }
    letters
}

/// The places behind initials, ` j. m. `, that follow the one at `place`: behind the first, the second and so on.
fn after_initials(glyphs: &[(usize, char)], place: usize) -> impl Iterator<Item = usize> + '_ {
    let is = |at: usize, of: fn(char) -> bool| glyphs.get(at).is_some_and(|it| of(it.1));
    let mut at = place + 2;
    let initials = std::iter::from_fn(move || {
        if !is(at, char::is_alphabetic) || is(at + 1, char::is_alphanumeric) {
            return None;
        }
        at += if is(at + 1, |it| it == '.') { 2 } else { 1 };
        at += usize::from(is(at, char::is_whitespace));
        Some(at)
    });
    let apart = glyphs.get(place + 1).is_some_and(|it| it.1.is_whitespace());
    initials.take(if apart { INITIALS } else { 0 })
}

/// Where the last letter stands when the first one stands at `at`. All ways of going on are
/// followed at once: "g5g" may be the first or the second "g" of a name.
fn end(glyphs: &[(usize, char)], at: usize, letters: &[(char, usize)]) -> Option<usize> {
    let mut places = vec![at];
    for (letter, gap) in letters {
        let mut next = Vec::new();
        for place in places {
            let initials = (*gap == BETWEEN).then(|| after_initials(glyphs, place));
            for it in (place + 1..=place + 1 + gap).chain(initials.into_iter().flatten()) {
                if glyphs.get(it).is_some_and(|it| it.1 == *letter) && !next.contains(&it) {
                    next.push(it);
                }
            }
        }
        if next.is_empty() {
            return None;
        }
        places = next;
    }
    places.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let names = [("viggo blaszko", 0), ("ann lee", 1)];
        let found = Scattered::new(names.into_iter()).find(text);
        let found: Vec<&str> = found.iter().map(|it| text.get(it.0.clone()).unwrap()).collect();
        assert_eq!(found, want, "{text}");
    }

    #[test]
    fn one_character_between_letters_and_three_between_words() {
        check("who is v!i_g,g)o; ?b5l~a^s.z-kqo now", &["v!i_g,g)o; ?b5l~a^s.z-kqo"]);
        check("vig_goqblaszko", &["vig_goqblaszko"]);
        check("viggo blaszko", &["viggo blaszko"]);
        check("vi__ggo blaszko", &[]);
        check("viggo, or blaszko", &[]);
        check("viggo, blaszko; vigg!o, blaszko", &["vigg!o, blaszko"]);
        check("vigo blaszko", &[]);
    }

    #[test]
    fn records_and_initials_are_of_one() {
        check("viggo,blaszko", &["viggo,blaszko"]);
        check("at viggo.blaszko@example.org", &["viggo.blaszko"]);
        for two in ["viggo. blaszko", "viggo.) blaszko", "viggo\u{201d}, blaszko"] {
            check(two, &[]);
        }
        for middle in ["m.", "m", "j. m.", "j.m.", "j m.", "b."] {
            let text = format!("viggo {middle} blaszko");
            check(&format!("who is {text}?"), &[&text]);
        }
        check("viggo or his blaszko", &[]);
        check("viggo m. und blaszko", &[]);
        check("viggo m. ", &[]);
        check("viggo j. b l a s z k o", &["viggo j. b l a s z k o"]);
        check("viggo a. b. c. d. e. blaszko", &[]);
    }

    #[test]
    fn letters_that_repeat_are_followed_both_ways() {
        check("vig5ggo blaszko", &["vig5ggo blaszko"]);
        check("viggggo blaszko", &["viggggo blaszko"]);
    }

    #[test]
    fn short_names_are_left_alone() {
        check("a.n.n l.e.e", &[]);
    }
}
