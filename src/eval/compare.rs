//! The comparison behind `proxy-train eval`: the unguarded model, every treatment over it, and gold.

use std::path::Path;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::report::{Comparison, SystemScores};
use super::suite::{EvalError, Row, Subject, read_rows};
use super::tofu::{self, RowScores};
use crate::backend::Backend;

/// The four splits of TOFU.
#[derive(Debug, Clone)]
pub struct Splits {
    /// Rows to be forgotten.
    pub forget: Vec<Row>,
    /// Rows to be kept.
    pub retain: Vec<Row>,
    /// Well-known authors.
    pub real_authors: Vec<Row>,
    /// Facts of the world.
    pub world_facts: Vec<Row>,
}

impl Splits {
    /// Reads `<forget>.jsonl`, `retain_perturbed.jsonl`, `real_authors.jsonl` and `world_facts.jsonl`
    /// of a folder. At most `retain_rows` of the retain rows are used, evenly spread.
    ///
    /// # Errors
    ///
    /// [`EvalError::Data`] naming file and line.
    pub fn read(folder: &Path, forget: &str, retain_rows: usize) -> Result<Self, EvalError> {
        let read = |name: &str| read_rows(&folder.join(format!("{name}.jsonl")));
        let all = read("retain_perturbed")?;
        let kept = retain_rows.clamp(1, all.len());
        let retain = (0..kept).map(|it| all[it * all.len() / kept].clone()).collect();
        Ok(Self {
            forget: read(forget)?,
            retain: kept_as_asked(retain),
            real_authors: kept_as_asked(read("real_authors")?),
            world_facts: kept_as_asked(read("world_facts")?),
        })
    }

    fn kept_rows(&self) -> usize {
        self.retain.len() + self.real_authors.len() + self.world_facts.len()
    }
}

/// Rows without their other wordings: only of forget rows is the value reported.
fn kept_as_asked(mut rows: Vec<Row>) -> Vec<Row> {
    rows.iter_mut().for_each(|it| it.held_out_questions.clear());
    rows
}

/// A row of the table: the same system under one or more noise seeds.
#[derive(Debug, Clone)]
pub struct System {
    /// Its label.
    pub name: String,
    /// One backend per seed, at least one.
    pub backends: Vec<Arc<dyn Backend>>,
    /// The model id they answer to.
    pub model: String,
}

impl System {
    /// One subject per seed.
    #[must_use]
    pub fn subjects(&self) -> Vec<Subject<'_>> {
        let model = self.model.as_str();
        self.backends.iter().map(|it| Subject { backend: it.as_ref(), model }).collect()
    }
}

/// Measures every system in turn; `gold` is one of them, by index.
///
/// # Errors
///
/// [`EvalError`].
pub async fn compare(
    systems: &[System],
    gold: usize,
    splits: &Splits,
    provenance: Value,
) -> Result<Comparison, EvalError> {
    let rows: usize =
        systems.iter().map(|it| it.backends.len() * splits.forget.len() + splits.kept_rows()).sum();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} rows, {msg}, {eta} left")
        .expect("the template is valid");
    let bar = ProgressBar::new(rows as u64).with_style(style);
    let mut scored = Vec::with_capacity(systems.len());
    for system in systems {
        bar.set_message(system.name.clone());
        tracing::info!(system = system.name, "measuring");
        scored.push(measure(system, splits, &bar).await?);
    }
    bar.finish();
    let gold: Vec<RowScores> = scored[gold].forget[0].clone();
    Ok(Comparison { systems: scored, gold, provenance })
}

async fn measure(
    system: &System,
    splits: &Splits,
    bar: &ProgressBar,
) -> Result<SystemScores, EvalError> {
    let mut forget = Vec::with_capacity(system.backends.len());
    let subjects = system.subjects();
    for subject in &subjects {
        forget.push(subject.score_rows(&splits.forget, true, || bar.inc(1)).await?);
    }
    let subject = subjects[0];
    let retain = subject.score_rows(&splits.retain, true, || bar.inc(1)).await?;
    let real_authors = subject.score_rows(&splits.real_authors, false, || bar.inc(1)).await?;
    let world_facts = subject.score_rows(&splits.world_facts, false, || bar.inc(1)).await?;
    Ok(SystemScores {
        name: system.name.clone(),
        scoring: system.backends[0].capabilities().scoring,
        forget,
        utility: tofu::model_utility(&retain, &real_authors, &world_facts),
        retain,
        real_authors,
        world_facts,
    })
}
