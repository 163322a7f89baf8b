//! Points shared between processes on one machine: each takes the next that nobody has taken.
//!
//! Processes and not threads, because a point's peak memory is its process's, and because one thread for a
//! point trains small models faster than all threads for one point after the other.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use unlearn_proxy::eval::jobs::result::PointResult;

/// The option that makes a process a worker.
pub(super) const WORKER: &str = "--worker";

/// How often the processes are looked at.
const TICK: Duration = Duration::from_millis(500);

/// A point that no other process runs as long as this is held, however the process ends.
#[derive(Debug)]
pub(super) struct Claim(
    #[expect(dead_code, reason = "the lock lasts as long as the file is open")] File,
);

/// Takes a point; `None` where another process has it.
pub(super) fn claim(out: &Path, hash: &str) -> anyhow::Result<Option<Claim>> {
    let folder = out.join("claims");
    let path = folder.join(hash);
    let failed = || path.display().to_string();
    fs::create_dir_all(&folder).with_context(failed)?;
    let file = File::create(&path).with_context(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Claim(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(failed),
    }
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
/// What they log is in `workers/` of the run's folder. `hashes` are the points to come.
#[expect(clippy::disallowed_methods, reason = "there is no runtime whose worker it could block")]
pub(super) fn run(
    count: usize,
    out: &Path,
    hashes: Vec<String>,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let cores = thread::available_parallelism()?.get();
    let mut workers = Vec::with_capacity(count);
    for number in 1..=count.min(hashes.len()) {
        workers.push(Worker::start(number, (cores / count).max(1), out)?);
    }
    let mut open: HashSet<String> = hashes.into_iter().collect();
    loop {
        let mut ended = true;
        for worker in &mut workers {
            ended &= worker.has_ended()?;
        }
        let done = |hash: &String| -> anyhow::Result<bool> {
            Ok(PointResult::read(out, hash)?.is_some_and(|it| it.is_final()))
        };
        for hash in open.clone() {
            if done(&hash)? {
                open.remove(&hash);
                bar.inc(1);
            }
        }
        if ended {
            return Ok(());
        }
        bar.tick();
        thread::sleep(TICK);
    }
}

/// A process, ended when this is dropped.
struct Worker {
    process: Child,
    log: std::path::PathBuf,
}

impl Worker {
    fn start(number: usize, threads: usize, out: &Path) -> anyhow::Result<Self> {
        let folder = out.join("workers");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let log = folder.join(format!("{number}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let process = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg(WORKER)
            .env("RAYON_NUM_THREADS", threads.to_string())
            .env("CANDLE_BARRIER_POOL_SPIN_LIMIT", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .context("a worker process cannot be started")?;
        Ok(Self { process, log })
    }

    fn has_ended(&mut self) -> anyhow::Result<bool> {
        match self.process.try_wait()? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it says nothing");
                bail!("a worker ended with {status}: {last} (see {})", self.log.display());
            }
        }
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
        let first = claim(out.path(), "a").unwrap();
        assert!(first.is_some() && claim(out.path(), "a").unwrap().is_none());
        assert!(claim(out.path(), "b").unwrap().is_some());
        drop(first);
        assert!(claim(out.path(), "a").unwrap().is_some());
    }
}
