//! The points of a row together: one line of the report.

use serde::Serialize;
use serde_json::Value;

use super::cost::{Cost, cost};
use super::grid::{Bound, Kind};
use super::intervals::{Estimate, crossed, utility, utility_gain, wilson};
use super::result::{Asked, Count, Found, Measured, PointResult, Sign, Status, number};
use crate::eval::metrics::membership::privleak;
use crate::eval::whitebox::excess;
use crate::stats::{auc, ks_two_sample, mean, median};

/// A black-box attack over all seeds.
#[derive(Debug, Clone, Serialize)]
pub struct AttackLine {
    /// Its name.
    pub name: String,
    /// Questions that leaked.
    pub leaked: Count,
    /// Of gold: what is guessing.
    pub gold: Count,
    /// How often replies that know nothing succeed.
    pub chance: f64,
}

/// An attack on weights with one setting, over all seeds.
#[derive(Debug, Clone, Serialize)]
pub struct WhiteboxLine {
    /// The attack.
    pub attack: String,
    /// The setting.
    pub setting: String,
    /// What the attacker spends.
    pub budget: String,
    /// Of the model.
    pub model: Count,
    /// Of gold.
    pub gold: Count,
    /// Lower end of the 95 % interval of the model's share over gold's.
    #[serde(with = "number")]
    pub excess: f64,
}

impl WhiteboxLine {
    /// Whether the model gives away more than gold, beyond chance.
    #[must_use]
    pub fn succeeds(&self) -> bool {
        self.excess > 0.0
    }
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The label.
    pub label: String,
    /// The method: `npo`, `prefix`, the name of a bound.
    pub method: String,
    /// What kind.
    pub kind: Kind,
    /// Which model, for a bound.
    pub bound: Option<Bound>,
    /// The settings as written.
    pub settings: Value,
    /// Seeds that were measured.
    pub seeds: Vec<u64>,
    /// Seeds that diverged or failed, with what was said.
    pub problems: Vec<String>,
    /// Forget quality of every seed.
    pub forget_quality: Vec<Option<f64>>,
    /// Its median.
    #[serde(with = "number")]
    pub forget_quality_median: f64,
    /// Right values in replies to forget questions.
    pub leak: Estimate,
    /// Probability per token of the values.
    pub value_probability: Estimate,
    /// Model utility.
    pub utility: Estimate,
    /// How far it is above the untouched model's.
    pub utility_gain: Estimate,
    /// Extraction strength of forget rows.
    pub strength: Estimate,
    /// Exact memorisation of forget rows.
    pub memorised: Estimate,
    /// AUC by min-40 %, mean over seeds.
    #[serde(with = "number")]
    pub membership_auc: f64,
    /// Privacy leakage in percent, mean over seeds.
    #[serde(with = "number")]
    pub privleak: f64,
    /// Right choices on forget rows.
    pub chosen: Estimate,
    /// Fluency of replies to forget questions, bits.
    pub fluency_forget: Estimate,
    /// Fluency of replies to retain questions, bits.
    pub fluency_retain: Estimate,
    /// Right answers to hard non-targets.
    pub hard: Estimate,
    /// Right retained halves of mixed questions.
    pub mixed: Estimate,
    /// By which signs forget questions are told, time apart: the AUC or what it lacks to 1, whichever is
    /// larger, averaged over seeds.
    pub signs: Vec<Sign>,
    /// Black-box attacks.
    pub attacks: Vec<AttackLine>,
    /// Attacks on weights.
    pub whitebox: Vec<WhiteboxLine>,
    /// Mean lowest cosine of hidden states with the untouched model's, on forget rows.
    pub cosine_forget: Estimate,
    /// The same on retain rows.
    pub cosine_retain: Estimate,
    /// What it costs.
    pub cost: Cost,
    /// Logarithms of the truth ratios of the first seed, sorted.
    pub log_ratios: Vec<f64>,
}

impl Line {
    /// The attack that leaks most, and how much. An attack with a chance of its own, such as a choice
    /// of four, is left out.
    #[must_use]
    pub fn worst_attack(&self) -> Option<&AttackLine> {
        let asked = self.attacks.iter().filter(|it| it.chance <= 0.0 && it.leaked.of > 0);
        asked.max_by(|a, b| a.leaked.share().total_cmp(&b.leaked.share()))
    }

    /// The sign that tells forget questions best.
    #[must_use]
    pub fn most_telling(&self) -> Option<&Sign> {
        let known = self.signs.iter().filter(|it| it.auc.is_finite());
        known.max_by(|a, b| a.auc.total_cmp(&b.auc))
    }
}

/// Every value that is a number; empty as soon as one is none, because half a split is no split.
fn whole(rows: &[Asked], of: impl Fn(&Asked) -> f64) -> Vec<f64> {
    let values: Vec<f64> = rows.iter().map(of).collect();
    if values.iter().any(|it| it.is_nan()) { Vec::new() } else { values }
}

