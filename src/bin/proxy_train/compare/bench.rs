//! What all points of a job have in common, and the measuring of one of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use unlearn_proxy::backend::Backend;
use unlearn_proxy::embed::{Encoder, MANIFEST_FILE, Onnx, OnnxOptions, sha256_hex};
use unlearn_proxy::engine::model_config::ModelConfig;
use unlearn_proxy::engine::weights;
use unlearn_proxy::eval::jobs::file::Job;
use unlearn_proxy::eval::jobs::grid::{Action, Bound, Point, hash};
use unlearn_proxy::eval::jobs::material::Material;
use unlearn_proxy::eval::jobs::result::{FORMAT, Measured, PointResult, Status, Timing};
use unlearn_proxy::eval::jobs::{measure, open};
use unlearn_proxy::eval::metrics::teacher::Teacher;
use unlearn_proxy::eval::suite::{Row, Subject};
use unlearn_proxy::policy::{DetectorSetting, Policy, TreatmentSetting, file};
use unlearn_proxy::service::variants::variant;
use unlearn_proxy::train::methods::Parameters;

use super::machine;
use super::make::{self, Made, Outcome};
use crate::inspection::corruption_of;
use crate::{MODEL, guarded, local, runtime};

/// Models, rows and policies that points share.
pub(super) struct Bench<'a> {
    job: &'a Job,
    material: Material,
    runtime: tokio::runtime::Runtime,
    untouched: Arc<dyn Backend>,
    untouched_teacher: Teacher,
    gold_teacher: Teacher,
    /// Policies of guards by the index of their row.
    policies: BTreeMap<usize, Policy>,
    /// SHA-256 of finished models' weights by the index of their row.
    finished: BTreeMap<usize, String>,
    /// SHA-256 of what guards read from folders, by the index of their row.
    folders: BTreeMap<usize, Vec<String>>,
    pool: Vec<String>,
    shared: Value,
}

