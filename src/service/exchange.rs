//! Facts that a prompt tells of a forgotten person, told with other values.
//!
//! A model that learnt a person's facts together is reminded of the others by some, whatever the name. So
//! where a treatment puts a surrogate in the name's place, listed values of the messages change too, and
//! back in the reply. All listed values do, true or not, so that whoever finds out which ones learns
//! nothing about the person; and into other ones for every other request, so that nobody who finds out
//! what stands for what can undo it in the next.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::stops::Letters;
use crate::seed::derive;
use crate::text::Values;
use crate::text::values::in_case_of;
use crate::types::{Evidence, Place, Request};
use crate::window::{Kind, Replacement};

/// What stands for each value of a request's messages, both as listed: no two have the same, and none has
/// itself.
pub(super) struct Exchange<'a> {
    values: Cow<'a, Values>,
    images: HashMap<usize, usize>,
    /// Messages, and what follows them, with other values.
    written: HashMap<Place, Written>,
}

/// Values in a text, each with the bytes that it takes there.
type Told = Vec<(Range<usize>, usize)>;

impl<'a> Exchange<'a> {
    /// The exchange for a request in which somebody is named; `None` without a value. `evidence` lies in its
    /// texts and in `continuation`; no value is exchanged that has a part of it.
    pub(super) fn of<'e>(
        values: Cow<'a, Values>,
        request: &Request,
        continuation: Option<&str>,
        evidence: impl Iterator<Item = &'e Evidence>,
        seed: u64,
    ) -> Option<Self> {
        let mut seen: HashMap<Place, Vec<&Evidence>> = HashMap::new();
        for it in evidence {
            seen.entry(it.place).or_default().push(it);
        }
        let free = |place: Place, found: Told| -> Told {
            let covered = Covered::new(seen.get(&place).into_iter().flatten().copied());
            found.into_iter().filter(|it| covered.leaves(&it.0)).collect()
        };
        let (texts, messages) = (request.texts(), request.input.texts());
        let (mut told, mut known, mut found) = (Vec::new(), HashSet::new(), Vec::new());
        for (index, text) in messages.iter().copied().enumerate() {
            let place = Place::Text(index);
            let here = free(place, values.find(text));
            told.extend(here.iter().map(|it| it.1).filter(|it| known.insert(*it)));
            found.push((place, text, here));
        }
        if told.is_empty() {
            return None;
        }
        // What stays as it is must not become the image of something else.
        let said = texts.iter().skip(messages.len()).flat_map(|it| values.find(it));
        let mut others: HashSet<usize> = said.map(|it| it.1).collect();
        if let Some(text) = continuation {
            let here = values.find(text);
            others.extend(here.iter().map(|it| it.1));
            found.push((Place::Continuation, text, free(Place::Continuation, here)));
        }
        let images = images(&values, &told, &others, derive(seed, texts.join("\0").as_bytes()));
        let written = |(place, text, found): (Place, &str, Told)| {
            (place, Written::new(text, found, |it| Some(values.text(*images.get(&it)?))))
        };
        let written = found.into_iter().map(written).collect();
        Some(Self { values, images, written })
    }

    /// A message, or what follows them, with other values.
    pub(super) fn text(&self, place: Place) -> Option<&str> {
        self.written.get(&place).map(|it| it.text.as_str())
    }

    /// Evidence of the client's text, in the text with other values.
    pub(super) fn moved(&self, evidence: &Evidence) -> Evidence {
        let mut moved = evidence.clone();
        if let Some(written) = self.written.get(&evidence.place) {
            moved.span = written.at(evidence.span.start)..written.at(evidence.span.end);
        }
        moved
    }

    /// What turns the values back in a reply.
    pub(super) fn restored(&self) -> Vec<Replacement> {
        let mut pairs: Vec<_> = self.images.iter().map(|it| (*it.0, *it.1)).collect();
        pairs.sort_unstable();
        let of = |(value, image): (usize, usize)| Replacement {
            pattern: self.values.text(image).to_owned(),
            with: self.values.text(value).to_owned(),
            kind: Kind::RestoreWord,
        };
        pairs.into_iter().map(of).collect()
    }

    /// A stop text as the model has to meet it; `None` for one that would end a reply within what stands
    /// for a value, or that the client can never read.
    pub(super) fn stop(&self, stop: &str) -> Option<String> {
        let stands = |it: &usize| self.images.values().any(|image| image == it);
        let told = self.values.find(stop).into_iter();
        let (told, others): (Told, Told) = told.partition(|it| self.images.contains_key(&it.1));
        if others.iter().any(|it| stands(&it.1)) {
            return None;
        }
        let letters = Letters::of(stop);
        let within = |it: &usize| Letters::of(self.values.text(*it)).contain(&letters);
        if told.is_empty() && letters.tell() && self.images.values().any(within) {
            return None;
        }
        Some(Written::new(stop, told, |it| Some(self.values.text(*self.images.get(&it)?))).text)
    }
}