fn right_share(asked: &Asked) -> f64 {
    if asked.right.is_empty() {
        return f64::NAN;
    }
    asked.right.iter().filter(|it| **it).count() as f64 / asked.right.len() as f64
}

/// An estimate of a number of forget rows that have it.
fn of_rows(
    all: &[&Measured],
    side: impl Fn(&Measured) -> &[Asked],
    of: impl Fn(&Asked) -> f64,
) -> Estimate {
    let cell = |measured: &Measured| -> Vec<f64> {
        side(measured).iter().map(&of).filter(|it| !it.is_nan()).collect()
    };
    crossed(&all.iter().copied().map(cell).collect::<Vec<Vec<f64>>>())
}

/// The points that everything is set beside.
#[derive(Debug, Clone, Copy)]
struct Beside<'a> {
    gold: Option<&'a PointResult>,
    untouched: Option<&'a PointResult>,
}

impl<'a> Beside<'a> {
    fn of(points: &'a [PointResult]) -> Self {
        let bound = |wanted: Bound| {
            points.iter().find(|it| it.bound == Some(wanted) && it.measured.is_some())
        };
        Self { gold: bound(Bound::Gold), untouched: bound(Bound::Untouched) }
    }

    fn gold(self) -> Option<&'a Measured> {
        self.gold.and_then(|it| it.measured.as_ref())
    }

    fn untouched(self) -> Option<&'a Measured> {
        self.untouched.and_then(|it| it.measured.as_ref())
    }

    /// Kolmogorov-Smirnov p of the truth ratios against gold's; their logarithms have the same order.
    fn quality(self, measured: &Measured) -> f64 {
        let Some(gold) = self.gold() else { return f64::NAN };
        let ratios = |it: &Measured| whole(&it.forget, |row| row.log_ratio);
        ks_two_sample(&ratios(measured), &ratios(gold)).p_value
    }

    fn membership(self, measured: &Measured) -> (f64, f64) {
        let of = |it: &Measured| {
            auc(&whole(&it.holdout, |row| row.min_k), &whole(&it.forget, |row| row.min_k))
        };
        let own = of(measured);
        (own, self.gold().map_or(f64::NAN, |gold| privleak(own, of(gold))))
    }
}

/// One line per label, in the order of the job.
#[must_use]
pub fn lines(points: &[PointResult]) -> Vec<Line> {
    let beside = Beside::of(points);
    let mut labels: Vec<&str> = Vec::new();
    for point in points {
        if !labels.contains(&point.label.as_str()) {
            labels.push(&point.label);
        }
    }
    let of_label = |label: &&str| -> Vec<&PointResult> {
        points.iter().filter(|it| it.label == *label).collect()
    };
    labels.iter().map(of_label).map(|it| line(&it, beside)).collect()
}

fn problem(point: &PointResult) -> Option<String> {
    match &point.status {
        Status::Done => None,
        Status::Diverged { step, message, .. } => {
            Some(format!("seed {} diverged at step {step}: {message}", point.seed))
        }
        Status::Failed { message } => Some(format!("seed {} failed: {message}", point.seed)),
    }
}

/// The method's own name, by which the report looks for it.
fn method(point: &PointResult) -> String {
    let settings = &point.config["settings"];
    let named = [&settings["method"], &settings["treatment"]["use"]];
    let named = named.into_iter().find_map(Value::as_str);
    named.unwrap_or(&point.name).to_owned()
}

