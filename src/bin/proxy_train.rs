//! `proxy-train`: makes the pieces offline and measures what they reach.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use unlearn_proxy::backend::Backend;
use unlearn_proxy::eval::attacks::run::Plan;
use unlearn_proxy::eval::attacks::{self, Attack, Target};
use unlearn_proxy::eval::compare::{Splits, System, compare};
use unlearn_proxy::eval::corruption::{Search, search};
use unlearn_proxy::eval::score::score;
use unlearn_proxy::eval::skills;
use unlearn_proxy::eval::suite::Subject;
use unlearn_proxy::lab::World;
use unlearn_proxy::policy::file;
use unlearn_proxy::service::{Guard, Guarded, app, variants};
use unlearn_proxy::telemetry::{self, Metrics};
use unlearn_proxy::train::classifier::{ClassifierJob, EncoderChoice};
use unlearn_proxy::train::pretrain::{Pretraining, SMOKE, STANDARD};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains classifiers and lab models offline, and measures forgetting against a retrained model.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  proxy-train eval --out /tmp/eval                     the lab's table: unguarded, guarded, gold
  proxy-train attack --out /tmp/attacks                what a client of the API can get out
  proxy-train classifier --forget f.jsonl --retain r.jsonl --topic mine --out models/mine
  proxy-train corruption                               search function and strength for the lab
  proxy-train pretrain --out /tmp/lab                  rebuild the lab's models from the seed
  proxy-train score RUN/TOFU_EVAL.json --retain GOLD/TOFU_EVAL.json"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attack the served path as a client can: unguarded, guarded by the policy, and gold.
    #[command(
        after_help = "Without --attack: all of them. An unknown name lists them.\nExamples:\n  proxy-train \
                      attack --out /tmp/attacks\n  proxy-train attack --out /tmp/attacks --attack \
                      base64 --attack detectability --limit 8"
    )]
    Attack(AttackArgs),
    /// Train a model that knows everything and models that never saw the forget set.
    #[command(
        after_help = "Without --corpus: the lab (tokenizer, full, retain, retain-2, data files). Interrupted, it \
                      resumes where it was.\nExample: proxy-train pretrain --out /tmp/lab --seed 42"
    )]
    Pretrain(PretrainArgs),
    /// Train a topic classifier and calibrate its threshold.
    #[command(
        after_help = "Example: proxy-train classifier --forget models/lab/data/forget10.jsonl --retain \
                      models/lab/data/retain90.jsonl --topic forgotten-authors --out /tmp/classifier"
    )]
    Classifier(ClassifierArgs),
    /// Search the corruption function and strength that come nearest to a surrogate retain value.
    Corruption(CorruptionArgs),
    /// Measure TOFU's metrics through the served path: unguarded, guarded, and gold.
    #[command(after_help = "Example: proxy-train eval --out /tmp/eval --seeds 5")]
    Eval(EvalArgs),
    /// Aggregate an evaluation log of TOFU's or open-unlearning's own code.
    Score(ScoreArgs),
    /// Measure what a lab model knows and can do.
    Skills(SkillsArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scale {
    Smoke,
    Standard,
}

#[derive(Debug, Args)]
struct PretrainArgs {
    /// Folder of the results.
    #[arg(long)]
    out: PathBuf,
    /// Seed of weights and order.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Size and length of training.
    #[arg(long, value_enum, default_value_t = Scale::Standard)]
    scale: Scale,
    /// JSON lines of TOFU rows or chat messages, instead of the lab.
    #[arg(long, requires = "forget")]
    corpus: Option<PathBuf>,
    /// The rows of --corpus that the retain models never see.
    #[arg(long, requires = "corpus")]
    forget: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ClassifierArgs {
    /// JSON lines about the topic.
    #[arg(long)]
    forget: PathBuf,
    /// JSON lines about everything else.
    #[arg(long)]
    retain: PathBuf,
    /// The topic's name.
    #[arg(long)]
    topic: String,
    /// Folder of the classifier.
    #[arg(long)]
    out: PathBuf,
    /// `hashed`, or a folder with `model.onnx` and `tokenizer.json`.
    #[arg(long, default_value = "hashed")]
    encoder: String,
    /// The ONNX Runtime library, for an ONNX encoder.
    #[arg(long)]
    onnxruntime: Option<PathBuf>,
    /// Accepted share of missed forget rows.
    #[arg(long, default_value_t = 0.01)]
    alpha: f64,
    /// Seed of splits and sampling.
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

#[derive(Debug, Args)]
struct CorruptionArgs {
    #[command(flatten)]
    lab: LabArgs,
    /// The value that a model which never learnt the topic would score (probability of the value
    /// asked for); by default one over the number of wrong answers plus one.
    #[arg(long)]
    target: Option<f64>,
    /// Noise seeds averaged per trial.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
}

#[derive(Debug, Args)]
struct LabArgs {
    /// The model that knows everything.
    #[arg(long, default_value = "models/lab/full")]
    model: PathBuf,
    /// The policy to measure.
    #[arg(long, default_value = "policies/lab.toml")]
    policy: PathBuf,
    /// Folder of the TOFU files.
    #[arg(long, default_value = "models/lab/data")]
    data: PathBuf,
    /// The forget split.
    #[arg(long, default_value = "forget10")]
    forget: String,
}

#[derive(Debug, Args)]
struct AttackArgs {
    #[command(flatten)]
    lab: LabArgs,
    /// The model retrained without the forget set.
    #[arg(long, default_value = "models/lab/retain")]
    gold: PathBuf,
    /// Only this attack, or `detectability`; may be given several times.
    #[arg(long = "attack", value_name = "NAME")]
    attacks: Vec<String>,
    /// Most questions per attack, evenly spread over the authors.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Seed of the world.
    #[arg(long, default_value_t = 42)]
    world_seed: u64,
    /// Folder of `attacks.json` and `attacks.md`.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct EvalArgs {
    #[command(flatten)]
    lab: LabArgs,
    /// The model retrained without the forget set.
    #[arg(long, default_value = "models/lab/retain")]
    gold: PathBuf,
    /// The same with another seed, the noise floor.
    #[arg(long)]
    second_gold: Option<PathBuf>,
    /// Retain rows used for model utility.
    #[arg(long, default_value_t = 400)]
    retain_rows: usize,
    /// Seeds of noise and surrogates per treatment.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Folder of `eval.json` and `eval.md`.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct ScoreArgs {
    /// The run's log: `eval_log_aggregated.json` or `TOFU_EVAL.json`.
    run: PathBuf,
    /// The retain model's log.
    #[arg(long)]
    retain: Option<PathBuf>,
    /// Print JSON instead of Markdown.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SkillsArgs {
    /// Model folders.
    #[arg(default_values = ["models/lab/full", "models/lab/retain"])]
    models: Vec<PathBuf>,
    /// Seed of the world.
    #[arg(long, default_value_t = 42)]
    world_seed: u64,
}

#[expect(clippy::print_stderr, reason = "the one place that tells the operator why it stopped")]
fn main() -> ExitCode {
    telemetry::init_tracing(false);
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Attack(args) => println!("{}", block_on(attack(args))?),
        Command::Pretrain(args) => pretrain(args)?,
        Command::Classifier(args) => println!("{}", classifier(args)?),
        Command::Corruption(args) => println!("{}", block_on(corruption(args))?),
        Command::Eval(args) => println!("{}", block_on(evaluate(args))?),
        Command::Score(args) => {
            let report = score(&args.run, args.retain.as_deref())?;
            println!("{}", if args.json { report.to_json() } else { report.to_markdown() });
        }
        Command::Skills(args) => println!("{}", block_on(measure_skills(args))?),
    }
    Ok(())
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}

fn pretrain(args: PretrainArgs) -> anyhow::Result<()> {
    let recipe = match args.scale {
        Scale::Smoke => SMOKE,
        Scale::Standard => STANDARD,
    };
    let pretraining = Pretraining { recipe, seed: args.seed, out: args.out };
    match (args.corpus, args.forget) {
        (Some(corpus), Some(forget)) => Ok(pretraining.rows(&corpus, &forget)?),
        _ => Ok(pretraining.lab(42)?),
    }
}

fn classifier(args: ClassifierArgs) -> anyhow::Result<String> {
    let encoder = match args.encoder.as_str() {
        "hashed" => EncoderChoice::Hashed,
        folder => EncoderChoice::Onnx(PathBuf::from(folder), args.onnxruntime),
    };
    let job = ClassifierJob {
        forget: args.forget,
        retain: args.retain,
        topic: args.topic,
        out: args.out,
        encoder,
        alpha: args.alpha,
        seed: args.seed,
    };
    Ok(unlearn_proxy::train::classifier::run(&job)?.to_markdown())
}

/// The lab's model, and its policy under any treatment and seed.
struct Lab {
    model: Arc<dyn Backend>,
    policy: unlearn_proxy::policy::Policy,
    pool: Vec<String>,
    width: usize,
}

impl Lab {
    fn load(args: &LabArgs) -> anyhow::Result<Self> {
        let policy = file::load(&args.policy).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", lines.join("\n"))
        })?;
        let path = args.data.join("unseen_names.txt");
        let names = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let config = unlearn_proxy::engine::model_config::ModelConfig::read(&args.model)?;
        Ok(Self {
            model: local(&args.model)?,
            policy,
            pool: names.lines().map(str::to_owned).collect(),
            width: config.hidden_size,
        })
    }

    fn guarded(
        &self,
        treatment: &unlearn_proxy::policy::TreatmentSetting,
        seed: u64,
    ) -> anyhow::Result<Arc<dyn Backend>> {
        self.under(variants::variant(&self.policy, treatment.clone(), seed, &self.pool))
    }

    /// The model under a policy as it stands.
    fn under(
        &self,
        policy: Arc<unlearn_proxy::policy::Policy>,
    ) -> anyhow::Result<Arc<dyn Backend>> {
        let guard = Guard::build(policy)?;
        Ok(Arc::new(Guarded::new(self.model.clone(), vec![guard], Arc::new(Metrics::new()), None)))
    }
}