impl<'a> Bench<'a> {
    /// Loads what points share, and checks what would fail later: parameters and policies.
    pub(super) fn load(job: &'a Job, hashes: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let config = ModelConfig::read(&job.model)?;
        check_methods(job, &config)?;
        let policies = policies(job)?;
        let folders = policies.iter().map(|(order, it)| Ok((*order, folders_of(it)?)));
        let folders = folders.collect::<anyhow::Result<_>>()?;
        let mut pool = Vec::new();
        if !policies.is_empty() {
            let path = job.data.join("unseen_names.txt");
            let names = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            pool.extend(names.lines().map(str::to_owned));
        }
        let mut finished = BTreeMap::new();
        for (order, variant) in job.variants.iter().enumerate() {
            if let Action::Model(folder) = &variant.action {
                let named = || format!("{}: {}", job.path.display(), variant.label);
                finished.insert(order, weights::sha256(folder).with_context(named)?);
            }
        }
        let second = job.second_gold.as_deref().map(weights::sha256).transpose()?;
        let shared = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "format": FORMAT,
            "model_sha256": weights::sha256(&job.model)?,
            "gold_sha256": weights::sha256(&job.gold)?,
            "second_gold_sha256": second,
            "data_sha256": hashes,
            "splits": job.splits,
            "limits": job.limits,
            "metrics": job.metrics,
            "attacks": job.attacks,
            "whitebox": job.whitebox,
            "world_seed": job.world_seed,
        });
        Ok(Self {
            job,
            material: Material::read(job)?,
            runtime: runtime()?,
            untouched: local(&job.model)?,
            untouched_teacher: Teacher::load(&job.model)?,
            gold_teacher: Teacher::load(&job.gold)?,
            policies,
            finished,
            folders,
            pool,
            shared,
        })
    }

    /// Everything that decides a point's numbers.
    pub(super) fn config(&self, point: &Point<'_>) -> Value {
        let mut config = point.config(&self.shared);
        if let Some(policy) = self.policies.get(&point.order) {
            config["policy_revision"] = json!(policy.revision);
            config["folders_sha256"] = json!(self.folders.get(&point.order));
            config["surrogates_sha256"] = json!(sha256_hex(self.pool.join("\n").as_bytes()));
        }
        if let Some(sha256) = self.finished.get(&point.order) {
            config["finished_sha256"] = json!(sha256);
        }
        config
    }

    /// Runs a point to its end; what goes wrong is part of the result.
    pub(super) fn run(&self, point: &Point<'_>, out: &Path) -> PointResult {
        let config = self.config(point);
        let hash = hash(&config);
        let bound = match &point.variant.action {
            Action::Bound(bound) => Some(*bound),
            _ => None,
        };
        let mut result = PointResult {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            order: point.order,
            label: point.variant.label.clone(),
            name: point.variant.name.clone(),
            kind: point.variant.kind,
            bound,
            seed: point.seed,
            config,
            status: Status::Done,
            measured: None,
            training: None,
            timing: Timing::default(),
            hash,
        };
        let folder = out.join("models").join(&result.hash);
        machine::reset_peak();
        if let Err(error) = self.fill(point, &folder, &mut result) {
            result.measured = None;
            result.status = Status::Failed { message: format!("{error:#}") };
        }
        result.timing.peak_bytes = machine::peak_bytes();
        result
    }

    fn fill(
        &self,
        point: &Point<'_>,
        folder: &Path,
        result: &mut PointResult,
    ) -> anyhow::Result<()> {
        let made = match make::model(self.job, point, folder)? {
            Outcome::Diverged(status) => {
                result.status = status;
                return Ok(());
            }
            Outcome::Untouched => None,
            Outcome::Made(made) => Some(made),
        };
        let since = Instant::now();
        match made {
            None => self.fill_untouched(point, result)?,
            Some(made) => {
                self.fill_changed(&made, point, result)?;
                result.training = made.training;
                result.timing.train_seconds = made.seconds;
            }
        }
        result.timing.measure_seconds = since.elapsed().as_secs_f64();
        if !self.job.keep_models && folder.exists() && result.is_final() {
            fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        Ok(())
    }

    /// The untouched model, guarded or not.
    fn fill_untouched(&self, point: &Point<'_>, result: &mut PointResult) -> anyhow::Result<()> {
        let policy = self.policy(point)?;
        let backend = self.under(policy.as_ref())?;
        let mut measured = self.served(backend.as_ref())?;
        let corruption = policy.as_deref().and_then(corruption_of);
        let served = Subject { backend: backend.as_ref(), model: MODEL };
        let guard =
            policy.is_some().then_some(open::Guard { served, corruption: corruption.as_ref() });
        self.inspect(&self.untouched_teacher, guard, point.seed, &mut measured)?;
        result.measured = Some(measured);
        // Guards remember what they have read, so that time is taken of ones that have read nothing.
        self.time(self.under(policy.as_ref())?.as_ref(), result)?;
        self.signs(self.under(policy.as_ref())?.as_ref(), result)
    }

    /// A model of its own.
    fn fill_changed(
        &self,
        made: &Made,
        point: &Point<'_>,
        result: &mut PointResult,
    ) -> anyhow::Result<()> {
        let teacher = Teacher::load(&made.folder)?;
        if !make::is_finite(&teacher.decoder)? {
            let step = made.training.as_ref().and_then(|it| it.steps).unwrap_or(0);
            let message = format!("{}: weights are not finite", point.variant.name);
            result.status = Status::Diverged { step, message, checkpoint: None };
            return Ok(());
        }
        let backend = local(&made.folder)?;
        let mut measured = self.served(backend.as_ref())?;
        // Gold beside gold has nothing to find.
        if !matches!(point.variant.action, Action::Bound(Bound::Gold)) {
            self.inspect(&teacher, None, point.seed, &mut measured)?;
        }
        result.measured = Some(measured);
        self.time(backend.as_ref(), result)?;
        self.signs(backend.as_ref(), result)
    }

    fn served(&self, backend: &dyn Backend) -> anyhow::Result<Measured> {
        let subject = Subject { backend, model: MODEL };
        Ok(self.runtime.block_on(measure::served(subject, self.job, &self.material))?)
    }

    fn inspect(
        &self,
        model: &Teacher,
        guard: Option<open::Guard<'_>>,
        seed: u64,
        measured: &mut Measured,
    ) -> anyhow::Result<()> {
        // Suffixes are sent through the served path, which may need the runtime.
        let _entered = self.runtime.enter();
        let (gold, untouched) = (&self.gold_teacher, &self.untouched_teacher);
        let models = open::Models { model, gold, untouched, guard };
        Ok(open::inspect(models, self.job, &self.material, seed, measured)?)
    }

    fn time(&self, backend: &dyn Backend, result: &mut PointResult) -> anyhow::Result<()> {
        let subject = Subject { backend, model: MODEL };
        let untouched = Subject { backend: self.untouched.as_ref(), model: MODEL };
        let of = |rows: &[Row]| {
            let count = self.job.limits.timed;
            self.runtime.block_on(measure::request_seconds(subject, untouched, rows, count))
        };
        result.timing.forget_requests = of(&self.material.forget)?;
        result.timing.other_requests = of(&self.material.hard)?;
        Ok(())
    }

    /// What tells forget questions from others.
    fn signs(&self, backend: &dyn Backend, result: &mut PointResult) -> anyhow::Result<()> {
        let subject = Subject { backend, model: MODEL };
        let signs = self.runtime.block_on(measure::signs(subject, self.job))?;
        if let (Some((signs, by_time)), Some(measured)) = (signs, &mut result.measured) {
            measured.signs = signs;
            result.timing.time_auc = Some(by_time).filter(|it| it.is_finite());
        }
        Ok(())
    }

    /// The policy of the point's guard, with surrogates of its seed; none for a bound.
    fn policy(&self, point: &Point<'_>) -> anyhow::Result<Option<Arc<Policy>>> {
        let Some(policy) = self.policies.get(&point.order) else { return Ok(None) };
        let treatment = policy.treatment.first().context("the policy has no treatment")?;
        Ok(Some(variant(policy, treatment.clone(), point.seed, &self.pool)))
    }

    /// The untouched model under a policy, or as it is.
    fn under(&self, policy: Option<&Arc<Policy>>) -> anyhow::Result<Arc<dyn Backend>> {
        match policy {
            Some(policy) => guarded(&self.untouched, Arc::clone(policy)),
            None => Ok(Arc::clone(&self.untouched)),
        }
    }
}

