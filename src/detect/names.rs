//! Names of entities, as whole words of every view of a text.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Detector, DetectorError};
use crate::text::{Normalised, Scattered, Typos, decode, normalise, respell};
use crate::types::{Entity, Evidence, Place, View};

/// Bytes at the end of a text in which a name may begin that goes on in another.
const TAIL_BYTES: usize = 256;
/// Letters that a name must have to be found where chance or a missing space could make it up.
const FEWEST_LETTERS: usize = 6;
/// Letters from which on a name is also found with its words run together.
const FEWEST_JOINED: usize = 8;
/// What each misspelt letter takes from the score.
const EDIT_COST: f32 = 0.1;

/// Finds names and their aliases.
#[derive(Debug)]
pub struct Names {
    exact: Lexicon,
    /// The same with "l" as "i": a "1" may stand for either.
    folded: Lexicon,
    typos: Typos,
    scattered: Scattered,
    /// Names cut between two words, by the word before the cut.
    cuts: HashMap<String, Vec<Cut>>,
    reach: usize,
}

#[derive(Debug)]
struct Lexicon {
    automaton: AhoCorasick,
    /// The entity of each pattern.
    entities: Vec<usize>,
}

#[derive(Debug)]
struct Cut {
    head: String,
    rest: String,
    entity: usize,
}

impl Names {
    /// A detector of the spellings of entities. Names of several words are also found written as
    /// one and misspelt (see [`Typos`]), those of two words as "Last, First" and "F. Last" too. A
    /// name that begins at the end of one text may end in one of the `reach` texts after it.
    ///
    /// # Errors
    ///
    /// [`DetectorError::EmptyName`], or [`DetectorError::Search`] for gigabytes of names.
    pub fn new(entities: &[Entity], reach: usize) -> Result<Self, DetectorError> {
        let mut spellings = BTreeSet::new();
        for (entity, it) in entities.iter().enumerate() {
            for spelling in it.spellings() {
                let pattern = normalise(spelling).text.trim().to_owned();
                if !pattern.chars().any(char::is_alphanumeric) {
                    return Err(DetectorError::EmptyName { entity, name: spelling.to_owned() });
                }
                spellings.insert((pattern, entity));
            }
        }
        let other = |(name, entity): &(String, usize)| {
            let entity = *entity;
            variants(name).into_iter().map(move |it| (it, entity))
        };
        let patterns: BTreeSet<(String, usize)> =
            spellings.iter().flat_map(other).chain(spellings.iter().cloned()).collect();
        let mut cuts: HashMap<String, Vec<Cut>> = HashMap::new();
        for (name, entity) in &spellings {
            for (word, cut) in cuts_of(name, *entity) {
                cuts.entry(word).or_default().push(cut);
            }
        }
        Ok(Self {
            folded: Lexicon::new(&patterns.iter().map(|it| (fold(&it.0), it.1)).collect())?,
            exact: Lexicon::new(&patterns)?,
            typos: Typos::new(spellings.iter().map(|it| (it.0.as_str(), it.1))),
            scattered: Scattered::new(spellings.iter().map(|it| (it.0.as_str(), it.1))),
            cuts,
            reach,
        })
    }

    fn evidence(&self, place: Place, span: Range<usize>, entity: usize, view: View) -> Evidence {
        let (detector, entity) = (self.name(), Some(entity));
        Evidence { detector, score: 1.0, place, span, view, entity }
    }

    /// Spans of `text` with the entities that they name.
    fn plain(&self, view: &Normalised) -> Vec<(Range<usize>, usize)> {
        let found = self.exact.find(&view.text, |it| is_whole(&view.text, it.clone()));
        found.into_iter().map(|(span, entity)| (view.original_span(span), entity)).collect()
    }

