//! Exact search for many names at once.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::detect::DetectorError;

/// Patterns with the entity that each belongs to.
#[derive(Debug)]
pub(super) struct Lexicon {
    automaton: AhoCorasick,
    /// The entity of each pattern.
    entities: Vec<usize>,
}

impl Lexicon {
    pub(super) fn new(patterns: &BTreeSet<(String, usize)>) -> Result<Self, DetectorError> {
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(patterns.iter().map(|it| &it.0))?;
        Ok(Self { automaton, entities: patterns.iter().map(|it| it.1).collect() })
    }

    /// Leftmost-longest matches among those that are whole words, as `(span, entity)`. An automaton
    /// of that kind would lose "Ann" in "Ann Leeward" to a longer "Ann Lee" that is no whole word.
    /// Entities that share a spelling are all reported.
    pub(super) fn find(
        &self,
        text: &str,
        whole: impl Fn(&Range<usize>) -> bool,
    ) -> Vec<(Range<usize>, usize)> {
        let mut found: Vec<(Range<usize>, usize)> = self
            .automaton
            .find_overlapping_iter(text)
            .filter(|it| whole(&it.range()))
            .map(|it| (it.range(), self.entities[it.pattern().as_usize()]))
            .collect();
        found.sort_by_key(|(span, entity)| (span.start, Reverse(span.end), *entity));
        let mut kept: Vec<(Range<usize>, usize)> = Vec::new();
        for (span, entity) in found {
            if kept.last().is_none_or(|(last, _)| *last == span || span.start >= last.end) {
                kept.push((span, entity));
            }
        }
        kept
    }
}

/// A text with "l" as "i", byte for byte.
pub(super) fn fold(text: &str) -> String {
    text.replace('l', "i")
}

/// Whether neither end of a span cuts a run of letters and digits. "'s" may follow.
pub(super) fn is_whole(text: &str, span: Range<usize>) -> bool {
    let before = text.get(..span.start).and_then(|it| it.chars().next_back());
    let after = text.get(span.end..).and_then(|it| it.chars().next());
    !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
}
