//! Whole runs: every method on a model of a few hundred weights, and one on the lab's.

use std::fs;
use std::path::Path;

use super::descent::Outcome;
use super::locate::Part;
use super::offset_labels::{Place, Translation};
use super::plan::Draw;
use super::rows::{Material, Tokens};
use super::step::{Pass, Rows, Step};
use super::*;
use crate::data::Batch;
use crate::engine::ops::values_of;
use crate::seed::Stream;
use crate::train::initial;
use crate::train::methods::{Loss, METHODS, find};
use crate::train::named::tensors_mut;
use crate::train::trainable::tests::tiny_config;

const PLAN: Plan = Plan { seed: 3, epochs: 3, batch: 2, accumulate: 1 };
const ROWS: usize = 5;
const CHOICES: usize = 4;

/// The method with its published parameters, and those that have to be set.
fn method(name: &str) -> Box<dyn Method> {
    let entry = find(name).unwrap();
    let set: Vec<(String, f64)> = match name {
        "pdu" => vec![("eps".to_owned(), 3.0), ("warmup".to_owned(), 1.0)],
        _ => Vec::new(),
    };
    let parameters = Parameters::new(entry, &set).unwrap();
    (entry.build)(&parameters, &tiny_config(), 9).unwrap()
}

fn sequence(stream: &mut Stream) -> Tokens {
    let ids = (0..4 + stream.below(4)).map(|_| 2 + stream.below(30) as u32).collect::<Vec<_>>();
    let labels = (0..ids.len()).map(|at| at >= 2).collect();
    (ids, labels)
}

fn draws(method: &dyn Method) -> Vec<Draw> {
    PLAN.draws(ROWS, ROWS, method.needs().answers.map_or(0, |it| it.1), |_| CHOICES)
}

fn material() -> Material {
    let mut stream = Stream::new(4);
    let mut answers = BTreeMap::new();
    for row in 0..ROWS {
        for choice in 0..CHOICES {
            answers.insert((row, choice), sequence(&mut stream));
        }
    }
    let mut rows = || (0..ROWS).map(|_| sequence(&mut stream)).collect();
    let (forget, retain): (Vec<Tokens>, _) = (rows(), rows());
    // Rows that are their own translation.
    let translated = forget.iter().map(|tokens| {
        let labels = tokens.1.iter().filter(|it| **it).count();
        let place = |label| Some(Place { label, used: Vec::new() });
        Translation { tokens: tokens.clone(), places: (0..labels).map(place).collect() }
    });
    Material { translated: translated.collect(), forget, retain, answers }
}

/// A descent over `draws`, of which the schedule is always that of the whole plan.
fn descend(
    method: &dyn Method,
    draws: &[Draw],
    student: &Student,
    checkpoint: Option<PathBuf>,
) -> Result<Outcome, TrainError> {
    descend_by(method, draws, student, &How { checkpoint, ..How::default() })
}

/// What a run does not depend on, or hardly.
struct How {
    checkpoint: Option<PathBuf>,
    every: Duration,
    recompute: bool,
    dtype: DType,
    plan: Plan,
}

impl Default for How {
    fn default() -> Self {
        let (recompute, dtype) = (false, DType::F32);
        Self { checkpoint: None, every: Duration::ZERO, recompute, dtype, plan: PLAN }
    }
}

fn descend_by(
    method: &dyn Method,
    draws: &[Draw],
    student: &Student,
    how: &How,
) -> Result<Outcome, TrainError> {
    let reference = initial::decoder(&tiny_config(), 3).unwrap();
    let steps = (how.plan.epochs * how.plan.steps_per_epoch(ROWS)) as u64;
    let descent = Descent {
        method,
        material: &material(),
        draws,
        schedule: Schedule { steps, tokens_per_step: 0, peak: 1e-3, warmup: 3, floor: 0.0 },
        checkpoint: how.checkpoint.clone(),
        identity: "tiny".to_owned(),
        every: how.every,
        recompute: how.recompute,
        dtype: how.dtype,
        plan: how.plan,
    };
    descent.run(student, reference)
}

