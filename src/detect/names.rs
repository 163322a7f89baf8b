//! Names of entities, as whole words of the normalised text.

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Detector, DetectorError};
use crate::text::{Normalised, normalise};
use crate::types::{Evidence, Place, View};

/// Finds names and their aliases.
#[derive(Debug)]
pub struct Names {
    automaton: AhoCorasick,
    /// The entity of each pattern.
    entities: Vec<usize>,
}

impl Names {
    /// A detector of `(name, aliases)` per entity. Names of two words are also found as
    /// "Last, First" and "F. Last".
    ///
    /// # Errors
    ///
    /// [`DetectorError::EmptyName`], or [`DetectorError::Search`] for gigabytes of names.
    pub fn new(entities: &[(String, Vec<String>)]) -> Result<Self, DetectorError> {
        let mut patterns = BTreeSet::new();
        for (entity, (name, aliases)) in entities.iter().enumerate() {
            for spelling in [name].into_iter().chain(aliases) {
                let pattern = normalise(spelling).text.trim().to_owned();
                if !pattern.chars().any(char::is_alphanumeric) {
                    return Err(DetectorError::EmptyName { entity, name: spelling.clone() });
                }
                patterns.extend(variants(&pattern).into_iter().map(|it| (it, entity)));
                patterns.insert((pattern, entity));
            }
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(patterns.iter().map(|it| &it.0))?;
        Ok(Self { automaton, entities: patterns.into_iter().map(|it| it.1).collect() })
    }

    /// Leftmost-longest matches among those that are whole words, as `(span, entity)`. An automaton
    /// of that kind would lose "Ann" in "Ann Leeward" to a longer "Ann Lee" that is no whole word.
    /// Entities that share a spelling are all reported.
    fn matches(&self, text: &str) -> Vec<(Range<usize>, usize)> {
        let mut found: Vec<(Range<usize>, usize)> = self
            .automaton
            .find_overlapping_iter(text)
            .filter(|it| is_whole(text, it.range()))
            .map(|it| (it.range(), self.entities[it.pattern().as_usize()]))
            .collect();
        found.sort_by_key(|(span, entity)| (span.start, std::cmp::Reverse(span.end), *entity));
        let mut kept: Vec<(Range<usize>, usize)> = Vec::new();
        for (span, entity) in found {
            if kept.last().is_none_or(|(last, _)| *last == span || span.start >= last.end) {
                kept.push((span, entity));
            }
        }
        kept
    }

    fn evidence(&self, place: Place, view: &Normalised) -> Vec<Evidence> {
        let evidence = |(span, entity)| Evidence {
            detector: self.name(),
            score: 1.0,
            place,
            span: view.original_span(span),
            view: View::Normalised,
            entity: Some(entity),
        };
        self.matches(&view.text).into_iter().map(evidence).collect()
    }
}

impl Detector for Names {
    fn name(&self) -> &'static str {
        "names"
    }

    fn inspect(&self, place: Place, text: &str) -> Result<Vec<Evidence>, DetectorError> {
        Ok(self.evidence(place, &normalise(text)))
    }
}

/// Other ways to write a name of two words.
fn variants(name: &str) -> Vec<String> {
    let mut words = name.split(' ');
    let (Some(first), Some(last), None) = (words.next(), words.next(), words.next()) else {
        return Vec::new();
    };
    let initial = first.chars().next().map(|it| format!("{it}. {last}"));
    [Some(format!("{last}, {first}")), initial].into_iter().flatten().collect()
}

/// Whether neither end of a span cuts a run of letters and digits. "'s" may follow.
fn is_whole(text: &str, span: Range<usize>) -> bool {
    let before = text.get(..span.start).and_then(|it| it.chars().next_back());
    let after = text.get(span.end..).and_then(|it| it.chars().next());
    !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let entity = |name: &str, aliases: &[&str]| {
            (name.to_owned(), aliases.iter().map(|it| (*it).to_owned()).collect())
        };
        Names::new(&[
            entity("Basil Mahfouz", &["BMK"]),
            entity("Ann Lee", &["Ann"]),
            entity("Jörg Groß-Weiß", &[]),
        ])
        .unwrap()
    }

    /// The spans as text, with their entities.
    #[track_caller]
    fn check(text: &str, want: &[(&str, usize)]) {
        let seen = names().inspect(Place::Text(0), text).unwrap();
        let seen: Vec<(&str, usize)> = seen
            .iter()
            .map(|it| (text.get(it.span.clone()).unwrap(), it.entity.unwrap()))
            .collect();
        assert_eq!(seen, want, "{text}");
    }

    #[test]
    fn finds_whole_names_in_every_spelling() {
        check("Is BASIL  mahfouz’s book out?", &[("BASIL  mahfouz", 0)]);
        check("Mahfouz, Basil and B. Mahfouz", &[("Mahfouz, Basil", 0), ("B. Mahfouz", 0)]);
        check("Ваsіl Mah\u{200B}fouz", &[("Ваsіl Mah\u{200B}fouz", 0)]);
        check("by Jorg Groß-Weiß.", &[("Jorg Groß-Weiß", 2)]);
        check("bmk, BMK2", &[("bmk", 0)]);
    }

    #[test]
    fn a_part_of_a_word_is_no_name() {
        check("Annabel, Joann Lee", &[]);
        check("Ann Leeward met Ann Lee", &[("Ann", 1), ("Ann Lee", 1)]);
        check("", &[]);
    }

    #[test]
    fn a_name_without_letters_is_refused() {
        let error = Names::new(&[("\u{200B}…".to_owned(), vec![])]).unwrap_err();
        assert!(error.to_string().contains("entity 0"), "{error}");
    }

    #[test]
    fn reads_a_long_text_to_its_end() {
        let text = "ann le ".repeat(30_000) + "Basil Mahfouz";
        let seen = names().inspect(Place::Continuation, &text).unwrap();
        assert_eq!(seen.len(), 30_001);
        assert_eq!(seen.last().unwrap().span, text.len() - 13..text.len());
    }
}
