//! TOFU's aggregates from the scores of single rows.
//!
//! Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs" (arXiv:2401.06121), with the
//! definitions of its code (`aggregate_eval_stat.py`). Losses are mean negative log-probabilities
//! per token of the answer, in nats, with the end of the turn as one of the tokens.
//!
//! The test of forgetting compares the ratios themselves. Comparing `min(R, 1/R)`, as ECO's code
//! does, gives other p-values: 7e-15 instead of 2e-21 for TOFU's finetuned Llama-2.

use crate::stats::{KsTest, harmonic_mean, ks_two_sample, mean};

/// What one question of a TOFU split showed. Losses in nats per token; NaN where the model's server gives
/// no log-probabilities of a given text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowScores {
    /// Loss of the answer, the end of the turn included.
    pub nll: f64,
    /// Loss of the paraphrased answer; absent in real authors and world facts.
    pub paraphrased_nll: Option<f64>,
    /// Losses of the wrong answers: five in forget and retain rows, three elsewhere.
    pub perturbed_nll: Vec<f64>,
    /// ROUGE-L recall of the greedy reply against the answer.
    pub rouge_l_recall: f64,
    /// Whether the reply has the value the question asks for, where one was marked: of the question
    /// first, then of its other wordings.
    pub value_correct: Vec<bool>,
    /// Loss of that value's tokens alone.
    pub value_nll: Option<f64>,
    /// Whether the answer repeats the name in the question. Such an answer is likely even where
    /// nothing is known, so these rows are reported apart.
    pub restates_name: bool,
}

/// One of the nine parts of model utility.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UtilityPart {
    /// Split and metric, as `retain_probability`.
    pub name: &'static str,
    /// 0 to 1, larger is better.
    pub value: f64,
}

/// TOFU's model utility and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelUtility {
    /// Probability, ROUGE-L recall and truth ratio of retain, real authors and world facts.
    pub parts: [UtilityPart; 9],
    /// Their harmonic mean; 0 as soon as one is 0.
    pub value: f64,
}

/// Names of the parts of [`ModelUtility`], in order.
pub const UTILITY_PARTS: [&str; 9] = [
    "retain_probability",
    "retain_rouge_l_recall",
    "retain_truth_ratio",
    "real_authors_probability",
    "real_authors_rouge_l_recall",
    "real_authors_truth_ratio",
    "world_facts_probability",
    "world_facts_rouge_l_recall",
    "world_facts_truth_ratio",
];

/// The aggregates of the forget split. Means over rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForgetScores {
    /// How many rows.
    pub rows: usize,
    /// Probability of the answer per token.
    pub probability: f64,
    /// ROUGE-L recall of the reply.
    pub rouge_l_recall: f64,
    /// `min(R, 1/R)`: 1 where wrong answers are as likely as the right one.
    pub truth_ratio: f64,
    /// Share of replies with the right value, over all wordings of rows where one was marked.
    pub value_accuracy: Option<f64>,
    /// Probability per token of the right value, among rows where it was scored.
    pub value_probability: Option<f64>,
}

/// Rows by whether the answer repeats the name in the question.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NameSplit {
    /// The answer repeats the name.
    pub restating: Vec<RowScores>,
    /// It does not.
    pub other: Vec<RowScores>,
}

/// Mean probability per token of the answer: the metric of forget and retain rows. NaN of no rows.
#[must_use]
pub fn probability(rows: &[RowScores]) -> f64 {
    mean_over(rows, |row| (-row.nll).exp())
}

/// Mean share of the answer's probability among answer and wrong answers: the metric of real
/// authors and world facts. NaN of no rows, and where a row has no wrong answers.
#[must_use]
pub fn normalised_probability(rows: &[RowScores]) -> f64 {
    mean_over(rows, |row| {
        if row.perturbed_nll.is_empty() {
            return f64::NAN;
        }
        // Relative to the answer, so that losses past 745 nats do not end in 0 / 0.
        let wrong: f64 = row.perturbed_nll.iter().map(|nll| (row.nll - nll).exp()).sum();
        1.0 / (1.0 + wrong)
    })
}

/// Mean ROUGE-L recall. NaN of no rows.
#[must_use]
pub fn rouge_l_recall(rows: &[RowScores]) -> f64 {
    mean_over(rows, |row| row.rouge_l_recall)
}

/// The truth ratio R: geometric mean of the wrong answers' probabilities over the probability of the
/// paraphrased answer, or of the answer where there is no paraphrase. Absent without wrong answers.
#[must_use]
pub fn truth_ratio(row: &RowScores) -> Option<f64> {
    let right = row.paraphrased_nll.unwrap_or(row.nll);
    (!row.perturbed_nll.is_empty()).then(|| (right - mean(&row.perturbed_nll)).exp())
}

