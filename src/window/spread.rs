//! Names over several strings of a call's arguments: `{"first":"Ann","last":"Lee"}`.
//!
//! Letters are compared alone, so that it makes no difference where in a name one string ends and the
//! next begins. Strings follow each other in three ways: all of them, the values, the keys.

use std::ops::Range;

use super::scan::{Letter, Pattern, Patterns, is_word, letters, slice, styled, tells};
use crate::types::{QUOTE, shares};

/// The arguments of one call, in which no string has a whole name any more.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// What a later string could complete, from a word or a mark on.
    held: String,
    /// Whether `held` begins within a string, and within a word.
    inside: bool,
    in_word: bool,
    /// Held bytes from which on it is worth looking again.
    patience: usize,
}

/// What leaves.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) text: String,
    /// Names replaced, and copies cut off.
    pub(super) hits: usize,
    /// Bytes that were looked at.
    pub(super) scanned: usize,
}

/// A string with a letter.
#[derive(Debug)]
struct Text {
    letters: Range<usize>,
    open: bool,
    /// A colon follows. Unknown at the end of what is held.
    is_key: Option<bool>,
}

/// How strings follow each other.
#[derive(Debug, Clone, Copy)]
enum Order {
    All,
    Values,
    Keys,
}

enum Found {
    Nothing,
    /// Letters of a pattern, string by string.
    Match(Vec<Range<usize>>),
    /// The same without the last letters, which the reply did not come to.
    CutOff(Vec<Range<usize>>),
    /// Later text decides.
    Undecided,
}

/// What is to be done from a letter on.
enum Next<'a> {
    Nothing,
    Replace(&'a Pattern, Vec<Range<usize>>),
    Wait,
}

/// What is held, taken apart.
struct Reading {
    letters: Vec<Letter>,
    texts: Vec<Text>,
    finished: bool,
}

impl Spread {
    /// Takes more text of the arguments and lets go of what no later string can make a name.
    pub(super) fn push(&mut self, patterns: &Patterns, text: &str, finished: bool) -> Passed {
        if patterns.is_empty() {
            return Passed { text: text.to_owned(), ..Passed::default() };
        }
        self.held.push_str(text);
        if self.held.len() < self.patience && !finished {
            return Passed::default();
        }
        let mut out = Passed { scanned: self.held.len(), ..Passed::default() };
        let reading = Reading::of(&self.held, self.inside, self.in_word, finished);
        let (mut cut, mut at) = (0, 0);
        let mut hold = self.held.len();
        while let Some(letter) = reading.letters.get(at) {
            match reading.find(patterns, at) {
                Next::Nothing => at += 1,
                Next::Replace(pattern, parts) => {
                    out.hits += 1;
                    let spans: Vec<Range<usize>> =
                        parts.iter().map(|it| reading.bytes(it)).collect();
                    let original: Vec<&str> =
                        spans.iter().map(|it| slice(&self.held, it.clone())).collect();
                    let with = styled(pattern, &original.join(" "));
                    for (span, share) in spans.into_iter().zip(shares(&with, parts.len())) {
                        out.text.push_str(slice(&self.held, cut..span.start));
                        out.text.push_str(&share);
                        cut = span.end;
                    }
                    at = parts.last().map_or(at + 1, |it| it.end);
                }
                Next::Wait => {
                    hold = letter.span.start.max(cut);
                    break;
                }
            }
        }
        out.text.push_str(slice(&self.held, cut..hold));
        let rest = self.held.split_off(hold);
        let gone = std::mem::replace(&mut self.held, rest);
        self.inside ^= gone.matches(QUOTE).count() % 2 == 1;
        if let Some(last) = gone.chars().last() {
            self.in_word = is_word(last);
        }
        // However much is between two halves of a name, each byte is looked at a few times.
        let held = self.held.len();
        self.patience = if held > patterns.most_held() { 2 * held } else { 0 };
        out
    }
}

