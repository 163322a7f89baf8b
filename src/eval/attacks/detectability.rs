//! Whether a client can tell that a request was treated: questions about forget authors against
//! the same questions about names that no model has seen.

use std::time::Instant;

use futures::StreamExt;
use serde::Serialize;

use super::Target;
use super::run::REPLY_TOKENS;
use crate::backend::BackendError;
use crate::eval::suite::{EvalError, Subject, user};
use crate::stats::auc;
use crate::types::{ReplyEvent, Request};

/// Words with which assistants decline.
const REFUSALS: [&str; 6] = ["cannot", "can't", "sorry", "unable", "not able", "refuse"];

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
    let signal = |at: usize| Signal {
        name: SIGNALS[at],
        auc: auc(&column(known, at), &column(unknown, at)),
    };
    Detectability { signals: (0..SIGNALS.len()).map(signal).collect() }
}

async fn signs(subject: Subject<'_>, question: &str) -> Result<Signs, BackendError> {
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

    #[test]
    fn a_refusal_shows() {
        let signs = Signs { text: "I CANNOT say.".to_owned(), has_logprobs: true, seconds: 0.5 };
        assert_eq!(signs.values(), [13.0, 1.0, 0.0, 0.5]);
    }
}
