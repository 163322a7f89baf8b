//! The table: unguarded, guarded by every function, and gold.

use std::path::Path;

use serde_json::{Value, json};

use super::suite::EvalError;
use super::tofu::{self, ForgetScores, ModelUtility, RowScores};
use crate::seed::Stream;
use crate::stats::{Interval, bootstrap};

/// What one system scored.
#[derive(Debug, Clone)]
pub struct SystemScores {
    /// Its row's label.
    pub name: String,
    /// Forget rows, one list per noise seed; a system without noise has one.
    pub forget: Vec<Vec<RowScores>>,
    /// Over the other three splits, with the first seed.
    pub utility: ModelUtility,
}

/// All systems against gold.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Rows of the table in order.
    pub systems: Vec<SystemScores>,
    /// Forget rows of the model that was retrained without them.
    pub gold: Vec<RowScores>,
    /// What was run, to run it again.
    pub provenance: Value,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => 0.5 * (values[middle - 1] + values[middle]),
    }
}

/// Forget quality of every seed: all rows, rows that restate the name, and the others.
struct Quality {
    all: Vec<f64>,
    restating: Vec<f64>,
    other: Vec<f64>,
}

impl SystemScores {
    fn quality(&self, gold: &[RowScores]) -> Quality {
        let gold_split = tofu::split_by_name(gold);
        let mut quality = Quality { all: Vec::new(), restating: Vec::new(), other: Vec::new() };
        for rows in &self.forget {
            let split = tofu::split_by_name(rows);
            quality.all.push(tofu::forget_quality(rows, gold).p_value);
            quality
                .restating
                .push(tofu::forget_quality(&split.restating, &gold_split.restating).p_value);
            quality.other.push(tofu::forget_quality(&split.other, &gold_split.other).p_value);
        }
        quality
    }

    /// The 95 % interval of the leak over questions; a question's wordings and seeds stay together.
    fn leak_interval(&self) -> Interval {
        let of_question = |question: usize| -> (usize, usize) {
            let seen = self.forget.iter().flat_map(|rows| &rows[question].value_correct);
            seen.fold((0, 0), |(right, all), it| (right + usize::from(*it), all + 1))
        };
        let questions: Vec<_> =
            (0..self.forget.first().map_or(0, Vec::len)).map(of_question).collect();
        let mut stream = Stream::named(42, "eval/leak");
        bootstrap(questions.len(), 2000, 0.95, &mut stream, |drawn| {
            let (right, all) = drawn
                .iter()
                .map(|it| questions[*it])
                .fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
            right as f64 / all as f64
        })
    }

    /// Forget scores over all seeds together.
    fn forget_scores(&self) -> ForgetScores {
        tofu::forget_scores(&self.forget.concat())
    }
}

fn p(value: f64) -> String {
    if value.is_nan() {
        "n/a".to_owned()
    } else if value < 1e-3 {
        format!("{value:.1e}")
    } else {
        format!("{value:.3}")
    }
}

impl Comparison {
    /// The table in Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::from(
            "| system | leak | value prob. | probability | ROUGE-L recall | truth ratio | forget quality p \
             | p, restating | p, other | p per seed | model utility |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|\n",
        );
        let share = |it: Option<f64>| it.map_or("n/a".to_owned(), |it| format!("{it:.3}"));
        for system in &self.systems {
            let (scores, quality) = (system.forget_scores(), system.quality(&self.gold));
            let seeds: Vec<String> = quality.all.iter().map(|it| p(*it)).collect();
            let leak = scores.value_accuracy.map_or("n/a".to_owned(), |it| {
                let Interval { low, high } = system.leak_interval();
                format!("{it:.3} ({low:.3} to {high:.3})")
            });
            out.push_str(&format!(
                "| {} | {} | {} | {:.3} | {:.3} | {:.3} | {} | {} | {} | {} | {:.4} |\n",
                system.name,
                leak,
                share(scores.value_probability),
                scores.probability,
                scores.rouge_l_recall,
                scores.truth_ratio,
                p(median(quality.all.clone())),
                p(median(quality.restating)),
                p(median(quality.other)),
                seeds.join(" "),
                system.utility.value,
            ));
        }
        out.push_str(
            "\nLeak: share of greedy replies to forget questions, in each of their wordings, that have the value \
             asked for, with its 95 % bootstrap interval over questions. Forget quality: \
             two-sided exact Kolmogorov-Smirnov p of the truth ratios against gold's, median over seeds; above \
             0.05 the two cannot be told apart by it. Restating: answers that repeat the name. Threat model: \
             access through the API only; whoever has the weights has the facts.\n",
        );
        out
    }

    /// Everything, every row included.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let row = |it: &RowScores| {
            json!({
                "nll": it.nll, "paraphrased_nll": it.paraphrased_nll, "perturbed_nll": it.perturbed_nll,
                "rouge_l_recall": it.rouge_l_recall, "value_correct": it.value_correct,
                "value_nll": it.value_nll, "restates_name": it.restates_name,
                "truth_ratio": tofu::truth_ratio(it),
            })
        };
        let systems: Vec<Value> = self
            .systems
            .iter()
            .map(|it| {
                let (scores, quality) = (it.forget_scores(), it.quality(&self.gold));
                let parts: serde_json::Map<String, Value> =
                    it.utility.parts.iter().map(|part| (part.name.to_owned(), json!(part.value))).collect();
                json!({
                    "name": it.name,
                    "leak": scores.value_accuracy,
                    "leak_interval": [it.leak_interval().low, it.leak_interval().high],
                    "probability": scores.probability,
                    "rouge_l_recall": scores.rouge_l_recall,
                    "truth_ratio": scores.truth_ratio,
                    "value_probability": scores.value_probability,
                    "forget_quality": {
                        "median": median(quality.all.clone()), "seeds": quality.all,
                        "restating": quality.restating, "other": quality.other,
                    },
                    "model_utility": it.utility.value,
                    "model_utility_parts": parts,
                    "forget_rows": it.forget.iter().map(|rows| rows.iter().map(row).collect()).collect::<Vec<Vec<Value>>>(),
                })
            })
            .collect();
        json!({ "provenance": self.provenance, "systems": systems })
    }

    /// Writes `eval.json` and `eval.md` into `folder`.
    ///
    /// # Errors
    ///
    /// [`EvalError::Write`].
    pub fn write(&self, folder: &Path, preface: &str) -> Result<(), EvalError> {
        let json = serde_json::to_string_pretty(&self.to_json()).expect("a report is JSON");
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(&path, text))
                .map_err(|source| EvalError::Write { path, source })
        };
        write("eval.json", json + "\n")?;
        write("eval.md", format!("{preface}\n{}", self.to_markdown()))
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn median_of_odd_and_even_counts() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
        assert!(median(Vec::new()).is_nan());
    }
}