fn line(points: &[&PointResult], beside: Beside<'_>) -> Line {
    let first = points[0];
    let all: Vec<&Measured> = points.iter().filter_map(|it| it.measured.as_ref()).collect();
    let forget: fn(&Measured) -> &[Asked] = |it| &it.forget;
    let retain: fn(&Measured) -> &[Asked] = |it| &it.retain;
    let qualities: Vec<f64> = all.iter().map(|it| beside.quality(it)).collect();
    let membership: Vec<(f64, f64)> = all.iter().map(|it| beside.membership(it)).collect();
    let (aucs, leakages): (Vec<f64>, Vec<f64>) = membership.into_iter().unzip();
    let chosen = |it: &Asked| it.chosen.map_or(f64::NAN, |it| f64::from(u8::from(it)));
    let hard: Vec<Vec<f64>> =
        all.iter().map(|it| it.hard.iter().map(|it| f64::from(u8::from(*it))).collect()).collect();
    let retained = all.iter().flat_map(|it| &it.attacks).filter(|it| it.name.starts_with("mixed-"));
    let retained = retained.fold(Count::default(), |sum, it| sum.plus(it.retained));
    let cosines = |side: fn(&Measured) -> Vec<f64>| {
        crossed(&all.iter().map(|it| side(it)).collect::<Vec<Vec<f64>>>())
    };
    let mut log_ratios =
        all.first().map_or_else(Vec::new, |it| whole(&it.forget, |row| row.log_ratio));
    log_ratios.sort_by(f64::total_cmp);
    Line {
        label: first.label.clone(),
        method: method(first),
        kind: first.kind,
        bound: first.bound,
        settings: first.config["settings"].clone(),
        seeds: points.iter().filter(|it| it.measured.is_some()).map(|it| it.seed).collect(),
        problems: points.iter().filter_map(|it| problem(it)).collect(),
        forget_quality_median: median(&qualities),
        forget_quality: qualities
            .into_iter()
            .map(|it| Some(it).filter(|it| !it.is_nan()))
            .collect(),
        leak: of_rows(&all, forget, right_share),
        value_probability: of_rows(&all, forget, |it| it.value_probability),
        utility: utility(&all),
        utility_gain: match beside.untouched() {
            Some(base) if !all.is_empty() => utility_gain(&all, &[base]),
            _ => Estimate::NONE,
        },
        strength: of_rows(&all, forget, |it| it.strength),
        memorised: of_rows(&all, forget, |it| it.memorised),
        membership_auc: mean(&aucs),
        privleak: mean(&leakages),
        chosen: of_rows(&all, forget, chosen),
        fluency_forget: of_rows(&all, forget, |it| it.fluency),
        fluency_retain: of_rows(&all, retain, |it| it.fluency),
        hard: crossed(&hard),
        mixed: wilson(retained.hits, retained.of),
        signs: signs(&all),
        attacks: attack_lines(&all, beside.gold()),
        whitebox: whitebox_lines(&all),
        cosine_forget: cosines(|it| it.representation.clone().unwrap_or_default().forget),
        cosine_retain: cosines(|it| it.representation.clone().unwrap_or_default().retain),
        cost: cost(points),
        log_ratios,
    }
}

/// The mean of each sign, which may point either way under another seed.
fn signs(all: &[&Measured]) -> Vec<Sign> {
    let Some(first) = all.first() else { return Vec::new() };
    let of = |name: &str| {
        let found = all.iter().flat_map(|it| &it.signs).filter(|it| it.name == name);
        mean(&found.map(|it| it.auc.max(1.0 - it.auc)).collect::<Vec<f64>>())
    };
    first.signs.iter().map(|it| Sign { name: it.name.clone(), auc: of(&it.name) }).collect()
}

fn attack_lines(all: &[&Measured], gold: Option<&Measured>) -> Vec<AttackLine> {
    let mut lines: Vec<AttackLine> = Vec::new();
    for attacked in all.iter().flat_map(|it| &it.attacks) {
        if let Some(line) = lines.iter_mut().find(|it| it.name == attacked.name) {
            line.leaked = line.leaked.plus(attacked.leaked);
            continue;
        }
        let of_gold = gold.and_then(|it| it.attacks.iter().find(|it| it.name == attacked.name));
        lines.push(AttackLine {
            name: attacked.name.clone(),
            leaked: attacked.leaked,
            gold: of_gold.map_or(Count::default(), |it| it.leaked),
            chance: attacked.chance,
        });
    }
    lines
}

