//! `proxy-train score`: TOFU's two headline numbers from a log that another tool wrote.
//!
//! Reads `eval_log_aggregated.json` of locuslab/tofu and `TOFU_EVAL.json` of open-unlearning, told
//! apart by their keys. The first has losses per row, so everything is computed from them. The second
//! is taken at its word for the nine parts of model utility (its ratios add 1e-10 to each
//! denominator), while the test of forgetting is computed from the ratios per row.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::tofu::{
    self, ForgetScores, ModelUtility, RowScores, forget_scores, forget_truth_ratio, truth_ratios,
    utility_of,
};
use crate::stats::{KsTest, ks_two_sample};

/// Sections of a TOFU log: retain, real authors, world facts, forget.
const TOFU_SECTIONS: [&str; 4] = [
    "eval_log.json",
    "eval_real_author_wo_options.json",
    "eval_real_world_wo_options.json",
    "eval_log_forget.json",
];

/// open-unlearning's names of the parts of model utility, in the order of [`tofu::UTILITY_PARTS`].
const OPEN_UNLEARNING_PARTS: [&str; 9] = [
    "retain_Q_A_Prob",
    "retain_Q_A_ROUGE",
    "retain_Truth_Ratio",
    "ra_Q_A_Prob_normalised",
    "ra_Q_A_ROUGE",
    "ra_Truth_Ratio",
    "wf_Q_A_Prob_normalised",
    "wf_Q_A_ROUGE",
    "wf_Truth_Ratio",
];

/// The metric is logged in lower case; its configuration file is `forget_Truth_Ratio`.
const FORGET_RATIO_KEYS: [&str; 2] = ["forget_truth_ratio", "forget_Truth_Ratio"];

/// Who wrote a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `eval_log_aggregated.json` of locuslab/tofu.
    Tofu,
    /// `TOFU_EVAL.json` of open-unlearning.
    OpenUnlearning,
}

impl LogFormat {
    /// The tool's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tofu => "locuslab/tofu",
            Self::OpenUnlearning => "open-unlearning",
        }
    }
}

/// What a log says about a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreReport {
    /// The log.
    pub run: PathBuf,
    /// The log of the model that never saw the forget rows.
    pub gold: Option<PathBuf>,
    /// Who wrote both.
    pub format: LogFormat,
    /// Computed model utility.
    pub utility: ModelUtility,
    /// Model utility as the log itself states it.
    pub stated_utility: Option<f64>,
    /// Aggregates of the forget rows; open-unlearning's may lack some, which are NaN.
    pub forget: ForgetScores,
    /// Forget quality against the gold log.
    pub forget_quality: Option<KsTest>,
}

/// Why a log has no score.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The file cannot be read.
    #[error("{path}: cannot be read", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("{path}: not JSON (Python's NaN and Infinity are not)", path = .path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Neither tool wrote the file.
    #[error(
        "{path}: neither an eval_log_aggregated.json of locuslab/tofu (key `eval_log.json`) nor a \
         TOFU_EVAL.json of open-unlearning (key `retain_Q_A_Prob`)",
        path = .path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// Something is missing or of another kind than expected.
    #[error("{path}: `{key}` should be {expected}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The place in it, from the top, joined by ` > `.
        key: String,
        /// What should be there.
        expected: &'static str,
    },
    /// The logs are of two tools, whose templates and ratios differ.
    #[error(
        "{run} is by {run_format} and {gold} by {gold_format}; compare logs of one tool",
        run = .run.display(), run_format = .run_format.name(),
        gold = .gold.display(), gold_format = .gold_format.name()
    )]
    FormatsDiffer {
        /// The scored log.
        run: PathBuf,
        /// Who wrote it.
        run_format: LogFormat,
        /// The gold log.
        gold: PathBuf,
        /// Who wrote that.
        gold_format: LogFormat,
    },
}

/// Scores the log `run`; with the log `gold` of the model retrained without the forget rows, its
/// forget quality too. Of `gold` only the forget section is read.
///
/// # Errors
///
/// [`ScoreError`], naming the file and the key.
pub fn score(run: &Path, gold: Option<&Path>) -> Result<ScoreReport, ScoreError> {
    let run = Log::read(run)?;
    let gold = gold.map(Log::read).transpose()?;
    report(run, gold)
}

