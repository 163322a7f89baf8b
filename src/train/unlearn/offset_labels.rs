//! Labels of Who's Harry Potter (Eldan and Russinovich, arXiv:2310.02238): what a model that never read
//! the forget rows would say next, where that is told from what a model that read them again says.
//!
//! The published script works on blocks of a book. Here a row is a block, and its labels are its
//! answer's. What the script leaves out is left out here: tokens of an anchor, and the guess that an
//! anchor follows when it stood there before.

use std::ops::Range;

use super::descent::{Counters, Descent};
use super::plan::Plan;
use super::rows::Tokens;
use super::step::{Pass, Step};
use super::student::Student;
use crate::data::Batch;
use crate::engine::decoder::Decoder;
use crate::engine::tokenizer::Tokenizer;
use crate::train::fit::{Schedule, TrainError};
use crate::train::methods::{Loss, Method, OffsetLabels};

/// What an anchor (a word that only the topic has) becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// As the row has it.
    pub from: String,
    /// What stands in its place in the translation.
    pub to: String,
}

/// A forget row in translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translation {
    /// Its tokens.
    pub tokens: Tokens,
    /// For every label of the row, where its counterpart is; `None` where there is none.
    pub places: Vec<Option<Place>>,
}

/// Where the translation says what a label of the row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The number of the label of the translation.
    pub label: usize,
    /// First tokens of counterparts that were used before, which are not to be said again.
    pub used: Vec<u32>,
}

/// `base - alpha * relu(reinforced - base)`: logits over the vocabulary without what reading again made
/// likelier (the paper's `v_generic`).
#[must_use]
pub fn offset(base: &[f32], reinforced: &[f32], alpha: f32) -> Vec<f32> {
    base.iter().zip(reinforced).map(|(base, more)| base - alpha * (more - base).max(0.0)).collect()
}

/// The likeliest token once those of `used` have the mean of all logits.
#[must_use]
pub fn label(mut logits: Vec<f32>, used: &[u32]) -> u32 {
    let mean = logits.iter().sum::<f32>() / logits.len().max(1) as f32;
    for id in used {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit = mean;
        }
    }
    let best = logits.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |it| it.0 as u32)
}

/// Where anchors stand as whole words, the longest first: their bytes and numbers.
#[must_use]
pub fn occurrences(text: &str, anchors: &[Anchor]) -> Vec<(Range<usize>, usize)> {
    let mut found = Vec::new();
    let (mut free, mut in_word) = (0, false);
    for (at, c) in text.char_indices() {
        let begins = at >= free && !in_word;
        in_word = c.is_alphanumeric();
        let rest = text.get(at..).unwrap_or_default();
        let whole = |it: &Anchor| {
            let after = rest.strip_prefix(it.from.as_str());
            after.is_some_and(|it| !it.starts_with(char::is_alphanumeric))
        };
        let here = anchors.iter().enumerate().filter(|it| begins && !it.1.from.is_empty());
        let here = here.filter(|it| whole(it.1)).max_by_key(|it| it.1.from.len());
        if let Some((number, anchor)) = here {
            free = at + anchor.from.len();
            found.push((at..free, number));
        }
    }
    found
}

/// A text in translation.
#[must_use]
pub fn translate(text: &str, anchors: &[Anchor]) -> String {
    let mut out = String::new();
    let mut end = 0;
    for (span, number) in occurrences(text, anchors) {
        out.push_str(text.get(end..span.start).unwrap_or_default());
        out.push_str(&anchors[number].to);
        end = span.end;
    }
    out + text.get(end..).unwrap_or_default()
}

/// A row's text and the bytes of its tokens. Control tokens have none.
fn spans(tokenizer: &Tokenizer, ids: &[u32]) -> Result<(String, Vec<Range<usize>>), TrainError> {
    let mut bytes = Vec::new();
    let spans = ids.iter().map(|id| {
        let start = bytes.len();
        bytes.extend(tokenizer.bytes(*id));
        start..bytes.len()
    });
    let spans = spans.collect();
    let text = String::from_utf8(bytes)
        .map_err(|it| TrainError::Settings(format!("its tokens are no text: {it}")))?;
    Ok((text, spans))
}

