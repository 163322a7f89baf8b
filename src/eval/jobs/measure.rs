//! What a point is asked, through the same [`Backend`](crate::backend::Backend) that serves: a guard is
//! measured as users meet it, and a model that was changed is measured in the same way.

use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use super::file::Job;
use super::material::Material;
use super::result::{Asked, Attacked, Count, Measured, RequestTime, Sign};
use crate::backend::BackendError;
use crate::eval::attacks::detectability;
use crate::eval::attacks::run::Plan;
use crate::eval::attacks::{self, Attack, Target};
use crate::eval::metrics::fluency::fluency;
use crate::eval::metrics::teacher::Token;
use crate::eval::metrics::{exact_memorisation, extraction_strength, membership};
use crate::eval::rouge::rouge_l;
use crate::eval::suite::{EvalError, Row, Subject, contains, user};
use crate::eval::tofu::{self, RowScores};
use crate::lab::World;
use crate::stats::median;
use crate::types::{Request, Scored};

/// Rows that are asked together.
const TOGETHER: usize = 16;

/// The attacks whose requests have a half that is to be answered.
const MIXED: [&str; 3] = ["mixed-forget-first", "mixed-retain-first", "mixed-comment"];

/// What is measured of every row.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// The paraphrased answer stands for the right one, as TOFU does on forget and retain rows.
    paraphrased: bool,
    /// The answer's probability is taken among the wrong ones.
    normalised: bool,
    /// Whether single tokens are looked at.
    tokens: bool,
    /// Whether the reply's fluency is measured.
    fluency: bool,
}

/// Asks everything that the job wants of one system.
///
/// # Errors
///
/// [`EvalError::Backend`].
pub async fn served(
    subject: Subject<'_>,
    job: &Job,
    material: &Material,
) -> Result<Measured, EvalError> {
    let tokens = ["extraction_strength", "exact_memorisation", "membership"];
    let wanted = Wanted {
        paraphrased: true,
        normalised: false,
        tokens: tokens.into_iter().any(|it| job.measures(it)),
        fluency: job.measures("fluency"),
    };
    let others = Wanted { paraphrased: false, normalised: true, tokens: false, fluency: false };
    let mut measured =
        Measured { forget: split(subject, &material.forget, wanted).await?, ..Measured::default() };
    if job.measures("membership") {
        measured.holdout = split(subject, &material.holdout, wanted).await?;
    }
    if ["model_utility", "fluency"].into_iter().any(|it| job.measures(it)) {
        measured.retain = split(subject, &material.retain, wanted).await?;
    }
    if job.measures("model_utility") {
        measured.real_authors = split(subject, &material.real_authors, others).await?;
        measured.world_facts = split(subject, &material.world_facts, others).await?;
    }
    if job.measures("hard_non_targets") {
        measured.hard = right_values(subject, &material.hard).await?;
    }
    measured.attacks = attacked(subject, job).await?;
    Ok(measured)
}

async fn split(
    subject: Subject<'_>,
    rows: &[Row],
    wanted: Wanted,
) -> Result<Vec<Asked>, EvalError> {
    let asked = rows.iter().map(|row| ask(subject, row, wanted));
    futures::stream::iter(asked).buffered(TOGETHER).try_collect().await
}

async fn ask(subject: Subject<'_>, row: &Row, wanted: Wanted) -> Result<Asked, EvalError> {
    if !subject.backend.capabilities().scoring {
        return withheld(subject, row, wanted).await;
    }
    let scores =
        match subject.score_rows(std::slice::from_ref(row), wanted.paraphrased, || ()).await {
            Ok(scores) => scores.into_iter().next(),
            // The guard answers by itself: there is a reply, and no probability of any other.
            Err(EvalError::Backend(BackendError::Unsupported { .. })) => None,
            Err(error) => return Err(error),
        };
    let Some(scores) = scores else { return withheld(subject, row, wanted).await };
    let mut asked = of_scores(row, scores, wanted.normalised);
    if wanted.tokens {
        let request = Request::new(subject.model, user(&row.question));
        let scored = subject.backend.score(request, &row.answer, true).await?;
        of_tokens(&mut asked, &tokens(&scored));
    }
    if wanted.fluency {
        asked.fluency = fluency(&subject.reply(user(&row.question)).await?);
    }
    Ok(asked)
}

