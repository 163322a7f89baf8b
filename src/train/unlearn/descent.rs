//! The loop of unlearning: a method's losses, step by step, with checkpoints and exact resume.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::plan::{Draw, Plan};
use super::rows::{Material, Tokens};
use super::step::{Pass, Rows, Step};
use super::student::Student;
use crate::data::Batch;
use crate::engine::decoder::Decoder;
use crate::train::adamw::{AdamW, AdamWSettings};
use crate::train::checkpoint::Checkpoint;
use crate::train::fit::{Schedule, TrainError, progress};
use crate::train::methods::{Loss, Method};
use crate::train::named::tensors_mut;
use crate::train::recompute::Recompute;

/// What a run has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Optimiser steps.
    pub steps: u64,
    /// Forget rows seen, with repetitions.
    pub samples: u64,
    /// Input tokens through the model in training.
    pub tokens: u64,
    /// Input tokens through the reference.
    pub reference_tokens: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl Counters {
    /// Floating-point operations, about: 6 per weight and token forward and backward, 8 where blocks run
    /// again for it, 2 per weight and token of the reference, over all `weights` of the model.
    #[must_use]
    pub fn flops(&self, weights: usize, recompute: bool) -> f64 {
        let each = if recompute { 8.0 } else { 6.0 };
        weights as f64 * (each * self.tokens as f64 + 2.0 * self.reference_tokens as f64)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its cost.
    pub counters: Counters,
    /// The last step's loss.
    pub loss: f32,
    /// Whether the method ended it before the schedule did.
    pub stopped: bool,
    /// What the next step would be given.
    carried: f32,
}

#[derive(Serialize, Deserialize)]
struct State {
    identity: String,
    outcome: Outcome,
}

/// One run.
#[derive(Debug)]
pub struct Descent<'a> {
    /// The objective.
    pub method: &'a dyn Method,
    /// What is trained on.
    pub material: &'a Material,
    /// The passes.
    pub draws: &'a [Draw],
    /// Learning rates; as many steps as [`Plan::steps`] makes of the draws.
    pub schedule: Schedule,
    /// Whether blocks run again for their gradients, instead of keeping their activations.
    pub recompute: bool,
    /// What passes are computed in, the student's and the reference's.
    pub dtype: DType,
    /// Folder of the checkpoint; `None` keeps none.
    pub checkpoint: Option<PathBuf>,
    /// What this run is; a checkpoint of another run is refused.
    pub identity: String,
    /// Time between checkpoints.
    pub every: Duration,
    /// How passes make steps, and how rows are drawn for what is trained beforehand.
    pub plan: Plan,
}

/// What is computed once, before training.
#[derive(Debug, Default)]
struct Prepared {
    /// The losses of forget rows under the reference, summed over their labels.
    forget_nll: Vec<f32>,
    /// The same of other answers.
    answers_nll: BTreeMap<(usize, usize), f32>,
    /// Other labels of forget rows.
    offset_labels: Vec<Vec<Option<u32>>>,
}

/// Values of one step: those of its passes, each by its share of the step's forget rows.
#[derive(Default)]
struct Values {
    total: f32,
    forget: Option<f32>,
    retain: Option<f32>,
}

/// One pass of a step.
struct Passed {
    values: Values,
    /// None where the loss is no number.
    grads: Option<GradStore>,
    /// Input tokens through the model.
    tokens: u64,
    /// Input tokens through the reference.
    reference: u64,
}

impl Values {
    fn add(&mut self, pass: &Self, share: f32) {
        let add = |sum: &mut Option<f32>, value: Option<f32>| {
            if let Some(value) = value {
                *sum = Some(sum.unwrap_or(0.0) + share * value);
            }
        };
        self.total += share * pass.total;
        add(&mut self.forget, pass.forget);
        add(&mut self.retain, pass.retain);
    }
}

fn value(tensor: &Tensor) -> Result<f32, TrainError> {
    Ok(tensor.to_scalar::<f32>()?)
}

