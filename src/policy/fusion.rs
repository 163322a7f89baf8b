//! Several detectors' scores as one.

use crate::types::Evidence;

/// A logistic combination of scores: `1 / (1 + exp(-(bias + sum of weight * best score)))`. As
/// calibrated as its weights; `proxy-train detect --fit-fusion` fits them.
#[derive(Debug, Clone, PartialEq)]
pub struct Fusion {
    /// The fused score from which on the topic counts as seen, 0..=1.
    pub threshold: f32,
    /// What the weighted scores are added to; below 0, because most texts are about something else.
    pub bias: f32,
    /// A weight for each detector of the policy, none below 0.
    pub weights: Vec<(&'static str, f32)>,
}

impl Fusion {
    /// The evidence of a ruling: nothing where the fused score is too low, else what `counts` for
    /// itself. Where nothing does, the best of each detector, because together they were enough. The
    /// rest is about something else, whatever stands beside it.
    pub(super) fn telling(
        &self,
        evidence: &[Evidence],
        counts: impl Fn(&Evidence) -> bool,
    ) -> Vec<Evidence> {
        let score = fused(evidence, self);
        if score < self.threshold {
            return Vec::new();
        }
        let telling: Vec<Evidence> = evidence.iter().filter(|it| counts(it)).cloned().collect();
        if !telling.is_empty() {
            return telling;
        }
        let weighs = |it: &&Evidence| {
            let best = it.score > 0.0 && it.score >= best_score(evidence, it.detector);
            best && self.weights.iter().any(|(name, weight)| *name == it.detector && *weight > 0.0)
        };
        evidence.iter().filter(weighs).cloned().collect()
    }
}

/// A detector's highest score, 0 where it saw nothing. A score that is not a number wins.
#[must_use]
pub fn best_score(evidence: &[Evidence], detector: &str) -> f32 {
    let scores = evidence.iter().filter(|it| it.detector == detector).map(|it| it.score);
    scores.fold(0.0, |best, it| if it.is_nan() || it > best { it } else { best })
}

/// The fused score of a request, 0..=1; not a number where one of the scores is none.
#[must_use]
pub fn fused(evidence: &[Evidence], fusion: &Fusion) -> f32 {
    let weighted = fusion
        .weights
        .iter()
        .map(|(name, weight)| weight * best_score(evidence, name))
        .sum::<f32>();
    logistic(fusion.bias + weighted)
}

/// `1 / (1 + exp(-x))`.
pub(super) fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::{NAMES, Policy, Ruling, TOPIC, file};
    use crate::types::{Place, View};

    /// A name alone gives logistic(2), a topic of 0.8 alone logistic(0).
    fn policy() -> Policy {
        let text = "topic = \"authors\"\n[[entity]]\nname = \"Basil Okafor\"\n\
                    [[detector]]\nuse = \"names\"\n\
                    [[detector]]\nuse = \"topic\"\nclassifier = \"c\"\nthreshold = 0.95\n\
                    [[treatment]]\nuse = \"alias\"\n\
                    [fusion]\nbias = -4\n[fusion.weights]\nnames = 6\ntopic = 5.0\n";
        file::parse(Path::new("authors.toml"), text).unwrap()
    }

    fn scored(detector: &'static str, score: f32, start: usize) -> Evidence {
        let (place, span, view) = (Place::Text(0), start..start + 1, View::Raw);
        Evidence { detector, score, place, span, view, entity: None }
    }

    #[track_caller]
    fn check(evidence: &[Evidence], want: f32, kept: &[usize]) {
        let policy = policy();
        let score = fused(evidence, policy.fusion.as_ref().unwrap());
        assert!((score - want).abs() < 1e-5, "{score}");
        let found = match policy.decide(evidence) {
            Ruling::Pass => Vec::new(),
            Ruling::Treat { evidence } => evidence,
        };
        let want: Vec<Evidence> = kept.iter().map(|it| evidence[*it].clone()).collect();
        assert_eq!(found, want, "{evidence:?}");
    }

    #[test]
    fn scores_by_hand() {
        check(&[], 0.017_986, &[]);
        check(&[scored(TOPIC, 0.6, 0), scored(TOPIC, 0.2, 5)], 0.268_941, &[]);
        // 0.8 is below the classifier's own threshold, and the lesser window is about something else.
        check(&[scored(TOPIC, 0.8, 0), scored(TOPIC, 0.2, 5)], 0.5, &[0]);
        check(&[scored(NAMES, 1.0, 0), scored(TOPIC, 0.3, 5)], 0.970_688, &[0]);
        check(&[scored(NAMES, 0.4, 0), scored(TOPIC, 0.6, 5)], 0.802_184, &[0, 1]);
        // At its own threshold, but alone it is not enough: 6 * 0.6 - 4.
        check(&[scored(NAMES, 0.6, 0)], 0.401_312, &[]);
    }

    #[test]
    fn what_is_no_number_counts_as_seen() {
        let evidence = [scored(TOPIC, f32::NAN, 0), scored(TOPIC, 0.1, 3)];
        assert!(fused(&evidence, policy().fusion.as_ref().unwrap()).is_nan());
        let Ruling::Treat { evidence } = policy().decide(&evidence) else { panic!("it passed") };
        assert!(evidence.len() == 1 && evidence[0].score.is_nan());
    }

    proptest! {
        #[test]
        fn more_evidence_never_frees_a_request(
            few in proptest::collection::vec((any::<bool>(), 0.0..=1.0f32, 0..9usize), 0..6),
            more in proptest::collection::vec((any::<bool>(), 0.0..=1.0f32, 0..9usize), 0..6),
        ) {
            let policy = policy();
            let evidence = |list: &[(bool, f32, usize)]| -> Vec<Evidence> {
                let one = |it: &(bool, f32, usize)| {
                    scored(if it.0 { NAMES } else { TOPIC }, it.1, it.2)
                };
                list.iter().map(one).collect()
            };
            let mut all = evidence(&few);
            let before = policy.decide(&all);
            all.extend(evidence(&more));
            let after = policy.decide(&all);
            prop_assert!(before == Ruling::Pass || after != Ruling::Pass);
            all.reverse();
            prop_assert_eq!(policy.decide(&all), after);
        }
    }
}
