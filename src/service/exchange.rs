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

use super::plan::{TELLING_LETTERS, letters};
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
}

/// Evidence in each text.
pub(super) type ByPlace<'e> = HashMap<Place, Vec<&'e mut Evidence>>;

impl<'a> Exchange<'a> {
    /// The exchange for a request in which somebody is named; `None` without a value. `evidence` lies in its
    /// texts and in `continuation`.
    pub(super) fn of(
        values: Cow<'a, Values>,
        request: &Request,
        continuation: Option<&str>,
        evidence: &ByPlace<'_>,
        seed: u64,
    ) -> Option<Self> {
        let (mut told, mut known) = (Vec::new(), HashSet::new());
        let messages = request.input.texts();
        for (index, text) in messages.iter().enumerate() {
            let covered = Covered::new(evidence.get(&Place::Text(index)));
            let free = values.find(text).into_iter().filter(|it| covered.leaves(&it.0));
            told.extend(free.map(|it| it.1).filter(|it| known.insert(*it)));
        }
        if told.is_empty() {
            return None;
        }
        let texts = request.texts();
        // What stays as it is must not become the image of something else.
        let others = texts.iter().skip(messages.len()).copied().chain(continuation);
        let others = others.flat_map(|it| values.find(it)).map(|it| it.1).collect();
        let images = images(&values, &told, &others, derive(seed, texts.join("\0").as_bytes()));
        Some(Self { values, images })
    }

