//! `proxy-train`: makes the pieces offline and measures what they reach.

mod arguments;
mod compare;
mod inspection;
mod target;
mod unlearning;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use arguments::{
    AttackArgs, ClassifierArgs, Cli, Command, CorruptionArgs, DetectArgs, EvalArgs,
    FetchEncoderArgs, LabArgs, PretrainArgs, ProbeArgs, Scale, SkillsArgs,
};
use clap::Parser as _;
use unlearn_proxy::backend::Backend;
use unlearn_proxy::embed::{Precision, fetch};
use unlearn_proxy::eval::attacks::report::{GOLD, GUARDED, OTHER_GOLDS, SECOND_GOLD, TARGET};
use unlearn_proxy::eval::attacks::run::Plan;
use unlearn_proxy::eval::attacks::{self, Attack, Target};
use unlearn_proxy::eval::compare::{self as comparison, Splits, System};
use unlearn_proxy::eval::corruption::{Search, search};
use unlearn_proxy::eval::detection::{self, Sample};
use unlearn_proxy::eval::score::score;
use unlearn_proxy::eval::skills;
use unlearn_proxy::eval::suite::Subject;
use unlearn_proxy::lab::World;
use unlearn_proxy::policy::{Policy, Ruling, best_score, file};
use unlearn_proxy::service::{Guard, Guarded, app, variants};
use unlearn_proxy::telemetry::{self, Metrics};
use unlearn_proxy::train::classifier::{ClassifierJob, EncoderChoice, Gate, Study};
use unlearn_proxy::train::fusion;
use unlearn_proxy::train::pretrain::{Pretraining, SMOKE, STANDARD};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "the one place that tells the operator why it stopped")]
fn main() -> ExitCode {
    telemetry::init_tracing(false, telemetry::JOB_LOG);
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
        Command::Compare(args) => println!("{}", compare::compare(&args)?),
        Command::Detect(args) => println!("{}", detect(&args)?),
        Command::Pretrain(args) => pretrain(args)?,
        Command::Probe(args) => println!("{}", probe(args)?),
        Command::Classifier(args) => println!("{}", classifier(args)?),
        Command::Corruption(args) => println!("{}", block_on(corruption(args))?),
        Command::FetchEncoder(args) => println!("{}", fetch_encoder(&args)?),
        Command::Unlearn(args) => println!("{}", unlearning::unlearn(args)?),
        Command::Report(args) => println!("{}", compare::report(&args)?),
        Command::List => println!("{}", unlearning::list()),
        Command::Edit(args) => println!("{}", inspection::edit(args)?),
        Command::Measure(args) => println!("{}", inspection::measure(&args)?),
        Command::Whitebox(args) => {
            let runtime = runtime()?;
            // Suffixes are sent through the served path, which may need the runtime.
            let _inside = runtime.enter();
            println!("{}", inspection::whitebox(&args)?);
        }
        Command::Eval(args) => println!("{}", block_on(evaluate(args))?),
        Command::Score(args) => {
            let report = score(&args.run, args.retain.as_deref())?;
            println!("{}", if args.json { report.to_json() } else { report.to_markdown() });
        }
        Command::Skills(args) => println!("{}", block_on(measure_skills(args))?),
    }
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime()?.block_on(future)
}

fn pretrain(args: PretrainArgs) -> anyhow::Result<()> {
    let recipe = match args.scale {
        Scale::Smoke => SMOKE,
        Scale::Standard => STANDARD,
    };
    let PretrainArgs { seed, out, fulls, golds, route, .. } = args;
    let pretraining = Pretraining { recipe, seed, out, fulls, golds, route };
    match (args.corpus, args.forget) {
        (Some(corpus), Some(forget)) => Ok(pretraining.rows(&corpus, &forget)?),
        _ => Ok(pretraining.lab(42)?),
    }
}