fn student(method: &dyn Method, lora: Option<LoraSettings>) -> Student {
    let reference = initial::decoder(&tiny_config(), 3).unwrap();
    Student::new(&reference, lora, 1, |it| method.trains(it)).unwrap()
}

fn values(student: &Student) -> Vec<Vec<f32>> {
    let mut decoder = student.decoder().unwrap();
    tensors_mut(&mut decoder).iter().map(|it| values_of(it.1).unwrap()).collect()
}

const LORA: Option<LoraSettings> = Some(LoraSettings { rank: 2, alpha: 4.0 });

/// Every trained variable gets a gradient in every epoch, or the optimiser would refuse the step;
/// and every method changes something.
#[test]
fn every_method_trains() {
    for entry in METHODS {
        let method = method(entry.name);
        for (lora, dtype) in [(None, DType::F32), (LORA, DType::F32), (None, DType::BF16)] {
            let student = student(method.as_ref(), lora);
            let before = values(&student);
            let (draws, how) = (draws(method.as_ref()), How { dtype, ..How::default() });
            let outcome = descend_by(method.as_ref(), &draws, &student, &how)
                .unwrap_or_else(|it| panic!("{}: {it}", entry.name));
            assert_eq!(outcome.counters.steps, 9, "{}", entry.name);
            assert_eq!(outcome.counters.samples, 15, "{}", entry.name);
            assert!(outcome.loss.is_finite() && outcome.counters.tokens > 0, "{}", entry.name);
            assert_ne!(values(&student), before, "{}", entry.name);
        }
    }
}

/// Away from the reference, where no method stands still, no gradient is zero either.
#[test]
fn every_variable_gets_a_gradient_that_is_not_zero() {
    let reference = initial::decoder(&tiny_config(), 3).unwrap();
    let other = initial::decoder(&tiny_config(), 4).unwrap();
    let (material, mut stream) = (material(), Stream::new(8));
    let losses = |count: usize, stream: &mut Stream| {
        (0..count).map(|_| 5.0 + stream.uniform() as f32).collect::<Vec<f32>>()
    };
    let pack = |tokens: &[Tokens], reference_nll| {
        let batch = Batch::of(tokens);
        let offset_labels = batch.labels.iter().map(|it| Some(*it ^ 1)).collect();
        Rows { batch, reference_nll, offset_labels }
    };
    let answers: Vec<Tokens> = material.answers.values().take(2).cloned().collect();
    let forget = pack(&material.forget[..2], losses(2, &mut stream));
    let answers = pack(&answers, losses(2, &mut stream));
    let retain = pack(&material.retain[..2], Vec::new());
    for entry in METHODS {
        let method = method(entry.name);
        let student = Student::new(&other, None, 1, |it| method.trains(it)).unwrap();
        let decoder = student.decoder().unwrap();
        for epoch in [0, 1] {
            let step = Step {
                model: Pass::new(&decoder),
                reference: method.needs().reference.then(|| Pass::new(&reference)),
                epoch,
                carried: method.start(),
                forget: &forget,
                answers: &answers,
                retain: &retain,
            };
            let grads = method.loss(&step).unwrap().total.backward().unwrap();
            for (name, var) in student.vars() {
                let grad = grads.get(var).unwrap_or_else(|| panic!("{}: {name}", entry.name));
                let size = values_of(grad).unwrap().iter().map(|it| it.abs()).sum::<f32>();
                assert!(size > 0.0 && size.is_finite(), "{}: {name}", entry.name);
            }
        }
    }
}