/// A row with no number yet.
fn unasked() -> Asked {
    Asked {
        right: Vec::new(),
        probability: f64::NAN,
        rouge: f64::NAN,
        log_ratio: f64::NAN,
        value_probability: f64::NAN,
        chosen: None,
        strength: f64::NAN,
        memorised: f64::NAN,
        min_k: f64::NAN,
        fluency: f64::NAN,
        withheld: false,
    }
}

fn of_scores(row: &Row, scores: RowScores, normalised: bool) -> Asked {
    let right = scores.paraphrased_nll.unwrap_or(scores.nll);
    let wrong = &scores.perturbed_nll;
    let one = std::slice::from_ref(&scores);
    Asked {
        probability: match normalised {
            true => tofu::normalised_probability(one),
            false => tofu::probability(one),
        },
        rouge: scores.rouge_l_recall,
        // NaN without wrong answers.
        log_ratio: right - wrong.iter().sum::<f64>() / wrong.len() as f64,
        value_probability: scores.value_nll.map_or(f64::NAN, |it| (-it).exp()),
        chosen: (!row.perturbed_answer.is_empty()).then(|| wrong.iter().all(|it| *it > right)),
        right: scores.value_correct,
        ..unasked()
    }
}

/// A row whose question the guard answered by itself: the answer's probability is 0.
async fn withheld(subject: Subject<'_>, row: &Row, wanted: Wanted) -> Result<Asked, EvalError> {
    let reply = subject.reply(user(&row.question)).await?;
    let mut right = Vec::new();
    if let Some(value) = &row.value {
        right.push(contains(&reply, value));
        for question in &row.held_out_questions {
            right.push(contains(&subject.reply(user(question)).await?, value));
        }
    }
    Ok(Asked {
        right,
        probability: 0.0,
        rouge: rouge_l(&row.answer, &reply).recall,
        fluency: if wanted.fluency { fluency(&reply) } else { f64::NAN },
        withheld: true,
        ..unasked()
    })
}

/// The tokens of an answer as metrics read them. What they say of the whole vocabulary is not served.
fn tokens(scored: &Scored) -> Vec<Token> {
    let token = |(logprob, greedy): (&f32, &bool)| Token {
        id: 0,
        span: 0..0,
        logprob: f64::from(*logprob),
        is_argmax: *greedy,
        mean: f64::NAN,
        variance: f64::NAN,
    };
    scored.logprobs.iter().zip(&scored.greedy).map(token).collect()
}

/// The metrics of single tokens; the last one is the end of the turn, which only min-k counts.
fn of_tokens(asked: &mut Asked, tokens: &[Token]) {
    let answer = tokens.split_last().map_or(tokens, |it| it.1);
    asked.strength = extraction_strength::strength(answer);
    asked.memorised = exact_memorisation::share(answer);
    asked.min_k = membership::min_k(tokens, membership::K);
}

/// Of every row with a marked value, whether the reply has it.
async fn right_values(subject: Subject<'_>, rows: &[Row]) -> Result<Vec<bool>, EvalError> {
    let marked = rows.iter().filter_map(|row| Some((row, row.value.as_ref()?)));
    let asked = marked.map(|(row, value)| async move {
        let reply = subject.reply(user(&row.question)).await?;
        Ok::<bool, EvalError>(contains(&reply, value))
    });
    futures::stream::iter(asked).buffered(TOGETHER).try_collect().await
}

/// The attacks that a job wants, with those that `mixed` is measured by.
fn attacks_of(job: &Job) -> Vec<&'static Attack> {
    let mixed = MIXED.into_iter().filter(|_| job.measures("mixed"));
    let mut names: Vec<&str> = job.attacks.iter().map(String::as_str).collect();
    for name in mixed {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.into_iter().filter_map(attacks::find).collect()
}

async fn attacked(subject: Subject<'_>, job: &Job) -> Result<Vec<Attacked>, EvalError> {
    let (attacks, Some(authors)) = (attacks_of(job), job.authors()) else { return Ok(Vec::new()) };
    if attacks.is_empty() {
        return Ok(Vec::new());
    }
    let world = World::new(job.world_seed);
    let plan = Plan {
        systems: vec![("", vec![subject])],
        attacks,
        beside: Vec::new(),
        draws: 1,
        targets: Target::all(&world, authors, Some(job.limits.attack_questions)),
    };
    let report = plan.run(Value::Null).await?;
    let of = |result: attacks::report::AttackResult| {
        let tally = result.tallies.into_iter().next().unwrap_or_default();
        Attacked {
            name: result.name,
            leaked: Count { hits: tally.leaked, of: tally.questions },
            chance: result.chance,
            retained: Count { hits: tally.retained_right, of: tally.retained_asked },
        }
    };
    Ok(report.attacks.into_iter().map(of).collect())
}

