//! Writes what was measured as `TOFU_EVAL.json`, the log per row of open-unlearning (arXiv:2506.12618),
//! so that its code and [`score`](super::score) read our runs.
//!
//! Names and nesting are those of its logs. The numbers are ours: its ratios add 1e-10 to each
//! denominator, ours do not.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::report::SystemScores;
use super::suite::EvalError;
use super::tofu::{
    RowScores, forget_quality, forget_truth_ratio, normalised_probability, probability,
    rouge_l_recall, truth_ratio, truth_ratios, utility_truth_ratio,
};
use crate::stats::mean;

/// The log's file name.
pub const FILE: &str = "TOFU_EVAL.json";

/// An aggregate with the rows it is over, numbered from 0.
fn metric(aggregate: f64, rows: impl Iterator<Item = Value>) -> Value {
    let by_index: Map<String, Value> =
        rows.enumerate().map(|(at, row)| (at.to_string(), row)).collect();
    json!({ "agg_value": aggregate, "value_by_index": by_index })
}

fn losses(nll: f64) -> Value {
    json!({ "prob": (-nll).exp(), "avg_loss": nll })
}

/// Losses of the wrong answers of each row, as lists.
fn wrong(rows: &[RowScores]) -> Value {
    let probabilities =
        |row: &RowScores| -> Vec<f64> { row.perturbed_nll.iter().map(|it| (-it).exp()).collect() };
    let all: Vec<f64> = rows.iter().map(|it| mean(&probabilities(it))).collect();
    let row = |it: &RowScores| json!({ "prob": probabilities(it), "avg_loss": it.perturbed_nll });
    metric(mean(&all), rows.iter().map(row))
}

fn answers(rows: &[RowScores]) -> Value {
    metric(probability(rows), rows.iter().map(|it| losses(it.nll)))
}

/// The paraphrased answer, or the answer where there is none.
fn paraphrases(rows: &[RowScores]) -> Value {
    let nll = |it: &RowScores| it.paraphrased_nll.unwrap_or(it.nll);
    let all: Vec<f64> = rows.iter().map(|it| (-nll(it)).exp()).collect();
    metric(mean(&all), rows.iter().map(|it| losses(nll(it))))
}

fn replies(rows: &[RowScores]) -> Value {
    let row = |it: &RowScores| json!({ "rougeL_recall": it.rouge_l_recall });
    metric(rouge_l_recall(rows), rows.iter().map(row))
}

fn ratios(rows: &[RowScores], aggregate: fn(&[f64]) -> f64) -> Value {
    let row = |it: &RowScores| json!({ "score": truth_ratio(it) });
    metric(aggregate(&truth_ratios(rows)), rows.iter().map(row))
}

/// The log of a system, with the rows of its first seed. `gold` are the forget rows of the retrained
/// model.
#[must_use]
pub fn log(system: &SystemScores, gold: &[RowScores]) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    let forget = system.forget.first().map_or(&[][..], Vec::as_slice);
    put("forget_Q_A_Prob", answers(forget));
    put("forget_Q_A_ROUGE", replies(forget));
    put("forget_Q_A_PARA_Prob", paraphrases(forget));
    put("forget_Q_A_PERT_Prob", wrong(forget));
    put("forget_truth_ratio", ratios(forget, forget_truth_ratio));
    put("forget_quality", json!({ "agg_value": forget_quality(forget, gold).p_value }));
    put("retain_Q_A_Prob", answers(&system.retain));
    put("retain_Q_A_ROUGE", replies(&system.retain));
    put("retain_Q_A_PARA_Prob", paraphrases(&system.retain));
    put("retain_Q_A_PERT_Prob", wrong(&system.retain));
    put("retain_Truth_Ratio", ratios(&system.retain, utility_truth_ratio));
    for (split, rows) in [("ra", &system.real_authors), ("wf", &system.world_facts)] {
        let share =
            |it: &RowScores| json!({ "prob": normalised_probability(std::slice::from_ref(it)) });
        let shares = metric(normalised_probability(rows), rows.iter().map(share));
        put(&format!("{split}_Q_A_Prob"), answers(rows));
        put(&format!("{split}_Q_A_PERT_Prob"), wrong(rows));
        put(&format!("{split}_Q_A_Prob_normalised"), shares);
        put(&format!("{split}_Q_A_ROUGE"), replies(rows));
        put(&format!("{split}_Truth_Ratio"), ratios(rows, utility_truth_ratio));
    }
    put("model_utility", json!({ "agg_value": system.utility.value }));
    out.into()
}

