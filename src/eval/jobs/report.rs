//! One report of a comparison, as JSON, Markdown and one HTML page.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::file::METRICS;
use super::grid::Kind;
use super::intervals::Estimate;
use super::phenomena::{Check, checks};
use super::result::{Count, PointResult};
use super::summary::{Line, lines};
use crate::eval::figures::page::Page;
use crate::eval::figures::{Figure, cost, heat, ratios, relearning, scatter};
use crate::eval::metrics::report::write_both;
use crate::eval::report::{number, p};
use crate::eval::suite::EvalError;

/// What every reader has to know.
const THREAT: &str = "Threat models. Questions and black-box attacks go through the served path: they are what a client \
of the API can do. A guard leaves the weights as they are, so that whoever has them has the facts; attacks on \
weights are therefore run on the untouched model, whose weights they are, and on every model that was changed; \
of a guard the same table has what it changes, the replies to suffixes that were found on the weights and its \
corrupted forward pass. Everything is set beside gold, a model retrained without the forgotten rows: what is found in gold is guessing.";

/// How to read the numbers.
const READING: &str = "Numbers in brackets are 95 % bootstrap intervals over questions and seeds, drawn crossed. Leak: share of \
replies to forget questions, in every wording, with the value asked for. p: Kolmogorov-Smirnov p of the truth \
ratios against gold's, median over seeds; above 0.05 the two are not told apart by it. Each p and each attack is \
one test: of twenty, one may come out by chance. Attacks on weights ask about the same forget rows at every seed, relearning and direction about another \
part of them: their counts are of all seeds, their intervals of one seed's questions. Told by: of the length of a \
reply, words of refusal and missing log-probabilities the one that tells questions about forgotten people best from \
the same about names that no model has seen, whichever way: 0.5 tells nothing, 1 everything; told by time: the same \
of the time to the whole reply. Being the best of several, it is above 0.5 by chance: gold's row shows how far.";

/// A comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Headline.
    pub title: String,
    /// Versions of the program that made the points.
    pub versions: Vec<String>,
    /// What all points of a run have in common: one value per run that was merged.
    pub shared: Vec<Value>,
    /// One line per row.
    pub lines: Vec<Line>,
    /// What the literature reports.
    pub phenomena: Vec<Check>,
    /// Where it came from.
    pub source: Source,
}

/// What it takes to run a comparison again.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Source {
    /// Commands.
    pub commands: Vec<String>,
    /// Texts of the job files.
    pub jobs: Vec<String>,
}

/// The title of a job file's text, if it has one.
#[must_use]
pub fn title_of(job: &str) -> Option<String> {
    let table: toml::Table = job.parse().ok()?;
    Some(table.get("title")?.as_str()?.to_owned())
}

fn estimate(it: &Estimate) -> String {
    if it.value.is_nan() {
        return "n/a".to_owned();
    }
    if it.low.is_nan() {
        return number(it.value, 3);
    }
    format!("{:.3} ({:.3} to {:.3})", it.value, it.low, it.high)
}

fn large(value: f64) -> String {
    if value.is_nan() { "n/a".to_owned() } else { format!("{value:.1e}") }
}

fn count(it: Count) -> String {
    format!("{} ({}/{})", number(it.share(), 3), it.hits, it.of)
}

fn cells(row: &[&str]) -> Vec<String> {
    row.iter().map(|it| (*it).to_owned()).collect()
}

/// A table with its headline; the first row is the head.
struct Table {
    title: &'static str,
    rows: Vec<Vec<String>>,
}

impl Report {
    /// Brings points together; points of several runs may be given one after the other. A point that
    /// is there twice counts once; a row that was measured in two ways becomes two rows.
    #[must_use]
    pub fn new(mut points: Vec<PointResult>, source: Source) -> Self {
        let mut seen: Vec<String> = Vec::new();
        points.retain(|it| {
            let new = !seen.contains(&it.hash);
            seen.push(it.hash.clone());
            new
        });
        for at in 1..points.len() {
            let own = (&points[at].label, points[at].seed);
            if points[..at].iter().any(|it| (&it.label, it.seed) == own) {
                points[at].label = format!("{} [{}]", points[at].label, points[at].hash);
            }
        }
        let (mut versions, mut shared) = (Vec::new(), Vec::new());
        for point in &points {
            if !versions.contains(&point.version) {
                versions.push(point.version.clone());
            }
            if !shared.contains(&point.config["shared"]) {
                shared.push(point.config["shared"].clone());
            }
        }
        let title = source.jobs.iter().find_map(|it| title_of(it));
        let title = title.unwrap_or_else(|| "Comparison".to_owned());
        let lines = lines(&points);
        Self { title, versions, shared, phenomena: checks(&lines), lines, source }
    }