/// Stopped after four of nine steps and taken up by a fresh process, with the very same weights at
/// the end. PDU and LLMU carry the most along.
#[test]
fn resumed_is_the_same_as_uninterrupted() {
    for (name, lora) in [("npo", None), ("pdu", None), ("llmu", None), ("dpo", LORA), ("whp", None)]
    {
        let method = method(name);
        let draws = draws(method.as_ref());
        let whole = student(method.as_ref(), lora);
        let uninterrupted = descend(method.as_ref(), &draws, &whole, None).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Some(folder.path().join("work"));
        let first = student(method.as_ref(), lora);
        descend(method.as_ref(), &draws[..4], &first, checkpoint.clone()).unwrap();
        assert_ne!(values(&first), values(&whole), "{name}");
        let second = student(method.as_ref(), lora);
        let outcome = descend(method.as_ref(), &draws, &second, checkpoint).unwrap();
        let counted = |it: Outcome| Counters { seconds: 0.0, ..it.counters };
        assert_eq!(counted(outcome), counted(uninterrupted), "{name}");
        assert_eq!(outcome.counters.steps, 9);
        assert_eq!(values(&second), values(&whole), "{name}");
    }
}

fn near(got: &Student, want: &Student, what: &str) {
    for (got, want) in values(got).iter().flatten().zip(values(want).iter().flatten()) {
        assert!((got - want).abs() < 2e-5, "{what}: {got} {want}");
    }
}

/// Blocks that run again end where blocks that are kept do; so does an adversary between them.
#[test]
fn recomputed_is_the_same_as_kept() {
    for (name, lora) in [("npo", None), ("dpo", LORA), ("rmu_lat", None), ("scrub", None)] {
        let method = method(name);
        let draws = draws(method.as_ref());
        let (kept, again) = (student(method.as_ref(), lora), student(method.as_ref(), lora));
        let want = descend(method.as_ref(), &draws, &kept, None).unwrap();
        let how = How { recompute: true, ..How::default() };
        let got = descend_by(method.as_ref(), &draws, &again, &how).unwrap();
        assert_eq!(got.counters.tokens, want.counters.tokens, "{name}");
        near(&again, &kept, name);
    }
}

/// Fails unless its pass keeps nothing.
#[derive(Debug)]
struct KeepsNothing;

impl Method for KeepsNothing {
    fn loss(&self, step: &Step<'_>) -> candle_core::Result<Loss> {
        let residual = step.model.hidden(&step.forget.batch, 1)?;
        if !residual.is_variable() {
            candle_core::bail!("the pass has a graph");
        }
        Ok(Loss { total: residual.sqr()?.mean_all()?, forget: None, retain: None })
    }

    fn trains(&self, weight: &str) -> bool {
        weight == "1.down"
    }
}

#[test]
fn recompute_is_asked_for() {
    for recompute in [false, true] {
        let how = How { recompute, ..How::default() };
        let draws = draws(&KeepsNothing);
        let ended = descend_by(&KeepsNothing, &draws, &student(&KeepsNothing, None), &how);
        assert_eq!(ended.is_ok(), recompute, "{ended:?}");
    }
}

/// The mean over sequences, whatever they are packed with.
#[derive(Debug)]
struct OfSequences;

impl Method for OfSequences {
    fn loss(&self, step: &Step<'_>) -> candle_core::Result<Loss> {
        let batch = &step.forget.batch;
        let each = terms::sequence_means(&step.model.nll(batch)?, &batch.label_counts)?;
        let total = each.mean_all()?;
        Ok(Loss { forget: Some(total.clone()), total, retain: None })
    }
}

/// Five rows at once, and three and two of them.
#[test]
fn accumulated_is_the_same_as_at_once() {
    let run = |batch, accumulate, parts: &[usize]| {
        let plan = Plan { batch, accumulate, ..PLAN };
        let draws = plan.draws(ROWS, ROWS, 0, |_| 0);
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Some(folder.path().join("work"));
        let mut last = None;
        for part in parts {
            let again = student(&OfSequences, None);
            let how = How { checkpoint: checkpoint.clone(), plan, ..How::default() };
            let outcome = descend_by(&OfSequences, &draws[..*part], &again, &how).unwrap();
            last = Some((outcome, again));
        }
        last.unwrap()
    };
    let (want, at_once) = run(5, 1, &[3]);
    let (got, accumulated) = run(3, 2, &[6]);
    assert_eq!((got.counters.steps, got.counters.samples), (3, 15));
    assert_eq!((want.counters.steps, want.counters.tokens), (3, got.counters.tokens));
    assert!((got.loss - want.loss).abs() < 1e-5, "{} {}", got.loss, want.loss);
    near(&accumulated, &at_once, "accumulated");
    let (_, resumed) = run(3, 2, &[2, 6]);
    assert_eq!(values(&resumed), values(&accumulated), "resumed after an epoch");
}

