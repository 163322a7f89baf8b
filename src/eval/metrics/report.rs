//! All metrics of a model beside gold, as Markdown and JSON.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::observed::{Observed, Rows};
use super::teacher::Teacher;
use super::{METRICS, MeasureError};
use crate::eval::suite::EvalError;

/// One line of the table; a number that could not be measured is null in JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The metric.
    pub metric: &'static str,
    /// What it is over.
    pub score: &'static str,
    /// The model's.
    pub model: f64,
    /// Gold's.
    pub gold: f64,
}

/// All metrics.
#[derive(Debug, Clone)]
pub struct MetricReport {
    /// What was run, to run it again.
    pub provenance: Value,
    /// The numbers.
    pub lines: Vec<Line>,
}

/// Measures a model and gold.
///
/// # Errors
///
/// [`MeasureError`].
pub fn measure(
    model: &Teacher,
    gold: &Teacher,
    rows: &Rows,
    provenance: Value,
) -> Result<MetricReport, MeasureError> {
    let (model, gold) = (Observed::of(model, rows)?, Observed::of(gold, rows)?);
    Ok(MetricReport { provenance, lines: lines(&model, &gold) })
}

fn lines(model: &Observed, gold: &Observed) -> Vec<Line> {
    let mut lines = Vec::new();
    for metric in METRICS {
        let both = (metric.compute)(model, gold).into_iter().zip((metric.compute)(gold, gold));
        lines.extend(both.map(|(ours, theirs)| Line {
            metric: metric.name,
            score: ours.name,
            model: ours.value,
            gold: theirs.value,
        }));
    }
    lines
}

impl MetricReport {
    /// The table in Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let number = |it: f64| if it.is_nan() { "n/a".to_owned() } else { format!("{it:.3}") };
        let mut out = String::from("| metric | over | model | gold |\n|---|---|---:|---:|\n");
        for it in &self.lines {
            let (model, gold) = (number(it.model), number(it.gold));
            out.push_str(&format!("| {} | {} | {model} | {gold} |\n", it.metric, it.score));
        }
        out.push('\n');
        for metric in METRICS {
            out.push_str(&format!("- `{}`: {}\n", metric.name, metric.about));
        }
        out.push_str(
            "\nGold is the model retrained without the forget rows. The models are run in the open, without a guard.\n",
        );
        out
    }

    /// Everything.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "provenance": self.provenance, "metrics": self.lines })
    }

    /// Writes `metrics.json` and `metrics.md` into `folder`.
    ///
    /// # Errors
    ///
    /// [`MeasureError::Eval`] naming the file.
    pub fn write(&self, folder: &Path, preface: &str) -> Result<(), MeasureError> {
        let json = serde_json::to_string_pretty(&self.to_json()).expect("a report is JSON");
        let markdown = format!("{preface}\n{}", self.to_markdown());
        Ok(write_both(folder, "metrics", &(json + "\n"), &markdown)?)
    }
}

/// Writes `<name>.json` and `<name>.md` into `folder`, which is made if missing.
///
/// # Errors
///
/// [`EvalError::Write`] naming the file.
pub fn write_both(folder: &Path, name: &str, json: &str, markdown: &str) -> Result<(), EvalError> {
    for (ending, text) in [("json", json), ("md", markdown)] {
        let path = folder.join(format!("{name}.{ending}"));
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|source| EvalError::Write { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_marked() {
        let provenance = json!({});
        let lines = lines(&Observed::default(), &Observed::default());
        let report = MetricReport { provenance, lines };
        assert!(report.to_markdown().contains("| membership | privleak | n/a | n/a |"));
        assert!(report.to_json()["metrics"][0]["model"].is_null());
        let folder = tempfile::tempdir().unwrap();
        report.write(folder.path(), "Command: none\n").unwrap();
        let text = std::fs::read_to_string(folder.path().join("metrics.md")).unwrap();
        assert!(text.starts_with("Command: none\n\n| metric |"));
    }
}