    fn overview(&self) -> Table {
        let head = [
            "method",
            "kind",
            "seeds",
            "leak",
            "p",
            "p per seed",
            "utility",
            "utility beside untouched",
            "value prob.",
            "worst attack",
        ];
        let mut rows = vec![cells(&head)];
        for it in &self.lines {
            let worst = it.worst_attack().map_or("n/a".to_owned(), |attack| {
                format!("{}: {}, gold {}", attack.name, count(attack.leaked), count(attack.gold))
            });
            let per_seed: Vec<String> =
                it.forget_quality.iter().map(|it| p(it.unwrap_or(f64::NAN))).collect();
            rows.push(vec![
                it.label.clone(),
                it.kind.as_str().to_owned(),
                it.seeds.len().to_string(),
                estimate(&it.leak),
                p(it.forget_quality_median),
                per_seed.join(" "),
                estimate(&it.utility),
                estimate(&it.utility_gain),
                estimate(&it.value_probability),
                worst,
            ]);
        }
        Table { title: "Forgetting and utility", rows }
    }

    fn memory(&self) -> Table {
        let head = [
            "method",
            "extraction strength",
            "exact memorisation",
            "AUC, min-40%",
            "privleak %",
            "right choices",
            "fluency, forget",
            "fluency, retain",
            "hard non-targets",
            "mixed, retained half",
            "told by (AUC)",
        ];
        let mut rows = vec![cells(&head)];
        rows.extend(self.lines.iter().map(|it| {
            let sign = it.most_telling();
            vec![
                it.label.clone(),
                estimate(&it.strength),
                estimate(&it.memorised),
                number(it.membership_auc, 3),
                number(it.privleak, 1),
                estimate(&it.chosen),
                number(it.fluency_forget.value, 2),
                number(it.fluency_retain.value, 2),
                estimate(&it.hard),
                estimate(&it.mixed),
                sign.map_or("n/a".to_owned(), |it| format!("{} {}", it.name, number(it.auc, 3))),
            ]
        }));
        Table { title: "Memory, choices and side effects", rows }
    }

    fn costs(&self) -> Table {
        let head = [
            "method",
            "training s",
            "steps",
            "FLOP",
            "forget rows seen",
            "peak memory MiB",
            "topic request ms",
            "other request ms",
            "told by time (AUC)",
        ];
        let mut rows = vec![cells(&head)];
        rows.extend(self.lines.iter().map(|it| {
            let cost = it.cost;
            vec![
                it.label.clone(),
                number(cost.train_seconds, 1),
                number(cost.steps, 0),
                large(cost.flops),
                number(cost.samples, 0),
                number(cost.peak_bytes / 1_048_576.0, 0),
                number(1e3 * cost.forget_overhead, 2),
                number(1e3 * cost.other_overhead, 2),
                number(cost.time_auc, 3),
            ]
        }));
        Table {
            title: "Cost (requests: median beyond the same request to the untouched model)",
            rows,
        }
    }

    fn attacks(&self) -> Table {
        let mut rows = vec![cells(&["method", "attack", "leaked", "gold", "chance"])];
        for line in &self.lines {
            rows.extend(line.attacks.iter().map(|it| {
                let chance = if it.chance > 0.0 { number(it.chance, 2) } else { "-".to_owned() };
                vec![line.label.clone(), it.name.clone(), count(it.leaked), count(it.gold), chance]
            }));
        }
        Table { title: "Black-box attacks (access to the API)", rows }
    }

