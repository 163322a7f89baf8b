//! Unlearning by finetuning: a model folder, forget and retain rows, a method, a new model folder.
//!
//! The frozen model's losses of single sequences are computed once, before training; whole
//! distributions, which few methods want, are computed per batch. The result is written in f32:
//! rounding to f16 takes back a part of what small steps have changed (Zhang et al., arXiv:2410.16454).

pub mod adversary;
pub mod descent;
pub mod locate;
pub mod offset_labels;
pub mod plan;
#[cfg(test)]
pub(crate) mod recorded;
pub mod rows;
pub mod step;
pub mod student;
pub mod terms;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::changed::ChangedModel;
use super::checkpoint::Checkpoint;
use super::fit::{Schedule, TrainError};
use super::lora::LoraSettings;
use super::methods::{Entry, Method, Parameters};
use crate::engine::decoder::Decoder;
use crate::engine::ops::on_pool;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::weights;
use descent::{Counters, Descent};
use locate::{Attribution, Locate};
use plan::Plan;
use rows::{DataFile, Source};
use student::Student;

/// The name of a run's record in its result.
pub const RECORD_FILE: &str = "unlearn.json";

/// A run that is asked for.
#[derive(Debug, Clone)]
pub struct UnlearnJob {
    /// The model that is to forget: a Hugging Face folder.
    pub model: PathBuf,
    /// The method.
    pub method: &'static Entry,
    /// Parameters in place of the published ones.
    pub set: Vec<(String, f64)>,
    /// JSON lines to forget.
    pub forget: PathBuf,
    /// JSON lines to keep.
    pub retain: PathBuf,
    /// Folder of the new model; work in progress is in `<out>/.work`.
    pub out: PathBuf,
    /// Passes over the forget rows; the published ones without it.
    pub epochs: Option<usize>,
    /// Highest learning rate; the published one without it.
    pub learning_rate: Option<f64>,
    /// Forget rows per pass, at least 1.
    pub batch: usize,
    /// Passes per step, at least 1: the mean of their gradients, each by its share of the forget rows.
    pub accumulate: usize,
    /// Whether blocks run again for their gradients, instead of keeping their activations.
    pub recompute: bool,
    /// Seed of order, pairs and whatever the method draws.
    pub seed: u64,
    /// Adapters to train instead of the weights.
    pub lora: Option<LoraSettings>,
    /// Train only so many matrices, chosen by attribution beforehand.
    pub locate: Option<Locate>,
    /// Where it is trained, and what passes are computed in; weights and moments are f32 in any case.
    pub device: (Device, DType),
}

/// What was done, as `unlearn.json` keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this program.
    pub version: String,
    /// The method.
    pub method: String,
    /// Its parameters, published and set.
    pub parameters: BTreeMap<String, f64>,
    /// The method with everything that it derived from them and from the model.
    pub resolved: String,
    /// Passes over the forget rows.
    pub epochs: usize,
    /// Forget rows per pass.
    pub batch: usize,
    /// Passes per step.
    pub accumulate: usize,
    /// Whether activations were computed again.
    pub recompute: bool,
    /// What passes were computed in: `F32` or `BF16`.
    pub dtype: String,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up; a cosine down to zero follows.
    pub warmup: u64,
    /// Seed.
    pub seed: u64,
    /// Rank of the adapters, if only these were trained.
    pub lora_rank: Option<usize>,
    /// The matrices that were trained, if they were located beforehand.
    pub located: Option<Vec<Attribution>>,
    /// The model's folder.
    pub model: PathBuf,
    /// SHA-256 of its weights file (of the index, when they are sharded).
    pub model_sha256: String,
    /// The forget rows.
    pub forget: DataFile,
    /// The retain rows.
    pub retain: DataFile,
    /// How many numbers the model has.
    pub weights: usize,
    /// How many numbers were trained.
    pub trained: usize,
    /// Cost, when the run is over.
    pub counters: Counters,
    /// Estimate of its floating-point operations: [`Counters::flops`].
    pub flops: f64,
    /// The last step's loss.
    pub loss: f32,
    /// Whether the method stopped before the schedule did.
    pub stopped: bool,
}

impl Record {
    /// A line for the operator.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{}: {} steps over {} forget rows, {} tokens, {:.1e} FLOP, {:.0} s, last loss {:.4}{}",
            self.method,
            self.counters.steps,
            self.forget.rows,
            self.counters.tokens,
            self.flops,
            self.counters.seconds,
            self.loss,
            if self.stopped { ", stopped by the method" } else { "" }
        )
    }
}

impl UnlearnJob {
    /// Runs to the end, from the checkpoint of the same run when there is one, and writes the new
    /// model with its tokenizer and [`RECORD_FILE`].
    ///
    /// # Errors
    ///
    /// [`TrainError`]; a folder that already holds a model is left alone.
    pub fn run(&self) -> Result<Record, TrainError> {
        on_pool(|| self.run_here())
    }

