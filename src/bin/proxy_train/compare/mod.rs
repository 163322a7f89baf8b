//! `proxy-train compare` and `proxy-train report`: every method of a job file under the same metrics
//! and attacks, one point after the other, each written when it is done.

mod bench;
mod machine;
mod make;
mod workers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use unlearn_proxy::eval::jobs::file::Job;
use unlearn_proxy::eval::jobs::grid::{self, Point};
use unlearn_proxy::eval::jobs::hashes;
use unlearn_proxy::eval::jobs::report::{Report, Source};
use unlearn_proxy::eval::jobs::result::{PointResult, Status};

use bench::Bench;

/// The job file's copy in a run's folder.
const JOB_FILE: &str = "job.toml";

/// The commands of a run, one a line.
const COMMANDS_FILE: &str = "commands.txt";

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The job file.
    job: PathBuf,
    /// Folder of `points/` and of the report; interrupted, it resumes there.
    #[arg(long, required_unless_present = "pin")]
    out: Option<PathBuf>,
    /// Write the hashes of the data files into the job file, and stop.
    #[arg(long)]
    pin: bool,
    /// Only the first seeds of every method.
    #[arg(long, value_name = "N")]
    seeds: Option<usize>,
    /// Only methods of this name, beside the bounds; may be given several times.
    #[arg(long = "only", value_name = "NAME")]
    only: Vec<String>,
    /// Only the Ith (from 0) of N shares of the points, whatever the number of seeds; `report` merges
    /// the folders.
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// Stop after this many points that were not there yet.
    #[arg(long, value_name = "N")]
    points: Option<usize>,
    /// Share the points between this many processes, each with a copy of the models and its part of the
    /// cores; one for each core is fastest for small models.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "points")]
    workers: usize,
    /// Be one of those of a run.
    #[arg(long, hide = true, value_name = "RUN")]
    worker: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Folders that `compare` wrote.
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// Folder of `report.json`, `report.md` and `report.html` [default: the first of them].
    #[arg(long)]
    out: Option<PathBuf>,
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let (at, of) = text.split_once('/').ok_or("is not I/N")?;
    let number = |it: &str| it.parse::<usize>().map_err(|error| format!("`{it}`: {error}"));
    let (at, of) = (number(at)?, number(of)?);
    if at < of { Ok((at, of)) } else { Err(format!("{at} is not below {of}")) }
}

/// The points that are asked for.
fn chosen<'a>(job: &'a Job, args: &CompareArgs) -> anyhow::Result<Vec<Point<'a>>> {
    if args.seeds == Some(0) || args.points == Some(0) || args.workers == 0 {
        bail!("--seeds, --points and --workers must be at least 1");
    }
    for name in &args.only {
        if job.variants.iter().all(|it| it.name != *name) {
            let mut known: Vec<&str> = job.variants.iter().map(|it| it.name.as_str()).collect();
            known.dedup();
            bail!("--only: the job has no method `{name}`; it has {}", known.join(", "));
        }
    }
    let wanted = |it: &Point<'_>| {
        let bound = it.variant.kind == grid::Kind::Bound;
        bound || args.only.is_empty() || args.only.contains(&it.variant.name)
    };
    let (at, of) = args.shard.unwrap_or((0, 1));
    // Every seed's points are spread over all shares, and stay where they are when seeds are added.
    let share = |it: &Point<'_>| {
        let nth = it.variant.seeds.iter().position(|seed| *seed == it.seed).unwrap_or(0);
        (it.order + nth) % of == at
    };
    let all = grid::points(&job.variants, args.seeds);
    Ok(all.into_iter().filter(|it| wanted(it) && share(it)).collect())
}

pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<String> {
    let job = Job::load(&args.job)?;
    let found = hashes::of_splits(&job)?;
    if args.pin {
        let text = fs::read_to_string(&args.job)?;
        fs::write(&args.job, hashes::pinned(&text, &found))
            .with_context(|| args.job.display().to_string())?;
        return Ok(format!("{}: {} data files pinned", args.job.display(), found.len()));
    }
    hashes::check(&job, &found)?;
    let points = chosen(&job, args)?;
    let Some(out) = &args.out else { bail!("--out is missing") };
    let bench = Bench::load(&job, &found)?;
    if let Some(run) = &args.worker {
        let abandoned = workers::abandoned();
        let go_on = |_| !abandoned.load(Ordering::Relaxed);
        work(&bench, &points, (out, Some(run)), &ProgressBar::hidden(), go_on)?;
        return Ok(String::new());
    }
    remember(args, out)?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} points, {msg}, {eta} left")
        .expect("the template is valid");
    let bar = ProgressBar::new(points.len() as u64).with_style(style);
    let open = open(&bench, &points, out)?;
    bar.set_position((points.len() - open.len()) as u64);
    bar.reset_eta();
    let mut failed = None;
    if args.workers > 1 {
        bar.set_message(format!("{} at once", args.workers));
        let hashes = open.into_iter().map(|it| it.1).collect();
        failed = workers::run(args.workers, out, hashes, &bar).err();
    } else {
        let go_on = |run| args.points.is_none_or(|most| run < most);
        work(&bench, &points, (out, None), &bar, go_on)?;
    }
    bar.finish();
    let report = reported(of_job(&bench, &job, out), out);
    // The report is of what the others have done.
    if let Some(error) = failed {
        return Err(error);
    }
    let mut text = report?.to_markdown();
    let untried = |it: &(_, String)| matches!(PointResult::read(out, &it.1), Ok(None));
    let left = self::open(&bench, &points, out)?.iter().filter(|it| untried(it)).count();
    if left > 0 {
        text.push_str(&format!("\n{left} points are left; run the command again.\n"));
    }
    Ok(text)
}

/// Writes the report of results.
fn reported(results: anyhow::Result<Vec<PointResult>>, out: &Path) -> anyhow::Result<Report> {
    let report = Report::new(results?, source(&[out]));
    report.write(out)?;
    Ok(report)
}

/// The points without a final result, each with what decides its numbers, hashed.
fn open<'p, 'j>(
    bench: &Bench<'_>,
    points: &'p [Point<'j>],
    out: &Path,
) -> anyhow::Result<Vec<(&'p Point<'j>, String)>> {
    let mut open = Vec::new();
    for point in points {
        let hash = grid::hash(&bench.config(point));
        if PointResult::read(out, &hash)?.is_none_or(|it| !it.is_final()) {
            open.push((point, hash));
        }
    }
    Ok(open)
}