/// A loss that is not a number from the third step on.
#[derive(Debug)]
struct Breaks;

impl Method for Breaks {
    fn loss(&self, step: &Step<'_>) -> candle_core::Result<Loss> {
        let scale = if step.epoch == 0 { 1.0 } else { f64::NAN };
        let total = (step.model.nll(&step.forget.batch)?.mean_all()? * scale)?;
        Ok(Loss { total, forget: None, retain: None })
    }
}

#[test]
fn divergence_stops_the_run_and_keeps_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Some(folder.path().join("work"));
    let draws = draws(&Breaks);
    // A run too short to have saved anything on its way.
    let saving = How { checkpoint: checkpoint.clone(), every: Duration::MAX, ..How::default() };
    let error = descend_by(&Breaks, &draws, &student(&Breaks, None), &saving).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { step: 3, .. }), "{error}");
    let again = student(&Breaks, None);
    let outcome = descend(&Breaks, &draws[..3], &again, checkpoint).unwrap();
    assert_eq!(outcome.counters.steps, 3);
    assert!(values(&again).iter().flatten().all(|it| it.is_finite()));
}

/// A model folder of a tiny decoder with the lab's tokenizer, and a job on it.
fn job(folder: &Path, name: &str) -> UnlearnJob {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab");
    let model = folder.join("model");
    let tokenizer = Tokenizer::read(&lab.join("full"), &[]).unwrap();
    let mut config = tiny_config();
    (config.vocab_size, config.context_length) = (tokenizer.vocab_size(), 128);
    weights::save(&initial::decoder(&config, 3).unwrap(), &model, DType::F32).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(lab.join("full").join(file), model.join(file)).unwrap();
    }
    UnlearnJob {
        model,
        method: find(name).unwrap(),
        set: Vec::new(),
        forget: lab.join("data/forget01.jsonl"),
        retain: lab.join("data/retain99.jsonl"),
        out: folder.join("out"),
        epochs: Some(2),
        learning_rate: Some(1e-2),
        batch: 10,
        accumulate: 1,
        recompute: false,
        seed: 5,
        lora: LORA,
        locate: None,
        device: (Device::Cpu, DType::F32),
    }
}

#[test]
fn a_job_writes_a_model_that_loads_and_says_how_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path(), "npo");
    let record = job.run().unwrap();
    assert_eq!((record.counters.steps, record.counters.samples), (4, 40));
    assert_eq!((record.warmup, record.epochs, record.lora_rank), (2, 2, Some(2)));
    assert!(record.trained < record.weights && record.resolved.contains("beta: 0.1"));
    let tokens = record.counters.tokens as f64;
    let want =
        record.weights as f64 * (6.0 * tokens + 2.0 * record.counters.reference_tokens as f64);
    assert!((record.flops - want).abs() <= 1e-9 * want);

    let text = fs::read_to_string(job.out.join(RECORD_FILE)).unwrap();
    let read: Record = serde_json::from_str(&text).unwrap();
    assert_eq!((read.method, read.forget), ("npo".to_owned(), record.forget));
    let before = weights::load(&job.model, &Device::Cpu, DType::F32).unwrap();
    let after = weights::load(&job.out, &Device::Cpu, DType::F32).unwrap();
    let flat = |it: &candle_core::Tensor| values_of(it).unwrap();
    assert_ne!(flat(&before.blocks[0].down), flat(&after.blocks[0].down));
    assert_eq!(flat(&before.embedding), flat(&after.embedding));
    assert!(Tokenizer::read(&job.out, &[]).is_ok() && !job.out.join(".work").exists());

    let error = job.run().unwrap_err().to_string();
    assert!(error.contains("exists"), "{error}");
}