fn report(run: Log, gold: Option<Log>) -> Result<ScoreReport, ScoreError> {
    let forget_quality = match &gold {
        None => None,
        Some(gold) if gold.format == run.format => {
            Some(ks_two_sample(&run.forget_ratios()?, &gold.forget_ratios()?))
        }
        Some(gold) => {
            return Err(ScoreError::FormatsDiffer {
                run: run.path,
                run_format: run.format,
                gold: gold.path.clone(),
                gold_format: gold.format,
            });
        }
    };
    let (utility, forget, stated_utility) = match run.format {
        LogFormat::Tofu => {
            let [retain, authors, facts, forget] = TOFU_SECTIONS;
            let utility = tofu::model_utility(
                &run.tofu_rows(retain)?,
                &run.tofu_rows(authors)?,
                &run.tofu_rows(facts)?,
            );
            (utility, forget_scores(&run.tofu_rows(forget)?), None)
        }
        LogFormat::OpenUnlearning => {
            let mut values = [0.0; 9];
            for (value, key) in values.iter_mut().zip(OPEN_UNLEARNING_PARTS) {
                *value = run.number(&[key, "agg_value"])?;
            }
            let stated = run.optional_number(&["model_utility", "agg_value"])?;
            (utility_of(values), run.open_unlearning_forget()?, stated)
        }
    };
    Ok(ScoreReport {
        format: run.format,
        run: run.path,
        gold: gold.map(|gold| gold.path),
        utility,
        stated_utility,
        forget,
        forget_quality,
    })
}

impl ScoreReport {
    /// For machines. What was not measured is `null`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let parts: Map<String, Value> = self
            .utility
            .parts
            .iter()
            .map(|part| (part.name.to_owned(), json!(part.value)))
            .collect();
        let quality = self.forget_quality.map(|test| {
            json!({
                "p_value": test.p_value,
                "log10_p_value": test.p_value.log10(),
                "ks_statistic": test.statistic,
            })
        });
        let report = json!({
            "run": self.run.display().to_string(),
            "retain": self.gold.as_ref().map(|gold| gold.display().to_string()),
            "format": self.format.name(),
            "model_utility": self.utility.value,
            "model_utility_parts": parts,
            "model_utility_in_log": self.stated_utility,
            "forget_quality": quality,
            "forget": {
                "rows": self.forget.rows,
                "probability": self.forget.probability,
                "rouge_l_recall": self.forget.rouge_l_recall,
                "truth_ratio": self.forget.truth_ratio,
            },
        });
        format!("{report:#}\n")
    }

    /// For people.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# {}\n\n", self.run.display());
        if let Some(gold) = &self.gold {
            line(&mut text, format_args!("Compared with {}. ", gold.display()));
        }
        line(&mut text, format_args!("Logs by {}.\n\n| | |\n|---|---:|\n", self.format.name()));
        line(&mut text, format_args!("| **Model utility** | {:.4} |\n", self.utility.value));
        if let Some(test) = self.forget_quality {
            let (p, statistic) = (test.p_value, test.statistic);
            line(&mut text, format_args!("| **Forget quality** (KS p-value) | {p:.3e} |\n"));
            line(&mut text, format_args!("| log10 of it | {:.2} |\n", p.log10()));
            line(&mut text, format_args!("| KS statistic | {statistic:.4} |\n"));
        }
        if let Some(stated) = self.stated_utility {
            line(&mut text, format_args!("| Model utility in the log | {stated:.4} |\n"));
        }
        text.push_str("\n| Part of model utility | |\n|---|---:|\n");
        for part in self.utility.parts {
            line(&mut text, format_args!("| {} | {} |\n", plain(part.name), number(part.value)));
        }
        line(&mut text, format_args!("\n| Forget rows ({}) | |\n|---|---:|\n", self.forget.rows));
        for (name, value) in [
            ("probability", self.forget.probability),
            ("ROUGE-L recall", self.forget.rouge_l_recall),
            ("truth ratio", self.forget.truth_ratio),
        ] {
            line(&mut text, format_args!("| {name} | {} |\n", number(value)));
        }
        text
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string succeeds");
}

fn plain(name: &str) -> String {
    name.replace("rouge_l", "ROUGE-L").replace('_', " ")
}

fn number(value: f64) -> String {
    if value.is_nan() { "not measured".to_owned() } else { format!("{value:.4}") }
}