impl Descent<'_> {
    /// Trains `student` to the end of the draws, beside `reference`, the model as it was. Interrupted and
    /// started again, it ends with the very weights that it would have ended with.
    ///
    /// # Errors
    ///
    /// [`TrainError`]; after [`TrainError::Diverged`] the last checkpoint is good.
    pub fn run(&self, student: &Student, reference: Decoder) -> Result<Outcome, TrainError> {
        let vars = student.vars().iter().map(|it| it.1.clone()).collect();
        // The constants of AdamW in the published runs.
        let settings = AdamWSettings { beta2: 0.999, ..AdamWSettings::default() };
        let mut optimiser = AdamW::new(vars, settings)?;
        let saved = self.resume(student, &mut optimiser)?;
        let again = saved.is_some();
        let mut outcome = saved.unwrap_or_else(|| self.fresh());
        let (start, before) = (Instant::now(), outcome.counters.seconds);
        let mut counted = outcome.counters;
        let prepared = self.prepare(&reference, &mut counted)?;
        let reference = self.method.needs().reference.then_some(reference);
        if !again {
            // A run that goes on has counted it already.
            outcome.counters = counted;
        }
        let bar = progress(self.schedule.steps, outcome.counters.steps);
        let mut saved = Instant::now();
        for draws in self.plan.steps(self.draws).skip(outcome.counters.steps as usize) {
            if outcome.stopped {
                break;
            }
            let beside = (reference.as_ref(), &prepared);
            let values = self.step(student, &mut optimiser, draws, beside, &mut outcome)?;
            outcome.counters.seconds = before + start.elapsed().as_secs_f64();
            report(&bar, &values);
            if saved.elapsed() >= self.every {
                self.save(student, &optimiser, &outcome)?;
                saved = Instant::now();
            }
        }
        bar.finish();
        self.save(student, &optimiser, &outcome)?;
        Ok(outcome)
    }

    fn step(
        &self,
        student: &Student,
        optimiser: &mut AdamW,
        draws: &[Draw],
        beside: (Option<&Decoder>, &Prepared),
        outcome: &mut Outcome,
    ) -> Result<Values, TrainError> {
        let (decoder, number) = (student.decoder()?, outcome.counters.steps);
        let rows: usize = draws.iter().map(|it| it.forget.len()).sum();
        let (mut values, mut sum) = (Values::default(), GradStore::default());
        let (mut tokens, mut reference_tokens) = (0, 0);
        for draw in draws {
            let share = draw.forget.len() as f32 / rows as f32;
            let pass = self.pass(&decoder, draw, share, beside, outcome.carried)?;
            let Some(mut grads) = pass.grads else {
                // The weights are those of the last step, which was good.
                self.save(student, optimiser, outcome)?;
                return Err(TrainError::Diverged { step: number, loss: pass.values.total });
            };
            values.add(&pass.values, share);
            (tokens, reference_tokens) = (tokens + pass.tokens, reference_tokens + pass.reference);
            for (_, var) in student.vars() {
                // candle has gradients of constants too, which hold the pass in memory.
                let Some(grad) = grads.remove(var) else { continue };
                let before = sum.remove(var);
                let grad = before.map_or(Ok(grad.clone()), |before| before + grad)?;
                sum.insert(var, grad.detach());
            }
        }
        let norm = optimiser.step(&sum, self.schedule.learning_rate(number))?;
        if !norm.is_finite() {
            // The weights are lost already; they are not saved.
            return Err(TrainError::Diverged { step: number, loss: f32::NAN });
        }
        outcome.counters.steps += 1;
        outcome.counters.tokens += tokens;
        outcome.counters.reference_tokens += reference_tokens;
        outcome.counters.samples += rows as u64;
        outcome.loss = values.total;
        outcome.stopped = values.forget.is_some_and(|it| self.method.done(it));
        if let (Some(retain), Some(draw)) = (values.retain, draws.first()) {
            outcome.carried = self.method.carry(outcome.carried, draw.epoch, retain);
        }
        Ok(values)
    }

    /// A pass, with the gradients of `share` times its loss if that is a number.
    fn pass(
        &self,
        decoder: &Decoder,
        draw: &Draw,
        share: f32,
        (reference, prepared): (Option<&Decoder>, &Prepared),
        carried: f32,
    ) -> Result<Passed, TrainError> {
        let [forget, answers, retain] = self.rows(draw, prepared);
        let recompute = Recompute::default();
        let pass = |decoder| Pass::in_dtype(decoder, self.dtype);
        let model = pass(decoder);
        let step = Step {
            model: if self.recompute { model.recomputed(&recompute) } else { model },
            reference: reference.map(pass),
            epoch: draw.epoch,
            carried,
            forget: &forget,
            answers: &answers,
            retain: &retain,
        };
        let loss: Loss = self.method.loss(&step)?;
        let values = Values {
            total: value(&loss.total)?,
            forget: loss.forget.as_ref().map(value).transpose()?,
            retain: loss.retain.as_ref().map(value).transpose()?,
        };
        let share = values.total.is_finite().then_some(f64::from(share));
        let weighted = share.map(|it| loss.total * it).transpose()?;
        Ok(Passed {
            values,
            grads: weighted.map(|it| recompute.backward(&it)).transpose()?,
            tokens: step.model.tokens(),
            reference: step.reference.as_ref().map_or(0, Pass::tokens),
        })
    }

    /// Forget rows, their other answers, and retain rows of a pass.
    fn rows(&self, draw: &Draw, prepared: &Prepared) -> [Rows; 3] {
        let pack = |tokens: Vec<Tokens>, reference_nll: Vec<f32>| Rows {
            batch: Batch::of(&tokens),
            reference_nll,
            offset_labels: Vec::new(),
        };
        let forget = draw.forget.iter().map(|it| self.material.forget[*it].clone()).collect();
        let retain = draw.retain.iter().map(|it| self.material.retain[*it].clone()).collect();
        let answers = draw.answers.iter().map(|it| self.material.answers[it].clone()).collect();
        let of_forget = draw.forget.iter().filter_map(|it| prepared.forget_nll.get(*it).copied());
        let of_answers = draw.answers.iter().filter_map(|it| prepared.answers_nll.get(it).copied());
        let mut forget = pack(forget, of_forget.collect());
        let labels = draw.forget.iter().filter_map(|it| prepared.offset_labels.get(*it));
        forget.offset_labels = labels.flatten().copied().collect();
        [forget, pack(answers, of_answers.collect()), pack(retain, Vec::new())]
    }

    /// What the method wants computed before its first step.
    fn prepare(
        &self,
        reference: &Decoder,
        counters: &mut Counters,
    ) -> Result<Prepared, TrainError> {
        let needs = self.method.needs();
        let mut prepared = Prepared::default();
        if needs.reference_nll {
            let pass = Pass::in_dtype(reference, self.dtype);
            // Every sequence by itself, so that its loss does not depend on what is beside it.
            let nll = |tokens: &Tokens| {
                value(&pass.nll(&Batch::of(std::slice::from_ref(tokens)))?.sum_all()?)
            };
            for (key, tokens) in &self.material.answers {
                prepared.answers_nll.insert(*key, nll(tokens)?);
            }
            prepared.forget_nll = self.material.forget.iter().map(nll).collect::<Result<_, _>>()?;
            counters.reference_tokens += pass.tokens();
        }
        if let Some(wanted) = needs.offset_labels {
            prepared.offset_labels = self.offset_labels(wanted, reference, counters)?;
        }
        Ok(prepared)
    }

    fn fresh(&self) -> Outcome {
        Outcome {
            counters: Counters::default(),
            loss: 0.0,
            stopped: false,
            carried: self.method.start(),
        }
    }

    /// Where an interrupted run was.
    fn resume(
        &self,
        student: &Student,
        optimiser: &mut AdamW,
    ) -> Result<Option<Outcome>, TrainError> {
        let Some(folder) = &self.checkpoint else { return Ok(None) };
        let ours = |it: &State| it.identity == self.identity;
        let state = Checkpoint::new(folder).load(student.vars(), optimiser, ours)?;
        let outcome = state.map(|it| it.outcome);
        optimiser.steps = outcome.map_or(0, |it| it.counters.steps);
        Ok(outcome)
    }

    fn save(
        &self,
        student: &Student,
        optimiser: &AdamW,
        outcome: &Outcome,
    ) -> Result<(), TrainError> {
        let Some(folder) = &self.checkpoint else { return Ok(()) };
        let state = State { identity: self.identity.clone(), outcome: *outcome };
        Checkpoint::new(folder).save(student.vars(), optimiser, &state)
    }
}

fn report(bar: &ProgressBar, values: &Values) {
    let part = |name: &str, value: Option<f32>| {
        value.map_or_else(String::new, |it| format!(", {name} {it:.4}"))
    };
    let (forget, retain) = (part("forget", values.forget), part("retain", values.retain));
    bar.inc(1);
    bar.set_message(format!("loss {:.4}{forget}{retain}", values.total));
}

/// Numbers in a decoder's weights.
#[must_use]
pub fn weights(decoder: &Decoder) -> usize {
    tensors_mut(&mut decoder.clone()).iter().map(|it| it.1.elem_count()).sum()
}
