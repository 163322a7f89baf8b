//! What a point is asked in the open: changed weights, and what a guard leaves of the untouched ones.

use candle_core::Tensor;

use super::file::Job;
use super::material::{Material, spread};
use super::result::{Count, Found, Measured, Representation};
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::eval::suite::{Row, Subject};
use crate::eval::whitebox::gcg::Budget;
use crate::eval::whitebox::states::last_states;
use crate::eval::whitebox::{self, Inspection, OfGuards};
use crate::train::fit::TrainError;
use crate::types::Corruption;

/// The model that was changed, and the two it is set beside.
#[derive(Debug, Clone, Copy)]
pub struct Models<'a> {
    /// The one that is to have forgotten.
    pub model: &'a Teacher,
    /// The one that never knew.
    pub gold: &'a Teacher,
    /// The one that knows everything.
    pub untouched: &'a Teacher,
    /// What is around the model, if anything is.
    pub guard: Option<Guard<'a>>,
}

/// A guard around the untouched model.
#[derive(Debug, Clone, Copy)]
pub struct Guard<'a> {
    /// The served path.
    pub served: Subject<'a>,
    /// What it does to prompts, where it corrupts them.
    pub corruption: Option<&'a Corruption>,
}

/// Attacks the weights, and compares hidden states; adds both to what was measured. Of a guard only what
/// it changes: the weights under it are the untouched model's.
///
/// # Errors
///
/// [`MeasureError`].
pub fn inspect(
    models: Models<'_>,
    job: &Job,
    material: &Material,
    seed: u64,
    measured: &mut Measured,
) -> Result<(), MeasureError> {
    let retain = spread(&material.retain, job.limits.whitebox_retain);
    let inspection = Inspection {
        model: models.model,
        gold: models.gold,
        forget: &material.all_forget,
        retain: &retain,
        unrelated: &material.world_facts,
        served: models.guard.map(|it| it.served),
        corruption: models.guard.and_then(|it| it.corruption),
        suffix: Budget { steps: job.limits.suffix_steps, ..Budget::default() },
        seed,
    };
    let guarded = models.guard.is_some();
    let attacks = job.whitebox.iter().filter_map(|it| whitebox::find(it));
    let asked = |it: &&whitebox::Attack| match (guarded, it.of_guards) {
        (false, _) | (true, OfGuards::Served) => true,
        (true, OfGuards::Corrupted) => inspection.corruption.is_some(),
        (true, OfGuards::Nothing) => false,
    };
    for attack in attacks.filter(asked) {
        tracing::info!(attack = attack.name, "attacking the weights");
        match (attack.run)(&inspection) {
            Ok(findings) => {
                let told = findings.into_iter().filter(|it| it.of_guard || !guarded);
                measured.whitebox.extend(told.map(|it| Found {
                    attack: attack.name.to_owned(),
                    setting: it.setting,
                    budget: it.budget,
                    model: it.model.into(),
                    gold: it.gold.into(),
                }));
            }
            // What cannot even be finetuned any more has been destroyed, which is a result.
            Err(MeasureError::Train(TrainError::Diverged { step, .. })) => {
                measured.whitebox.push(Found {
                    attack: attack.name.to_owned(),
                    setting: format!("diverged at step {step}"),
                    budget: "none".to_owned(),
                    model: Count::default(),
                    gold: Count::default(),
                });
            }
            Err(error) => return Err(error),
        }
    }
    if job.measures("representation") && !guarded {
        let forget = spread(&material.forget, job.limits.whitebox_retain);
        measured.representation = Some(Representation {
            forget: lowest_cosines(models.model, models.untouched, &forget)?,
            retain: lowest_cosines(models.model, models.untouched, &retain)?,
        });
    }
    Ok(())
}

/// Cosine of two vectors; 0 where one of them is 0 or has no number.
fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let cosine = product(one, other) / (product(one, one) * product(other, other)).sqrt();
    if cosine.is_finite() { cosine } else { 0.0 }
}

/// Of every row, the cosine of the residual streams of two models at the answer's last token, after
/// the block where it is lowest.
fn lowest_cosines(
    model: &Teacher,
    untouched: &Teacher,
    rows: &[Row],
) -> Result<Vec<f64>, MeasureError> {
    let (own, theirs) = (states(model, rows)?, states(untouched, rows)?);
    let mut lowest = Vec::with_capacity(rows.len());
    for (own, theirs) in own.iter().zip(&theirs) {
        let (own, theirs) = (own.to_vec2::<f32>()?, theirs.to_vec2::<f32>()?);
        let layers = own.iter().zip(&theirs).map(|(own, theirs)| cosine(own, theirs));
        lowest.push(layers.fold(1.0, f64::min));
    }
    Ok(lowest)
}

