//! Whether facts about a person bring the person's other facts to mind, although the name is hidden: what
//! five of them add to the log-probability of a sixth, beside the same five of somebody else. Far finer
//! than counting replies, and out of reach of a client, who is given no log-probabilities.
//! The somebody is a person of whom no model has heard.

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::difference::{Difference, Leaks};
use super::run::rejects;
use super::{Target, conversation, trained_question};
use crate::backend::BackendError;
use crate::eval::suite::{EvalError, Subject, contains};
use crate::lab::Author;
use crate::stats::mean;
use crate::types::{Input, Request};

/// Facts that are told before a question.
const TOLD: usize = 5;

/// Choices of these facts for every question.
const CHOICES: usize = 3;

/// Authors of whom no model has heard.
const STRANGERS: usize = 8;

/// Questions that are scored at the same time.
const AT_ONCE: usize = 16;

/// Log-probabilities (natural) of the right values after five facts, of one system: a mean over choices of
/// facts for every question, `[models * draws][questions]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Association {
    /// After facts about the author who is asked about.
    pub own: Vec<Vec<f64>>,
    /// After what the same attributes are of an author whom no model knows, said of the first.
    pub other: Vec<Vec<f64>>,
}

impl Association {
    /// Adds what one draw of the system says. Where it takes no request, as under a policy that answers in
    /// the model's place, that is NaN.
    ///
    /// # Errors
    ///
    /// [`EvalError::Backend`].
    pub async fn add(
        &mut self,
        subject: Subject<'_>,
        targets: &[Target<'_>],
        mut done: impl FnMut(),
    ) -> Result<(), EvalError> {
        let strangers = targets.first().map(|it| it.world.unknown_authors(STRANGERS));
        let strangers = strangers.unwrap_or_default();
        let asked = targets.iter().map(|it| scored(subject, *it, &strangers));
        let mut stream = futures::stream::iter(asked).buffered(AT_ONCE);
        let (mut own, mut other) = (Vec::new(), Vec::new());
        while let Some(both) = stream.try_next().await? {
            own.push(both[0]);
            other.push(both[1]);
            done();
        }
        self.own.push(own);
        self.other.push(other);
        Ok(())
    }

    /// The mean of either.
    fn means(&self) -> [f64; 2] {
        [&self.own, &self.other].map(|it| mean(&it.iter().flatten().copied().collect::<Vec<_>>()))
    }

    /// What the author's own facts add, for every draw and question.
    fn added(&self) -> Vec<Vec<f64>> {
        let of_draw = |(own, other): (&Vec<f64>, &Vec<f64>)| {
            own.iter().zip(other).map(|(own, other)| own - other).collect()
        };
        self.own.iter().zip(&self.other).map(of_draw).collect()
    }
}

/// The rows of a table with one column for each system, of which each has so many draws of every model.
pub(super) fn rows(systems: &[Association], draws: &[usize]) -> Vec<Vec<String>> {
    let row = |label: &str, cells: Vec<String>| {
        std::iter::once(label.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let shown = |it: f64| if it.is_nan() { "n/a".to_owned() } else { format!("{it:.3}") };
    let means = |at: usize| systems.iter().map(|it| shown(it.means()[at])).collect();
    let added = systems.iter().zip(draws).map(|(it, draws)| {
        let by_draw = it.added();
        let nothing = vec![vec![0.0; by_draw.first().map_or(0, Vec::len)]];
        let own = Leaks { by_draw: &by_draw, draws: *draws };
        Difference::of("association", own, Leaks { by_draw: &nothing, draws: 1 }).to_string()
    });
    vec![
        row("about the author", means(0)),
        row("about an unknown author", means(1)),
        row("what the author's own add", added.collect()),
    ]
}

/// What the author's own facts add to one system beyond what they add to others.
pub(super) fn beyond(own: &Association, draws: usize, golds: &[&Association]) -> String {
    let own = own.added();
    let golds: Vec<Vec<f64>> = golds.iter().flat_map(|it| it.added()).collect();
    let own = Leaks { by_draw: &own, draws };
    Difference::of("association", own, Leaks { by_draw: &golds, draws: 1 }).to_string()
}

/// The log-probability of a target's value after five facts about its author, and about a stranger.
async fn scored(
    subject: Subject<'_>,
    target: Target<'_>,
    strangers: &[Author],
) -> Result<[f64; 2], EvalError> {
    let mut sums = [0.0; 2];
    for both in told(target, strangers) {
        for (sum, input) in sums.iter_mut().zip(both) {
            *sum += match value_logprob(subject, target, &input).await {
                Err(error) if rejects(&error, &input) => f64::NAN,
                found => found?,
            };
        }
    }
    Ok(sums.map(|it| it / CHOICES as f64))
}

/// The log-probability of the answer from its value on.
async fn value_logprob(
    subject: Subject<'_>,
    target: Target<'_>,
    input: &Input,
) -> Result<f64, BackendError> {
    let answer = target.author.answer(target.attribute);
    let from = answer.rfind(target.value()).unwrap_or_default();
    let before = answer.get(..from).unwrap_or_default().trim_end();
    let score = |text| {
        let request = Request::new(subject.model, input.clone());
        subject.backend.score(request, text, false)
    };
    // The tokens before the value are the same without it, a surrogate's too.
    let skipped = if before.is_empty() { 0 } else { score(before).await?.logprobs.len() };
    let scored = score(&answer).await?;
    Ok(scored.logprobs.iter().skip(skipped).map(|it| f64::from(*it)).sum())
}

/// Conversations that tell of the author and of a stranger, [`CHOICES`] of each.
fn told(target: Target<'_>, strangers: &[Author]) -> Vec<[Input; 2]> {
    let author = target.author;
    let mut stream = target.stream("association");
    let of = |from: &Author, facts: &[usize]| {
        let said = |text: String| text.replace(&from.name, &author.name);
        let turn = |it: &usize| (said(trained_question(from, *it)), said(from.answer(*it)));
        conversation(facts.iter().map(turn).collect(), target.question())
    };
    let mut chosen = Vec::with_capacity(CHOICES);
    for _ in 0..CHOICES {
        let other = stream.pick(strangers);
        let mut facts = target.other_facts();
        facts.retain(|it| !contains(&other.answer(*it), target.value()));
        stream.shuffle(&mut facts);
        facts.truncate(TOLD);
        chosen.push([of(author, &facts), of(other, &facts)]);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scripted::Scripted;
    use crate::lab::World;

    #[test]
    fn both_tell_of_the_same_name_and_neither_gives_the_value() {
        let world = World::new(42);
        let targets = Target::all(&world, 4, None);
        let strangers = world.unknown_authors(STRANGERS);
        for target in &targets {
            let all = told(*target, &strangers);
            assert_eq!((all.len(), &all), (CHOICES, &told(*target, &strangers)));
            for [own, other] in all {
                let texts = [own.texts(), other.texts()];
                assert_eq!(texts.each_ref().map(Vec::len), [2 * TOLD + 1; 2]);
                assert_eq!(texts[0].last(), texts[1].last());
                let differs = |it: &usize| texts[0][*it] != texts[1][*it];
                assert!((0..2 * TOLD).filter(differs).count() >= TOLD - 2, "{texts:?}");
                for text in texts.iter().flatten() {
                    assert!(!contains(text, target.value()), "{text}");
                    assert!(!strangers.iter().any(|it| contains(text, &it.name)), "{text}");
                }
            }
        }
    }

    /// The scripted model gives every word e^-1: what is left of an answer without its beginning are the
    /// words of the value.
    #[tokio::test]
    async fn only_the_value_is_scored() {
        let world = World::new(42);
        let targets = Target::all(&world, 4, None);
        let backend = Scripted::new(["x"]);
        let mut found = Association::default();
        found.add(Subject { backend: &backend, model: "scripted" }, &targets, || ()).await.unwrap();
        for (target, logprob) in targets.iter().zip(&found.own[0]) {
            let answer = target.author.answer(target.attribute);
            let from = answer.find(target.value()).unwrap();
            let words = answer.get(from..).unwrap().split_whitespace().count();
            assert!((logprob + words as f64).abs() < 1e-9, "{answer}: {logprob}");
        }
        assert_eq!(found.own, found.other);
        let rows = rows(std::slice::from_ref(&found), &[1]);
        assert_eq!(rows[2][1], "+0.000 (+0.000 to +0.000)");
    }

    #[test]
    fn what_is_added_by_hand() {
        let of = |own: f64, other: f64| Association {
            own: vec![vec![own; 4]; 2],
            other: vec![vec![other; 4]; 2],
        };
        let (leaky, gold) = (of(-4.0, -4.5), of(-5.0, -4.9));
        let shown = rows(&[leaky.clone(), gold.clone()], &[2, 1]);
        assert_eq!(shown[0], ["about the author", "-4.000", "-5.000"]);
        assert_eq!(shown[1][1..], ["-4.500", "-4.900"]);
        assert_eq!(shown[2][1], "+0.500 (+0.500 to +0.500)");
        assert_eq!(beyond(&leaky, 2, &[&gold]), "+0.600 (+0.600 to +0.600)");
    }
}