/// R of every row that has one.
#[must_use]
pub fn truth_ratios(rows: &[RowScores]) -> Vec<f64> {
    rows.iter().filter_map(truth_ratio).collect()
}

/// Mean of `min(R, 1/R)`, for forget rows: 1 where right and wrong are alike.
#[must_use]
pub fn forget_truth_ratio(ratios: &[f64]) -> f64 {
    // Comparisons with NaN are false, so a NaN ratio stays NaN where `f64::min` would drop it.
    mean_over(ratios, |ratio| if *ratio > 1.0 { ratio.recip() } else { *ratio })
}

/// Mean of `max(0, 1 - R)`, for all other rows: 1 where wrong answers are impossible.
#[must_use]
pub fn utility_truth_ratio(ratios: &[f64]) -> f64 {
    mean_over(ratios, |ratio| if *ratio > 1.0 { 0.0 } else { 1.0 - ratio })
}

/// Model utility of the three splits that must not change.
#[must_use]
pub fn model_utility(
    retain: &[RowScores],
    real_authors: &[RowScores],
    world_facts: &[RowScores],
) -> ModelUtility {
    let others = |rows| {
        let ratio = utility_truth_ratio(&truth_ratios(rows));
        (normalised_probability(rows), rouge_l_recall(rows), ratio)
    };
    let retain_ratio = utility_truth_ratio(&truth_ratios(retain));
    let (authors, facts) = (others(real_authors), others(world_facts));
    utility_of([
        probability(retain),
        rouge_l_recall(retain),
        retain_ratio,
        authors.0,
        authors.1,
        authors.2,
        facts.0,
        facts.1,
        facts.2,
    ])
}

/// Model utility of nine known values, in the order of [`UTILITY_PARTS`].
#[must_use]
pub fn utility_of(values: [f64; 9]) -> ModelUtility {
    let parts =
        std::array::from_fn(|at| UtilityPart { name: UTILITY_PARTS[at], value: values[at] });
    ModelUtility { parts, value: harmonic_mean(&values) }
}

/// The aggregates of forget rows.
#[must_use]
pub fn forget_scores(rows: &[RowScores]) -> ForgetScores {
    let correct: Vec<f64> =
        rows.iter().flat_map(|row| &row.value_correct).copied().map(f64::from).collect();
    let values: Vec<f64> =
        rows.iter().filter_map(|row| row.value_nll).map(|nll| (-nll).exp()).collect();
    ForgetScores {
        rows: rows.len(),
        probability: probability(rows),
        rouge_l_recall: rouge_l_recall(rows),
        truth_ratio: forget_truth_ratio(&truth_ratios(rows)),
        value_accuracy: (!correct.is_empty()).then(|| mean(&correct)),
        value_probability: (!values.is_empty()).then(|| mean(&values)),
    }
}

/// Forget quality: how well the truth ratios of forget rows pass for those of a model that never
/// saw them. The p-value is TOFU's number; 0.05 and above means that they do.
#[must_use]
pub fn forget_quality(unlearned: &[RowScores], gold: &[RowScores]) -> KsTest {
    ks_two_sample(&truth_ratios(unlearned), &truth_ratios(gold))
}

/// Splits rows by [`RowScores::restates_name`], in order.
#[must_use]
pub fn split_by_name(rows: &[RowScores]) -> NameSplit {
    let (restating, other) = rows.iter().cloned().partition(|row| row.restates_name);
    NameSplit { restating, other }
}