    /// The same with digits for letters, and letters written one by one: there a name may begin and
    /// end wherever a word of the original does.
    fn respelled(&self, text: &str, view: &Normalised) -> Vec<(Range<usize>, usize)> {
        let Some(view) = respell(view) else { return Vec::new() };
        let folded = fold(&view.text);
        let whole = |it: &Range<usize>| {
            let apart = || is_whole(text, view.original_span(it.clone()));
            is_whole(&folded, it.clone()) || it.len() >= FEWEST_LETTERS && apart()
        };
        let found = self.folded.find(&folded, whole);
        found.into_iter().map(|(span, entity)| (view.original_span(span), entity)).collect()
    }

    /// Misspelt names, as far as no name is at their place.
    fn misspelt(&self, place: Place, view: &Normalised, known: &[Range<usize>]) -> Vec<Evidence> {
        let mut found = Vec::new();
        for it in self.typos.find(&view.text) {
            let span = view.original_span(it.span);
            let next = known.partition_point(|name| name.end <= span.start);
            if known.get(next).is_none_or(|name| name.start >= span.end) {
                let score = 1.0 - EDIT_COST * it.edits.min(4) as f32;
                found.push(Evidence {
                    score,
                    ..self.evidence(place, span, it.id, View::Normalised)
                });
            }
        }
        found
    }

    /// Names in what the text says once decoded. What could not be read counts as seen.
    fn decoded(&self, place: Place, text: &str) -> Vec<Evidence> {
        let decodings = decode(text);
        let mut found = Vec::new();
        for view in &decodings.views {
            let normalised = normalise(&view.text);
            let mut names = self.plain(&normalised);
            if !view.turned {
                names.extend(self.respelled(&view.text, &normalised));
            }
            for (span, entity) in names {
                let by_chance = view.turned && span.len() < FEWEST_LETTERS;
                if view.is_decoded(&span) && !by_chance {
                    let span = view.original_span(span);
                    found.push(self.evidence(place, span, entity, View::Decoded));
                }
            }
        }
        for span in decodings.unread {
            let unread = self.evidence(place, span, 0, View::Decoded);
            found.push(Evidence { entity: None, ..unread });
        }
        found
    }

    /// Names that begin at the very end of a text.
    fn begun(&self, text: &str) -> Vec<(Range<usize>, &Cut)> {
        let start = text.floor_char_boundary(text.len().saturating_sub(TAIL_BYTES));
        let view = normalise(text.get(start..).unwrap_or_default());
        let tail = view.text.trim_end_matches(|it: char| !it.is_alphanumeric());
        let word = tail.rsplit(|it: char| !it.is_alphanumeric()).next().unwrap_or_default();
        let cuts = self.cuts.get(word).into_iter().flatten();
        let at_end = cuts.filter_map(|cut| {
            let span = tail.len().checked_sub(cut.head.len())?..tail.len();
            let ends = tail.ends_with(&cut.head) && is_whole(tail, span.clone());
            let span = view.original_span(span);
            ends.then_some((start + span.start..start + span.end, cut))
        });
        at_end.collect()
    }
}

impl Lexicon {
    fn new(patterns: &BTreeSet<(String, usize)>) -> Result<Self, DetectorError> {
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(patterns.iter().map(|it| &it.0))?;
        Ok(Self { automaton, entities: patterns.iter().map(|it| it.1).collect() })
    }