/// Each value's image: another one of its kind, which nothing in the request says as long as there is one.
/// Where too much of a kind is said, the next of the whole kind.
fn images(
    values: &Values,
    told: &[usize],
    others: &HashSet<usize>,
    seed: u64,
) -> HashMap<usize, usize> {
    let all: HashSet<usize> = told.iter().copied().collect();
    let mut images = HashMap::with_capacity(told.len());
    for first in told {
        if images.contains_key(first) {
            continue;
        }
        let mut kin: Vec<usize> = values.kin(*first).collect();
        kin.sort_by_cached_key(|it| (derive(seed, values.text(*it).as_bytes()), *it));
        let (own, free): (Vec<usize>, Vec<usize>) = kin.iter().partition(|it| all.contains(it));
        let unsaid: Vec<usize> = free.iter().copied().filter(|it| !others.contains(it)).collect();
        let free = if own.len() <= unsaid.len() { unsaid } else { free };
        if own.len() <= free.len() {
            images.extend(own.into_iter().zip(free));
        } else if kin.len() > 1 {
            let next = kin.iter().cycle().skip(1);
            let turned = kin.iter().zip(next).map(|it| (*it.0, *it.1));
            images.extend(turned.filter(|it| all.contains(&it.0)));
        }
    }
    images
}

/// A text with other values.
struct Written {
    text: String,
    /// Where each value ended, and where its image ends.
    ends: Vec<(usize, usize)>,
}

impl Written {
    /// Writes the image of every value that has one.
    fn new<'v>(text: &str, told: Told, image: impl Fn(usize) -> Option<&'v str>) -> Self {
        let (mut out, mut done, mut ends) = (String::with_capacity(text.len()), 0, Vec::new());
        for (span, value) in told {
            let parts = (text.get(done..span.start), text.get(span.clone()));
            let (Some(image), (Some(before), Some(written))) = (image(value), parts) else {
                continue;
            };
            out.push_str(before);
            out.push_str(&in_case_of(image, written));
            done = span.end;
            ends.push((done, out.len()));
        }
        out.push_str(text.get(done..).unwrap_or_default());
        Self { text: out, ends }
    }

    /// Where a byte of the text before lies, that is not within a value.
    fn at(&self, byte: usize) -> usize {
        match self.ends.partition_point(|it| it.0 <= byte).checked_sub(1) {
            None => byte,
            Some(last) => self.ends[last].1 + byte - self.ends[last].0,
        }
    }
}

/// Where evidence lies in a text: names, which no value may touch, and other spans, at whose ends none may lie.
struct Covered {
    /// Names and ends of other spans by where they begin, with the furthest end up to each.
    spans: Vec<(usize, usize)>,
}