fn classifier(args: ClassifierArgs) -> anyhow::Result<String> {
    let encoder = match (args.encoder.as_str(), args.encoder.strip_prefix("hashed+")) {
        ("hashed", _) => EncoderChoice::Hashed,
        (_, Some(folder)) => EncoderChoice::Joined(PathBuf::from(folder), args.onnxruntime),
        (folder, None) => EncoderChoice::Onnx(PathBuf::from(folder), args.onnxruntime),
    };
    let study = Study {
        test_forget: args.test_forget,
        test_retain: args.test_retain,
        hard: args.hard,
        folds: args.folds.map_or(0, usize::from),
        augment: args.augment,
        curve: args.curve,
        curve_seeds: args.curve_seeds,
    };
    let gate = Gate {
        min_recall: args.min_recall,
        at_false_positives: args.at_fpr,
        max_false_positives: args.max_false_positives,
    };
    let job = ClassifierJob {
        forget: args.forget,
        retain: args.retain,
        topic: args.topic,
        out: args.out,
        encoder,
        alpha: args.alpha,
        false_positives: args.false_positives,
        gate,
        study,
        seed: args.seed,
    };
    Ok(unlearn_proxy::train::classifier::run(&job)?.to_markdown())
}

fn probe(args: ProbeArgs) -> anyhow::Result<String> {
    let job = ClassifierJob {
        forget: vec![args.forget],
        retain: vec![args.retain],
        topic: args.topic,
        out: args.out,
        encoder: EncoderChoice::Hidden(args.model, args.layer),
        alpha: args.alpha,
        false_positives: args.false_positives,
        gate: Gate::default(),
        study: Study::default(),
        seed: args.seed,
    };
    Ok(unlearn_proxy::train::classifier::run(&job)?.to_markdown())
}

fn fetch_encoder(args: &FetchEncoderArgs) -> anyhow::Result<String> {
    let runtime = fetch::runtime(&args.runtime)?;
    let precision = if args.int8 { Precision::Int8 } else { Precision::F32 };
    let mut files = fetch::encoder(&args.out, precision)?;
    files.push(runtime);
    Ok(fetch::to_markdown(&files))
}

fn load_policy(path: &Path) -> anyhow::Result<Policy> {
    file::load(path).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}

/// Whether a text would be treated.
type Judge = Box<dyn Fn(&str) -> anyhow::Result<bool>>;

/// The lab's model, and its policy under any treatment and seed.
struct Lab {
    model: Arc<dyn Backend>,
    policy: Policy,
    pool: Vec<String>,
    width: usize,
}

