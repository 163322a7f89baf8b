//! The data files of a job: that they are there, and that they are the ones that were pinned.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::file::{Job, JobError};

/// The header of the table that pins.
const TABLE: &str = "[data_hashes]";

/// SHA-256 of some bytes, in lower-case hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|it| format!("{it:02x}")).collect()
}

/// Names of the `.jsonl` files of a folder, for an error message.
fn there(folder: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else { return "no such folder".to_owned() };
    let paths = entries.filter_map(|it| Some(it.ok()?.path()));
    let lines = paths.filter(|it| it.extension().is_some_and(|it| it == "jsonl"));
    let mut names: Vec<String> =
        lines.filter_map(|it| Some(it.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    format!(
        "the folder has {}",
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    )
}

/// SHA-256 of every split's file, by its name.
///
/// # Errors
///
/// [`JobError::Invalid`] naming every split whose file is missing.
pub fn of_splits(job: &Job) -> Result<BTreeMap<String, String>, JobError> {
    let (mut hashes, mut problems) = (BTreeMap::new(), Vec::new());
    for (key, name) in job.splits.all() {
        let path = job.data.join(format!("{name}.jsonl"));
        match std::fs::read(&path) {
            Ok(bytes) => {
                hashes.insert(name.to_owned(), sha256(&bytes));
            }
            Err(error) => problems.push(format!(
                "{}: splits.{key}: {} cannot be read ({error}); {}",
                job.path.display(),
                path.display(),
                there(&job.data)
            )),
        }
    }
    if problems.is_empty() { Ok(hashes) } else { Err(JobError::Invalid { problems }) }
}

/// Compares the files' hashes with those that the job pins, if it pins any.
///
/// # Errors
///
/// [`JobError::Invalid`] naming every file that is another one, and every name that is no split.
pub fn check(job: &Job, hashes: &BTreeMap<String, String>) -> Result<(), JobError> {
    let mut problems = Vec::new();
    for (name, pinned) in &job.data_hashes {
        let problem = match hashes.get(name) {
            None => "is no split of this job; remove it".to_owned(),
            Some(found) if found == pinned => continue,
            Some(found) => format!(
                "{}.jsonl has {found}, the job says {pinned}; bring the file back, or accept it with `compare --pin`",
                job.data.join(name).display()
            ),
        };
        problems.push(format!("{}: data_hashes.{name}: {problem}", job.path.display()));
    }
    if problems.is_empty() { Ok(()) } else { Err(JobError::Invalid { problems }) }
}

/// The text of a job file with these hashes pinned at its end, in place of any that it had.
#[must_use]
pub fn pinned(text: &str, hashes: &BTreeMap<String, String>) -> String {
    let (mut kept, mut dropping) = (Vec::new(), false);
    for line in text.lines() {
        let header = line.trim_start();
        if header.starts_with('[') {
            dropping = header.trim_end() == TABLE;
        }
        if !dropping {
            kept.push(line);
        }
    }
    let mut out = kept.join("\n").trim_end().to_owned();
    out.push_str(&format!("\n\n{TABLE}\n"));
    for (name, hash) in hashes {
        let quoted = toml::Value::String(name.clone());
        out.push_str(&format!("{quoted} = \"{hash}\"\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::file::SplitNames;
    use super::super::file::tests::{BOUNDS, HEAD};
    use super::*;

    /// The digest of "abc" that FIPS 180 prints.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn job(folder: &Path, head: &str) -> Job {
        Job::parse(&folder.join("a.toml"), &format!("{HEAD}{head}\n{BOUNDS}")).unwrap()
    }

    fn data(folder: &Path) {
        std::fs::create_dir_all(folder.join("d")).unwrap();
        for (_, name) in SplitNames::default().all() {
            std::fs::write(folder.join(format!("d/{name}.jsonl")), "abc").unwrap();
        }
    }

    #[test]
    fn a_missing_split_is_named_beside_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        data(folder.path());
        let hashes = of_splits(&job(folder.path(), "")).unwrap();
        assert_eq!((hashes.len(), hashes["forget10"].as_str()), (6, ABC));
        let other = job(folder.path(), "[splits]\nforget = \"forget05\"");
        let error = of_splits(&other).unwrap_err().to_string();
        assert!(error.contains("splits.forget: ") && error.contains("forget05.jsonl"), "{error}");
        assert!(error.contains("the folder has forget10, holdout, real_authors"), "{error}");
    }

    #[test]
    fn another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        data(folder.path());
        let head = format!("[data_hashes]\nforget10 = \"{ABC}\"\nforget99 = \"{ABC}\"");
        let pinned = job(folder.path(), &head);
        let hashes = of_splits(&pinned).unwrap();
        let error = check(&pinned, &hashes).unwrap_err().to_string();
        assert!(error.contains("data_hashes.forget99: is no split"), "{error}");
        assert!(!error.contains("data_hashes.forget10"), "{error}");
        std::fs::write(folder.path().join("d/forget10.jsonl"), "abd").unwrap();
        let hashes = of_splits(&pinned).unwrap();
        let error = check(&pinned, &hashes).unwrap_err().to_string();
        assert!(error.contains("a.toml: data_hashes.forget10: ") && error.contains(ABC), "{error}");
        assert!(check(&job(folder.path(), ""), &hashes).is_ok());
    }

    #[test]
    fn pinning_replaces_what_was_pinned() {
        let hashes = BTreeMap::from([("forget10".to_owned(), ABC.to_owned())]);
        let text =
            "model = \"m\" # kept\n[data_hashes]\nforget10 = \"old\"\n\n[limits]\nforget = 3\n";
        let once = pinned(text, &hashes);
        let table = format!("[data_hashes]\n\"forget10\" = \"{ABC}\"\n");
        assert_eq!(once, format!("model = \"m\" # kept\n[limits]\nforget = 3\n\n{table}"));
        assert_eq!(pinned(&once, &hashes), once);
        let read: toml::Table = once.parse().unwrap();
        assert_eq!(read["data_hashes"]["forget10"].as_str(), Some(ABC));
    }
}