/// Model id used in evaluations.
const MODEL: &str = "model";

fn local(folder: &Path) -> anyhow::Result<Arc<dyn Backend>> {
    Ok(Arc::new(app::load_local(folder, MODEL, 1024, 16)?))
}

async fn evaluate(args: EvalArgs) -> anyhow::Result<String> {
    if args.seeds == 0 {
        bail!("--seeds must be at least 1");
    }
    let lab = Lab::load(&args.lab)?;
    let system =
        |name: &str, backends| System { name: name.to_owned(), backends, model: MODEL.to_owned() };
    let mut systems = vec![
        system("unguarded", vec![lab.model.clone()]),
        system("gold (retrained)", vec![local(&args.gold)?]),
    ];
    if let Some(folder) = &args.second_gold {
        systems.push(system("gold, second seed", vec![local(folder)?]));
    }
    for (name, treatment) in variants::treatments(&lab.policy, lab.width) {
        // A prefix has neither noise nor surrogates to vary.
        let seeds = if treatment.name() == "prefix" { 1 } else { args.seeds };
        let backends =
            (0..seeds).map(|it| lab.guarded(&treatment, it)).collect::<anyhow::Result<_>>()?;
        systems.push(system(&name, backends));
    }
    let splits = Splits::read(&args.lab.data, &args.lab.forget, args.retain_rows)?;
    let provenance = serde_json::json!({
        "command": std::env::args().collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "policy_revision": lab.policy.revision,
        "forget_rows": splits.forget.len(),
        "retain_rows": splits.retain.len(),
    });
    let comparison = compare(&systems, 1, &splits, provenance).await?;
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    comparison.write(&args.out, &format!("Command: `proxy-train {command}`\n"))?;
    Ok(comparison.to_markdown())
}

