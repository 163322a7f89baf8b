//! Names of entities, as whole words of every view of a text.

mod lexicon;
mod spellings;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::{Detector, DetectorError};
use crate::text::repeats::{is_drawn_out, shortened, single};
use crate::text::{
    FEWEST_JOINED, Joined, Normalised, Scattered, Shifted, Typos, closed, decode, normalise,
    respell,
};
use crate::types::{Entity, Evidence, Place, View};
use lexicon::{Lexicon, fold, is_whole};
use spellings::{Cut, cuts_of, letters, variants};

/// Bytes at the end of a text in which a name may begin that goes on in another.
const TAIL_BYTES: usize = 256;
/// Letters that a name must have to be found where chance or a missing space could make it up.
const FEWEST_LETTERS: usize = 6;
/// What each misspelt letter takes from the score.
const EDIT_COST: f32 = 0.1;

/// Finds names and their aliases.
#[derive(Debug)]
pub struct Names {
    exact: Lexicon,
    /// The same with "l" as "i": a "1" may stand for either.
    folded: Lexicon,
    /// The same with every letter once where it stands several times in a row.
    single: Lexicon,
    typos: Typos,
    scattered: Scattered,
    shifted: Shifted,
    /// Names cut between two words, by the word before the cut.
    cuts: HashMap<String, Vec<Cut>>,
    reach: usize,
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
            single: Lexicon::new(&patterns.iter().map(|it| (single(&it.0), it.1)).collect())?,
            exact: Lexicon::new(&patterns)?,
            typos: Typos::new(spellings.iter().map(|it| (it.0.as_str(), it.1))),
            scattered: Scattered::new(spellings.iter().map(|it| (it.0.as_str(), it.1))),
            shifted: Shifted::new(spellings.iter().map(|it| (it.0.as_str(), it.1)))?,
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

    /// Names with letters drawn out.
    fn drawn_out(&self, text: &str, view: &Normalised) -> Vec<(Range<usize>, usize)> {
        let Some(view) = shortened(view) else { return Vec::new() };
        let found = self.single.find(&view.text, |it| is_whole(&view.text, it.clone()));
        let spans = found.into_iter().map(|(span, entity)| (view.original_span(span), entity));
        let drawn = |span: &Range<usize>| {
            text.get(span.clone()).is_some_and(|it| is_drawn_out(&normalise(it).text))
        };
        spans.filter(|it| drawn(&it.0)).collect()
    }

    /// Names put together from quoted pieces: `"Vig" + "go Blaszko"`, `a = "Vig"; b = "go Blaszko"`.
    fn quoted(&self, text: &str, view: &Normalised) -> Vec<(Range<usize>, usize)> {
        let mut found = closed(view).map_or_else(Vec::new, |it| self.plain(&it));
        for joined in Joined::quoted(text) {
            let spans = self.pieced(&joined).into_iter();
            found.extend(spans.filter_map(|it| Some((joined.cover(&it.0)?, it.1))));
        }
        found
    }

    /// Names that lie in several pieces.
    fn pieced(&self, joined: &Joined) -> Vec<(Range<usize>, usize)> {
        let text = joined.text.as_str();
        let whole = |it: &Range<usize>| {
            let (from, to) = (is_whole(text, it.start..text.len()), is_whole(text, 0..it.end));
            (from || joined.is_edge(it.start)) && (to || joined.is_edge(it.end))
        };
        let found = self.exact.find(text, whole).into_iter();
        let long = found.filter(|it| {
            let name = text.get(it.0.clone()).unwrap_or_default();
            name.contains(' ') || letters(name) >= FEWEST_JOINED
        });
        long.filter(|it| joined.origins(&it.0).len() > 1).collect()
    }

    /// Names that are cut anywhere between one text and the next, or the one after that: a user's
    /// next text.
    fn glued(&self, texts: &[(Place, String)]) -> Vec<Evidence> {
        let mut found = Vec::new();
        for step in 1..=self.reach.min(2) {
            for first in 0..step {
                let every = texts.iter().enumerate().skip(first).step_by(step);
                let joined = Joined::of(every.map(|(at, (_, text))| (at, text.as_str())));
                for (span, entity) in self.pieced(&joined) {
                    found.extend(joined.origins(&span).into_iter().map(|(at, span)| {
                        self.evidence(texts[at].0, span, entity, View::Conversation)
                    }));
                }
            }
        }
        found
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
        seen.extend(as_evidence(self.drawn_out(text, &view), View::Respelled));
        seen.extend(as_evidence(self.quoted(text, &view), View::Respelled));
        seen.extend(self.misspelt(place, &view, &known));
        seen.extend(self.decoded(place, text));
        let shifted = self.shifted.find(&view.text).into_iter();
        let shifted = shifted.map(|it| (view.original_span(it.0), it.1)).collect();
        seen.extend(as_evidence(shifted, View::Decoded));
        // The sort is stable: of the same name in several views the first stays.
        seen.sort_by_key(|it| (it.span.start, Reverse(it.span.end), it.entity));
        seen.dedup_by(|it, kept| it.span == kept.span && it.entity == kept.entity);
        Ok(seen)
    }

    /// A name that begins at the end of one text and goes on in one of the next: anywhere in it when
    /// it is cut between words, else at its beginning.
    fn across(&self, texts: &[(Place, String)]) -> Vec<Evidence> {
        let mut seen = self.glued(texts);
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
                        let it = self.evidence(place, span, cut.entity, View::Conversation);
                        if !seen.contains(&it) {
                            seen.push(it);
                        }
                    }
                }
            }
        }
        seen
    }
}