    /// Leftmost-longest matches among those that are whole words, as `(span, entity)`. An automaton
    /// of that kind would lose "Ann" in "Ann Leeward" to a longer "Ann Lee" that is no whole word.
    /// Entities that share a spelling are all reported.
    fn find(
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

impl Detector for Names {
    fn name(&self) -> &'static str {
        "names"
    }

    fn inspect(&self, place: Place, text: &str) -> Result<Vec<Evidence>, DetectorError> {
        let view = normalise(text);
        let plain = self.plain(&view);
        let known: Vec<Range<usize>> = plain.iter().map(|it| it.0.clone()).collect();
        let as_evidence = |names: Vec<(Range<usize>, usize)>, view| -> Vec<Evidence> {
            names.into_iter().map(|it| self.evidence(place, it.0, it.1, view)).collect()
        };
        let mut seen = as_evidence(plain, View::Normalised);
        seen.extend(as_evidence(self.respelled(text, &view), View::Respelled));
        let scattered = self.scattered.find(&view.text).into_iter();
        let scattered = scattered.map(|it| (view.original_span(it.0), it.1)).collect();
        seen.extend(as_evidence(scattered, View::Respelled));
        seen.extend(self.misspelt(place, &view, &known));
        seen.extend(self.decoded(place, text));
        // The sort is stable: of the same name in several views the first stays.
        seen.sort_by_key(|it| (it.span.start, Reverse(it.span.end), it.entity));
        seen.dedup_by(|it, kept| it.span == kept.span && it.entity == kept.entity);
        Ok(seen)
    }

    /// A name that begins at the end of one text and goes on in one of the next.
    fn across(&self, texts: &[(Place, String)]) -> Vec<Evidence> {
        let mut seen = Vec::new();
        for (at, (place, text)) in texts.iter().enumerate() {
            for (span, cut) in self.begun(text) {
                for (next, text) in texts.iter().skip(at + 1).take(self.reach) {
                    let view = normalise(text);
                    let mut rests = view.text.match_indices(&cut.rest);
                    let whole = |(start, it): (usize, &str)| {
                        let rest = start..start + it.len();
                        is_whole(&view.text, rest.clone()).then_some(rest)
                    };
                    let Some(rest) = rests.find_map(whole) else { continue };
                    let rest = view.original_span(rest);
                    for (place, span) in [(*place, span.clone()), (*next, rest)] {
                        seen.push(self.evidence(place, span, cut.entity, View::Conversation));
                    }
                }
            }
        }
        seen
    }
}

/// A name of several words with its words run together or linked, and one of two words with the
/// last one first.
#[must_use]
pub fn other_orders(name: &str) -> Vec<String> {
    let words: Vec<&str> = name.split(' ').collect();
    let mut out = Vec::new();
    let letters = name.chars().filter(|it| it.is_alphanumeric()).count();
    if words.len() > 1 && letters >= FEWEST_JOINED {
        out.extend(["", "_", "-", ".", "+"].map(|it| words.join(it)));
    }
    if let [first, last] = words[..] {
        out.push(format!("{last}, {first}"));
    }
    out
}

/// Other ways to write a normalised name of several words.
fn variants(name: &str) -> Vec<String> {
    let words: Vec<&str> = name.split(' ').collect();
    let mut out = other_orders(name);
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

/// Every way to cut a name between two words, with the word before the cut.
fn cuts_of(name: &str, entity: usize) -> Vec<(String, Cut)> {
    let cut = |(at, _): (usize, &str)| {
        let (head, rest) = name.split_at_checked(at)?;
        let word = head.rsplit(|it: char| !it.is_alphanumeric()).next()?;
        let (head, rest) = (head.to_owned(), rest.trim_start().to_owned());
        // An initial ends too many texts.
        let letters = rest.chars().filter(|it| it.is_alphanumeric()).count();
        (letters > 1 && word.chars().count() > 1)
            .then(|| (word.to_owned(), Cut { head, rest, entity }))
    };
    name.match_indices(' ').filter_map(cut).collect()
}

/// A text with "l" as "i", byte for byte.
fn fold(text: &str) -> String {
    text.replace('l', "i")
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

    fn entity(name: &str, aliases: &[&str]) -> Entity {
        Entity {
            name: name.to_owned(),
            aliases: aliases.iter().map(|it| (*it).to_owned()).collect(),
            surrogate: String::new(),
        }
    }

    fn names() -> Names {
        reaching(2)
    }

    fn reaching(reach: usize) -> Names {
        let entities = [
            entity("Basil Mahfouz", &["BMK"]),
            entity("Ann Lee", &["Ann"]),
            entity("Jörg Groß-Weiß", &[]),
        ];
        Names::new(&entities, reach).unwrap()
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
    fn finds_names_in_other_spellings() {
        check("b@sil M4hf0uz", &[("b@sil M4hf0uz", 0)]);
        check("8asi1 Mahfouz", &[("8asi1 Mahfouz", 0)]);
        check("a B a s i l M a h f o u z b", &[("B a s i l M a h f o u z", 0)]);
        check("B-a-s-i-l M.a.h.f.o.u.z", &[("B-a-s-i-l M.a.h.f.o.u.z", 0)]);
        check("#BasilMahfouz, basil_mahfouz", &[("BasilMahfouz", 0), ("basil_mahfouz", 0)]);
        check("B.Mahfouz", &[("B.Mahfouz", 0)]);
        check("a n n a b e l", &[]);
    }

    #[test]
    fn finds_misspelt_names_but_no_others() {
        check("Bazil Mahfouz's, Basil Mafouz", &[("Bazil Mahfouz", 0), ("Basil Mafouz", 0)]);
        check("Basil Okafor, Odette Mahfouz; Basil, Mahfouz", &[]);
        let seen = names().inspect(Place::Text(0), "Bazil Mahfouz").unwrap();
        assert!((seen[0].score - 0.9).abs() < 1e-6, "{seen:?}");
    }

    #[test]
    fn finds_names_in_encodings() {
        check("who? QmFzaWwgTWFoZm91eg== !", &[("QmFzaWwgTWFoZm91eg==", 0)]);
        check("Basil 4d6168666f757a", &[("Basil 4d6168666f757a", 0)]);
        check("Onfvy Znusbhm", &[("Onfvy Znusbhm", 0)]);
        check("zuofhaM lisaB", &[("zuofhaM lisaB", 0)]);
        // Three letters under rot13 are chance.
        check("OZX", &[]);
    }

    #[test]
    fn what_is_not_decoded_counts_as_seen() {
        let text = "QSBzdG9yeS4g".repeat(10_000);
        let seen = names().inspect(Place::Text(0), &text).unwrap();
        assert_eq!((seen.len(), seen[0].entity, seen[0].span.clone()), (1, None, 0..text.len()));
    }

    #[test]
    fn finds_a_name_over_several_messages() {
        let across = |names: &Names, texts: &[&str]| -> Vec<(Place, Range<usize>)> {
            let places = texts.iter().enumerate();
            let texts: Vec<(Place, String)> =
                places.map(|(at, it)| (Place::Text(at), (*it).to_owned())).collect();
            names.across(&texts).into_iter().map(|it| (it.place, it.span)).collect()
        };
        let both = |last: usize, rest: Range<usize>| {
            vec![(Place::Text(0), 16..21), (Place::Text(last), rest)]
        };
        let first = "His first name: Basil.";
        assert_eq!(across(&names(), &[first, "It is Mahfouz!"]), both(1, 6..13));
        assert_eq!(across(&names(), &[first, "Go on.", "Mahfouz"]), both(2, 0..7));
        assert!(across(&names(), &[first, "a", "b", "Mahfouz"]).is_empty());
        assert_eq!(across(&reaching(3), &[first, "a", "b", "Mahfouz"]), both(3, 0..7));
        assert_eq!(across(&reaching(1), &[first, "Mahfouz"]), both(1, 0..7));
        assert!(across(&reaching(1), &[first, "Go on.", "Mahfouz"]).is_empty());
        assert!(across(&reaching(0), &[first, "Mahfouz"]).is_empty());
        assert!(across(&names(), &[first, "Mahfouzian"]).is_empty());
        assert!(across(&names(), &["Basil is a herb", "Mahfouz"]).is_empty());
    }

    #[test]
    fn a_name_without_letters_is_refused() {
        let error = Names::new(&[entity("\u{200B}…", &[])], 2).unwrap_err();
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