    fn whitebox(&self) -> Table {
        let head = [
            "method",
            "attack",
            "setting",
            "budget",
            "model",
            "gold",
            "excess, at least",
            "succeeds",
        ];
        let mut rows = vec![cells(&head)];
        for line in &self.lines {
            rows.extend(line.whitebox.iter().map(|it| {
                vec![
                    line.label.clone(),
                    it.attack.clone(),
                    it.setting.clone(),
                    it.budget.clone(),
                    count(it.model),
                    count(it.gold),
                    number(it.excess, 3),
                    if it.succeeds() { "yes" } else { "no" }.to_owned(),
                ]
            }));
        }
        Table { title: "Attacks on weights (access to the weights)", rows }
    }

    fn tables(&self) -> Vec<Table> {
        let all = [self.overview(), self.memory(), self.costs(), self.attacks(), self.whitebox()];
        all.into_iter().filter(|it| it.rows.len() > 1).collect()
    }

    /// What went wrong, a line each.
    fn problems(&self) -> Vec<String> {
        let of = |line: &Line| -> Vec<String> {
            line.problems.iter().map(|it| format!("{}: {it}", line.label)).collect()
        };
        self.lines.iter().flat_map(of).collect()
    }

    /// All figures.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = scatter::figures(&self.lines);
        figures.extend(ratios::figure(&self.lines));
        figures.extend(heat::figure(&self.lines));
        figures.extend(relearning::figure(&self.lines));
        figures.extend(cost::figures(&self.lines));
        figures
    }

    fn summary(&self) -> String {
        let of = |kind: Kind| self.lines.iter().filter(|it| it.kind == kind).count();
        format!(
            "{} rows: {} guards, {} finetuning methods, {} edits, {} models made elsewhere, {} models as they are; made by version {}.",
            self.lines.len(),
            of(Kind::Guard),
            of(Kind::Unlearn),
            of(Kind::Edit),
            of(Kind::Model),
            of(Kind::Bound),
            self.versions.join(", ")
        )
    }

    /// The report in Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = format!("# {}\n\n{}\n\n{THREAT}\n\n{READING}\n", self.title, self.summary());
        let problems = self.problems();
        if !problems.is_empty() {
            out.push_str("\n## What did not end well\n\n");
            problems.iter().for_each(|it| out.push_str(&format!("- {it}\n")));
        }
        for table in self.tables() {
            out.push_str(&format!("\n## {}\n\n", table.title));
            for (at, row) in table.rows.iter().enumerate() {
                let row: Vec<String> = row.iter().map(|it| it.replace('|', "\\|")).collect();
                out.push_str(&format!("| {} |\n", row.join(" | ")));
                if at == 0 {
                    out.push_str(&format!("|---|{}\n", "---:|".repeat(row.len() - 1)));
                }
            }
        }
        out.push_str("\n## What the literature reports\n");
        for check in &self.phenomena {
            out.push_str(&format!(
                "\n**{}: {}.** Rule: {}.\n\n",
                check.claim,
                check.shown.as_str(),
                check.rule
            ));
            check.numbers.iter().for_each(|it| out.push_str(&format!("- {it}\n")));
        }
        out.push_str("\n## Metrics\n\n");
        METRICS.iter().for_each(|it| out.push_str(&format!("- `{}`: {}\n", it.0, it.1)));
        out.push_str("\n## Run it again\n\n```\n");
        self.source.commands.iter().for_each(|it| out.push_str(&format!("{it}\n")));
        out.push_str("```\n");
        for job in &self.source.jobs {
            out.push_str(&format!("\n```toml\n{}\n```\n", job.trim_end()));
        }
        out
    }

    /// The report as one page.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut page = Page::new(&self.title);
        page.paragraph(&self.summary());
        page.paragraph(THREAT);
        page.paragraph(READING);
        let problems = self.problems();
        if !problems.is_empty() {
            page.heading("What did not end well");
            page.list(&problems);
        }
        for figure in self.figures() {
            page.figure(&figure);
        }
        for table in self.tables() {
            page.heading(table.title);
            page.table(&table.rows);
        }
        page.heading("What the literature reports");
        for check in &self.phenomena {
            page.paragraph(&format!(
                "{}: {}. Rule: {}.",
                check.claim,
                check.shown.as_str(),
                check.rule
            ));
            page.list(&check.numbers);
        }
        page.heading("Metrics");
        page.list(&METRICS.iter().map(|it| format!("{}: {}", it.0, it.1)).collect::<Vec<_>>());
        page.heading("Run it again");
        page.verbatim(&self.source.commands.join("\n"));
        self.source.jobs.iter().for_each(|it| page.verbatim(it));
        page.heading("Settings");
        for line in &self.lines {
            page.paragraph(&format!("{}: {}", line.label, line.settings));
        }
        for shared in &self.shared {
            page.verbatim(&serde_json::to_string_pretty(shared).expect("a value is JSON"));
        }
        page.finish()
    }

    /// Writes `report.json`, `report.md` and `report.html` into `folder`.
    ///
    /// # Errors
    ///
    /// [`EvalError::Write`] naming the file.
    pub fn write(&self, folder: &Path) -> Result<(), EvalError> {
        let json = serde_json::to_string_pretty(self).expect("a report is JSON") + "\n";
        write_both(folder, "report", &json, &self.to_markdown())?;
        let path = folder.join("report.html");
        std::fs::write(&path, self.to_html()).map_err(|source| EvalError::Write { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::Status;
    use super::super::summary::tests::points;
    use super::*;
    use crate::eval::figures::page::outside;
    use serde_json::json;

    fn report() -> Report {
        let mut all = points();
        for point in &mut all {
            point.config = json!({ "shared": { "world_seed": 42 } });
        }
        all[3].label = "<script>alert(1)</script>".to_owned();
        all[3].measured = None;
        all[3].status = Status::Failed { message: "a \"disk\" & more".to_owned() };
        let commands = vec!["proxy-train compare a.toml".to_owned()];
        let jobs = vec!["title = \"Lab <b>\"\n".to_owned()];
        Report::new(all, Source { commands, jobs })
    }

    #[test]
    fn the_page_is_whole_and_fetches_nothing() {
        let html = report().to_html();
        assert_eq!(outside(&html), Vec::<&str>::new());
        assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
        assert!(html.contains("<h1>Lab &lt;b&gt;</h1>") && html.contains("&lt;script&gt;"));
        assert!(html.contains("a &quot;disk&quot; &amp; more"));
        for tag in ["svg", "figure", "table", "ul", "p", "pre", "text", "title"] {
            let opened = html.matches(&format!("<{tag}>")).count()
                + html.matches(&format!("<{tag} ")).count();
            let closed = html.matches(&format!("</{tag}>")).count();
            assert_eq!(opened, closed, "{tag}");
        }
        let figures = report().figures();
        assert_eq!(figures.len(), html.matches("<figure>").count());
        assert_eq!(html.matches("Threat model: ").count(), figures.len());
        assert!(!html.contains("http:") && !html.contains("https:"));
    }

    #[test]
    fn every_row_is_in_the_markdown() {
        let text = report().to_markdown();
        assert!(text.starts_with("# Lab <b>\n"), "{text}");
        assert!(text.contains("| untouched | bound | 1 | 1.000 (1.000 to 1.000) |"), "{text}");
        assert!(text.contains("| npo | relearning | 4 rows |"), "{text}");
        assert!(text.contains("seed 2 failed: a \"disk\" & more") && text.contains("n/a"));
        assert!(text.contains("arXiv:2404.05868): not run.**"), "{text}");
        assert!(text.contains("proxy-train compare a.toml"));
    }

    #[test]
    fn a_point_counts_once() {
        let mut twice = [points(), points()].concat();
        twice[7].hash = "other".to_owned();
        let report = Report::new(twice, Source::default());
        assert_eq!(report.lines[2].seeds, [1, 2]);
        assert_eq!((report.lines.len(), report.lines[3].label.as_str()), (4, "npo [other]"));
        let folder = tempfile::tempdir().unwrap();
        report.write(folder.path()).unwrap();
        let json = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["lines"][2]["method"], "npo");
        assert_eq!(json["phenomena"].as_array().map(Vec::len), Some(10));
        assert!(folder.path().join("report.html").exists());
    }
}
