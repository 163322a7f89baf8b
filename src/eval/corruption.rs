//! Searches the strength of ECO's noise: zeroth order, in log strength, against a surrogate retain
//! value, because the retrained model is not at hand where the guardrail is needed
//! (Liu et al., arXiv:2406.07933, section on selecting the corruption).

use std::sync::Arc;

use super::suite::{EvalError, Row, Subject};
use crate::backend::Backend;
use crate::types::CorruptionFunction;

/// What is searched for.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// Width of the embeddings.
    pub width: usize,
    /// Share of right values of a model that never learnt the topic; `None`: one over the number of
    /// answers in a row.
    pub target: Option<f64>,
    /// Noise seeds averaged per trial.
    pub seeds: u64,
}

/// Normalised probability of the true answer (paraphrased where the row has it, as the wrong ones
/// are) among the wrong ones, over rows and seeds: what a model that knows nothing scores is known without having one.
async fn measure(
    settings: &Search,
    rows: &[Row],
    model: &str,
    guarded: &impl Fn(u64) -> Result<Arc<dyn Backend>, String>,
) -> Result<f64, SearchError> {
    let (mut sum, mut count) = (0.0, 0);
    for seed in 0..settings.seeds.max(1) {
        let backend = guarded(seed).map_err(SearchError::Guard)?;
        let subject = Subject { backend: backend.as_ref(), model };
        for scores in subject.score_rows(rows, true, || ()).await? {
            let right = scores.paraphrased_nll.unwrap_or(scores.nll);
            let share = |nll: f64| (right - nll).exp();
            sum += 1.0 / (1.0 + scores.perturbed_nll.iter().map(|it| share(*it)).sum::<f64>());
            count += 1;
        }
    }
    Ok(sum / f64::from(count.max(1)))
}

/// Why a search stopped.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The policy cannot be loaded under this treatment.
    #[error("{0}")]
    Guard(String),
    /// A measurement failed.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// Minimises the distance to the target over log strength by golden section (8 trials), for each
/// noise function, and tries the functions without strength once. Rows alternate between the search
/// and the validation that is reported. Returns a Markdown table, best first.
///
/// # Errors
///
/// [`SearchError`].
pub async fn search(
    settings: &Search,
    rows: &[Row],
    model: &str,
    guarded: impl Fn(CorruptionFunction, u64) -> Result<Arc<dyn Backend>, String>,
) -> Result<String, SearchError> {
    let (searched, validated): (Vec<_>, Vec<_>) =
        rows.iter().cloned().enumerate().partition(|it| it.0 % 2 == 0);
    let strip = |rows: Vec<(usize, Row)>| rows.into_iter().map(|it| it.1).collect::<Vec<Row>>();
    let (searched, validated) = (strip(searched), strip(validated));
    let answers = rows.first().map_or(2, |it| it.perturbed_answer.len() + 1);
    let target = settings.target.unwrap_or(1.0 / answers as f64);
    let width = settings.width;
    type Noise = fn(usize, f32) -> CorruptionFunction;
    let noises: [(&str, Noise); 3] = [
        ("noise-first", |dims, strength| CorruptionFunction::NoiseFirst { dims, strength }),
        ("noise-random", |dims, strength| CorruptionFunction::NoiseRandom { dims, strength }),
        ("noise-top", |dims, strength| CorruptionFunction::NoiseTop { dims, strength }),
    ];
    let mut found: Vec<(String, f64)> = Vec::new();
    for (name, function) in noises {
        let (mut low, mut high) = (0.5f64.ln(), 64f64.ln());
        let golden = 0.5 * (5f64.sqrt() - 1.0);
        let loss = async |log_strength: f64| -> Result<f64, SearchError> {
            let function = function(width, log_strength.exp() as f32);
            let value =
                measure(settings, &searched, model, &|seed| guarded(function, seed)).await?;
            Ok((value - target).abs())
        };
        let (mut a, mut b) = (high - golden * (high - low), low + golden * (high - low));
        let (mut at_a, mut at_b) = (loss(a).await?, loss(b).await?);
        for _ in 0..6 {
            if at_a <= at_b {
                (high, b, at_b) = (b, a, at_a);
                a = high - golden * (high - low);
                at_a = loss(a).await?;
            } else {
                (low, a, at_a) = (a, b, at_b);
                b = low + golden * (high - low);
                at_b = loss(b).await?;
            }
        }
        let strength = if at_a <= at_b { a } else { b }.exp() as f32;
        let function = function(width, strength);
        let value = measure(settings, &validated, model, &|seed| guarded(function, seed)).await?;
        found.push((
            format!("function = \"{name}\", dims = {width}, strength = {strength:.2}"),
            value,
        ));
    }
    let plain = [
        (
            format!("function = \"zero-top\", dims = {width}"),
            CorruptionFunction::ZeroTop { dims: width },
        ),
        (
            format!("function = \"flip-top\", dims = {width}"),
            CorruptionFunction::FlipTop { dims: width },
        ),
        ("function = \"substitute\"".to_owned(), CorruptionFunction::Substitute),
    ];
    for (name, function) in plain {
        let value = measure(settings, &validated, model, &|seed| guarded(function, seed)).await?;
        found.push((name, value));
    }
    found.sort_by(|a, b| (a.1 - target).abs().total_cmp(&(b.1 - target).abs()));
    let mut out = format!(
        "Target {target:.3}.\n\n| treatment | value on validation rows | distance |\n|---|---:|---:|\n"
    );
    for (name, value) in found {
        out.push_str(&format!("| `{name}` | {value:.3} | {:.3} |\n", (value - target).abs()));
    }
    Ok(out)
}