fn whitebox_lines(all: &[&Measured]) -> Vec<WhiteboxLine> {
    let mut lines: Vec<WhiteboxLine> = Vec::new();
    let mut seeds: Vec<f64> = Vec::new();
    let same = |line: &WhiteboxLine, found: &Found| {
        line.attack == found.attack && line.setting == found.setting
    };
    for found in all.iter().flat_map(|it| &it.whitebox) {
        if let Some(at) = lines.iter().position(|it| same(it, found)) {
            seeds[at] += 1.0;
            let line = &mut lines[at];
            line.model = line.model.plus(found.model);
            line.gold = line.gold.plus(found.gold);
        } else {
            seeds.push(1.0);
            lines.push(WhiteboxLine {
                attack: found.attack.clone(),
                setting: found.setting.clone(),
                budget: found.budget.clone(),
                model: found.model,
                gold: found.gold,
                excess: f64::NAN,
            });
        }
    }
    for (line, seeds) in lines.iter_mut().zip(seeds) {
        // Every seed asks the same questions.
        let mean = |it: Count| (it.hits as f64 / seeds, it.of as f64 / seeds);
        line.excess = excess(mean(line.model), mean(line.gold));
    }
    lines
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::result::tests::{asked, point};
    use super::super::result::{Attacked, RequestTime, Training};
    use super::*;

    /// Untouched, which knows everything; gold, which knows nothing; and a method between them.
    pub(crate) fn points() -> Vec<PointResult> {
        let rows = |right: usize, shift: f64| -> Vec<Asked> {
            (0..20).map(|it| asked(right, shift + f64::from(it) * 0.01)).collect()
        };
        let mut untouched = point("untouched", Kind::Bound, 1, rows(2, -3.0));
        untouched.bound = Some(Bound::Untouched);
        let mut gold = point("gold", Kind::Bound, 1, rows(0, 0.0));
        gold.bound = Some(Bound::Gold);
        let mut found = vec![untouched, gold];
        for (seed, right) in [(1, 1), (2, 0)] {
            let mut npo = point("npo", Kind::Unlearn, seed, rows(right, 0.005));
            npo.timing.forget_requests = Some(RequestTime { seconds: 0.15, beyond: 0.05 });
            npo.training = Some(Training { steps: Some(10 * seed), ..Training::default() });
            npo.timing.time_auc = Some(0.25 * seed as f64);
            let measured = npo.measured.as_mut().unwrap();
            let sign = |name: &str, auc| Sign { name: name.to_owned(), auc };
            measured.signs = vec![
                sign("length", 0.6),
                sign("refusal", if seed == 1 { 0.2 } else { 0.7 }),
                sign("none", f64::NAN),
            ];
            measured.attacks = vec![Attacked {
                name: "mixed-comment".to_owned(),
                leaked: Count { hits: 1, of: 4 },
                chance: 0.0,
                retained: Count { hits: 3, of: 4 },
            }];
            measured.whitebox = vec![Found {
                attack: "relearning".to_owned(),
                setting: "4 rows".to_owned(),
                budget: "40 steps on 4 rows".to_owned(),
                model: Count { hits: 5, of: 5 },
                gold: Count { hits: 0, of: 5 },
            }];
            found.push(npo);
        }
        found
    }

    #[test]
    fn seeds_become_one_line() {
        let lines = lines(&points());
        assert_eq!(lines.len(), 3);
        let npo = &lines[2];
        assert_eq!((npo.seeds.as_slice(), npo.method.as_str()), ([1, 2].as_slice(), "npo"));
        // One seed has one of two wordings right, the other none.
        assert!((npo.leak.value - 0.25).abs() < 1e-12);
        assert!((lines[0].leak.value - 1.0).abs() < 1e-12 && lines[1].leak.high == 0.0);
        assert!(npo.utility_gain.value.abs() < 1e-12);
        assert!((npo.hard.value - 0.75).abs() < 1e-12);
        assert!((npo.cost.steps - 15.0).abs() < 1e-12);
        assert!((npo.cost.forget_overhead - 0.05).abs() < 1e-12);
        assert!(npo.cost.other_overhead.is_nan());
        assert!((npo.cost.time_auc - 0.625).abs() < 1e-12);
        let telling = npo.most_telling().unwrap();
        assert!(telling.name == "refusal" && (telling.auc - 0.75).abs() < 1e-12, "{telling:?}");
        assert_eq!(npo.worst_attack().unwrap().leaked, Count { hits: 2, of: 8 });
        assert!((npo.mixed.value - 0.75).abs() < 1e-12);
        // Two seeds of five of five against none of five: (6/7 - 1/7) - 1.96 sqrt(2 * 6/49 / 7).
        assert!((npo.whitebox[0].excess - (5.0 / 7.0 - 1.96 * 0.187_043_9)).abs() < 1e-5);
        assert!(npo.whitebox[0].succeeds());
    }

    /// Twenty disjoint ratios have p 2 / C(40, 20); those between gold's are hardly apart; min-k is
    /// the same everywhere, so that the AUC is one half and nothing leaks.
    #[test]
    fn quality_and_membership_are_beside_gold() {
        let lines = lines(&points());
        let p = lines[0].forget_quality_median;
        assert!((p / (2.0 / 137_846_528_820.0) - 1.0).abs() < 1e-9, "{p}");
        assert!(lines[1].forget_quality_median == 1.0 && lines[2].forget_quality_median > 0.99);
        assert!((lines[2].membership_auc - 0.5).abs() < 1e-12 && lines[2].privleak.abs() < 1e-12);
    }

    #[test]
    fn a_row_that_diverged_stays_a_row() {
        let mut all = points();
        all[3].measured = None;
        all[3].status = Status::Diverged {
            step: 7,
            message: "the loss became NaN".to_owned(),
            checkpoint: None,
        };
        let line = lines(&all).pop().unwrap();
        assert_eq!(line.seeds, [1]);
        assert_eq!(line.problems, ["seed 2 diverged at step 7: the loss became NaN"]);
        all[2].measured = None;
        let line = lines(&all).pop().unwrap();
        assert!(line.leak.value.is_nan() && line.utility_gain.value.is_nan());
        assert!(serde_json::to_value(&line).unwrap()["leak"]["value"].is_null());
    }
}