/// Fails when a finished model cannot be compared with the untouched one, block by block.
fn finished(folder: &Path, config: &ModelConfig) -> Result<(), String> {
    let sizes = |it: &ModelConfig| (it.vocab_size, it.hidden_size, it.layers);
    let theirs = ModelConfig::read(folder).map_err(|it| it.to_string())?;
    if sizes(&theirs) == sizes(config) {
        return Ok(());
    }
    Err(format!(
        "{}: vocabulary, width and blocks are {:?}, those of the untouched model {:?}",
        folder.display(),
        sizes(&theirs),
        sizes(config)
    ))
}

/// Builds every method once and looks at every finished model, so that what does not fit the untouched
/// model is known at the start.
fn check_methods(job: &Job, config: &ModelConfig) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for variant in &job.variants {
        let problem = match &variant.action {
            Action::Unlearn { method, set, locate, .. } => Parameters::new(method, set)
                .and_then(|it| (method.build)(&it, config, 0))
                .and_then(|method| match locate {
                    Some(locate) => locate.check(config.layers, |it| method.trains(it)),
                    None => Ok(()),
                }),
            Action::Model(folder) => finished(folder, config),
            _ => Ok(()),
        };
        if let Err(problem) = problem {
            problems.push(format!("{}: {}: {problem}", job.path.display(), variant.label));
        }
    }
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("\n")) }
}

/// SHA-256 of a policy's classifiers, by their manifests, of its sentence encoders, and of the weights of
/// its further models: what its revision does not cover.
fn folders_of(policy: &Policy) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for detector in &policy.detectors {
        match detector {
            DetectorSetting::Topic { folder, .. } | DetectorSetting::Probe { folder, .. } => {
                let path = folder.join(MANIFEST_FILE);
                let manifest = fs::read(&path).with_context(|| path.display().to_string())?;
                found.push(sha256_hex(&manifest));
            }
            DetectorSetting::Neighbours { encoder: Some(folder), .. } => {
                found.push(Onnx::load(folder, &OnnxOptions::default())?.identity());
            }
            _ => {}
        }
    }
    for treatment in &policy.treatment {
        if let TreatmentSetting::Offset(offset) = treatment {
            for folder in [&offset.pair.expert, &offset.pair.anti_expert] {
                let named = || folder.display().to_string();
                found.push(weights::sha256(folder).with_context(named)?);
            }
        }
    }
    Ok(found)
}

/// The job's policy under the treatment of every guard.
fn policies(job: &Job) -> anyhow::Result<BTreeMap<usize, Policy>> {
    let mut out = BTreeMap::new();
    let Some(path) = &job.policy else { return Ok(out) };
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let table: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    let tables = |all: &[toml::Table]| {
        toml::Value::Array(all.iter().cloned().map(toml::Value::Table).collect())
    };
    for (order, variant) in job.variants.iter().enumerate() {
        let Action::Guard { treatment, detectors } = &variant.action else { continue };
        let mut table = table.clone();
        table.insert("treatment".to_owned(), tables(std::slice::from_ref(treatment)));
        // Weights of a fusion are of the policy's own detectors.
        if let Some(detectors) = detectors {
            table.insert("detector".to_owned(), tables(detectors));
            table.remove("fusion");
        }
        let policy = file::parse(path, &toml::to_string(&table)?).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}: {}\n{}", job.path.display(), variant.label, lines.join("\n"))
        })?;
        out.insert(order, policy);
    }
    Ok(out)
}