impl Covered {
    fn new<'e>(evidence: impl Iterator<Item = &'e Evidence>) -> Self {
        let mut spans: Vec<Range<usize>> = Vec::new();
        for it in evidence.filter(|it| !it.span.is_empty()) {
            if it.entity.is_some() {
                spans.push(it.span.clone());
            } else {
                // A value that begins before an end and ends after it has the bytes on both sides.
                spans.extend([it.span.start, it.span.end].map(|at| at..at));
            }
        }
        spans.sort_by_key(|it| (it.start, it.end));
        let mut furthest = 0;
        let reach = |it: Range<usize>| {
            furthest = it.end.max(furthest);
            (it.start, furthest)
        };
        Self { spans: spans.into_iter().map(reach).collect() }
    }

    fn leaves(&self, value: &Range<usize>) -> bool {
        let before = self.spans.partition_point(|it| it.0 < value.end);
        before.checked_sub(1).is_none_or(|it| self.spans[it].1 <= value.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Input, View};

    const CITIES: [&str; 5] = ["Antwerp", "Turin", "Gdansk", "Lyon", "Porto"];

    fn values() -> Values {
        let cities = CITIES.map(str::to_owned);
        let jobs = ["miner".to_owned(), "baker".to_owned()];
        Values::new([cities.as_slice(), jobs.as_slice(), &["raven".to_owned()]])
    }

    fn seen(place: Place, span: Range<usize>, entity: Option<usize>) -> Evidence {
        Evidence { detector: "names", score: 1.0, place, span, view: View::Raw, entity }
    }

    fn request(text: &str) -> Request {
        Request::new("m", Input::Text(text.to_owned()))
    }

    fn exchange<'a>(text: &str, evidence: &[Evidence]) -> Option<Exchange<'a>> {
        Exchange::of(Cow::Owned(values()), &request(text), None, evidence.iter(), 7)
    }

    /// What a text becomes, and what its evidence covers then.
    fn told(text: &str, evidence: &[Evidence]) -> (String, Vec<String>) {
        let exchange = exchange(text, evidence).unwrap();
        let out = exchange.text(Place::Text(0)).unwrap();
        let under = |it: &Evidence| out.get(exchange.moved(it).span).unwrap().to_owned();
        (out.to_owned(), evidence.iter().map(under).collect())
    }

    #[test]
    fn values_become_others_of_their_kind_that_nobody_told() {
        for (text, cities) in [("Lyon", 1), ("Lyon, Porto, a miner", 2)] {
            let exchange = exchange(text, &[]).unwrap();
            let read: Vec<String> = exchange.restored().into_iter().map(|it| it.pattern).collect();
            let free = |it: &&String| CITIES.contains(&it.as_str()) && !text.contains(it.as_str());
            assert_eq!(read.iter().filter(free).collect::<HashSet<_>>().len(), cities, "{read:?}");
            assert_eq!(read.contains(&"baker".to_owned()), text.contains("miner"));
        }
        // More than half of a kind: still one image each, and none its own.
        for told in [&CITIES[..3], &CITIES[1..], &CITIES] {
            let pairs = exchange(&told.join(" "), &[]).unwrap().restored();
            assert!(pairs.iter().all(|it| it.pattern != it.with), "{pairs:?}");
            let images: HashSet<&str> = pairs.iter().map(|it| it.pattern.as_str()).collect();
            assert_eq!((images.len(), pairs.len()), (told.len(), told.len()));
        }
        assert!(exchange("Nowhere.", &[]).is_none());
        assert!(exchange("A raven.", &[]).unwrap().restored().is_empty(), "it has no other");
    }

    #[test]
    fn another_request_has_other_images() {
        let image = |text: &str| exchange(text, &[]).unwrap().restored().remove(0).pattern;
        let first = image("Lyon");
        assert_eq!(first, image("Lyon"));
        assert!((0..20).any(|it| image(&format!("Lyon {it}")) != first));
    }

    #[test]
    fn names_stay_and_evidence_moves_along() {
        let place = Place::Text(0);
        let text = "A miner, Ann Lyon, miner. Ann Lyon!";
        let evidence = [
            seen(place, 9..17, Some(0)),
            seen(place, 26..34, Some(0)),
            seen(place, 2..24, None),
            seen(place, 0..35, None),
        ];
        let (out, under) = told(text, &evidence);
        assert_eq!(out, "A baker, Ann Lyon, baker. Ann Lyon!");
        assert_eq!(under, ["Ann Lyon", "Ann Lyon", "baker, Ann Lyon, baker", out.as_str()]);
        // A span that ends within a value would come to lie elsewhere.
        let evidence = [seen(place, 0..4, None), seen(place, 0..0, Some(0))];
        assert!(exchange("A miner", &evidence).is_none());
        let long = "In Lyon: \u{e9}, Lyon";
        let (out, under) = told(long, &[seen(place, 9..11, Some(0))]);
        assert_eq!((out.contains("Lyon"), under[0].as_str()), (false, "\u{e9}"));
    }

    /// In what is scored only what the messages tell is another value.
    #[test]
    fn a_continuation_says_what_the_model_has_read() {
        let of = |told: &str, said: &str, evidence: &[Evidence], seed| {
            let values = Cow::Owned(values());
            Exchange::of(values, &request(told), Some(said), evidence.iter(), seed).unwrap()
        };
        let name = seen(Place::Continuation, 15..19, Some(0));
        let exchange = of("A miner.", "The MINER from Lyon", std::slice::from_ref(&name), 7);
        assert_eq!(exchange.text(Place::Continuation), Some("The BAKER from Lyon"));
        assert_eq!(exchange.moved(&name).span, 15..19);
        // What it says beside that is nobody's image.
        let said = CITIES[1..4].join(", ");
        for seed in 0..20 {
            let exchange = of(CITIES[0], &said, &[], seed);
            assert_eq!(exchange.restored()[0].pattern, CITIES[4]);
        }
    }

    #[test]
    fn stop_texts_are_those_that_the_model_meets() {
        let exchange = exchange("A miner.", &[]).unwrap();
        let rows = [
            ("miner.", Some("baker.")),
            ("the baker", None),
            ("Lyon", Some("Lyon")),
            ("\n", Some("\n")),
            ("determiner", Some("determiner")),
            ("bake", None),
            ("a", Some("a")),
        ];
        for (stop, want) in rows {
            assert_eq!(exchange.stop(stop).as_deref(), want, "{stop}");
        }
    }
}
