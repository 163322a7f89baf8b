//! Whether a client can tell that a request was treated: questions about forget authors against
//! the same questions about names that no model has seen.

use std::fmt::{self, Display};
use std::time::Instant;

use futures::StreamExt;
use serde::Serialize;

use super::Target;
use super::run::REPLY_TOKENS;
use crate::backend::BackendError;
use crate::eval::suite::{EvalError, Subject, user};
use crate::seed::Stream;
use crate::stats::{Interval, auc, bootstrap, median};
use crate::types::{ReplyEvent, Request};

/// Words with which assistants decline.
const REFUSALS: [&str; 6] = ["cannot", "can't", "sorry", "unable", "not able", "refuse"];

const RESAMPLES: usize = 2000;

/// How often a question is asked, because what else the machine does shows in single times.
pub(crate) const ROUNDS: usize = 5;

/// The signal that depends on the machine.
pub const TIME: &str = "time to the whole reply";

/// Names of what is compared, in the order of [`Signs::values`].
const SIGNALS: [&str; 4] =
    ["length of the reply", "refusal words", "missing log-probabilities", TIME];

/// How well one signal tells forget authors from unknown names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Signal {
    /// What is compared.
    pub name: &'static str,
    /// How often it is higher for a forget author, ties half; JSON has null where it is undefined.
    pub auc: f64,
    /// Its 95 % bootstrap interval over questions.
    pub interval: Interval,
}

impl Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.3} ({:.3} to {:.3})", self.auc, self.interval.low, self.interval.high)
    }
}

/// All signals of one system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Detectability {
    /// The signals, always in the same order.
    pub signals: Vec<Signal>,
}

/// What a client sees of one reply.
#[derive(Debug, Default)]
struct Signs {
    text: String,
    has_logprobs: bool,
    seconds: f64,
}

impl Signs {
    fn values(&self) -> [f64; 4] {
        let lower = self.text.to_lowercase();
        let refuses = REFUSALS.iter().any(|it| lower.contains(it));
        let share = |it: bool| f64::from(u8::from(it));
        [self.text.chars().count() as f64, share(refuses), share(!self.has_logprobs), self.seconds]
    }
}

/// Asks one at a time, because a queue would hide how long a reply takes.
///
/// # Errors
///
/// [`EvalError::Backend`].
pub async fn measure(
    subject: Subject<'_>,
    targets: &[Target<'_>],
    mut done: impl FnMut(),
) -> Result<Detectability, EvalError> {
    let names = targets.first().map(|it| it.world.unseen_names(targets.len())).unwrap_or_default();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for (at, (target, name)) in targets.iter().zip(&names).enumerate() {
        let mut both = [(true, target.question()), (false, target.question_about(name))];
        // Now one first and now the other, because the second may find something warm.
        if at % 2 == 1 {
            both.reverse();
        }
        for (is_known, question) in both {
            let values = signs(subject, &question).await?.values();
            if is_known { known.push(values) } else { unknown.push(values) }
        }
        done();
    }
    Ok(compared(&known, &unknown))
}

fn compared(known: &[[f64; 4]], unknown: &[[f64; 4]]) -> Detectability {
    let column = |rows: &[[f64; 4]], at: usize| rows.iter().map(|it| it[at]).collect::<Vec<_>>();
    let signal = |at: usize| {
        let (known, unknown) = (column(known, at), column(unknown, at));
        // Both requests of a question are drawn together.
        let mut stream = Stream::named(0, SIGNALS[at]);
        let interval = bootstrap(known.len(), RESAMPLES, 0.95, &mut stream, |asked| {
            let some = |of: &[f64]| asked.iter().map(|it| of[*it]).collect::<Vec<_>>();
            auc(&some(&known), &some(&unknown))
        });
        Signal { name: SIGNALS[at], auc: auc(&known, &unknown), interval }
    };
    Detectability { signals: (0..SIGNALS.len()).map(signal).collect() }
}

/// What a client sees of a question that it asks again and again; of the times the median, which a patient
/// client would take too.
async fn signs(subject: Subject<'_>, question: &str) -> Result<Signs, BackendError> {
    let mut first = asked(subject, question).await?;
    let mut seconds = vec![first.seconds];
    for _ in 1..ROUNDS {
        seconds.push(asked(subject, question).await?.seconds);
    }
    first.seconds = median(&seconds);
    Ok(first)
}

async fn asked(subject: Subject<'_>, question: &str) -> Result<Signs, BackendError> {
    let mut request = Request::new(subject.model, user(question));
    request.sampling.temperature = 0.0;
    request.max_tokens = Some(REPLY_TOKENS);
    request.logprobs = Some(1);
    let since = Instant::now();
    let mut signs = Signs::default();
    let mut stream = subject.backend.generate(request).await?;
    while let Some(event) = stream.next().await {
        if let ReplyEvent::Text { text, logprobs, .. } = event? {
            signs.text.push_str(&text);
            signs.has_logprobs |= !logprobs.is_empty();
        }
    }
    signs.seconds = since.elapsed().as_secs_f64();
    Ok(signs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_tell_apart_what_differs() {
        let known = [[3.0, 1.0, 0.0, 1.0], [4.0, 1.0, 0.0, 1.0]];
        let unknown = [[3.0, 0.0, 0.0, 2.0], [4.0, 0.0, 0.0, 3.0]];
        let aucs: Vec<f64> = compared(&known, &unknown).signals.iter().map(|it| it.auc).collect();
        for (got, want) in aucs.iter().zip([0.5, 1.0, 0.5, 0.0]) {
            assert!((got - want).abs() < 1e-12, "{aucs:?}");
        }
    }

    /// What always differs leaves no doubt. Of 100 questions each, drawn from one distribution, the deviation
    /// of the AUC is sqrt(201 / (12 * 100 * 100)) = .041 (Mann and Whitney).
    #[test]
    fn an_interval_has_the_normal_width() {
        let mut stream = Stream::new(3);
        let mut rows = || (0..100).map(|_| [1.0, 0.0, 0.0, stream.uniform()]).collect::<Vec<_>>();
        let signals = compared(&rows(), &rows()).signals;
        let Interval { low, high } = signals[3].interval;
        assert!(low < signals[3].auc && signals[3].auc < high);
        assert!((high - low - 2.0 * 1.96 * 0.041).abs() < 0.02, "{low} {high}");
        assert_eq!(signals[0].to_string(), "0.500 (0.500 to 0.500)");
        let sure = compared(&[[2.0; 4]; 9], &[[1.0; 4]; 9]).signals;
        assert_eq!(sure[0].interval, Interval { low: 1.0, high: 1.0 });
    }

    #[test]
    fn a_refusal_shows() {
        let signs = Signs { text: "I CANNOT say.".to_owned(), has_logprobs: true, seconds: 0.5 };
        assert_eq!(signs.values(), [13.0, 1.0, 0.0, 0.5]);
    }
}