/// By which signs forget questions are told from the same about names that no model has seen, and the AUC
/// of the one that depends on the machine, time. Nothing where the job does not want it or the forget split
/// is none of the lab's.
///
/// # Errors
///
/// [`EvalError::Backend`].
pub async fn signs(subject: Subject<'_>, job: &Job) -> Result<Option<(Vec<Sign>, f64)>, EvalError> {
    let Some(authors) = job.authors().filter(|_| job.measures("distinguishability")) else {
        return Ok(None);
    };
    let world = World::new(job.world_seed);
    let targets = Target::all(&world, authors, Some(job.limits.forget));
    let found = detectability::measure(subject, &targets, || ()).await?.signals;
    let (time, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|it| it.name == detectability::TIME);
    let time = time.first().map_or(f64::NAN, |it| it.auc);
    let sign = |it: detectability::Signal| Sign { name: it.name.to_owned(), auc: it.auc };
    Ok(Some((others.into_iter().map(sign).collect(), time)))
}

async fn seconds(subject: Subject<'_>, row: &Row) -> Result<f64, EvalError> {
    let since = Instant::now();
    subject.reply(user(&row.question)).await?;
    Ok(since.elapsed().as_secs_f64())
}

/// Median seconds of a greedy request for the first `count` rows, and by how much each takes longer than
/// the same one to the untouched model, asked right before or after it: a busy moment of the machine is
/// then in both. One at a time, because a queue would hide how long a reply takes. The row behind them (where
/// there is none, the first) is asked first and not counted, as it pays for what is set up. `None` of no rows.
///
/// # Errors
///
/// [`EvalError::Backend`].
pub async fn request_seconds(
    subject: Subject<'_>,
    untouched: Subject<'_>,
    rows: &[Row],
    count: usize,
) -> Result<Option<RequestTime>, EvalError> {
    let (timed, rest) = rows.split_at(count.min(rows.len()));
    for subject in [subject, untouched] {
        if let Some(row) = rest.first().or(timed.first()) {
            seconds(subject, row).await?;
        }
    }
    let (mut all, mut beyond) = (Vec::new(), Vec::new());
    for (at, row) in timed.iter().enumerate() {
        let (own, other) = if at % 2 == 0 {
            let own = seconds(subject, row).await?;
            (own, seconds(untouched, row).await?)
        } else {
            let other = seconds(untouched, row).await?;
            (seconds(subject, row).await?, other)
        };
        all.push(own);
        beyond.push(own - other);
    }
    let time = || RequestTime { seconds: median(&all), beyond: median(&beyond) };
    Ok((!timed.is_empty()).then(time))
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::parse;
    use super::*;
    use crate::backend::Capabilities;
    use crate::backend::scripted::Scripted;
    use crate::eval::metrics::observed::tests::row;

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }

    /// Losses 1 against wrong 2 and 4: the ratio's logarithm is 1 - 3, the share of the right answer
    /// 1 / (1 + e^-1 + e^-3).
    #[test]
    fn numbers_of_a_row_by_hand() {
        let row = row("Where?", "In Turin.", "Turin", &["In Oslo.", "In Porto."]);
        let scores = RowScores {
            nll: 1.0,
            perturbed_nll: vec![2.0, 4.0],
            rouge_l_recall: 0.25,
            value_correct: vec![true],
            value_nll: Some(0.5),
            ..RowScores::default()
        };
        let asked = of_scores(&row, scores.clone(), true);
        near(asked.log_ratio, -2.0);
        near(asked.probability, 1.0 / (1.0 + f64::exp(-1.0) + f64::exp(-3.0)));
        near(asked.value_probability, f64::exp(-0.5));
        assert_eq!((asked.chosen, asked.right.as_slice()), (Some(true), [true].as_slice()));
        near(of_scores(&row, scores.clone(), false).probability, f64::exp(-1.0));
        let paraphrased = RowScores { paraphrased_nll: Some(3.0), ..scores };
        let asked = of_scores(&row, paraphrased, false);
        near(asked.log_ratio, 0.0);
        assert_eq!(asked.chosen, Some(false));
    }

    /// Of the answer's four tokens the last two follow and three are the most probable ones; the two
    /// lowest of five log-probabilities are -4 and -3.
    #[test]
    fn the_end_of_the_turn_counts_for_membership_only() {
        let scored = Scored {
            logprobs: vec![-1.0, -4.0, -2.0, -3.0, -0.5],
            greedy: vec![true, false, true, true, false],
        };
        let mut asked = unasked();
        of_tokens(&mut asked, &tokens(&scored));
        near(asked.strength, 0.5);
        near(asked.memorised, 0.75);
        near(asked.min_k, 3.5);
    }

    /// A backend that cannot score is asked all the same.
    #[tokio::test]
    async fn what_cannot_be_scored_is_withheld() {
        let backend = Scripted::new(["It was ", "Turin."]);
        let backend = backend.with_capabilities(Capabilities::default());
        let subject = Subject { backend: &backend, model: "scripted" };
        let mut row = row("Where?", "In Turin.", "Turin", &["In Oslo."]);
        row.held_out_questions = vec!["What town?".to_owned()];
        let wanted = Wanted { paraphrased: true, normalised: false, tokens: true, fluency: true };
        let asked = ask(subject, &row, wanted).await.unwrap();
        assert!(asked.withheld && asked.log_ratio.is_nan() && asked.strength.is_nan());
        assert_eq!(asked.right, [true, true]);
        near(asked.probability, 0.0);
        assert!(asked.fluency > 0.0);
        assert_eq!(right_values(subject, &[row]).await.unwrap(), [true]);
        assert_eq!(request_seconds(subject, subject, &[], 3).await.unwrap(), None);
    }

    /// Three of five rows are timed, and a fourth beforehand.
    #[tokio::test]
    async fn requests_are_timed_beside_their_like() {
        let (own, other) = (Scripted::new(["Oslo."]), Scripted::new(["Turin."]));
        let rows: Vec<Row> =
            (0..5).map(|at| row(&format!("Where was {at}?"), "In Turin.", "Turin", &[])).collect();
        let of = |backend| Subject { backend, model: "scripted" };
        let time = request_seconds(of(&own), of(&other), &rows, 3).await.unwrap().unwrap();
        assert!(time.seconds > 0.0 && time.beyond.is_finite());
        for backend in [&own, &other] {
            let asked: Vec<String> =
                backend.seen().iter().map(|it| it.input.texts()[0].to_owned()).collect();
            assert_eq!(asked, ["Where was 3?", "Where was 0?", "Where was 1?", "Where was 2?"]);
        }
    }

    /// Two questions for each forget row, all answered alike; time is apart from what does not depend on
    /// the machine.
    #[tokio::test]
    async fn what_is_answered_alike_is_not_told() {
        let backend = Scripted::new(["Sorry, no."]);
        let subject = Subject { backend: &backend, model: "scripted" };
        let limits = "[limits]\nforget = 3";
        let job = parse("metrics = [\"distinguishability\"]", limits).unwrap();
        let (found, by_time) = signs(subject, &job).await.unwrap().unwrap();
        let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["length of the reply", "refusal words", "missing log-probabilities"]);
        found.iter().for_each(|it| near(it.auc, 0.5));
        assert!((0.0..=1.0).contains(&by_time));
        assert_eq!(backend.seen().len(), 6 * detectability::ROUNDS);
        let job = parse("metrics = [\"leak\"]", limits).unwrap();
        assert_eq!(signs(subject, &job).await.unwrap(), None);
    }

    #[test]
    fn mixed_questions_are_asked_once() {
        let names = |head: &str| -> Vec<&str> {
            attacks_of(&parse(head, "").unwrap()).iter().map(|it| it.name).collect()
        };
        assert_eq!(names("metrics = [\"leak\"]"), Vec::<&str>::new());
        let both = names("metrics = [\"mixed\"]\nattacks = [\"mixed-comment\", \"direct\"]");
        assert_eq!(both, ["mixed-comment", "direct", "mixed-forget-first", "mixed-retain-first"]);
    }
}
