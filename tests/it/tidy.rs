//! The rules of the house, as far as a test can see them.

use std::fs;
use std::path::{Path, PathBuf};

/// What each top-level module may use. A new edge is a design decision: make it here, on its own.
const MAY_USE: &[(&str, &[&str])] = &[
    ("seed", &[]),
    ("stats", &["seed"]),
    ("types", &[]),
    ("config", &["types"]),
    ("telemetry", &["config", "types"]),
    ("text", &["types"]),
    ("policy", &["seed", "text", "types"]),
    ("embed", &["text"]),
    ("engine", &["seed", "types"]),
    ("backend", &["engine", "types"]),
    ("detect", &["embed", "text", "types"]),
    ("window", &["text", "types"]),
    ("treat", &["backend", "policy", "seed", "text", "types", "window"]),
    (
        "service",
        &[
            "backend",
            "config",
            "detect",
            "engine",
            "http",
            "policy",
            "seed",
            "telemetry",
            "text",
            "treat",
            "types",
            "window",
        ],
    ),
    ("http", &["backend", "seed", "types"]),
    ("lab", &["seed"]),
    ("data", &["engine", "types"]),
    ("train", &["data", "embed", "engine", "lab", "seed", "stats", "text"]),
    ("eval", &["backend", "data", "engine", "lab", "seed", "stats", "text", "train", "types"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|it| it == "rs") {
            out.push(path);
        }
    }
}

fn all(folder: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    sources(&root().join(folder), &mut paths);
    let name = |it: &Path| it.strip_prefix(root().join(folder)).unwrap().display().to_string();
    paths.iter().map(|it| (name(it), fs::read_to_string(it).unwrap())).collect()
}

/// A file's text without its unit tests, which may look anywhere.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

#[test]
fn modules_use_only_what_they_may() {
    for (file, text) in all("src") {
        let module = file.split(['/', '.']).next().unwrap();
        let Some((_, allowed)) = MAY_USE.iter().find(|it| it.0 == module) else { continue };
        if file.ends_with("tests.rs") {
            continue;
        }
        for part in code(&text).split("crate::").skip(1) {
            let used = part.split(|it: char| !it.is_alphanumeric() && it != '_').next().unwrap();
            assert!(
                used == module || allowed.contains(&used),
                "src/{file} uses `{used}`, which `{module}` may not"
            );
        }
    }
}

#[test]
fn every_module_has_its_rule() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for module in lib.lines().filter_map(|it| it.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        assert!(MAY_USE.iter().any(|it| it.0 == module), "`{module}` has no row in MAY_USE");
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    for folder in ["src", "tests", "benches"] {
        for (file, text) in all(folder) {
            assert!(text.lines().count() <= 500, "{folder}/{file} has over 500 lines");
            let documented = text.starts_with("//!") || text.starts_with("#![doc");
            assert!(documented, "{folder}/{file} does not begin with what it is");
        }
    }
}

#[test]
fn one_file_asks_for_cuda_and_one_is_unsafe() {
    for (file, text) in all("src") {
        if text.contains("feature = \"cuda\"") {
            assert_eq!(file, "engine/device.rs");
        }
        if text.contains("unsafe {") {
            assert_eq!(file, "engine/weights.rs");
        }
    }
}

/// A policy can name exactly the detectors that are registered.
#[test]
fn every_detector_is_registered() {
    let registered: Vec<&str> = unlearn_proxy::detect::NAMES.iter().map(|it| it.0).collect();
    let mut files: Vec<String> = all("src/detect")
        .into_iter()
        .map(|it| it.0.trim_end_matches(".rs").to_owned())
        // A folder holds parts of the file of its name.
        .filter(|it| it != "mod" && !it.contains('/'))
        .collect();
    files.sort();
    assert_eq!(files, registered);
}

/// Each file in `methods` is an entry of the registry under its own name.
#[test]
fn every_method_is_registered() {
    let methods = unlearn_proxy::train::methods::METHODS;
    let registered: Vec<&str> = methods.iter().map(|it| it.name).collect();
    let mut files: Vec<String> = all("src/train/methods")
        .into_iter()
        .map(|it| it.0.trim_end_matches(".rs").to_owned())
        // A folder holds parts of the file of its name.
        .filter(|it| it != "mod" && !it.contains('/'))
        .collect();
    files.sort();
    assert_eq!(files, registered);
    for method in methods {
        assert!(!method.about.is_empty() && !method.about.ends_with('.'), "{}", method.name);
    }
}

#[test]
fn shipped_policies_and_configuration_are_fine() {
    let policies = unlearn_proxy::policy::file::load_dir(&root().join("policies")).unwrap();
    assert!(!policies.policies.is_empty());
}