/// Runs points that no other process has taken, one after the other, as long as `go_on` says so when told how
/// many it has been. `of` is the run that shares them.
fn work(
    bench: &Bench<'_>,
    points: &[Point<'_>],
    (out, of): (&Path, Option<&str>),
    bar: &ProgressBar,
    go_on: impl Fn(usize) -> bool,
) -> anyhow::Result<()> {
    let mut run = 0;
    for (point, hash) in open(bench, points, out)? {
        if !go_on(run) {
            break;
        }
        let Some(_claim) = workers::claim(out, &hash, of)? else { continue };
        // Another process may have run it since.
        if PointResult::read(out, &hash)?.is_some_and(|it| it.is_final()) {
            continue;
        }
        run += 1;
        bar.set_message(format!("{}, seed {}", point.variant.label, point.seed));
        tracing::info!(point = point.variant.label, seed = point.seed, "measuring");
        let result = bench.run(point, out);
        if !matches!(result.status, Status::Done) {
            tracing::warn!(point = result.label, status = ?result.status, "no numbers");
        }
        result.write(out)?;
        bar.inc(1);
    }
    Ok(())
}

/// Keeps the job file and the command beside the results.
fn remember(args: &CompareArgs, out: &Path) -> anyhow::Result<()> {
    let failed = || out.display().to_string();
    fs::create_dir_all(out).with_context(failed)?;
    fs::copy(&args.job, out.join(JOB_FILE)).with_context(failed)?;
    let path = out.join(COMMANDS_FILE);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("proxy-train {}", words.join(" "));
    let mut known = fs::read_to_string(&path).unwrap_or_default();
    if known.lines().all(|it| it != command) {
        known.push_str(&format!("{command}\n"));
        fs::write(&path, known).with_context(failed)?;
    }
    Ok(())
}

/// The results of this very job; what other settings left in the folder is not among them.
fn of_job(bench: &Bench<'_>, job: &Job, out: &Path) -> anyhow::Result<Vec<PointResult>> {
    let points = grid::points(&job.variants, None);
    let orders: BTreeMap<String, usize> =
        points.iter().map(|it| (grid::hash(&bench.config(it)), it.order)).collect();
    let mut results = PointResult::read_all(out)?;
    results.retain(|it| orders.contains_key(&it.hash));
    // A row may have moved since.
    results.iter_mut().for_each(|it| it.order = orders[&it.hash]);
    results.sort_by_key(|it| (it.order, it.seed));
    Ok(results)
}

/// The commands and job files of some runs.
fn source(runs: &[&Path]) -> Source {
    let mut source = Source::default();
    for run in runs {
        let read = |name: &str| fs::read_to_string(run.join(name)).unwrap_or_default();
        source.commands.extend(read(COMMANDS_FILE).lines().map(str::to_owned));
        let job = read(JOB_FILE);
        if !job.is_empty() && !source.jobs.contains(&job) {
            source.jobs.push(job);
        }
    }
    source
}

pub(crate) fn report(args: &ReportArgs) -> anyhow::Result<String> {
    let runs: Vec<&Path> = args.runs.iter().map(PathBuf::as_path).collect();
    let mut points = Vec::new();
    for run in &runs {
        points.extend(PointResult::read_all(run)?);
    }
    points.sort_by_key(|it| (it.order, it.seed));
    let report = Report::new(points, source(&runs));
    report.write(args.out.as_deref().unwrap_or(runs[0]))?;
    Ok(report.to_markdown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_a_part_of_a_whole() {
        assert_eq!(shard("0/4"), Ok((0, 4)));
        for wrong in ["4/4", "1", "a/4", "0/0"] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }

    /// Between them shards run every point once, and bounds are run whatever is asked for.
    #[test]
    fn shards_share_all_points() {
        let job = Job::load(Path::new("deploy/jobs/smoke.toml")).unwrap();
        let args = |shard, only: &[&str]| CompareArgs {
            job: PathBuf::new(),
            out: None,
            pin: false,
            seeds: None,
            only: only.iter().map(|it| (*it).to_owned()).collect(),
            shard,
            points: None,
            workers: 1,
            worker: None,
        };
        let names = |args: &CompareArgs| -> Vec<(String, u64)> {
            let points = chosen(&job, args).unwrap();
            points.iter().map(|it| (it.variant.label.clone(), it.seed)).collect()
        };
        let all = names(&args(None, &[]));
        let mut parts: Vec<_> = (0..3).flat_map(|it| names(&args(Some((it, 3)), &[]))).collect();
        assert_eq!(parts.len(), all.len());
        parts.sort();
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(parts, sorted);
        let only = names(&args(None, &["npo"]));
        assert!(only.len() < all.len() && only.iter().any(|it| it.0 == "gold"));
        let error = chosen(&job, &args(None, &["npoo"])).unwrap_err();
        assert!(error.to_string().contains("npoo"), "{error}");

        let job = Job::load(Path::new("deploy/jobs/lab.toml")).unwrap();
        let labels = |seeds, at| -> Vec<(String, u64)> {
            let args = CompareArgs { seeds, ..args(Some((at, 2)), &[]) };
            let points = chosen(&job, &args).unwrap();
            points.iter().map(|it| (it.variant.label.clone(), it.seed)).collect()
        };
        for seeds in [Some(1), Some(2), None] {
            let [first, second] = [0, 1].map(|at| labels(seeds, at));
            let count = |of: &[(String, u64)], seed| of.iter().filter(|it| it.1 == seed).count();
            for seed in 1..=seeds.unwrap_or(3) as u64 {
                let (one, other) = (count(&first, seed), count(&second, seed));
                assert!(one.abs_diff(other) <= 6, "seed {seed}: {one} and {other}");
            }
            assert!(labels(Some(1), 0).iter().all(|it| first.contains(it)));
        }
    }
}