#[test]
fn only_what_was_located_changes() {
    let folder = tempfile::tempdir().unwrap();
    let locate = Some(Locate { matrices: 2, part: Part::FeedForward });
    let job = UnlearnJob { lora: None, locate, ..job(folder.path(), "npo") };
    let located = job.run().unwrap().located.unwrap();
    let load = |it: &Path| weights::load(it, &Device::Cpu, DType::F32).unwrap();
    let (mut before, mut after) = (load(&job.model), load(&job.out));
    let pairs = tensors_mut(&mut before).into_iter().zip(tensors_mut(&mut after));
    let changed =
        |it: &((String, &mut candle_core::Tensor), (String, &mut candle_core::Tensor))| {
            values_of(it.0.1).unwrap() != values_of(it.1.1).unwrap()
        };
    let mut changed: Vec<String> = pairs.filter(changed).map(|it| it.0.0).collect();
    let mut want: Vec<String> = located.into_iter().map(|it| it.weight).collect();
    changed.sort();
    want.sort();
    assert_eq!((changed.len(), &changed), (2, &want));
}

#[test]
fn what_does_not_fit_is_said_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let says = |job: &UnlearnJob, what: &str| {
        let error = job.run().unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        assert!(!job.out.exists());
    };
    says(&job(folder.path(), "pdu"), "--set eps");
    let set = |name: &str, parameter: &str, value| {
        let set = vec![(parameter.to_owned(), value)];
        UnlearnJob { set, ..job(folder.path(), name) }
    };
    says(&set("npo", "temperature", 1.0), "temperature");
    says(&set("rmu", "layer", 2.0), "no block 2");
    says(&set("npo", "beta", 0.0), "not above 0");
    let locate = Some(Locate { matrices: 9, part: Part::All });
    says(&UnlearnJob { locate, ..job(folder.path(), "npo") }, "trains 8 of");
}

/// The lab's model knows what it is asked about. Read again, and compared with what it says about
/// somebody else, that is no label any more; the words around it are.
#[test]
fn offset_labels_are_what_somebody_else_would_be_told() {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab");
    let reference = weights::load(&lab.join("full"), &Device::Cpu, DType::F32).unwrap();
    let tokenizer = Tokenizer::read(&lab.join("full"), &[]).unwrap();
    let source =
        Source::read(&lab.join("data/forget01.jsonl"), &lab.join("data/retain99.jsonl")).unwrap();
    let mut material = source.encode(&tokenizer, 512, None, &[]).unwrap();
    material.translated = source.translate(&tokenizer, 512, 1).unwrap();
    let method = find("whp").unwrap();
    let parameters = Parameters::new(method, &[]).unwrap();
    let method = (method.build)(&parameters, &reference.config, 1).unwrap();
    let mut wanted = method.needs().offset_labels.unwrap();
    (wanted.epochs, wanted.learning_rate) = (1, 1e-4);
    let descent = Descent {
        method: method.as_ref(),
        material: &material,
        draws: &[],
        schedule: Schedule { steps: 1, tokens_per_step: 0, peak: 1e-4, warmup: 0, floor: 0.0 },
        checkpoint: None,
        identity: String::new(),
        every: Duration::MAX,
        recompute: false,
        dtype: DType::F32,
        plan: Plan { seed: 1, epochs: 1, batch: 10, accumulate: 1 },
    };
    let mut counters = Counters::default();
    let labels = descent.offset_labels(wanted, &reference, &mut counters).unwrap();
    assert!(counters.tokens > 0 && counters.reference_tokens > counters.tokens);
    let (mut kept, mut changed) = (0, 0);
    for (tokens, labels) in material.forget.iter().zip(&labels) {
        let batch = Batch::of(std::slice::from_ref(tokens));
        assert_eq!(labels.len(), batch.labels.len());
        for (own, other) in batch.labels.iter().zip(labels) {
            match other {
                Some(other) if other == own => kept += 1,
                Some(_) => changed += 1,
                None => {}
            }
        }
    }
    assert!(changed >= material.forget.len() && kept >= material.forget.len(), "{kept} {changed}");
    assert_eq!(labels, descent.offset_labels(wanted, &reference, &mut counters).unwrap(), "seeded");
}
