//! The model of a point: trained, edited, or as it lies there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use candle_core::{DType, Device};
use serde_json::Value;
use unlearn_proxy::engine::decoder::Decoder;
use unlearn_proxy::eval::jobs::file::Job;
use unlearn_proxy::eval::jobs::grid::{Action, Bound, Point};
use unlearn_proxy::eval::jobs::result::{Status, Training};
use unlearn_proxy::train::edits::run::EditJob;
use unlearn_proxy::train::fit::TrainError;
use unlearn_proxy::train::lora::LoraSettings;
use unlearn_proxy::train::named::tensors_mut;
use unlearn_proxy::train::unlearn::{RECORD_FILE, Record, UnlearnJob};

/// A model with weights of its own.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) folder: PathBuf,
    pub(super) training: Option<Training>,
    pub(super) seconds: Option<f64>,
}

/// What became of the attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// There is a model.
    Made(Made),
    /// The weights are the untouched model's.
    Untouched,
    /// The loss was no number.
    Diverged(Status),
}

/// Makes the model of a point in `folder`, if it needs one of its own.
pub(super) fn model(job: &Job, point: &Point<'_>, folder: &Path) -> anyhow::Result<Outcome> {
    let as_it_is = |folder: &Path| {
        Outcome::Made(Made { folder: folder.to_owned(), training: None, seconds: None })
    };
    let data = |name: &str| job.data.join(format!("{name}.jsonl"));
    let (forget, retain) = (data(&job.splits.forget), data(&job.splits.retain));
    match &point.variant.action {
        Action::Guard { .. } | Action::Bound(Bound::Untouched) => Ok(Outcome::Untouched),
        Action::Bound(Bound::Gold) => Ok(as_it_is(&job.gold)),
        Action::Bound(Bound::SecondGold) => {
            Ok(as_it_is(job.second_gold.as_deref().context("the job has no second gold")?))
        }
        Action::Model(folder) => Ok(as_it_is(folder)),
        Action::Unlearn {
            method,
            set,
            epochs,
            learning_rate,
            batch,
            accumulate,
            recompute,
            lora,
            locate,
        } => unlearnt(&UnlearnJob {
            model: job.model.clone(),
            method,
            set: set.clone(),
            forget,
            retain,
            out: folder.to_owned(),
            epochs: *epochs,
            learning_rate: *learning_rate,
            batch: *batch,
            accumulate: *accumulate,
            recompute: *recompute,
            seed: point.seed,
            lora: lora.map(|rank| LoraSettings { rank, alpha: 2.0 * rank as f64 }),
            locate: *locate,
            // Points are the same wherever they are made.
            device: (Device::Cpu, DType::F32),
        }),
        Action::Edit { edit, strength } => {
            // An edit takes seconds; half of one is not gone on with.
            if folder.exists() {
                fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
            }
            edited(&EditJob {
                model: job.model.clone(),
                edit,
                forget,
                retain,
                finetuned: None,
                strength: *strength,
                seed: point.seed,
                out: folder.to_owned(),
            })
        }
    }
}

/// Finetunes, or takes the model that an interrupted run has already written.
fn unlearnt(job: &UnlearnJob) -> anyhow::Result<Outcome> {
    let finished = job.out.join("model.safetensors").exists();
    let record: Record = if finished {
        let path = job.out.join(RECORD_FILE);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())?
    } else {
        match job.run() {
            Ok(record) => record,
            Err(error) => return diverged(job, error),
        }
    };
    let mut described = serde_json::to_value(&record)?;
    // Numbers of a point do not depend on the machine.
    if let Some(counters) = described["counters"].as_object_mut() {
        counters.remove("seconds");
    }
    let training = Training {
        steps: Some(record.counters.steps),
        samples: Some(record.counters.samples),
        flops: Some(record.flops),
        record: described,
    };
    let seconds = Some(record.counters.seconds);
    Ok(Outcome::Made(Made { folder: job.out.clone(), training: Some(training), seconds }))
}

/// A loss that is no number is a result; every other error is none.
fn diverged(job: &UnlearnJob, error: TrainError) -> anyhow::Result<Outcome> {
    let TrainError::Diverged { step, .. } = &error else { return Err(error.into()) };
    let checkpoint = Some(job.out.join(".work")).filter(|it| it.exists());
    let message = format!("{}: {error}", job.method.name);
    Ok(Outcome::Diverged(Status::Diverged { step: *step, message, checkpoint }))
}

fn edited(job: &EditJob) -> anyhow::Result<Outcome> {
    let since = Instant::now();
    let edited = job.run()?;
    let record: Value = serde_json::to_value(&edited)?;
    let (samples, flops) = (Some(edited.samples), Some(edited.flops));
    let training = Training { steps: None, samples, flops, record };
    let seconds = Some(since.elapsed().as_secs_f64());
    Ok(Outcome::Made(Made { folder: job.out.clone(), training: Some(training), seconds }))
}

/// Whether every weight is a number; an edit has no loss that would say so.
pub(super) fn is_finite(decoder: &Decoder) -> anyhow::Result<bool> {
    for (_, tensor) in tensors_mut(&mut decoder.clone()) {
        if !tensor.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Ok(false);
        }
    }
    Ok(true)
}