    /// Writes a text with other values, as far as none of its evidence lies in them, and moves the evidence
    /// along.
    pub(super) fn apply(&self, text: &mut String, evidence: Option<&mut Vec<&mut Evidence>>) {
        let covered = Covered::new(evidence.as_deref());
        let (mut out, mut done, mut moved) = (String::with_capacity(text.len()), 0, Vec::new());
        for (span, value) in self.values.find(text) {
            let image = self.images.get(&value).filter(|_| covered.leaves(&span));
            let parts = (text.get(done..span.start), text.get(span.clone()));
            let (Some(image), (Some(before), Some(written))) = (image, parts) else { continue };
            out.push_str(before);
            out.push_str(&in_case_of(self.values.text(*image), written));
            done = span.end;
            moved.push((span.end, out.len()));
        }
        out.push_str(text.get(done..).unwrap_or_default());
        for it in evidence.into_iter().flatten() {
            let to = |at: usize| match moved.partition_point(|it| it.0 <= at).checked_sub(1) {
                None => at,
                Some(last) => moved[last].1 + at - moved[last].0,
            };
            it.span = to(it.span.start)..to(it.span.end);
        }
        *text = out;
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
        let (mut out, mut done) = (String::new(), 0);
        for (span, value) in self.values.find(stop) {
            match self.images.get(&value) {
                Some(image) => {
                    out.push_str(stop.get(done..span.start)?);
                    out.push_str(&in_case_of(self.values.text(*image), stop.get(span.clone())?));
                    done = span.end;
                }
                None if self.images.values().any(|it| *it == value) => return None,
                None => {}
            }
        }
        let rest = stop.get(done..)?;
        if done == 0 && letters(stop).chars().count() >= TELLING_LETTERS {
            let stop = letters(stop);
            let within = |it: &usize| letters(self.values.text(*it)).contains(&stop);
            if self.images.values().any(within) {
                return None;
            }
        }
        out.push_str(rest);
        Some(out)
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

/// Where evidence lies in a text: names, which no value may touch, and other spans, at whose ends none may lie.
struct Covered {
    /// Names and ends of other spans by where they begin, with the furthest end up to each.
    spans: Vec<(usize, usize)>,
}

impl Covered {
    fn new(evidence: Option<&Vec<&mut Evidence>>) -> Self {
        let mut spans: Vec<Range<usize>> = Vec::new();
        for it in evidence.into_iter().flatten().filter(|it| !it.span.is_empty()) {
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

    fn exchange<'a>(text: &str, evidence: &mut [Evidence]) -> Option<Exchange<'a>> {
        let at = HashMap::from([(Place::Text(0), evidence.iter_mut().collect())]);
        Exchange::of(Cow::Owned(values()), &request(text), None, &at, 7)
    }

    /// What a text becomes, and where its evidence lies then.
    fn told(text: &str, mut evidence: Vec<Evidence>) -> (String, Vec<String>) {
        let exchange = exchange(text, &mut evidence).unwrap();
        let mut out = text.to_owned();
        exchange.apply(&mut out, Some(&mut evidence.iter_mut().collect()));
        let under = evidence.iter().map(|it| out.get(it.span.clone()).unwrap().to_owned());
        let under = under.collect();
        (out, under)
    }

    #[test]
    fn values_become_others_of_their_kind_that_nobody_told() {
        for (text, cities) in [("Lyon", 1), ("Lyon, Porto, a miner", 2)] {
            let exchange = exchange(text, &mut []).unwrap();
            let read: Vec<String> = exchange.restored().into_iter().map(|it| it.pattern).collect();
            let free = |it: &&String| CITIES.contains(&it.as_str()) && !text.contains(it.as_str());
            assert_eq!(read.iter().filter(free).collect::<HashSet<_>>().len(), cities, "{read:?}");
            assert_eq!(read.contains(&"baker".to_owned()), text.contains("miner"));
        }
        // More than half of a kind: still one image each, and none its own.
        for told in [&CITIES[..3], &CITIES[1..], &CITIES] {
            let pairs = exchange(&told.join(" "), &mut []).unwrap().restored();
            assert!(pairs.iter().all(|it| it.pattern != it.with), "{pairs:?}");
            let images: HashSet<&str> = pairs.iter().map(|it| it.pattern.as_str()).collect();
            assert_eq!((images.len(), pairs.len()), (told.len(), told.len()));
        }
        assert!(exchange("Nowhere.", &mut []).is_none());
        assert!(exchange("A raven.", &mut []).unwrap().restored().is_empty(), "it has no other");
    }

    #[test]
    fn another_request_has_other_images() {
        let image = |text: &str| exchange(text, &mut []).unwrap().restored().remove(0).pattern;
        let first = image("Lyon");
        assert_eq!(first, image("Lyon"));
        assert!((0..20).any(|it| image(&format!("Lyon {it}")) != first));
    }

    #[test]
    fn names_stay_and_evidence_moves_along() {
        let place = Place::Text(0);
        let text = "A miner, Ann Lyon, miner. Ann Lyon!";
        let evidence = vec![
            seen(place, 9..17, Some(0)),
            seen(place, 26..34, Some(0)),
            seen(place, 2..24, None),
            seen(place, 0..35, None),
        ];
        let (out, under) = told(text, evidence);
        assert_eq!(out, "A baker, Ann Lyon, baker. Ann Lyon!");
        assert_eq!(under, ["Ann Lyon", "Ann Lyon", "baker, Ann Lyon, baker", out.as_str()]);
        // A span that ends within a value would come to lie elsewhere.
        let mut evidence = [seen(place, 0..4, None), seen(place, 0..0, Some(0))];
        assert!(exchange("A miner", &mut evidence).is_none());
        let long = "In Lyon: \u{e9}, Lyon";
        let (out, under) = told(long, vec![seen(place, 9..11, Some(0))]);
        assert_eq!((out.contains("Lyon"), under[0].as_str()), (false, "\u{e9}"));
    }

    /// In what is scored only what the messages tell is another value.
    #[test]
    fn a_continuation_says_what_the_model_has_read() {
        let exchange = exchange("A miner.", &mut []).unwrap();
        let mut text = "The MINER from Lyon".to_owned();
        let mut name = seen(Place::Continuation, 15..19, Some(0));
        exchange.apply(&mut text, Some(&mut vec![&mut name]));
        assert_eq!((text.as_str(), name.span), ("The BAKER from Lyon", 15..19));
        // What it says beside that is nobody's image.
        let said = CITIES[1..4].join(", ");
        for seed in 0..20 {
            let values = Cow::Owned(values());
            let one = request(CITIES[0]);
            let exchange = Exchange::of(values, &one, Some(&said), &ByPlace::new(), seed).unwrap();
            assert_eq!(exchange.restored()[0].pattern, CITIES[4]);
        }
    }

    #[test]
    fn stop_texts_are_those_that_the_model_meets() {
        let exchange = exchange("A miner.", &mut []).unwrap();
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