/// The attacks of these names, and whether detectability is measured; all when there are none.
fn chosen(names: &[String]) -> anyhow::Result<(Vec<&'static Attack>, bool)> {
    if names.is_empty() {
        return Ok((attacks::ALL.iter().collect(), true));
    }
    let mut chosen = Vec::new();
    for name in names.iter().filter(|it| *it != attacks::DETECTABILITY) {
        let Some(attack) = attacks::find(name) else {
            let known: Vec<&str> = attacks::ALL.iter().map(|it| it.name).collect();
            bail!(
                "there is no attack `{name}`; there are {}, {}",
                known.join(", "),
                attacks::DETECTABILITY
            );
        };
        chosen.push(attack);
    }
    Ok((chosen, names.iter().any(|it| it == attacks::DETECTABILITY)))
}

async fn attack(args: AttackArgs) -> anyhow::Result<String> {
    let (attacks, detectability) = chosen(&args.attacks)?;
    let authors = match args.lab.forget.as_str() {
        "forget10" => 4,
        "forget05" => 2,
        "forget01" => 1,
        other => bail!("--forget is forget10, forget05 or forget01, not `{other}`"),
    };
    if args.limit == Some(0) {
        bail!("--limit must be at least 1");
    }
    let lab = Lab::load(&args.lab)?;
    let (guarded, gold) = (lab.under(Arc::new(lab.policy.clone()))?, local(&args.gold)?);
    let world = World::new(args.world_seed);
    let subject = |backend| Subject { backend, model: MODEL };
    let plan = Plan {
        systems: vec![
            ("unguarded", subject(lab.model.as_ref())),
            ("guarded", subject(guarded.as_ref())),
            ("gold (retrained)", subject(gold.as_ref())),
        ],
        attacks,
        detectability,
        targets: Target::all(&world, authors, args.limit),
    };
    let provenance = serde_json::json!({
        "command": std::env::args().collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "policy_revision": lab.policy.revision,
        "questions": plan.targets.len(),
    });
    let report = plan.run(provenance).await?;
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    report.write(&args.out, &format!("Command: `proxy-train {command}`\n"))?;
    Ok(report.to_markdown())
}

async fn corruption(args: CorruptionArgs) -> anyhow::Result<String> {
    let lab = Lab::load(&args.lab)?;
    let rows = Splits::read(&args.lab.data, &args.lab.forget, 1)?.forget;
    let search_settings = Search { width: lab.width, target: args.target, seeds: args.seeds };
    let guarded = |function, seed| {
        lab.guarded(&unlearn_proxy::policy::TreatmentSetting::Corrupt { function }, seed)
            .map_err(|it| it.to_string())
    };
    Ok(search(&search_settings, &rows, MODEL, guarded).await?)
}

async fn measure_skills(args: SkillsArgs) -> anyhow::Result<String> {
    let world = World::new(args.world_seed);
    let mut all = Vec::new();
    for folder in &args.models {
        let backend = local(folder)?;
        let subject = Subject { backend: backend.as_ref(), model: MODEL };
        all.push((folder.display().to_string(), skills::skills(subject, &world).await?));
    }
    Ok(skills::to_markdown(&all))
}