/// A log file whose format is known.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    format: LogFormat,
    top: Value,
}

impl Log {
    fn read(path: &Path) -> Result<Self, ScoreError> {
        let path = path.to_owned();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(source) => return Err(ScoreError::Unreadable { path, source }),
        };
        match serde_json::from_slice(&text) {
            Ok(top) => Self::of(path, top),
            Err(source) => Err(ScoreError::NotJson { path, source }),
        }
    }

    fn of(path: PathBuf, top: Value) -> Result<Self, ScoreError> {
        let has = |key: &&str| top.get(*key).is_some();
        let format = if TOFU_SECTIONS.iter().any(has) {
            LogFormat::Tofu
        } else if OPEN_UNLEARNING_PARTS.iter().chain(&FORGET_RATIO_KEYS).any(has) {
            LogFormat::OpenUnlearning
        } else {
            return Err(ScoreError::UnknownFormat { path });
        };
        Ok(Self { path, format, top })
    }

    /// R of each forget row.
    fn forget_ratios(&self) -> Result<Vec<f64>, ScoreError> {
        match self.format {
            // The test needs no ROUGE, so a gold log may lack it.
            LogFormat::Tofu => Ok(truth_ratios(&self.tofu_losses(TOFU_SECTIONS[3])?)),
            LogFormat::OpenUnlearning => {
                let metric = self.forget_ratio_key();
                let rows = self.object(&[metric, "value_by_index"])?;
                rows.keys()
                    .map(|row| self.number(&[metric, "value_by_index", row, "score"]))
                    .collect()
            }
        }
    }

    fn forget_ratio_key(&self) -> &'static str {
        let [logged, configured] = FORGET_RATIO_KEYS;
        if self.top.get(configured).is_some() { configured } else { logged }
    }

    fn open_unlearning_forget(&self) -> Result<ForgetScores, ScoreError> {
        let aggregate = |metric| {
            let found = self.optional_number(&[metric, "agg_value"])?;
            Ok::<_, ScoreError>(found.unwrap_or(f64::NAN))
        };
        let has_ratios = self.top.get(self.forget_ratio_key()).is_some();
        let ratios = if has_ratios { self.forget_ratios()? } else { Vec::new() };
        Ok(ForgetScores {
            rows: ratios.len(),
            probability: aggregate("forget_Q_A_Prob")?,
            rouge_l_recall: aggregate("forget_Q_A_ROUGE")?,
            truth_ratio: forget_truth_ratio(&ratios),
            value_accuracy: None,
            value_probability: None,
        })
    }

    /// The rows of a TOFU section with their ROUGE.
    fn tofu_rows(&self, section: &str) -> Result<Vec<RowScores>, ScoreError> {
        let mut rows = self.tofu_losses(section)?;
        for (row, key) in rows.iter_mut().zip(self.object(&[section, "avg_gt_loss"])?.keys()) {
            row.rouge_l_recall = self.number(&[section, "rougeL_recall", key])?;
        }
        Ok(rows)
    }

    /// The rows of a TOFU section in the order of the log. Its metrics are matched by row index.
    fn tofu_losses(&self, section: &str) -> Result<Vec<RowScores>, ScoreError> {
        let rows = self.object(&[section, "avg_gt_loss"])?;
        rows.keys()
            .map(|key| {
                Ok(RowScores {
                    nll: self.number(&[section, "avg_gt_loss", key])?,
                    // In real authors and world facts this is the loss of the answer once more.
                    paraphrased_nll: Some(self.number(&[section, "avg_paraphrased_loss", key])?),
                    perturbed_nll: self.numbers(&[section, "average_perturb_loss", key])?,
                    rouge_l_recall: f64::NAN,
                    ..RowScores::default()
                })
            })
            .collect()
    }

    fn find(&self, keys: &[&str]) -> Option<&Value> {
        keys.iter().try_fold(&self.top, |value, key| value.get(*key))
    }

    /// An object with at least one entry.
    fn object(&self, keys: &[&str]) -> Result<&Map<String, Value>, ScoreError> {
        self.find(keys)
            .and_then(Value::as_object)
            .filter(|rows| !rows.is_empty())
            .ok_or_else(|| self.malformed(keys, "an object with a value per row"))
    }

    fn number(&self, keys: &[&str]) -> Result<f64, ScoreError> {
        self.find(keys).and_then(Value::as_f64).ok_or_else(|| self.malformed(keys, "a number"))
    }

    /// Absent and `null` are the same: open-unlearning writes `null` for what it could not compute.
    fn optional_number(&self, keys: &[&str]) -> Result<Option<f64>, ScoreError> {
        match self.find(keys) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.number(keys).map(Some),
        }
    }

    fn numbers(&self, keys: &[&str]) -> Result<Vec<f64>, ScoreError> {
        let expected = "a number or a list of numbers";
        let found = match self.find(keys) {
            Some(Value::Array(items)) if !items.is_empty() => {
                items.iter().map(Value::as_f64).collect()
            }
            Some(item) => item.as_f64().map(|number| vec![number]),
            None => None,
        };
        found.ok_or_else(|| self.malformed(keys, expected))
    }

    fn malformed(&self, keys: &[&str], expected: &'static str) -> ScoreError {
        ScoreError::Malformed { path: self.path.clone(), key: keys.join(" > "), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tofu_log() -> Value {
        let section = json!({
            "avg_gt_loss": { "0": 0.0 },
            "avg_paraphrased_loss": { "0": 1.0 },
            "average_perturb_loss": { "0": [1.0, 3.0] },
            "rougeL_recall": { "0": 0.5 },
        });
        TOFU_SECTIONS.iter().map(|name| ((*name).to_owned(), section.clone())).collect()
    }

    fn open_unlearning_log() -> Value {
        let part = |key: &&str| ((*key).to_owned(), json!({ "agg_value": 0.5 }));
        let mut log: Map<String, Value> = OPEN_UNLEARNING_PARTS.iter().map(part).collect();
        let rows = json!({ "0": { "score": 0.5 }, "1": { "score": 4.0 } });
        log.insert("forget_truth_ratio".to_owned(), json!({ "value_by_index": rows }));
        log.insert("model_utility".to_owned(), json!({ "agg_value": 0.5 }));
        log.into()
    }

    fn log(name: &str, top: Value) -> Result<Log, ScoreError> {
        Log::of(PathBuf::from(name), top)
    }

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12, "{got} vs {want}");
    }

    #[test]
    fn scores_losses_of_tofu() {
        let run = log("run", tofu_log()).unwrap();
        let report = report(run, Some(log("gold", tofu_log()).unwrap())).unwrap();
        let ratio = (-1.0_f64).exp();
        near(report.utility.parts[0].value, 1.0);
        near(report.utility.parts[2].value, 1.0 - ratio);
        near(report.utility.parts[3].value, 1.0 / (1.0 + ratio + (-3.0_f64).exp()));
        near(report.forget.truth_ratio, ratio);
        near(report.forget_quality.unwrap().p_value, 1.0);
        assert!(report.to_markdown().contains("| **Forget quality** (KS p-value) | 1.000e0 |"));
    }

    #[test]
    fn takes_parts_from_open_unlearning() {
        let report = report(log("run", open_unlearning_log()).unwrap(), None).unwrap();
        near(report.utility.value, 0.5);
        near(report.forget.truth_ratio, 0.375);
        assert_eq!(report.stated_utility, Some(0.5));
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["forget"]["probability"], Value::Null);
        assert_eq!(json["forget_quality"], Value::Null);
        assert!(report.to_markdown().contains("| probability | not measured |"));
    }

    #[test]
    fn an_error_names_file_and_key() {
        let mut broken = tofu_log();
        broken["eval_log.json"]["average_perturb_loss"]["0"] = json!(["x"]);
        let error = report(log("run", broken).unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("run: `eval_log.json > average_perturb_loss > 0`"), "{error}");

        let mut broken = open_unlearning_log();
        broken["wf_Q_A_ROUGE"] = Value::Null;
        let error = report(log("run", broken).unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("run: `wf_Q_A_ROUGE > agg_value`"), "{error}");

        let error = log("run", json!({ "a": 1 })).unwrap_err().to_string();
        assert!(error.contains("run: neither"), "{error}");
    }

    #[test]
    fn logs_of_two_tools_do_not_compare() {
        let (run, gold) = (log("run", tofu_log()), log("gold", open_unlearning_log()));
        let error = report(run.unwrap(), Some(gold.unwrap())).unwrap_err().to_string();
        assert!(error.contains("compare logs of one tool"), "{error}");
    }
}