/// The folder of a system's log: its label in lower case, with dashes for all but letters and digits.
#[must_use]
pub fn folder(name: &str) -> String {
    let lower = name.to_lowercase();
    let words = lower.split(|it: char| !it.is_alphanumeric()).filter(|it| !it.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// Writes `<folder>/<system>/TOFU_EVAL.json` for every system that gave log-probabilities; a log
/// without them has no score.
///
/// # Errors
///
/// [`EvalError::Write`] naming the file.
pub fn write(
    folder_of_all: &Path,
    systems: &[SystemScores],
    gold: &[RowScores],
) -> Result<(), EvalError> {
    for system in systems.iter().filter(|it| it.scoring) {
        let folder = folder_of_all.join(folder(&system.name));
        let path = folder.join(FILE);
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, format!("{:#}\n", log(system, gold))))
            .map_err(|source| EvalError::Write { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::score::score;
    use crate::eval::tofu;
    use crate::seed::Stream;

    fn rows(stream: &mut Stream, count: usize, paraphrased: bool) -> Vec<RowScores> {
        let mut loss = || 3.0 * stream.uniform();
        let mut rows = Vec::with_capacity(count);
        for at in 0..count {
            rows.push(RowScores {
                nll: loss(),
                paraphrased_nll: paraphrased.then(&mut loss),
                perturbed_nll: (0..3).map(|_| loss()).collect(),
                rouge_l_recall: (at + 1) as f64 / count as f64,
                ..RowScores::default()
            });
        }
        rows
    }

    fn system(name: &str, seed: u64) -> SystemScores {
        let mut stream = Stream::new(seed);
        let forget = vec![rows(&mut stream, 12, true), rows(&mut stream, 12, true)];
        let retain = rows(&mut stream, 9, true);
        let (real_authors, world_facts) =
            (rows(&mut stream, 5, false), rows(&mut stream, 7, false));
        let utility = tofu::model_utility(&retain, &real_authors, &world_facts);
        let name = name.to_owned();
        SystemScores { name, scoring: true, forget, retain, real_authors, world_facts, utility }
    }

    /// What is written and scored again are the aggregates of the table.
    #[test]
    fn the_log_scores_as_the_table_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut silent = system("target", 3);
        silent.scoring = false;
        let systems = [system("noise-top 4x", 1), system("gold (retrained)", 2), silent];
        write(dir.path(), &systems, &systems[1].forget[0]).unwrap();
        let file = |name: &str| dir.path().join(name).join(FILE);
        assert!(!file("target").exists());
        let gold = file("gold-retrained");
        let report = score(&file("noise-top-4x"), Some(&gold)).unwrap();
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} {want}");
        let (run, first) = (&systems[0], &systems[0].forget[0]);
        near(report.utility.value, run.utility.value);
        near(report.stated_utility.unwrap(), run.utility.value);
        for (got, want) in report.utility.parts.iter().zip(&run.utility.parts) {
            assert_eq!(got.name, want.name);
            near(got.value, want.value);
        }
        let want = tofu::forget_scores(first);
        assert_eq!(report.forget.rows, 12);
        near(report.forget.probability, want.probability);
        near(report.forget.rouge_l_recall, want.rouge_l_recall);
        near(report.forget.truth_ratio, want.truth_ratio);
        let quality = forget_quality(first, &systems[1].forget[0]);
        let scored = report.forget_quality.unwrap();
        near(scored.p_value, quality.p_value);
        near(scored.statistic, quality.statistic);
    }

    /// Losses ln 2 and ln 4 of the answers are probabilities 1/2 and 1/4.
    #[test]
    fn a_row_by_hand() {
        let row = |nll: f64| RowScores {
            nll,
            paraphrased_nll: Some(2f64.ln()),
            perturbed_nll: vec![4f64.ln(), 4f64.ln()],
            rouge_l_recall: 1.0,
            ..RowScores::default()
        };
        let system =
            SystemScores { forget: vec![vec![row(2f64.ln()), row(4f64.ln())]], ..system("run", 4) };
        let log = log(&system, &system.forget[0]);
        let near = |got: &Value, want: f64| {
            assert!((got.as_f64().unwrap() - want).abs() < 1e-12, "{got} {want}");
        };
        near(&log["forget_Q_A_Prob"]["agg_value"], 0.375);
        near(&log["forget_Q_A_Prob"]["value_by_index"]["1"]["prob"], 0.25);
        near(&log["forget_Q_A_PERT_Prob"]["value_by_index"]["0"]["avg_loss"][1], 4f64.ln());
        near(&log["forget_truth_ratio"]["value_by_index"]["0"]["score"], 0.5);
        near(&log["forget_quality"]["agg_value"], 1.0);
    }
}
