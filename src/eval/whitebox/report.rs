//! What the attacks on the weights found, as Markdown and JSON.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Attack, Finding, Inspection};
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::report::write_both;

/// One attack's findings.
#[derive(Debug, Clone, Serialize)]
pub struct Attacked {
    /// The attack's name.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// What each setting found.
    pub findings: Vec<Finding>,
}

/// All attacks.
#[derive(Debug, Clone)]
pub struct WhiteboxReport {
    /// What was run, to run it again.
    pub provenance: Value,
    /// The seed.
    pub seed: u64,
    /// The attacks in their order.
    pub attacks: Vec<Attacked>,
}

/// Runs attacks.
///
/// # Errors
///
/// [`MeasureError`] of the first that fails.
pub fn inspect(
    inspection: &Inspection<'_>,
    attacks: &[&Attack],
    provenance: Value,
) -> Result<WhiteboxReport, MeasureError> {
    let mut out = Vec::with_capacity(attacks.len());
    for attack in attacks {
        tracing::info!(attack = attack.name, "attacking");
        let findings = (attack.run)(inspection)?;
        out.push(Attacked { name: attack.name, about: attack.about, findings });
    }
    Ok(WhiteboxReport { provenance, seed: inspection.seed, attacks: out })
}

impl WhiteboxReport {
    /// The table in Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::from(
            "| attack | setting | budget | model | gold | excess, at least | succeeds |\n|---|---|---|---:|---:|---:|---|\n",
        );
        for attack in &self.attacks {
            for it in &attack.findings {
                out.push_str(&format!(
                    "| {} | {} | {} | {:.3} ({}/{}) | {:.3} ({}/{}) | {:.3} | {} |\n",
                    attack.name,
                    it.setting,
                    it.budget,
                    it.model.share(),
                    it.model.hits,
                    it.model.of,
                    it.gold.share(),
                    it.gold.hits,
                    it.gold.of,
                    it.model.excess(it.gold),
                    if it.succeeds() { "yes" } else { "no" },
                ));
            }
        }
        out.push('\n');
        for attack in &self.attacks {
            out.push_str(&format!("- `{}`: {}\n", attack.name, attack.about));
        }
        out.push_str(&format!(
            "\nAn attack succeeds when the lower end of the 95 % interval of its excess over gold is above 0; \
             what it reaches on gold, which was retrained without the forget rows, is guessing. Each row is \
             tested by itself: of twenty rows, one may succeed by chance. Threat model: access to the \
             weights. Seed {}.\n",
            self.seed
        ));
        out
    }

    /// Everything.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "provenance": self.provenance, "seed": self.seed, "attacks": self.attacks })
    }

    /// Writes `whitebox.json` and `whitebox.md` into `folder`.
    ///
    /// # Errors
    ///
    /// [`MeasureError::Eval`] naming the file.
    pub fn write(&self, folder: &Path, preface: &str) -> Result<(), MeasureError> {
        let json = serde_json::to_string_pretty(&self.to_json()).expect("a report is JSON");
        let markdown = format!("{preface}\n{}", self.to_markdown());
        Ok(write_both(folder, "whitebox", &(json + "\n"), &markdown)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::whitebox::Rate;

    #[test]
    fn a_row_says_whether_it_succeeds() {
        let finding = |hits| Finding {
            of_guard: false,
            setting: "int4".to_owned(),
            budget: "one rounding".to_owned(),
            model: Rate { hits, of: 10 },
            gold: Rate { hits: 0, of: 10 },
            detail: Value::Null,
        };
        let attacks = vec![Attacked {
            name: "quantisation",
            about: "rounds",
            findings: vec![finding(10), finding(1)],
        }];
        let report = WhiteboxReport { provenance: json!({}), seed: 7, attacks };
        let text = report.to_markdown();
        assert!(text.contains("| 1.000 (10/10) | 0.000 (0/10) | 0.612 | yes |"), "{text}");
        assert!(text.contains("| 0.100 (1/10) | 0.000 (0/10) |") && text.contains("| no |"));
        assert_eq!(report.to_json()["attacks"][0]["findings"][0]["model"]["hits"], 10);
    }
}
