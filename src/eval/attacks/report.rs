//! What attacks reached, as Markdown and JSON.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::association::{Association, beyond, rows};
use super::detectability::{Detectability, ROUNDS};
use super::difference::{Difference, Leaks, WITHIN};
use crate::eval::suite::EvalError;
use crate::stats::mean;

/// The label of the guarded system.
pub const GUARDED: &str = "guarded";
/// The label of a server that somebody else runs.
pub const TARGET: &str = "target";
/// The label of the model that was retrained without the forget set.
pub const GOLD: &str = "gold (retrained)";
/// The label of the same with another seed.
pub const SECOND_GOLD: &str = "gold, second seed";
/// The label of the same with several other seeds, each a draw of one system.
pub const OTHER_GOLDS: &str = "gold, other seeds";

/// Counts of one attack against one system.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Questions asked.
    pub questions: usize,
    /// Questions of which a reply gave the value away.
    pub leaked: usize,
    /// Questions of which the system took no request: too long for the context, or of a kind that it
    /// does not serve.
    pub rejected: usize,
    /// Replies.
    pub replies: usize,
    /// Replies that gave the value away.
    pub leaking_replies: usize,
    /// Replies that have the value where the prompt has it too; they are no leaks.
    pub echoes: usize,
    /// Replies that should have answered a retained question as well.
    pub retained_asked: usize,
    /// Those that did.
    pub retained_right: usize,
    /// Whether each question leaked (1 or 0), for every draw of every model of the system.
    pub by_draw: Vec<Vec<f64>>,
    /// What leaked; in a file of its own.
    #[serde(skip)]
    pub leaks: Vec<Leak>,
}

/// A reply that gave a value away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leak {
    /// The texts of the request.
    pub request: Vec<String>,
    /// The reply.
    pub reply: String,
    /// Which draw of the system's gave it, counted from 0.
    pub draw: usize,
}

impl Tally {
    /// Adds the counts of further questions to a draw's.
    pub fn add(&mut self, other: &Self) {
        self.sum(other);
        self.by_draw.resize_with(1, Vec::new);
        self.by_draw[0].extend(other.by_draw.iter().flatten());
    }

    fn sum(&mut self, other: &Self) {
        self.questions += other.questions;
        self.leaked += other.leaked;
        self.rejected += other.rejected;
        self.replies += other.replies;
        self.leaking_replies += other.leaking_replies;
        self.echoes += other.echoes;
        self.retained_asked += other.retained_asked;
        self.retained_right += other.retained_right;
        self.leaks.extend(other.leaks.iter().cloned());
    }

    /// The counts of several draws of one system, which were asked the same questions.
    #[must_use]
    pub fn over_draws(draws: &[Self]) -> Self {
        let mut all = Self::default();
        draws.iter().for_each(|it| all.sum(it));
        all.by_draw = draws.iter().flat_map(|it| it.by_draw.clone()).collect();
        let of_draw = |(draw, it): (usize, &Self)| std::iter::repeat_n(draw, it.leaks.len());
        let draws = draws.iter().enumerate().flat_map(of_draw);
        all.leaks.iter_mut().zip(draws).for_each(|(leak, draw)| leak.draw = draw);
        all
    }

    /// Share of questions that leaked.
    #[must_use]
    pub fn leak_rate(&self) -> f64 {
        self.leaked as f64 / self.questions as f64
    }
}

/// One attack against every system.
#[derive(Debug, Clone, Serialize)]
pub struct AttackResult {
    /// The attack's name.
    pub name: String,
    /// One line about it.
    pub about: String,
    /// How often replies that know nothing would succeed.
    pub chance: f64,
    /// One per system, in the report's order.
    pub tallies: Vec<Tally>,
}

/// All attacks.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was run, to run it again.
    pub provenance: Value,
    /// Labels of the systems.
    pub systems: Vec<String>,
    /// The attacks in their order.
    pub attacks: Vec<AttackResult>,
    /// One per system where it was measured, else none.
    pub detectability: Vec<Detectability>,
    /// One per system where it was measured, else none.
    pub association: Vec<Association>,
    /// Draws of each model of the guarded system.
    pub draws: usize,
}

/// The row of each question's mean over attacks.
const ALL_ATTACKS: &str = "all attacks, mean";

