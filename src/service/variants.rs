//! One policy under other treatments and seeds, for comparing them.

use std::sync::Arc;

use crate::policy::{Policy, TreatmentSetting, draw_surrogates};
use crate::seed::{Stream, derive};
use crate::types::{CorruptionFunction, Entity};

/// Every treatment that leaves a model's probabilities to be measured, for embeddings `width` wide:
/// all of ECO's corruption functions at full width, `alias`, and the policy's own `prefix`,
/// `in_context` and `offset`.
#[must_use]
pub fn treatments(policy: &Policy, width: usize) -> Vec<(String, TreatmentSetting)> {
    let noise = |strength: f32| {
        [
            (
                format!("noise-first {strength}x"),
                CorruptionFunction::NoiseFirst { dims: width, strength },
            ),
            (
                format!("noise-random {strength}x"),
                CorruptionFunction::NoiseRandom { dims: width / 2, strength },
            ),
            (
                format!("noise-top {strength}x"),
                CorruptionFunction::NoiseTop { dims: width / 2, strength },
            ),
        ]
    };
    let mut functions = vec![("substitute".to_owned(), CorruptionFunction::Substitute)];
    functions.extend(noise(4.0));
    functions.extend(noise(16.0));
    functions.push(("zero-top".to_owned(), CorruptionFunction::ZeroTop { dims: width }));
    functions.push(("flip-top".to_owned(), CorruptionFunction::FlipTop { dims: width }));
    let mut out: Vec<(String, TreatmentSetting)> = functions
        .into_iter()
        .map(|(name, function)| (name, TreatmentSetting::Corrupt { function }))
        .collect();
    out.push(("alias".to_owned(), TreatmentSetting::Alias));
    out.extend(
        policy
            .treatment
            .iter()
            .filter(|it| {
                matches!(
                    it,
                    TreatmentSetting::Prefix { .. }
                        | TreatmentSetting::InContext(_)
                        | TreatmentSetting::Offset(_)
                )
            })
            .map(|it| (it.name().to_owned(), it.clone())),
    );
    out
}

/// The policy with one treatment and another seed, as [`redrawn`].
#[must_use]
pub fn variant(
    policy: &Policy,
    treatment: TreatmentSetting,
    seed: u64,
    pool: &[String],
) -> Arc<Policy> {
    redrawn(&Policy { treatment: vec![treatment], ..policy.clone() }, seed, pool)
}

/// The policy with another seed: other noise, and other surrogates from `pool`. Seed 0 leaves the
/// policy's own.
#[must_use]
pub fn redrawn(policy: &Policy, seed: u64, pool: &[String]) -> Arc<Policy> {
    let mut policy = policy.clone();
    if seed > 0 {
        policy.seed = derive(policy.seed, &seed.to_le_bytes());
        let mut pool = pool.to_vec();
        Stream::named(seed, "surrogates").shuffle(&mut pool);
        let names: Vec<&str> = policy.entities.iter().map(|it| it.name.as_str()).collect();
        let drawn = draw_surrogates(&names, &pool, &names);
        let entities = policy.entities.iter().zip(drawn).map(|(it, drawn)| Entity {
            name: it.name.clone(),
            aliases: it.aliases.clone(),
            surrogate: drawn.unwrap_or_else(|| it.surrogate.clone()),
        });
        policy.entities = Arc::new(entities.collect());
    }
    Arc::new(policy)
}