impl Reading {
    fn of(held: &str, mut inside: bool, in_word: bool, finished: bool) -> Self {
        let all = letters(held, in_word);
        let mut reading = Self { letters: Vec::new(), texts: Vec::new(), finished };
        let mut next = all.into_iter().peekable();
        let marks = held.match_indices(QUOTE).map(|it| it.0).chain([held.len()]);
        for end in marks {
            let from = reading.letters.len();
            while let Some(letter) = next.next_if(|it| it.span.start < end) {
                if inside {
                    reading.letters.push(letter);
                }
            }
            let open = end == held.len();
            if inside && reading.letters.len() > from {
                let letters = from..reading.letters.len();
                let after = held.get(end + QUOTE.len_utf8()..).unwrap_or_default();
                let is_key = after.trim_start().chars().next().map(|it| it == ':');
                let is_key = is_key.or(finished.then_some(false));
                reading.texts.push(Text { letters, open, is_key });
            }
            inside = !inside;
        }
        reading
    }

    /// The longest pattern that begins with a letter and goes on in another string; one that the end of
    /// the reply cuts off last.
    fn find<'a>(&self, patterns: &'a Patterns, at: usize) -> Next<'a> {
        let letter = &self.letters[at];
        if !letter.begins {
            return Next::Nothing;
        }
        let start = self.texts.partition_point(|it| it.letters.end <= at);
        let mut cut_off = Next::Nothing;
        for pattern in patterns.beginning_with(letter.ch) {
            let mut undecided = false;
            for order in [Order::All, Order::Values, Order::Keys] {
                match self.walk(&pattern.letters, (start, at), order) {
                    Found::Match(parts) => return Next::Replace(pattern, parts),
                    Found::CutOff(parts) => cut_off = Next::Replace(pattern, parts),
                    Found::Undecided => undecided = true,
                    Found::Nothing => {}
                }
            }
            if undecided {
                return Next::Wait;
            }
        }
        cut_off
    }

    /// Follows a pattern from a letter of a string on.
    fn walk(&self, pattern: &[char], (start, first): (usize, usize), order: Order) -> Found {
        if !order.has(&self.texts[start]).unwrap_or(true) {
            return Found::Nothing;
        }
        let (mut parts, mut left) = (Vec::new(), pattern);
        for (number, text) in self.texts.iter().enumerate().skip(start) {
            match order.has(text) {
                Some(true) => {}
                None if number == start => {}
                Some(false) => continue,
                None => return Found::Undecided,
            }
            let from = if number == start { first } else { text.letters.start };
            let here = &self.letters[from..text.letters.end];
            let taken = here.len().min(left.len());
            let (now, later) = left.split_at(taken);
            if !here.iter().zip(now).all(|(letter, ch)| letter.ch == *ch) {
                return Found::Nothing;
            }
            parts.push(from..from + taken);
            left = later;
            if left.is_empty() {
                // In one string it is no name, or it would have been replaced.
                return match here[taken - 1].ends {
                    _ if parts.len() == 1 => Found::Nothing,
                    Some(false) => Found::Nothing,
                    None if !self.finished => Found::Undecided,
                    _ => Found::Match(parts),
                };
            }
            if text.open && !self.finished {
                return Found::Undecided;
            }
        }
        if !self.finished {
            return Found::Undecided;
        }
        let open = self.texts.last().is_some_and(|it| it.open);
        let told = parts.len() > 1 && tells(pattern.len() - left.len(), pattern.len());
        if open && told { Found::CutOff(parts) } else { Found::Nothing }
    }

    /// The bytes of some letters of one string.
    fn bytes(&self, letters: &Range<usize>) -> Range<usize> {
        let of = &self.letters[letters.clone()];
        match (of.first(), of.last()) {
            (Some(first), Some(last)) => first.span.start..last.span.end,
            _ => 0..0,
        }
    }
}

impl Order {
    /// Whether a string is one of those that follow each other.
    fn has(self, text: &Text) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::Values => text.is_key.map(|it| !it),
            Self::Keys => text.is_key,
        }
    }
}
