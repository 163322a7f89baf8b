//! `proxy-train measure`, `proxy-train whitebox` and `proxy-train edit`: models in the open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde_json::Value;
use unlearn_proxy::backend::Backend;
use unlearn_proxy::eval::metrics::observed::Rows;
use unlearn_proxy::eval::metrics::report::measure as measured;
use unlearn_proxy::eval::metrics::teacher::Teacher;
use unlearn_proxy::eval::suite::{Row, Subject, read_rows};
use unlearn_proxy::eval::whitebox::gcg::Budget;
use unlearn_proxy::eval::whitebox::report::inspect;
use unlearn_proxy::eval::whitebox::{self, Attack, Inspection};
use unlearn_proxy::policy::{Policy, TreatmentSetting};
use unlearn_proxy::train::edits::{self, run::EditJob};
use unlearn_proxy::types::Corruption;

#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// The model that is to have forgotten: a Hugging Face folder.
    #[arg(long)]
    model: PathBuf,
    /// The model retrained without the forget rows.
    #[arg(long, default_value = "models/lab/retain")]
    gold: PathBuf,
    /// Rows to be forgotten: TOFU's perturbed rows, or questions and answers of RWKU or MUSE.
    #[arg(long)]
    forget: PathBuf,
    /// Rows to be kept, likewise.
    #[arg(long)]
    retain: PathBuf,
    /// Most retain rows, evenly spread.
    #[arg(long, default_value_t = 200, value_name = "N")]
    retain_rows: usize,
    /// Folder of the results.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    #[command(flatten)]
    models: ModelArgs,
    /// JSON lines like the forget rows that neither model was trained on; membership is measured
    /// against the retain rows without them.
    #[arg(long)]
    holdout: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WhiteboxArgs {
    #[command(flatten)]
    models: ModelArgs,
    /// Only this attack; may be given several times.
    #[arg(long = "attack", value_name = "NAME")]
    attacks: Vec<String>,
    /// The policy that guards the model: suffixes are sent through it, and lenses and probes read the
    /// forward pass that it corrupts too.
    #[arg(long)]
    policy: Option<PathBuf>,
    /// JSON lines that have nothing to do with the topic, for `recovery`.
    #[arg(long)]
    unrelated: Option<PathBuf>,
    /// Steps of `gcg`; nanoGCG takes 250.
    #[arg(long, default_value_t = Budget::default().steps, value_name = "N")]
    gcg_steps: usize,
    /// Candidates per step of `gcg`; nanoGCG takes 512.
    #[arg(long, default_value_t = Budget::default().width, value_name = "N")]
    gcg_width: usize,
    /// Seed of splits, orders and restarts.
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// The model that is to forget: a Hugging Face folder.
    #[arg(long, default_value = "models/lab/full")]
    model: PathBuf,
    /// The method: `task_arithmetic`, `ssd`, `influence`, `rome`, `memit` or `needle`.
    #[arg(long)]
    method: String,
    /// JSON lines to forget: TOFU rows; `rome` and `memit` need their `author`, `needle` their `value`.
    #[arg(long)]
    forget: PathBuf,
    /// JSON lines to keep.
    #[arg(long)]
    retain: PathBuf,
    /// The model finetuned on the forget rows, for `task_arithmetic`; made on the fly without one.
    #[arg(long)]
    finetuned: Option<PathBuf>,
    /// What it is depends on the method; an unknown `--method` lists them.
    #[arg(long, value_name = "NUMBER")]
    strength: Option<f64>,
    /// Seed of order and noise.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Folder of the new model and of `edit.json`.
    #[arg(long)]
    out: PathBuf,
}

/// Two models and the rows they are compared on.
struct Comparison {
    model: Teacher,
    gold: Teacher,
    forget: Vec<Row>,
    retain: Vec<Row>,
}

impl Comparison {
    fn load(args: &ModelArgs) -> anyhow::Result<Self> {
        if args.retain_rows == 0 {
            bail!("--retain-rows must be at least 1");
        }
        let retain = read_rows(&args.retain)?;
        let kept = args.retain_rows.min(retain.len());
        Ok(Self {
            model: Teacher::load(&args.model)?,
            gold: Teacher::load(&args.gold)?,
            forget: read_rows(&args.forget)?,
            retain: (0..kept).map(|it| retain[it * retain.len() / kept].clone()).collect(),
        })
    }

    fn provenance(&self, args: &ModelArgs) -> Value {
        serde_json::json!({
            "command": std::env::args().collect::<Vec<_>>(),
            "version": env!("CARGO_PKG_VERSION"),
            "model": args.model.display().to_string(),
            "gold": args.gold.display().to_string(),
            "forget_rows": self.forget.len(),
            "retain_rows": self.retain.len(),
        })
    }
}