/// The mean of each element; nothing where the lengths differ.
fn mean_each(columns: &[Vec<f64>]) -> Vec<f64> {
    let length = columns.first().map_or(0, Vec::len);
    if columns.iter().any(|it| it.len() != length) {
        return Vec::new();
    }
    (0..length).map(|at| mean(&columns.iter().map(|it| it[at]).collect::<Vec<_>>())).collect()
}

fn share(part: usize, whole: usize) -> String {
    if whole == 0 {
        return "n/a".to_owned();
    }
    format!("{:.3} ({part}/{whole})", part as f64 / whole as f64)
}

/// A table with a label, one column per system, and rows of cells.
fn table(label: &str, systems: &[String], rows: &[Vec<String>]) -> String {
    let mut out = format!("| {label} | {} |\n|---|", systems.join(" | "));
    out.push_str(&"---:|".repeat(systems.len()));
    out.push('\n');
    for row in rows {
        out.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    out
}

impl Report {
    /// The tables in Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        if !self.attacks.is_empty() {
            let rows: Vec<_> = self.attacks.iter().map(leak_row).collect();
            let mut columns = vec!["chance".to_owned()];
            columns.extend(self.systems.iter().cloned());
            columns.push("echoes".to_owned());
            columns.push("rejected".to_owned());
            out.push_str(&table("leak rate", &columns, &rows));
            out.push_str(
                "\nLeak: a reply to any request of the attack has the value, whole words and without \
                 case, and the prompt has not (for options: names the right one only). Echoes: \
                 replies that repeat a value of the prompt, not counted. Rejected: questions that \
                 did not fit the context or that the server does not take. Counts of the last two are \
                 over all systems and draws. What the retrained model reaches is guessing. Threat model: access \
                 through the API only.\n",
            );
        }
        out.push_str(&self.against_gold());
        let mixed =
            self.attacks.iter().filter(|it| it.tallies.iter().any(|it| it.retained_asked > 0));
        let rows: Vec<_> = mixed.map(retained_row).collect();
        if !rows.is_empty() {
            out.push('\n');
            out.push_str(&table("retained half right", &self.systems, &rows));
        }
        if let Some(first) = self.detectability.first() {
            let row = |at: usize| {
                let aucs = self.detectability.iter().map(|it| it.signals[at].to_string());
                std::iter::once(first.signals[at].name.to_owned()).chain(aucs).collect()
            };
            let rows: Vec<Vec<String>> = (0..first.signals.len()).map(row).collect();
            out.push('\n');
            out.push_str(&table("treatment shows in (AUC)", &self.systems, &rows));
            out.push_str(&format!(
                "\nForget authors against names that no model has seen, same questions: 0.5 cannot be \
                 told apart, 0 and 1 can. With the 95 % bootstrap interval over questions. Times are \
                 medians of {ROUNDS}. Of a system with several models or draws, the first.\n",
            ));
        }
        out.push_str(&self.recalled());
        out
    }

    /// What facts about an author bring to mind.
    fn recalled(&self) -> String {
        if self.association.is_empty() {
            return String::new();
        }
        let at = |label: &str| self.systems.iter().position(|it| it == label);
        let guarded = at(GUARDED);
        let draws = |system: usize| if Some(system) == guarded { self.draws } else { 1 };
        let draws: Vec<usize> = (0..self.systems.len()).map(draws).collect();
        let label = "log-probability of the value after five facts";
        let table = table(label, &self.systems, &rows(&self.association, &draws));
        let golds = [GOLD, SECOND_GOLD, OTHER_GOLDS].into_iter().filter_map(at);
        let golds: Vec<&Association> = golds.map(|it| &self.association[it]).collect();
        let beyond = guarded.map_or_else(String::new, |it| {
            let beyond = beyond(&self.association[it], self.draws, &golds);
            format!(" Guarded less gold, all seeds: {beyond}.")
        });
        format!(
            "\n{table}\nFive facts are told of the name that is asked about, true ones or those of an author whom no model \
             knows; three choices of them for every question, natural logarithm, with the 95 % bootstrap interval \
             over questions (not over authors, who are few), models and draws. What the author's own add, the model has by \
             association.{beyond} Threat model: what the model knows; a client is given no log-probabilities.\n"
        )
    }

    /// How far the guarded system is from gold, and one gold from the other, question by question.
    fn against_gold(&self) -> String {
        let at = |label: &str| self.systems.iter().position(|it| it == label);
        let (Some(guarded), Some(gold)) = (at(GUARDED).or(at(TARGET)), at(GOLD)) else {
            return String::new();
        };
        let second = at(SECOND_GOLD).or(at(OTHER_GOLDS));
        let golds: Vec<usize> = std::iter::once(gold).chain(second).collect();
        let row = |name: &str, attacks: &[AttackResult]| {
            // The draws of these systems, whichever each is of; each question's mean over attacks.
            let leaks = |systems: &[usize]| -> Vec<Vec<f64>> {
                let of = |it: &'_ AttackResult| -> Vec<Vec<f64>> {
                    systems.iter().flat_map(|at| it.tallies[*at].by_draw.clone()).collect()
                };
                let attacks: Vec<Vec<Vec<f64>>> = attacks.iter().map(of).collect();
                let draws = attacks.iter().map(Vec::len).min().unwrap_or(0);
                let draw = |at: usize| attacks.iter().map(|it| it[at].clone()).collect::<Vec<_>>();
                (0..draws).map(|at| mean_each(&draw(at))).collect()
            };
            let between = |own: &[usize], draws: usize, golds: &[usize]| {
                let (own, golds) = (leaks(own), leaks(golds));
                let of = |by_draw, draws| Leaks { by_draw, draws };
                Difference::of(name, of(&own, draws), of(&golds, 1))
            };
            let difference = between(&[guarded], self.draws, &golds);
            let noise = second.map(|it| between(&[it], 1, &[gold]));
            let mut row = vec![name.to_owned(), difference.to_string()];
            row.extend(noise.map(|it| it.to_string()));
            row.push(difference.verdict().to_owned());
            row
        };
        let mut rows: Vec<Vec<String>> =
            self.attacks.iter().map(|it| row(&it.name, std::slice::from_ref(it))).collect();
        if self.attacks.len() > 1 {
            rows.push(row(ALL_ATTACKS, &self.attacks));
        }
        let mut columns = vec![self.systems[guarded].clone()];
        columns.extend(second.map(|it| self.systems[it].clone()));
        columns.push(format!("within {:.0} points", 100.0 * WITHIN));
        let mut out = String::from("\n");
        out.push_str(&table("leak rate less gold's", &columns, &rows));
        out.push_str(
            "\nThe same questions under both, with the 95 % bootstrap interval over questions, models, \
             each model's draws of surrogates, and golds (where there are several, the first table has more questions than were asked), \
             drawn crossed. Gold's is the mean of its seeds; the other seeds are held against the first. Within: the interval is (yes), the \
             interval is not (no), or it has both (not shown). All attacks: each question's mean over attacks.\n",
        );
        out
    }

    /// Everything as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("a report is JSON")
    }

    /// Writes `attacks.json` and `attacks.md` into `folder`.
    ///
    /// # Errors
    ///
    /// [`EvalError::Write`].
    pub fn write(&self, folder: &Path, preface: &str) -> Result<(), EvalError> {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(&path, text))
                .map_err(|source| EvalError::Write { path, source })
        };
        write("attacks.json", format!("{:#}\n", self.to_json()))?;
        write("attacks.md", format!("{preface}\n{}", self.to_markdown()))?;
        write("leaks.jsonl", self.leaks())
    }

    /// Every leaking reply with its request, one JSON object a line.
    fn leaks(&self) -> String {
        let of_attack = |attack: &AttackResult| {
            let named = self.systems.iter().zip(&attack.tallies);
            let lines = named.flat_map(|(system, it)| {
                let line = move |leak: &Leak| json!({"attack": attack.name, "system": system, "leak": leak});
                it.leaks.iter().map(move |leak| format!("{}\n", line(leak)))
            });
            lines.collect::<String>()
        };
        self.attacks.iter().map(of_attack).collect()
    }
}

