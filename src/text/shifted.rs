//! Names under any exchange of letters that keeps or reverses their distances: Caesar's 25 shifts, and
//! the alphabet backwards with its shifts.

use std::ops::Range;

use aho_corasick::{AhoCorasick, BuildError};

/// Letters that a name must have: the distances of fewer come about by chance.
const FEWEST_LETTERS: usize = 8;
/// Stands between words in a row of distances; a distance is 1 to 26.
const BREAK: u8 = 0;

/// Finds names by the distances between neighbouring letters, which no shift changes.
#[derive(Debug)]
pub struct Shifted {
    automaton: AhoCorasick,
    /// The letters and the number of each pattern, and whether its alphabet runs backwards.
    names: Vec<(Vec<u8>, usize, bool)>,
}

/// The letters of a text, and the distances within its words.
struct Distances {
    /// A break before and after every word.
    row: Vec<u8>,
    /// The letter that each element of `row` ends at.
    letters: Vec<Option<(usize, u8)>>,
}

impl Shifted {
    /// Names in normalised spelling, with a number each. Those of other alphabets and those that are
    /// too short are left out.
    ///
    /// # Errors
    ///
    /// [`BuildError`] for gigabytes of names.
    pub fn new<'a>(names: impl Iterator<Item = (&'a str, usize)>) -> Result<Self, BuildError> {
        let (mut patterns, mut known) = (Vec::new(), Vec::new());
        for (name, id) in names {
            let others = name.chars().any(|it| it.is_alphabetic() && !it.is_ascii_lowercase());
            let letters: Vec<u8> = letters(name).collect();
            if others || letters.len() < FEWEST_LETTERS {
                continue;
            }
            let joined: String = letters.iter().map(|it| char::from(*it)).collect();
            for spelling in [name, joined.as_str()] {
                let row = distances(spelling).row;
                let backwards: Vec<u8> = row.iter().map(|it| reversed(*it)).collect();
                for (row, is_reversed) in [(row, false), (backwards, true)] {
                    patterns.push(row);
                    known.push((letters.clone(), id, is_reversed));
                }
            }
        }
        Ok(Self { automaton: AhoCorasick::new(patterns)?, names: known })
    }

    /// Spans of normalised text with the numbers of their names; names as they are are not among them.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<(Range<usize>, usize)> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let distances = distances(text);
        let mut found: Vec<(Range<usize>, usize)> = Vec::new();
        for it in self.automaton.find_overlapping_iter(&distances.row) {
            let (name, id, is_reversed) = &self.names[it.pattern().as_usize()];
            // The last break stands with a letter of the next word.
            let written: Vec<(usize, u8)> =
                distances.letters[it.start()..it.end() - 1].iter().flatten().copied().collect();
            let ([first, ..], [.., last]) = (written.as_slice(), written.as_slice()) else {
                continue;
            };
            // Distances say nothing about how words stand to each other.
            let by = |(want, (_, is)): (&u8, &(usize, u8))| {
                if *is_reversed { (is - b'a' + want - b'a') % 26 } else { (26 + is - want) % 26 }
            };
            let mut shifts = name.iter().zip(&written).map(by);
            let shift = shifts.next();
            let is_plain = !*is_reversed && shift == Some(0);
            if !is_plain && shifts.all(|it| Some(it) == shift) {
                found.push((first.0..last.0 + 1, *id));
            }
        }
        found
    }
}

/// The distance that the alphabet backwards makes of one.
fn reversed(distance: u8) -> u8 {
    if distance == BREAK { BREAK } else { (27 - distance) % 26 + 1 }
}

fn letters(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().filter(u8::is_ascii_lowercase)
}

fn distances(text: &str) -> Distances {
    let mut out = Distances { row: vec![BREAK], letters: vec![None] };
    let mut last: Option<u8> = None;
    for (at, byte) in text.bytes().enumerate() {
        if !byte.is_ascii_lowercase() {
            if last.take().is_some() {
                out.row.push(BREAK);
                out.letters.push(None);
            }
            continue;
        }
        if let Some(last) = last {
            out.row.push((26 + byte - last) % 26 + 1);
            out.letters.push(Some((at, byte)));
        } else if let Some(before) = out.letters.last_mut() {
            // A word's first letter stands with the break before it.
            *before = Some((at, byte));
        }
        last = Some(byte);
    }
    if last.is_some() {
        out.row.push(BREAK);
        out.letters.push(None);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::disguise::shifted;
    use super::*;

    fn backwards(text: &str) -> String {
        let turn = |it: char| match it {
            'a'..='z' => char::from(b'a' + b'z' - it as u8),
            _ => it,
        };
        text.chars().map(turn).collect()
    }

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let names = [("viggo blaszko", 0), ("ann lee", 1), ("jorg große", 2)];
        let found = Shifted::new(names.into_iter()).unwrap().find(text);
        let found: Vec<&str> = found.iter().map(|it| text.get(it.0.clone()).unwrap()).collect();
        assert_eq!(found, want, "{text}");
    }

    #[test]
    fn every_shift_and_the_alphabet_backwards() {
        for by in 1..26 {
            let name = shifted("viggo blaszko", by);
            check(&format!("who is {name}, then? {name}s"), &[name.as_str()]);
            check(&shifted("viggoblaszko", by), &[shifted("viggoblaszko", by).as_str()]);
        }
        let name = backwards("viggo blaszko");
        assert_eq!(name, "erttl yozhapl");
        check(&format!("so {name} it is"), &[name.as_str()]);
    }

    #[test]
    fn nothing_else_is_found() {
        check("viggo blaszko", &[]);
        // Each word shifted by another number.
        check(&format!("{} {}", shifted("viggo", 1), shifted("blaszko", 2)), &[]);
        check(&shifted("ann lee", 3), &[]);
        check("", &[]);
    }
}
