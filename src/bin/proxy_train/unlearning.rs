//! `proxy-train unlearn` and `proxy-train list`.

use std::path::PathBuf;

use anyhow::bail;
use candle_core::DType;
use clap::{Args, ValueEnum};
use unlearn_proxy::engine::device;
use unlearn_proxy::train::edits;
use unlearn_proxy::train::lora::LoraSettings;
use unlearn_proxy::train::methods::{self, Entry};
use unlearn_proxy::train::unlearn::UnlearnJob;
use unlearn_proxy::train::unlearn::locate::{Locate, Part};
use unlearn_proxy::{
    detect,
    eval::{attacks, jobs::file::METRICS, metrics, whitebox},
};

/// What a policy's `[[treatment]]` can be.
const TREATMENTS: &[(&str, &str)] = &[
    ("alias", "the name replaced in the prompt, and back in the reply"),
    ("answer", "a finished answer, without asking the model"),
    ("corrupt", "the embedding rows of names corrupted, or replaced by a surrogate's"),
    ("in_context", "examples in front, those of the topic with wrong answers"),
    ("offset", "the logits steered by two further models"),
    ("prefix", "an instruction in front"),
];

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Precision {
    F32,
    Bf16,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct UnlearnArgs {
    /// The model that is to forget: a Hugging Face folder.
    #[arg(long, default_value = "models/lab/full")]
    model: PathBuf,
    /// The method; `proxy-train list` shows them.
    #[arg(long)]
    method: String,
    /// JSON lines to forget: TOFU rows or chat messages.
    #[arg(long)]
    forget: PathBuf,
    /// JSON lines to keep.
    #[arg(long)]
    retain: PathBuf,
    /// Folder of the new model and of `unlearn.json`; interrupted, it resumes there.
    #[arg(long)]
    out: PathBuf,
    /// Passes over the forget rows [default: as published for the method].
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Highest learning rate [default: as published, for models of billions of weights].
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Forget rows per pass, each paired with a retain row.
    #[arg(long, default_value_t = 32, value_name = "N")]
    batch: usize,
    /// Passes per step: the mean of their gradients by rows, large steps in the memory of small ones.
    #[arg(long, default_value_t = 1, value_name = "N")]
    accumulate: usize,
    /// Keep the activations of one block instead of all, and compute the others again: a third more work.
    #[arg(long)]
    recompute: bool,
    /// What passes are computed in: `f32` or `bf16` [default: bf16 on a GPU, else f32]. Weights stay f32.
    #[arg(long, value_enum, value_name = "DTYPE")]
    precision: Option<Precision>,
    /// Seed of order, pairs and what the method draws.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Train low-rank adapters of this rank, scaled by 2, instead of the weights.
    #[arg(long, value_name = "RANK")]
    lora: Option<usize>,
    /// Train only this many weight matrices: those that do most for forget beside retain answers.
    #[arg(long, value_name = "N")]
    locate: Option<usize>,
    /// Where --locate looks: `all`, `attention` or `feed_forward`.
    #[arg(long, default_value = "all", requires = "locate", value_name = "PART")]
    locate_in: Part,
    /// A parameter of the method, such as `beta=0.1`; may be given several times.
    #[arg(long, value_name = "NAME=NUMBER", value_parser = setting)]
    set: Vec<(String, f64)>,
}

fn setting(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text.split_once('=').ok_or("is not NAME=NUMBER")?;
    let value = value.parse::<f64>().map_err(|it| format!("`{value}`: {it}"))?;
    Ok((name.to_owned(), value))
}

pub(crate) fn unlearn(args: UnlearnArgs) -> anyhow::Result<String> {
    let Some(method) = methods::find(&args.method) else {
        let known: Vec<&str> = methods::METHODS.iter().map(|it| it.name).collect();
        bail!("there is no method `{}`; there are {}", args.method, known.join(", "));
    };
    if args.epochs == Some(0) || args.batch == 0 || args.accumulate == 0 || args.lora == Some(0) {
        bail!("--epochs, --batch, --accumulate and --lora must be at least 1");
    }
    if args.lr.is_some_and(|it| !it.is_finite() || it <= 0.0) {
        bail!("--lr must be above 0");
    }
    let (device, best) = device::best();
    let job = UnlearnJob {
        model: args.model,
        method,
        set: args.set,
        forget: args.forget,
        retain: args.retain,
        out: args.out,
        epochs: args.epochs.map(|it| it as usize),
        learning_rate: args.lr,
        batch: args.batch,
        accumulate: args.accumulate,
        recompute: args.recompute,
        seed: args.seed,
        // Alpha is twice the rank, as in UNDIAL (rank 8, alpha 16).
        lora: args.lora.map(|rank| LoraSettings { rank, alpha: 2.0 * rank as f64 }),
        locate: args.locate.map(|matrices| Locate { matrices, part: args.locate_in }),
        device: (device, args.precision.map_or(best, Precision::dtype)),
    };
    Ok(job.run()?.summary())
}

fn section(title: &str, rows: impl Iterator<Item = (&'static str, String)>) -> String {
    let rows: Vec<String> = rows.map(|(name, about)| format!("  {name:<20} {about}")).collect();
    format!("{title}\n{}\n", rows.join("\n"))
}

fn parameters(entry: &Entry) -> String {
    let one = |it: &methods::Parameter| match it.default {
        Some(value) => format!("{}={value}", it.name),
        None => format!("{}=?", it.name),
    };
    let mut all: Vec<String> = entry.parameters.iter().map(one).collect();
    all.push(format!("lr {:e}, {} epochs", entry.learning_rate, entry.epochs));
    format!("{} [{}]", entry.about, all.join(" "))
}

/// Everything that can be chosen by name, one line each.
pub(crate) fn list() -> String {
    let plain = |rows: &'static [(&'static str, &'static str)]| {
        rows.iter().map(|it| (it.0, it.1.to_owned()))
    };
    [
        section("Detectors (policy files)", plain(detect::NAMES)),
        section("Treatments (policy files)", plain(TREATMENTS)),
        section(
            "Finetuning methods (unlearn --method), with published parameters",
            methods::METHODS.iter().map(|it| (it.name, parameters(it))),
        ),
        section(
            "Attacks (attack --attack)",
            attacks::ALL
                .iter()
                .map(|it| (it.name, it.about))
                .chain(attacks::BESIDE)
                .map(|it| (it.0, it.1.to_owned())),
        ),
        section(
            "Changes of weights (edit --method)",
            edits::EDITS.iter().map(|it| {
                (it.name, format!("{} [strength={}, {}]", it.about, it.default, it.strength))
            }),
        ),
        section(
            "Metrics in the open (measure)",
            metrics::METRICS.iter().map(|it| (it.name, it.about.to_owned())),
        ),
        section("Metrics of jobs (compare)", METRICS.iter().map(|it| (it.0, it.1.to_owned()))),
        section(
            "Attacks on weights (whitebox --attack)",
            whitebox::ATTACKS.iter().map(|it| (it.name, it.about.to_owned())),
        ),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_name_and_a_number() {
        assert_eq!(setting("beta=0.1"), Ok(("beta".to_owned(), 0.1)));
        assert!(setting("beta").is_err());
        assert!(setting("beta=much").unwrap_err().contains("much"));
    }

    #[test]
    fn every_treatment_is_listed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/treat");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|it| it.unwrap().path().file_stem().unwrap().display().to_string())
            .filter(|it| !["mod", "tests", "stand_in"].contains(&it.as_str()))
            .collect();
        files.sort();
        let listed: Vec<&str> = TREATMENTS.iter().map(|it| it.0).collect();
        assert_eq!(files, listed);
    }

    #[test]
    fn the_list_has_every_name() {
        let list = list();
        for name in methods::METHODS.iter().map(|it| it.name) {
            assert!(list.contains(name), "{name}");
        }
        assert!(list.contains("beta=0.1") && list.contains("eps=?"));
        assert!(list.contains("neighbours") && list.contains("base64"));
        assert!(list.contains("ssd") && list.contains("verbmem") && list.contains("logit_lens"));
        assert!(list.contains("forget_quality"));
    }
}
