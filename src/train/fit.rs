//! The loop of language-model training: schedule, clipping, checkpoints, exact resume.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::{Tensor, Var};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::data::{Batch, DataError, Dialogue};
use crate::engine::error::EngineError;
use crate::engine::ops::on_pool;
use crate::engine::tokenizer::Tokenizer;
use crate::train::adamw::{AdamW, AdamWSettings};
use crate::train::checkpoint::Checkpoint;
use crate::train::trainable::Trainable;

/// How long and how fast to train.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Optimiser steps.
    pub steps: u64,
    /// Input tokens per step, about: a batch is closed by the example that reaches it.
    pub tokens_per_step: usize,
    /// Highest learning rate.
    pub peak: f32,
    /// Steps of linear warm-up; then a cosine down to `floor * peak`.
    pub warmup: u64,
    /// Last learning rate as a share of `peak`.
    pub floor: f32,
}

impl Schedule {
    /// Learning rate of a step, counted from 0.
    #[must_use]
    pub fn learning_rate(&self, step: u64) -> f32 {
        if step < self.warmup {
            return self.peak * (step + 1) as f32 / self.warmup as f32;
        }
        let done = (step - self.warmup) as f32 / (self.steps - self.warmup).max(1) as f32;
        let cosine = 0.5 * (1.0 + (std::f32::consts::PI * done.min(1.0)).cos());
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }
}

/// Why training stopped early.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The engine's part failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A data file cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A tensor operation failed.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// The loss is not a number; the last checkpoint is good.
    #[error(
        "the loss became {loss} at step {step}; the checkpoint before it is kept, lower the learning rate"
    )]
    Diverged {
        /// At which step.
        step: u64,
        /// Not a finite number.
        loss: f32,
    },
    /// What is asked for does not fit the model or the rows.
    #[error("{0}")]
    Settings(String),
    /// A checkpoint or result cannot be written or read.
    #[error("{}: {message}", path.display())]
    Checkpoint {
        /// Which file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// One run: where its checkpoints are and what identifies it.
#[derive(Debug)]
pub struct Fit<'a> {
    /// The tokenizer, for encoding examples.
    pub tokenizer: &'a Tokenizer,
    /// Length and speed.
    pub schedule: Schedule,
    /// Folder of the checkpoint; `None` keeps none.
    pub checkpoint: Option<PathBuf>,
    /// What this run is; a checkpoint of another run is refused.
    pub identity: String,
    /// Time between checkpoints.
    pub every: Duration,
}

#[derive(Serialize, Deserialize)]
struct State {
    identity: String,
    schedule: Schedule,
    step: u64,
    drawn: u64,
    loss: f32,
}

impl Fit<'_> {
    /// Trains to the end of the schedule and returns the smoothed loss (nats per label). `next` is an
    /// endless, deterministic source: on resume it is fast-forwarded, so the result is the same
    /// whether the run was interrupted or not.
    ///
    /// # Errors
    ///
    /// [`TrainError`]; the last checkpoint is kept.
    pub fn run(
        &self,
        model: &Trainable,
        mut next: impl FnMut() -> Dialogue + Send,
    ) -> Result<f32, TrainError> {
        let loss = |batch: &Batch, _: &[bool]| model.label_nll(batch)?.mean_all();
        on_pool(|| self.run_marked(&model.vars, || (next(), false), loss))
    }

    /// The same of any variables, with a loss of one's own, of a batch and the marks that `next` gave its
    /// sequences.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn run_marked(
        &self,
        named: &[(String, Var)],
        mut next: impl FnMut() -> (Dialogue, bool),
        loss: impl Fn(&Batch, &[bool]) -> candle_core::Result<Tensor>,
    ) -> Result<f32, TrainError> {
        let vars = named.iter().map(|it| it.1.clone()).collect();
        let mut optimiser = AdamW::new(vars, AdamWSettings::default())?;
        let mut state = self.resume(named, &mut optimiser)?;
        for _ in 0..state.drawn {
            next();
        }
        let bar = progress(self.schedule.steps, state.step);
        let mut saved = Instant::now();
        let (start, mut tokens) = (Instant::now(), 0usize);
        while state.step < self.schedule.steps {
            let (batch, marks) = self.draw(&mut next, &mut state.drawn)?;
            tokens += batch.ids.len();
            let loss = loss(&batch, &marks)?;
            let value = loss.to_scalar::<f32>()?;
            if !value.is_finite() {
                return Err(TrainError::Diverged { step: state.step, loss: value });
            }
            optimiser.step(&loss.backward()?, self.schedule.learning_rate(state.step))?;
            state.loss = if state.step == 0 { value } else { 0.98 * state.loss + 0.02 * value };
            state.step += 1;
            bar.inc(1);
            let speed = tokens as f64 / start.elapsed().as_secs_f64();
            bar.set_message(format!("loss {:.4}, {speed:.0} tokens/s", state.loss));
            if saved.elapsed() >= self.every {
                self.save(named, &optimiser, &state)?;
                saved = Instant::now();
            }
        }
        bar.finish();
        self.save(named, &optimiser, &state)?;
        Ok(state.loss)
    }

    fn draw(
        &self,
        next: &mut impl FnMut() -> (Dialogue, bool),
        drawn: &mut u64,
    ) -> Result<(Batch, Vec<bool>), TrainError> {
        let (mut sequences, mut marks, mut rows) = (Vec::new(), Vec::new(), 0);
        while rows < self.schedule.tokens_per_step {
            let (dialogue, mark) = next();
            let sequence = dialogue.encode(self.tokenizer)?;
            *drawn += 1;
            rows += sequence.0.len() - 1;
            sequences.push(sequence);
            marks.push(mark);
        }
        Ok((Batch::of(&sequences), marks))
    }

    fn resume(&self, named: &[(String, Var)], optimiser: &mut AdamW) -> Result<State, TrainError> {
        let fresh = State {
            identity: self.identity.clone(),
            schedule: self.schedule,
            step: 0,
            drawn: 0,
            loss: 0.0,
        };
        let Some(folder) = &self.checkpoint else { return Ok(fresh) };
        let ours = |it: &State| it.identity == self.identity && it.schedule == self.schedule;
        let state = Checkpoint::new(folder).load(named, optimiser, ours)?.unwrap_or(fresh);
        optimiser.steps = state.step;
        Ok(state)
    }

    fn save(
        &self,
        named: &[(String, Var)],
        optimiser: &AdamW,
        state: &State,
    ) -> Result<(), TrainError> {
        let Some(folder) = &self.checkpoint else { return Ok(()) };
        Checkpoint::new(folder).save(named, optimiser, state)
    }
}

/// A bar over the steps of a run.
pub(crate) fn progress(steps: u64, done: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps, {msg}, {eta} left")
        .expect("the template is valid");
    let bar = ProgressBar::new(steps).with_style(style);
    bar.set_position(done);
    bar.reset_eta();
    bar
}