fn states(teacher: &Teacher, rows: &[Row]) -> Result<Vec<Tensor>, MeasureError> {
    let sequences = rows
        .iter()
        .map(|row| Ok(teacher.sequence(&row.question, &row.answer)?.statement().to_vec()))
        .collect::<Result<Vec<Vec<u32>>, MeasureError>>()?;
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    Ok(last_states(&teacher.decoder, &sequences)?)
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::parse;
    use super::*;
    use crate::backend::scripted::Scripted;
    use crate::eval::metrics::observed::tests::row;
    use crate::eval::metrics::teacher::tests::untrained;
    use crate::types::CorruptionFunction;
    use std::sync::Arc;

    #[test]
    fn cosines_by_hand() {
        assert!((cosine(&[3.0, 4.0], &[4.0, 3.0]) - 24.0 / 25.0).abs() < 1e-12);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
        assert_eq!(cosine(&[f32::NAN], &[1.0]), 0.0);
    }

    #[test]
    fn a_model_is_like_itself_and_unlike_another() {
        let rows: Vec<Row> = (0..9)
            .map(|it| row(&format!("Where was {it} born?"), "In Turin.", "Turin", &["In Oslo."]))
            .collect();
        let material = Material {
            forget: rows.clone(),
            retain: rows.clone(),
            all_forget: rows,
            ..Material::default()
        };
        let (one, other) = (untrained(1), untrained(2));
        let job = parse("metrics = [\"representation\"]\nwhitebox = [\"logit_lens\"]", "").unwrap();
        let mut measured = Measured::default();
        let models = Models { model: &one, gold: &other, untouched: &one, guard: None };
        inspect(models, &job, &material, 1, &mut measured).unwrap();
        let same = measured.representation.clone().unwrap();
        assert!(same.forget.iter().all(|it| (it - 1.0).abs() < 1e-6) && same.retain.len() == 9);
        assert!(measured.whitebox.iter().all(|it| it.attack == "logit_lens" && it.model.of == 9));
        let models = Models { model: &other, gold: &other, untouched: &one, guard: None };
        inspect(models, &job, &material, 1, &mut measured).unwrap();
        let apart = measured.representation.unwrap();
        assert!(apart.forget.iter().all(|it| *it < 0.9), "{:?}", apart.forget);
    }

    /// Nothing about the weights under it, which are the untouched model's.
    #[test]
    fn of_a_guard_there_is_what_it_changes() {
        let all_forget: Vec<Row> = (0..9)
            .map(|it| row(&format!("Where was {it} born?"), "In Turin.", "Turin", &["In Oslo."]))
            .collect();
        let material = Material { all_forget, ..Material::default() };
        let (one, gold) = (untrained(1), untrained(2));
        let head = "metrics = [\"representation\"]\nwhitebox = [\"weights\", \"recovery\", \"logit_lens\"]";
        let job = parse(head, "").unwrap();
        let served = Scripted::new(["In Turin."]);
        let corruption = Corruption {
            function: CorruptionFunction::Substitute,
            spans: Vec::new(),
            entities: Arc::new(Vec::new()),
            seed: 4,
        };
        let guard = Guard {
            served: Subject { backend: &served, model: "scripted" },
            corruption: Some(&corruption),
        };
        let models = Models { model: &one, gold: &gold, untouched: &one, guard: Some(guard) };
        let mut measured = Measured::default();
        inspect(models, &job, &material, 1, &mut measured).unwrap();
        let found: Vec<(&str, &str, usize)> = measured
            .whitebox
            .iter()
            .map(|it| (it.attack.as_str(), it.setting.as_str(), it.model.of))
            .collect();
        let want = [
            ("logit_lens", "head projection, corrupted pass", 9),
            ("logit_lens", "probability delta, corrupted pass", 9),
        ];
        assert_eq!(found, want);
        assert!(measured.representation.is_none());
        // One that corrupts nothing has no forward pass of its own.
        let guard = Guard { corruption: None, ..guard };
        let mut measured = Measured::default();
        inspect(Models { guard: Some(guard), ..models }, &job, &material, 1, &mut measured)
            .unwrap();
        assert!(measured.whitebox.is_empty());
    }

    /// A model without numbers cannot be finetuned; the other attacks go on.
    #[test]
    fn an_attack_that_diverges_is_a_finding() {
        let rows: Vec<Row> = (0..16)
            .map(|it| row(&format!("Where was {it} born?"), "In Turin.", "Turin", &["In Oslo."]))
            .collect();
        let material =
            Material { retain: rows[..2].to_vec(), all_forget: rows, ..Material::default() };
        let (mut broken, gold) = (untrained(1), untrained(2));
        broken.decoder.embedding = (&broken.decoder.embedding * f64::NAN).unwrap();
        let head = "metrics = [\"leak\"]\nwhitebox = [\"relearning\", \"logit_lens\"]";
        let job = parse(head, "").unwrap();
        let mut measured = Measured::default();
        let models = Models { model: &broken, gold: &gold, untouched: &gold, guard: None };
        inspect(models, &job, &material, 1, &mut measured).unwrap();
        assert_eq!(measured.whitebox[0].setting, "diverged at step 0");
        assert!(measured.whitebox[1..].iter().all(|it| it.attack == "logit_lens"));
        assert!(measured.whitebox.len() > 1 && measured.representation.is_none());
    }
}
