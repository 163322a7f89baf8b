//! Points shared between processes on one machine: each takes the next that nobody has taken.
//!
//! Processes and not threads, because a point's peak memory is its process's, and because one thread for a
//! point trains small models faster than all threads for one point after the other.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use unlearn_proxy::eval::jobs::result::PointResult;

/// How often the processes are looked at.
const TICK: Duration = Duration::from_millis(500);

/// A point that no other process runs as long as this is held, however the process ends.
#[derive(Debug)]
pub(super) struct Claim {
    #[expect(dead_code, reason = "the lock lasts as long as the file is open")]
    file: File,
}

/// Takes a point; `None` where another process has it, or had it in the same run.
pub(super) fn claim(out: &Path, hash: &str, run: Option<&str>) -> anyhow::Result<Option<Claim>> {
    let folder = out.join("claims");
    let path = folder.join(hash);
    let failed = || path.display().to_string();
    fs::create_dir_all(&folder).with_context(failed)?;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).with_context(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        // Then nothing keeps two processes from the same point but `--shard`.
        Err(TryLockError::Error(it)) if it.kind() == ErrorKind::Unsupported => {}
        Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
    }
    if let Some(run) = run {
        let mut by = String::new();
        file.read_to_string(&mut by).with_context(failed)?;
        if by == run {
            return Ok(None);
        }
        file.rewind().with_context(failed)?;
        file.set_len(0).and_then(|()| file.write_all(run.as_bytes())).with_context(failed)?;
    }
    Ok(Some(Claim { file }))
}

/// Becomes true when the process that started this one is gone.
pub(super) fn abandoned() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&flag);
    thread::spawn(move || {
        // Nobody writes there: it ends when the other side does.
        let ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tracing::debug!(?ended, "the run that this worker belongs to is gone");
        told.store(true, Ordering::Relaxed);
    });
    flag
}

/// Runs this very command in `count` processes with their part of the cores each, until all have ended.
/// What they log is in `workers/` of the run's folder. `hashes` are the points to come. When one fails the
/// others go on, and what is said of it comes at the end.
#[expect(clippy::disallowed_methods, reason = "there is no runtime whose worker it could block")]
pub(super) fn run(
    count: usize,
    out: &Path,
    hashes: Vec<String>,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let count = count.min(hashes.len());
    let threads = (thread::available_parallelism()?.get() / count.max(1)).max(1);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let run = format!("{}-{}", std::process::id(), since.as_millis());
    let start = |number| Worker::start(number, &run, threads, out);
    let mut workers = (1..=count).map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let mut open: HashSet<String> = hashes.into_iter().collect();
    loop {
        let mut ended = true;
        for worker in &mut workers {
            ended &= worker.process.try_wait()?.is_some();
        }
        for hash in open.clone() {
            if PointResult::read(out, &hash)?.is_some_and(|it| it.is_final()) {
                open.remove(&hash);
                bar.inc(1);
            }
        }
        if ended {
            break;
        }
        bar.tick();
        thread::sleep(TICK);
    }
    workers.iter_mut().try_for_each(Worker::succeeded)
}

/// A process, ended when this is dropped.
struct Worker {
    process: Child,
    log: PathBuf,
}

impl Worker {
    fn start(number: usize, run: &str, threads: usize, out: &Path) -> anyhow::Result<Self> {
        let folder = out.join("workers");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let log = folder.join(format!("{run}-{number}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let mut words = std::env::args_os().skip(1);
        let process = Command::new(std::env::current_exe()?)
            .args(words.next())
            .args(["--worker", run])
            .args(words)
            .env("RAYON_NUM_THREADS", threads.to_string())
            .env("CANDLE_BARRIER_POOL_SPIN_LIMIT", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .context("a worker process cannot be started")?;
        Ok(Self { process, log })
    }

    /// Waits for its end; an error when that was none of its own.
    fn succeeded(&mut self) -> anyhow::Result<()> {
        let status = self.process.wait()?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it says nothing");
        bail!("a worker ended with {status}: {last} (see {})", self.log.display());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let ended = self.process.kill().and_then(|()| self.process.wait());
            tracing::debug!(?ended, "a worker was stopped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_taken_once_until_it_is_let_go() {
        let out = tempfile::tempdir().unwrap();
        let taken = |hash: &str, run| claim(out.path(), hash, run).unwrap();
        let first = taken("a", None);
        assert!(first.is_some() && taken("a", None).is_none() && taken("b", None).is_some());
        drop(first);
        assert!(taken("a", None).is_some());
        for (run, free) in [("1", true), ("1", false), ("2", true)] {
            assert_eq!(taken("a", Some(run)).is_some(), free);
        }
        assert!(taken("a", None).is_some());
    }
}
