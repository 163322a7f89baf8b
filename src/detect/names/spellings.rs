//! How a name may be written, and where it may be cut.

use crate::text::{FEWEST_JOINED, other_orders};

/// Most words of a name of which any spaces may be left out.
const MOST_WORDS: usize = 5;

/// A name cut between two words.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) head: String,
    pub(super) rest: String,
    pub(super) entity: usize,
}

/// Other ways to write a normalised name of several words.
pub(super) fn variants(name: &str) -> Vec<String> {
    let words: Vec<&str> = name.split(' ').collect();
    let mut out: Vec<String> = other_orders(name, name).into_iter().map(|it| it.0).collect();
    if words.len() > 1 && letters(name) >= FEWEST_JOINED {
        let turned: Vec<String> = words.iter().map(|it| it.chars().rev().collect()).collect();
        out.push(turned.join(" "));
        if words.len() <= MOST_WORDS {
            // All spaces left out is among the other orders.
            out.extend(
                (1..(1 << (words.len() - 1)) - 1).map(|left_out| closed_up(&words, left_out)),
            );
        }
    }
    if let [first, last] = words[..] {
        for initial in first.chars().take(1) {
            out.extend([format!("{initial}. {last}"), format!("{initial}.{last}")]);
        }
        for initial in last.chars().take(1) {
            out.extend([format!("{first} {initial}."), format!("{first} {initial}")]);
        }
    }
    out
}

/// Words with some of the spaces between them left out: bit by bit, the first space in the lowest.
fn closed_up(words: &[&str], left_out: usize) -> String {
    let mut out = String::new();
    for (at, word) in words.iter().enumerate() {
        if at > 0 && left_out & (1 << (at - 1)) == 0 {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Every way to cut a name between two words, with the word before the cut.
pub(super) fn cuts_of(name: &str, entity: usize) -> Vec<(String, Cut)> {
    let cut = |(at, _): (usize, &str)| {
        let (head, rest) = name.split_at_checked(at)?;
        let word = head.rsplit(|it: char| !it.is_alphanumeric()).next()?;
        let (head, rest) = (head.to_owned(), rest.trim_start().to_owned());
        // An initial ends too many texts.
        (letters(&rest) > 1 && word.chars().count() > 1)
            .then(|| (word.to_owned(), Cut { head, rest, entity }))
    };
    name.match_indices(' ').filter_map(cut).collect()
}

/// Letters and digits of a text.
pub(super) fn letters(text: &str) -> usize {
    text.chars().filter(|it| it.is_alphanumeric()).count()
}