fn preface() -> String {
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    format!("Command: `proxy-train {command}`\n")
}

pub(crate) fn measure(args: &MeasureArgs) -> anyhow::Result<String> {
    let holdout = args.holdout.as_deref().map(read_rows).transpose()?.unwrap_or_default();
    let both = Comparison::load(&args.models)?;
    let provenance = both.provenance(&args.models);
    let rows = Rows { forget: both.forget, retain: both.retain, holdout };
    let report = measured(&both.model, &both.gold, &rows, provenance)?;
    report.write(&args.models.out, &preface())?;
    Ok(report.to_markdown())
}

/// The attacks of these names; all when there are none.
fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Attack>> {
    if names.is_empty() {
        return Ok(whitebox::ATTACKS.iter().collect());
    }
    let mut chosen = Vec::with_capacity(names.len());
    for name in names {
        let Some(attack) = whitebox::find(name) else {
            let known: Vec<&str> = whitebox::ATTACKS.iter().map(|it| it.name).collect();
            bail!("there is no attack `{name}` on weights; there are {}", known.join(", "));
        };
        chosen.push(attack);
    }
    Ok(chosen)
}

/// What a policy does to prompts, where it corrupts them. An engine of our own can carry out every
/// treatment, so the first is used.
pub(crate) fn corruption_of(policy: &Policy) -> Option<Corruption> {
    let TreatmentSetting::Corrupt { function } = policy.treatment.first()? else { return None };
    let (entities, seed) = (Arc::clone(&policy.entities), policy.seed);
    Some(Corruption { function: *function, spans: Vec::new(), entities, seed })
}

/// The model under a policy, and what the policy does to prompts where it corrupts them.
fn served(model: &Path, policy: &Path) -> anyhow::Result<(Arc<dyn Backend>, Option<Corruption>)> {
    let policy = crate::load_policy(policy)?;
    let corruption = corruption_of(&policy);
    Ok((crate::guarded(&crate::local(model)?, Arc::new(policy))?, corruption))
}

pub(crate) fn whitebox(args: &WhiteboxArgs) -> anyhow::Result<String> {
    let attacks = chosen(&args.attacks)?;
    let unrelated = args.unrelated.as_deref().map(read_rows).transpose()?.unwrap_or_default();
    let served = args.policy.as_deref().map(|it| served(&args.models.model, it)).transpose()?;
    let both = Comparison::load(&args.models)?;
    let inspection = Inspection {
        model: &both.model,
        gold: &both.gold,
        forget: &both.forget,
        retain: &both.retain,
        unrelated: &unrelated,
        served: served.as_ref().map(|it| Subject { backend: it.0.as_ref(), model: crate::MODEL }),
        corruption: served.as_ref().and_then(|it| it.1.as_ref()),
        suffix: Budget { steps: args.gcg_steps, width: args.gcg_width, ..Budget::default() },
        seed: args.seed,
    };
    let report = inspect(&inspection, &attacks, both.provenance(&args.models))?;
    report.write(&args.models.out, &preface())?;
    Ok(report.to_markdown())
}

pub(crate) fn edit(args: EditArgs) -> anyhow::Result<String> {
    let Some(edit) = edits::find(&args.method) else {
        bail!("there is no method `{}`; there are\n{}", args.method, methods());
    };
    if args.strength.is_some_and(|it| !it.is_finite()) {
        bail!("--strength must be a number");
    }
    let out = args.out.clone();
    let job = EditJob {
        model: args.model,
        edit,
        forget: args.forget,
        retain: args.retain,
        finetuned: args.finetuned,
        strength: args.strength,
        seed: args.seed,
        out: args.out,
    };
    let record = job.run()?;
    Ok(format!("{} of strength {}: {}", record.method, record.strength, out.display()))
}

/// The methods of `edit`, one line each.
fn methods() -> String {
    let line = |it: &edits::Edit| {
        format!("  {:<16} {} [strength {}: {}]", it.name, it.about, it.default, it.strength)
    };
    edits::EDITS.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_anything_is_loaded() {
        assert_eq!(chosen(&[]).unwrap().len(), whitebox::ATTACKS.len());
        assert_eq!(chosen(&["ccs".to_owned()]).unwrap()[0].name, "ccs");
        assert!(chosen(&["none".to_owned()]).unwrap_err().to_string().contains("logit_lens"));
        assert!(methods().contains("ssd") && methods().contains("rome"));
    }
}