fn mean_over<T>(items: &[T], value: impl Fn(&T) -> f64) -> f64 {
    items.iter().map(value).sum::<f64>() / items.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-12 * want.abs().max(1e-3), "{got} vs {want}");
    }

    /// A row with these probabilities of answer, paraphrase and wrong answers.
    fn row(answer: f64, paraphrase: Option<f64>, wrong: &[f64]) -> RowScores {
        RowScores {
            nll: -answer.ln(),
            paraphrased_nll: paraphrase.map(|it| -it.ln()),
            perturbed_nll: wrong.iter().map(|it| -it.ln()).collect(),
            rouge_l_recall: 0.5,
            ..RowScores::default()
        }
    }

    #[test]
    fn probabilities_by_hand() {
        let rows = [row(0.5, None, &[0.25, 0.25]), row(0.1, None, &[0.2, 0.1])];
        near(probability(&rows), 0.3);
        near(normalised_probability(&rows), (0.5 + 0.25) / 2.0);
    }

    /// Without log-probabilities nothing that needs them is a number, and ROUGE still is.
    #[test]
    fn unknown_losses_stay_unknown() {
        let row = RowScores {
            nll: f64::NAN,
            paraphrased_nll: Some(f64::NAN),
            perturbed_nll: vec![f64::NAN; 2],
            rouge_l_recall: 0.5,
            ..RowScores::default()
        };
        let rows = [row];
        assert!(normalised_probability(&rows).is_nan());
        let plain = [RowScores { perturbed_nll: Vec::new(), ..rows[0].clone() }];
        assert!(normalised_probability(&plain).is_nan());
        let scores = forget_scores(&rows);
        assert!(scores.probability.is_nan() && scores.truth_ratio.is_nan());
        near(scores.rouge_l_recall, 0.5);
        let utility = model_utility(&rows, &rows, &rows);
        assert!(utility.value.is_nan());
        let known: Vec<&str> =
            utility.parts.iter().filter(|it| !it.value.is_nan()).map(|it| it.name).collect();
        let rouge = UTILITY_PARTS.iter().copied().filter(|it| it.contains("rouge"));
        assert_eq!(known, rouge.collect::<Vec<_>>());
        assert!(forget_quality(&rows, &rows).p_value.is_nan());
    }

    #[test]
    fn impossible_answers_still_have_a_share() {
        let lost = RowScores { nll: 2_000.0, perturbed_nll: vec![2_000.0], ..RowScores::default() };
        near(normalised_probability(&[lost]), 0.5);
    }

    /// sqrt(0.1 * 0.4) = 0.2, over the paraphrase 0.4 or the answer 0.8.
    #[test]
    fn truth_ratio_is_a_geometric_mean() {
        near(truth_ratio(&row(0.8, Some(0.4), &[0.1, 0.4])).unwrap(), 0.5);
        near(truth_ratio(&row(0.8, None, &[0.1, 0.4])).unwrap(), 0.25);
        assert_eq!(truth_ratio(&row(0.8, None, &[])), None);
    }

    #[test]
    fn aggregates_of_the_ratio_differ() {
        near(forget_truth_ratio(&[0.5, 4.0]), 0.375);
        near(utility_truth_ratio(&[0.5, 4.0]), 0.25);
        near(forget_truth_ratio(&[0.0, f64::INFINITY]), 0.0);
        assert!(forget_truth_ratio(&[0.5, f64::NAN]).is_nan());
        assert!(utility_truth_ratio(&[0.5, f64::NAN]).is_nan());
    }

    /// Six parts of 1/2 and three of 3/4: 9 / (12 + 4).
    #[test]
    fn utility_is_the_harmonic_mean_of_nine() {
        let rows = [row(0.5, None, &[0.25, 0.25])];
        let retain = [row(0.5, Some(0.5), &[0.25, 0.25])];
        let utility = model_utility(&retain, &rows, &rows);
        for part in utility.parts {
            near(part.value, 0.5);
        }
        near(utility.value, 0.5);
        near(utility_of([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 0.75]).value, 9.0 / 16.0);
        assert_eq!(utility_of([0.5, 0.5, 0.5, 0.5, 0.0, 0.5, 0.75, 0.75, 0.75]).value, 0.0);
    }

    #[test]
    fn a_model_passes_for_itself() {
        let rows = [row(0.5, Some(0.5), &[0.25]), row(0.5, Some(0.25), &[0.5])];
        near(forget_quality(&rows, &rows).p_value, 1.0);
        assert!(forget_quality(&rows, &[]).p_value.is_nan());
    }

    #[test]
    fn values_count_where_marked() {
        let plain = row(0.5, Some(0.5), &[0.25]);
        assert_eq!(forget_scores(std::slice::from_ref(&plain)).value_accuracy, None);
        let right = RowScores {
            value_correct: vec![true, true, false],
            value_nll: Some(0.0),
            ..plain.clone()
        };
        let wrong = RowScores { value_correct: vec![false], restates_name: true, ..plain.clone() };
        let scores = forget_scores(&[plain.clone(), right.clone(), wrong.clone()]);
        assert_eq!((scores.rows, scores.value_accuracy), (3, Some(0.5)));
        near(scores.value_probability.unwrap(), 1.0);
        let split = split_by_name(&[plain.clone(), wrong.clone(), right.clone()]);
        assert_eq!(split, NameSplit { restating: vec![wrong], other: vec![plain, right] });
    }
}