    fn run_here(&self) -> Result<Record, TrainError> {
        let changed = ChangedModel { from: &self.model, out: &self.out };
        changed.vacant()?;
        let reference = weights::load(&self.model, &self.device.0, DType::F32)?;
        let tokenizer = Tokenizer::read(&self.model, &reference.config.end_tokens)?;
        let source = Source::read(&self.forget, &self.retain)?;
        let named = |it: String| TrainError::Settings(format!("{}: {it}", self.method.name));
        let parameters = Parameters::new(self.method, &self.set).map_err(TrainError::Settings)?;
        let method =
            (self.method.build)(&parameters, &reference.config, self.seed).map_err(named)?;
        let located = self.located(&source, &tokenizer, &reference, method.as_ref())?;
        let trains = |weight: &str| match &located {
            Some((all, _)) => all.iter().any(|it| it.weight == weight),
            None => method.trains(weight),
        };
        let student = Student::new(&reference, self.lora, self.seed, trains)?;
        let mut record =
            self.record(&source, &parameters, method.as_ref(), (&reference, &student))?;
        self.descend(&mut record, &source, &tokenizer, method.as_ref(), (reference, &student))?;
        if let Some((all, tokens)) = located {
            record.located = Some(all);
            record.counters.tokens += tokens;
            record.flops = record.counters.flops(record.weights, self.recompute);
        }
        changed.write(&student.decoder()?, RECORD_FILE, &record)?;
        Checkpoint::new(&self.work()).remove()?;
        Ok(record)
    }

    /// The matrices to train, if not all, and the tokens that it took to find them.
    fn located(
        &self,
        source: &Source,
        tokenizer: &Tokenizer,
        reference: &Decoder,
        method: &dyn Method,
    ) -> Result<Option<(Vec<Attribution>, u64)>, TrainError> {
        let Some(settings) = self.locate else { return Ok(None) };
        let material = source.encode(tokenizer, reference.config.context_length, None, &[])?;
        Ok(Some(locate::locate(reference, settings, &material, |it| method.trains(it))?))
    }

    fn plan(&self) -> Plan {
        let epochs = self.epochs.unwrap_or(self.method.epochs);
        Plan { seed: self.seed, epochs, batch: self.batch, accumulate: self.accumulate }
    }

    /// One epoch of warm-up, as in the published runs, unless there is but one.
    fn warmup(&self, forget: usize) -> u64 {
        let plan = self.plan();
        if plan.epochs > 1 { plan.steps_per_epoch(forget) as u64 } else { 0 }
    }

    /// The record of a run that has not begun.
    fn record(
        &self,
        source: &Source,
        parameters: &Parameters,
        method: &dyn Method,
        (reference, student): (&Decoder, &Student),
    ) -> Result<Record, TrainError> {
        let trained = student.vars().iter().map(|it| it.1.elem_count()).sum();
        Ok(Record {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            method: self.method.name.to_owned(),
            parameters: parameters.0.iter().map(|it| ((*it.0).to_owned(), *it.1)).collect(),
            resolved: format!("{method:?}"),
            epochs: self.plan().epochs,
            batch: self.batch,
            accumulate: self.accumulate,
            recompute: self.recompute,
            dtype: format!("{:?}", self.device.1),
            learning_rate: self.learning_rate.unwrap_or(self.method.learning_rate),
            warmup: self.warmup(source.forget_file.rows),
            seed: self.seed,
            lora_rank: self.lora.map(|it| it.rank),
            located: None,
            model: self.model.clone(),
            model_sha256: weights::sha256(&self.model)?,
            forget: source.forget_file.clone(),
            retain: source.retain_file.clone(),
            weights: descent::weights(reference),
            trained,
            counters: Counters::default(),
            flops: 0.0,
            loss: 0.0,
            stopped: false,
        })
    }

    fn descend(
        &self,
        record: &mut Record,
        source: &Source,
        tokenizer: &Tokenizer,
        method: &dyn Method,
        (reference, student): (Decoder, &Student),
    ) -> Result<(), TrainError> {
        let needs = method.needs();
        let kind = needs.answers.map(|it| it.0);
        if let Some(kind) = kind {
            source.check(kind)?;
        }
        let draws = self.plan().draws(
            record.forget.rows,
            record.retain.rows,
            needs.answers.map_or(0, |it| it.1),
            |row| kind.map_or(0, |it| source.choices(it, row)),
        );
        let context = reference.config.context_length;
        let mut material = source.encode(tokenizer, context, kind, &draws)?;
        if needs.offset_labels.is_some() {
            material.translated = source.translate(tokenizer, context, self.seed)?;
        }
        let outcome = Descent {
            method,
            material: &material,
            draws: &draws,
            schedule: Schedule {
                steps: self.plan().steps(&draws).count() as u64,
                tokens_per_step: 0,
                peak: record.learning_rate as f32,
                warmup: record.warmup,
                floor: 0.0,
            },
            checkpoint: Some(self.work()),
            // Before the run, a record is what was asked for and on which data.
            identity: format!(
                "{} {}",
                serde_json::to_string(record).expect("a record is JSON"),
                student.vars().iter().map(|it| it.0.as_str()).collect::<Vec<_>>().join(" ")
            ),
            every: Duration::from_secs(60),
            recompute: self.recompute,
            dtype: self.device.1,
            plan: self.plan(),
        }
        .run(student, reference)?;
        record.counters = outcome.counters;
        record.flops = outcome.counters.flops(record.weights, self.recompute);
        record.loss = outcome.loss;
        record.stopped = outcome.stopped;
        Ok(())
    }

    fn work(&self) -> PathBuf {
        self.out.join(".work")
    }
}