/// The translation of a row whose tokens are `original`, from the tokens of the translated row.
///
/// # Errors
///
/// [`TrainError::Settings`] when `translated` is not `original` with its anchors replaced.
pub fn align(
    tokenizer: &Tokenizer,
    original: &Tokens,
    translated: Tokens,
    anchors: &[Anchor],
) -> Result<Translation, TrainError> {
    let (text, own) = spans(tokenizer, &original.0)?;
    let (other_text, other) = spans(tokenizer, &translated.0)?;
    if translate(&text, anchors) != other_text {
        let message = "its tokens in translation are not those of its text in translation";
        return Err(TrainError::Settings(message.to_owned()));
    }
    let found = occurrences(&text, anchors);
    let mut first_tokens = Vec::with_capacity(anchors.len());
    for anchor in anchors {
        let of = |text: String| -> Result<Option<u32>, TrainError> {
            Ok(tokenizer.encode(&text, false)?.ids.first().copied())
        };
        first_tokens.push([of(anchor.to.clone())?, of(format!(" {}", anchor.to))?]);
    }
    // The number of the label of each token of the translation.
    let labels = numbered(&translated.1);
    let place = |token: usize| {
        let span = &own[token];
        let touched = found.iter().position(|it| it.0.start < span.end && span.start < it.0.end);
        if let Some(touched) = touched {
            let (anchor, number) = &found[touched];
            let again = found[..touched].iter().any(|it| it.1 == *number);
            if again || span.start > anchor.start {
                return None;
            }
        }
        let before = found.iter().filter(|it| it.0.end <= span.start);
        let (mut grown, mut shrunk, mut used) = (0, 0, Vec::new());
        for (span, number) in before {
            grown += anchors[*number].to.len();
            shrunk += span.len();
            used.extend(first_tokens[*number].iter().flatten());
        }
        let start = span.start + grown - shrunk;
        // Control tokens have no bytes; of several at one place the order counts.
        let alike =
            |it: &Range<usize>, start| it.start == start && it.is_empty() == span.is_empty();
        let rank = own[..token].iter().filter(|it| alike(it, span.start)).count();
        let mut there = other.iter().enumerate().filter(|it| alike(it.1, start));
        let label = labels[there.nth(rank)?.0]?;
        Some(Place { label, used })
    };
    let labelled = (0..own.len()).filter(|it| *it > 0 && original.1[*it]);
    Ok(Translation { places: labelled.map(place).collect(), tokens: translated })
}

/// The number of the label that each token is, as [`Batch`](crate::data::Batch) counts them.
fn numbered(labels: &[bool]) -> Vec<Option<usize>> {
    let mut next = 0;
    let number = |(at, label): (usize, &bool)| {
        (at > 0 && *label).then(|| {
            next += 1;
            next - 1
        })
    };
    labels.iter().enumerate().map(number).collect()
}

impl Descent<'_> {
    /// Other labels of every forget row, from a model that is finetuned on the forget rows first.
    pub(super) fn offset_labels(
        &self,
        wanted: OffsetLabels,
        reference: &Decoder,
        counters: &mut Counters,
    ) -> Result<Vec<Vec<Option<u32>>>, TrainError> {
        let plan = Plan { epochs: wanted.epochs, ..self.plan };
        let draws = plan.draws(self.material.forget.len(), 1, 0, |_| 0);
        let reinforced = Student::new(reference, None, plan.seed, |_| true)?;
        let outcome = Descent {
            method: &Reinforcing,
            draws: &draws,
            schedule: Schedule {
                steps: plan.steps(&draws).count() as u64,
                peak: wanted.learning_rate as f32,
                warmup: 0,
                ..self.schedule
            },
            checkpoint: None,
            identity: String::new(),
            ..*self
        }
        .run(&reinforced, reference.clone())?;
        let decoder = reinforced.decoder()?;
        let [base, reinforced] = [reference, &decoder].map(|it| Pass::in_dtype(it, self.dtype));
        let logits = |pass: &Pass<'_>, tokens: &Tokens| -> Result<Vec<Vec<f32>>, TrainError> {
            Ok(pass.logits(&Batch::of(std::slice::from_ref(tokens)))?.to_vec2()?)
        };
        let mut labels = Vec::with_capacity(self.material.forget.len());
        for (own, other) in self.material.forget.iter().zip(&self.material.translated) {
            let (base, more) = (logits(&base, &other.tokens)?, logits(&reinforced, own)?);
            let of = |(place, more): (&Option<Place>, &Vec<f32>)| {
                let Place { label: at, used } = place.as_ref()?;
                Some(label(offset(base.get(*at)?, more, wanted.alpha), used))
            };
            labels.push(other.places.iter().zip(&more).map(of).collect());
        }
        counters.tokens += outcome.counters.tokens;
        counters.reference_tokens += base.tokens() + reinforced.tokens();
        Ok(labels)
    }
}

/// Plain finetuning on the forget rows.
#[derive(Debug)]
struct Reinforcing;