impl Lab {
    fn load(args: &LabArgs) -> anyhow::Result<Self> {
        let policy = load_policy(&args.policy)?;
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
    fn under(&self, policy: Arc<Policy>) -> anyhow::Result<Arc<dyn Backend>> {
        guarded(&self.model, policy)
    }
}

/// A model under a policy.
fn guarded(model: &Arc<dyn Backend>, policy: Arc<Policy>) -> anyhow::Result<Arc<dyn Backend>> {
    app::load_offsets(std::slice::from_ref(&policy), &[MODEL.to_owned()], model.as_ref())?;
    let mut guard = Guard::build(policy)?;
    guard.seat(model)?;
    Ok(Arc::new(Guarded::new(model.clone(), vec![guard], Arc::new(Metrics::new()), None)))
}

/// Model id used in evaluations.
const MODEL: &str = "model";

fn local(folder: &Path) -> anyhow::Result<Arc<dyn Backend>> {
    Ok(Arc::new(app::load_local(folder, MODEL, 1024, 16)?))
}

fn system(name: &str, model: &str, backends: Vec<Arc<dyn Backend>>) -> System {
    System { name: name.to_owned(), backends, model: model.to_owned() }
}

/// The lab's model without guard and under every treatment, around gold.
fn lab_systems(args: &EvalArgs, lab: &Lab) -> anyhow::Result<Vec<System>> {
    let mut systems = vec![
        system("unguarded", MODEL, vec![lab.model.clone()]),
        system(GOLD, MODEL, vec![local(&args.gold)?]),
    ];
    if let Some(folder) = &args.second_gold {
        systems.push(system(SECOND_GOLD, MODEL, vec![local(folder)?]));
    }
    for (name, treatment) in variants::treatments(&lab.policy, lab.width) {
        // Neither has noise or surrogates to vary.
        let seeds = if matches!(treatment.name(), "prefix" | "offset") { 1 } else { args.seeds };
        let backends =
            (0..seeds).map(|it| lab.guarded(&treatment, it)).collect::<anyhow::Result<_>>()?;
        systems.push(system(&name, MODEL, backends));
    }
    Ok(systems)
}

async fn evaluate(args: EvalArgs) -> anyhow::Result<String> {
    if args.seeds == 0 {
        bail!("--seeds must be at least 1");
    }
    let splits = Splits::read(&args.lab.data, &args.lab.forget, args.retain_rows)?;
    let (systems, revision) = match args.target.backend()? {
        Some((backend, model)) => {
            let gold = system(GOLD, MODEL, vec![local(&args.gold)?]);
            (vec![system(TARGET, &model, vec![backend]), gold], None)
        }
        None => {
            let lab = Lab::load(&args.lab)?;
            (lab_systems(&args, &lab)?, Some(lab.policy.revision))
        }
    };
    let provenance = serde_json::json!({
        "command": std::env::args().collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "policy_revision": revision,
        "forget_rows": splits.forget.len(),
        "retain_rows": splits.retain.len(),
    });
    let comparison = comparison::compare(&systems, 1, &splits, provenance).await?;
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    comparison.write(&args.out, &format!("Command: `proxy-train {command}`\n"))?;
    Ok(comparison.to_markdown())
}

/// The attacks of these names, and what is measured beside them; all when there are none.
fn chosen(names: &[String]) -> anyhow::Result<(Vec<&'static Attack>, Vec<&'static str>)> {
    let beside = attacks::BESIDE.iter().map(|it| it.0);
    if names.is_empty() {
        return Ok((attacks::ALL.iter().collect(), beside.collect()));
    }
    let mut chosen = Vec::new();
    for name in names.iter().filter(|it| attacks::BESIDE.iter().all(|beside| beside.0 != **it)) {
        let Some(attack) = attacks::find(name) else {
            let known: Vec<&str> = attacks::ALL.iter().map(|it| it.name).chain(beside).collect();
            bail!("there is no attack `{name}`; there are {}", known.join(", "));
        };
        chosen.push(attack);
    }
    Ok((chosen, beside.filter(|it| names.iter().any(|name| name == it)).collect()))
}

async fn attack(args: AttackArgs) -> anyhow::Result<String> {
    let (attacks, beside) = chosen(&args.attacks)?;
    let authors = match args.lab.forget.as_str() {
        "forget10" => 4,
        "forget05" => 2,
        "forget01" => 1,
        other => bail!("--forget is forget10, forget05 or forget01, not `{other}`"),
    };
    if args.limit == Some(0) {
        bail!("--limit must be at least 1");
    }
    let gold = local(&args.gold)?;
    let others: Vec<_> = args.other_golds.iter().map(|it| local(it)).collect::<Result<_, _>>()?;
    let (mut systems, revision) = match args.target.backend()? {
        Some((backend, model)) => (vec![system(TARGET, &model, vec![backend])], None),
        None => {
            let lab = Lab::load(&args.lab)?;
            let mut models = vec![lab.model];
            for folder in &args.other_models {
                models.push(local(folder)?);
            }
            // Every model has lists of its own: the more there are, the less the luck of one counts.
            let lists = (0..).map(|it| variants::redrawn(&lab.policy, it, &lab.pool));
            let under = models.iter().flat_map(|it| std::iter::repeat_n(it, args.draws as usize));
            let guarded =
                under.zip(lists).map(|it| guarded(it.0, it.1)).collect::<anyhow::Result<_>>()?;
            let unguarded = system("unguarded", MODEL, models);
            (vec![unguarded, system(GUARDED, MODEL, guarded)], Some(lab.policy.revision))
        }
    };
    let world = World::new(args.world_seed);
    systems.push(system(GOLD, MODEL, vec![gold]));
    if !others.is_empty() {
        let name = if others.len() == 1 { SECOND_GOLD } else { OTHER_GOLDS };
        systems.push(system(name, MODEL, others));
    }
    let plan = Plan {
        systems: systems.iter().map(|it| (it.name.as_str(), it.subjects())).collect(),
        attacks,
        beside,
        draws: args.draws as usize,
        targets: Target::all(&world, authors, args.limit),
    };
    let provenance = serde_json::json!({
        "command": std::env::args().collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "policy_revision": revision,
        "questions": plan.targets.len(),
        "draws": args.draws,
    });
    let report = plan.run(provenance).await?;
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    report.write(&args.out, &format!("Command: `proxy-train {command}`\n"))?;
    Ok(report.to_markdown())
}

/// A policy with all its detectors, and with each of them alone.
fn judges(policy: &Policy) -> anyhow::Result<(Vec<String>, Vec<Judge>)> {
    let mut names = vec!["all".to_owned()];
    let mut policies = vec![policy.clone()];
    for setting in policy.detectors.iter().filter(|_| policy.detectors.len() > 1) {
        names.push(format!("`{}` alone", setting.name()));
        let detectors = vec![setting.clone()];
        policies.push(Policy { detectors, fusion: None, ..policy.clone() });
    }
    let runtime = Arc::new(runtime()?);
    let judge = |policy| -> anyhow::Result<Judge> {
        let (guard, runtime) = (Guard::build(Arc::new(policy))?, Arc::clone(&runtime));
        Ok(Box::new(move |text| {
            let seen = runtime.block_on(guard.read(text))?;
            Ok(matches!(guard.policy.decide(&seen), Ruling::Treat { .. }))
        }))
    };
    Ok((names, policies.into_iter().map(judge).collect::<anyhow::Result<_>>()?))
}

/// A `[fusion]` table for the policy, fitted on the best scores of its detectors.
fn fit_fusion(policy: Policy, forgotten: &[Sample], other: &[Sample]) -> anyhow::Result<String> {
    let (guard, runtime) = (Guard::build(Arc::new(policy))?, runtime()?);
    let names: Vec<&str> = guard.policy.detectors.iter().map(|it| it.name()).collect();
    let scores = |samples: &[Sample]| -> anyhow::Result<Vec<Vec<f32>>> {
        let mut rows = Vec::new();
        for text in samples.iter().flat_map(|it| &it.texts) {
            let seen = runtime.block_on(guard.read(text))?;
            rows.push(names.iter().map(|it| best_score(&seen, it)).collect());
        }
        Ok(rows)
    };
    Ok(fusion::fit(&names, &scores(forgotten)?, &scores(other)?)?.to_toml())
}

fn detect(args: &DetectArgs) -> anyhow::Result<String> {
    let policy = load_policy(&args.policy)?;
    let (names, judges) = judges(&policy)?;
    let templates = args.templates.as_deref().map(detection::templates).transpose()?;
    let mut samples = Vec::new();
    for path in &args.forget {
        let sample = Sample::read(path, &args.field)?;
        samples.extend(templates.iter().map(|it| sample.wrapped(it, 4)));
        if args.disguises {
            samples.extend(sample.disguised());
        } else {
            samples.push(sample);
        }
    }
    let forgotten = samples.len();
    for path in &args.other {
        samples.push(Sample::read(path, &args.field).or_else(|_| Sample::read(path, "question"))?);
    }
    let rows = detection::measure(&samples, &judges)?;
    let (recall, false_alarms) = rows.split_at(forgotten);
    let table = |rows: &[detection::Row]| detection::to_markdown(&names, rows);
    let mut report = format!(
        "Forgotten: what is treated (recall)\n\n{}\nEverything else: what is treated (false alarms)\n\n{}",
        table(recall),
        table(false_alarms)
    );
    if args.fit_fusion {
        let (forgotten, other) = samples.split_at(forgotten);
        report.push_str(&format!("\n{}", fit_fusion(policy, forgotten, other)?));
    }
    Ok(report)
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