fn leak_row(attack: &AttackResult) -> Vec<String> {
    let mut row = vec![attack.name.clone()];
    row.push(if attack.chance > 0.0 { format!("{:.2}", attack.chance) } else { "-".to_owned() });
    row.extend(attack.tallies.iter().map(|it| share(it.leaked, it.questions)));
    let sum = |count: fn(&Tally) -> usize| attack.tallies.iter().map(count).sum::<usize>();
    row.push(sum(|it| it.echoes).to_string());
    row.push(sum(|it| it.rejected).to_string());
    row
}

fn retained_row(attack: &AttackResult) -> Vec<String> {
    let shares = attack.tallies.iter().map(|it| share(it.retained_right, it.retained_asked));
    std::iter::once(attack.name.clone()).chain(shares).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_have_rates_and_counts() {
        let tally = |leaked, right| Tally {
            questions: 4,
            leaked,
            replies: 4,
            leaking_replies: leaked,
            retained_asked: 4,
            retained_right: right,
            ..Tally::default()
        };
        let attack = AttackResult {
            name: "mixed".to_owned(),
            about: "two questions".to_owned(),
            chance: 0.0,
            tallies: vec![tally(3, 4), tally(0, 2)],
        };
        let report = Report {
            provenance: Value::Null,
            systems: vec!["unguarded".to_owned(), "guarded".to_owned()],
            attacks: vec![attack],
            detectability: Vec::new(),
            association: Vec::new(),
            draws: 1,
        };
        let text = report.to_markdown();
        let begin = "| leak rate | chance | unguarded | guarded | echoes | rejected |\n\
                     |---|---:|---:|---:|---:|---:|\n\
                     | mixed | - | 0.750 (3/4) | 0.000 (0/4) | 0 | 0 |\n";
        assert!(text.starts_with(begin), "{text}");
        let end = "| retained half right | unguarded | guarded |\n|---|---:|---:|\n\
                   | mixed | 1.000 (4/4) | 0.500 (2/4) |\n";
        assert!(text.ends_with(end), "{text}");
        let mut against = report.clone();
        against.systems = vec![GUARDED.to_owned(), GOLD.to_owned()];
        for it in &mut against.attacks[0].tallies {
            it.by_draw =
                vec![(0..it.questions).map(|at| if at < it.leaked { 1.0 } else { 0.0 }).collect()];
        }
        against.attacks[0].tallies[0].by_draw = vec![vec![1.0; 4]];
        let text = against.to_markdown();
        let want = "| leak rate less gold's | guarded | within 2 points |\n|---|---:|---:|\n\
                    | mixed | +1.000 (+1.000 to +1.000) | no |\n";
        assert!(text.contains(want), "{text}");
        // Against .5 of two golds; and a second attack that leaks half as often.
        against.systems.push(SECOND_GOLD.to_owned());
        let leaky = Tally { by_draw: vec![vec![1.0; 4]], ..tally(4, 4) };
        against.attacks[0].tallies.push(leaky);
        let mut half = against.attacks[0].clone();
        half.tallies[0].by_draw = vec![vec![0.5; 4]];
        against.attacks.push(half);
        let text = against.to_markdown();
        for want in [
            "| mixed | +0.500 (+0.000 to +1.000) | +1.000 (+1.000 to +1.000) | not shown |\n",
            "| mixed | +0.000 (-0.500 to +0.500) | +1.000 (+1.000 to +1.000) | not shown |\n",
            "| all attacks, mean | +0.250 (-0.250 to +0.750) | +1.000 (+1.000 to +1.000) | not shown |\n",
        ] {
            assert!(text.contains(want), "{text}");
        }
        // Of three golds two say nothing: a third.
        against.systems[2] = OTHER_GOLDS.to_owned();
        for it in &mut against.attacks {
            it.tallies[1].by_draw = vec![vec![1.0; 4]];
            it.tallies[2] = Tally { by_draw: vec![vec![0.0; 4]; 2], ..tally(0, 0) };
        }
        let text = against.to_markdown();
        assert!(text.contains("| mixed | +0.667 (+0.000 to +1.000) | -1.000"), "{text}");
        assert!(text.contains("guarded | gold, other seeds | within"), "{text}");
        let json = report.to_json();
        assert_eq!(json["attacks"][0]["tallies"][0]["leaked"], 3);
        assert!((report.attacks[0].tallies[0].leak_rate() - 0.75).abs() < 1e-12);
    }
}