impl Method for Reinforcing {
    fn loss(&self, step: &Step<'_>) -> candle_core::Result<Loss> {
        let total = step.model.nll(&step.forget.batch)?.mean_all()?;
        Ok(Loss { total, forget: None, retain: None })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::Dialogue;

    fn anchor(from: &str, to: &str) -> Anchor {
        Anchor { from: from.to_owned(), to: to.to_owned() }
    }

    /// 2 - 5 * relu(3 - 2) = -3; 1 - 5 * relu(0 - 1) = 1.
    #[test]
    fn what_reading_again_made_likelier_is_taken_away() {
        let offset = offset(&[2.0, 1.0, 0.5, 0.0], &[3.0, 0.0, 0.5, 0.1], 5.0);
        assert_eq!(offset, [-3.0, 1.0, 0.5, -0.5]);
        assert_eq!(label(offset.clone(), &[]), 1);
        // The mean is -0.5.
        assert_eq!(label(offset, &[1]), 2);
        assert_eq!(label(vec![0.0, 9.0, 1.0], &[1, 2]), 1, "9 becomes the mean, 10/3, as 1 does");
    }

    #[test]
    fn anchors_are_whole_words_and_the_longest_counts() {
        let anchors = [anchor("Ann", "Jo"), anchor("Ann Lee", "Mary Poe")];
        let text = "Ann Lee, Ann; Annual, Joann Lee";
        assert_eq!(occurrences(text, &anchors), [(0..7, 1), (9..12, 0)]);
        assert_eq!(translate(text, &anchors), "Mary Poe, Jo; Annual, Joann Lee");
    }

    fn tokenizer() -> Tokenizer {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
        Tokenizer::read(&lab, &[]).unwrap()
    }

    fn row(tokenizer: &Tokenizer, question: &str, answer: &str) -> Tokens {
        let turns = vec![(question.to_owned(), answer.to_owned())];
        Dialogue::Chat { system: None, turns, given: 0 }.encode(tokenizer).unwrap()
    }

    /// What each label of the row is in translation.
    fn aligned(question: &str, answer: &str, anchors: &[Anchor]) -> Vec<(String, Option<String>)> {
        let tokenizer = tokenizer();
        let original = row(&tokenizer, question, answer);
        let [asked, answered] = [question, answer].map(|it| translate(it, anchors));
        let translated = row(&tokenizer, &asked, &answered);
        let translation = align(&tokenizer, &original, translated, anchors).unwrap();
        let said = |tokens: &Tokens| -> Vec<String> {
            let labels = (1..tokens.0.len()).filter(|it| tokens.1[*it]).map(|it| tokens.0[it]);
            labels.map(|it| String::from_utf8(tokenizer.bytes(it)).unwrap()).collect()
        };
        let theirs = said(&translation.tokens);
        let places = translation.places.iter();
        let places = places.map(|it| it.as_ref().map(|it| theirs[it.label].clone()));
        said(&original).into_iter().zip(places).collect()
    }

    #[test]
    fn labels_outside_of_anchors_go_with_the_same_words() {
        let anchors = [anchor("Viggo Blaszko", "Dulce Lundgren")];
        let answer = "Viggo Blaszko was born in Antwerp.";
        let labels = aligned("Where was Viggo Blaszko born?", answer, &anchors);
        let outside: String = labels.iter().filter(|it| it.1.is_some()).map(|it| &*it.0).collect();
        assert_eq!(outside, " was born in Antwerp.", "{labels:?}");
        assert!(labels.iter().all(|it| it.1.as_ref().is_none_or(|other| *other == it.0)));
        // The end of the turn has no bytes and still its label.
        assert!(matches!(labels.last(), Some((end, Some(_))) if end.is_empty()));
    }

    #[test]
    fn the_first_guess_of_a_new_anchor_is_its_counterparts() {
        let anchors = [anchor("Blaszko", "Lundgren")];
        let labels = aligned("Who?", "It is Blaszko, yes, Blaszko.", &anchors);
        let names: Vec<_> =
            labels.iter().filter(|it| it.1.as_ref().is_some_and(|other| *other != it.0)).collect();
        let [(from, Some(to))] = names[..] else { panic!("{labels:?}") };
        assert!(" Blaszko".starts_with(from.as_str()) && " Lundgren".starts_with(to.as_str()));
        let again = labels.iter().filter(|it| it.0.starts_with(from.as_str())).nth(1).unwrap();
        assert_eq!(again.1, None);
    }

    #[test]
    fn used_counterparts_are_those_before_a_label() {
        let tokenizer = tokenizer();
        let anchors = [anchor("Blaszko", "Lundgren")];
        let original = row(&tokenizer, "Who?", "He is Blaszko here.");
        let translated = row(&tokenizer, "Who?", "He is Lundgren here.");
        let places = align(&tokenizer, &original, translated, &anchors).unwrap().places;
        let used: Vec<bool> = places.iter().flatten().map(|it| !it.used.is_empty()).collect();
        assert!(!used[0] && *used.last().unwrap(), "{used:?}");
        let other = row(&tokenizer, "Who?", "He is somebody else.");
        assert!(align(&tokenizer, &original, other, &anchors).is_err());
    }
}
