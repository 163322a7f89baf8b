//! `proxy-train compare` from a job file to the report, with models that were never trained.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::DType;
use serde_json::Value;
use unlearn_proxy::engine::model_config::ModelConfig;
use unlearn_proxy::engine::tokenizer::Tokenizer;
use unlearn_proxy::engine::weights;
use unlearn_proxy::eval::figures::page::outside;
use unlearn_proxy::eval::jobs::file::{Job, METRICS};
use unlearn_proxy::eval::jobs::grid::{self, Action};
use unlearn_proxy::lab::{self, World};
use unlearn_proxy::train::edits::EDITS;
use unlearn_proxy::train::initial;
use unlearn_proxy::train::pretrain::SMOKE;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn copy(from: &str, to: &Path) {
    let target = to.join(from);
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::copy(root().join(from), target).unwrap();
}

/// A folder with the smoke job, its data, and two untrained models. Half of the vocabulary ends a
/// turn, so that their replies are short.
fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    copy("deploy/jobs/smoke.toml", path);
    copy("policies/lab.toml", path);
    copy("models/lab/data/values.jsonl", path);
    for name in fs::read_dir(root().join("models/lab/classifier")).unwrap() {
        let name = name.unwrap().file_name();
        copy(&format!("models/lab/classifier/{}", name.to_str().unwrap()), path);
    }
    lab::write(&World::new(42), &path.join("target/smoke/data")).unwrap();
    let lab = root().join("models/lab/full");
    let tokenizer = Tokenizer::read(&lab, &[]).unwrap();
    let half = u32::try_from(tokenizer.vocab_size() / 2).unwrap();
    let config = ModelConfig { end_tokens: (0..half).collect(), ..SMOKE.config(&tokenizer) };
    for (name, seed) in [("full", 1), ("retain", 2)] {
        let model = path.join("target/smoke").join(name);
        weights::save(&initial::decoder(&config, seed).unwrap(), &model, DType::F32).unwrap();
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(lab.join(file), model.join(file)).unwrap();
        }
    }
    folder
}

/// Runs the binary in a folder; (whether it succeeded, standard output and error).
fn run(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_proxy-train"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Names and texts of the results.
fn points(out: &Path) -> Vec<(PathBuf, String)> {
    let mut all: Vec<(PathBuf, String)> = fs::read_dir(out.join("points"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .map(|it| (it.clone(), fs::read_to_string(it).unwrap()))
        .collect();
    all.sort();
    all
}

/// A result without what the machine decides.
fn numbers(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
    value.as_object_mut().unwrap().remove("timing");
    value
}

/// The same but for the last digits: what a request is batched with shows in them.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            (one - other).abs() <= 1e-3 * one.abs().max(1.0)
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|it| alike(it.0, it.1))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|it| other.get(it.0).is_some_and(|found| alike(it.1, found)))
        }
        _ => one == other,
    }
}

#[test]
fn a_run_that_was_killed_goes_on_to_the_same_numbers() {
    let folder = workplace();
    let (path, out) = (folder.path(), folder.path().join("out"));
    let compare = ["compare", "deploy/jobs/smoke.toml", "--out", "out"];
    let (ok, text) = run(path, &[compare.as_slice(), &["--points", "1"]].concat());
    assert!(ok && text.contains("points are left"), "{text}");
    let first = points(&out);
    assert_eq!(first.len(), 1);

    let (ok, text) = run(path, &compare);
    assert!(ok && !text.contains("points are left"), "{text}");
    let all = points(&out);
    assert_eq!(all.len(), 9, "{text}");
    assert!(all.contains(&first[0]), "the first result was left as it was");
    assert!(
        !path
            .join("out/models")
            .read_dir()
            .unwrap()
            .any(|it| { it.unwrap().path().join("model.safetensors").exists() })
    );

    let trained = all.iter().find(|it| it.1.contains("\"label\": \"npo epochs=2\"")).unwrap();
    fs::remove_file(&trained.0).unwrap();
    let (ok, text) = run(path, &compare);
    assert!(ok, "{text}");
    let again = points(&out);
    for (before, after) in all.iter().zip(&again) {
        assert_eq!(before.0, after.0);
        let same = before.0 != trained.0 && before.1 == after.1;
        assert!(same || before.0 == trained.0, "{} was run again", before.0.display());
        let (before, after) = (numbers(&before.1), numbers(&after.1));
        assert!(alike(&before, &after), "{before:#}\n{after:#}");
    }

    let (ok, text) = run(path, &["report", "out", "--out", "merged"]);
    assert!(ok, "{text}");
    check_report(path, &text);

    fs::rename(&out, path.join("alone")).unwrap();
    let shared = [compare.as_slice(), &["--workers", "2"]].concat();
    let (ok, text) = run(path, &shared);
    assert!(ok && !text.contains("points are left"), "{text}");
    let found = points(&out);
    assert_eq!(found.len(), all.len(), "{text}");
    for (one, other) in all.iter().zip(&found) {
        assert_eq!(one.0.file_name(), other.0.file_name());
        let (one, other) = (numbers(&one.1), numbers(&other.1));
        assert!(alike(&one, &other), "{one:#}\n{other:#}");
    }
    // Each said which points it took; between them that was every point once.
    let logs: Vec<String> = fs::read_dir(out.join("workers"))
        .unwrap()
        .map(|it| fs::read_to_string(it.unwrap().path()).unwrap())
        .collect();
    let taken: usize = logs.iter().map(|it| it.matches(" measuring ").count()).sum();
    assert_eq!((logs.len(), taken), (2, all.len()), "{logs:?}");

    fs::remove_dir_all(path.join("target/smoke/retain")).unwrap();
    let (ok, text) = run(path, &shared);
    assert!(!ok && text.contains("retain"), "{text}");
}

fn check_report(path: &Path, markdown: &str) {
    assert!(markdown.contains("# Smoke: nothing here means anything"), "{markdown}");
    let report = fs::read_to_string(path.join("merged/report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let lines = report["lines"].as_array().unwrap();
    let line = |label: &str| lines.iter().find(|it| it["label"] == label).unwrap();
    assert_eq!(lines.len(), 9);
    let diverged = line("diverging")["problems"][0].as_str().unwrap();
    assert!(diverged.contains("seed 1 diverged at step") && diverged.contains("gradient_ascent"));
    assert_eq!(line("diverging")["seeds"].as_array().unwrap().len(), 0);
    for label in
        ["untouched", "gold", "alias", "npo epochs=1", "npo epochs=2", "needle", "finished"]
    {
        for number in ["leak", "utility", "strength", "memorised", "chosen", "hard", "mixed"] {
            assert!(line(label)[number]["value"].is_f64(), "{label}: {number}");
        }
        assert!(line(label)["forget_quality_median"].is_f64(), "{label}");
    }
    assert_eq!(line("gold")["forget_quality_median"], 1.0);
    assert_eq!(line("finished")["forget_quality_median"], 1.0, "it is gold");
    assert!(line("answer")["leak"]["value"].is_f64());
    assert!(line("answer")["forget_quality_median"].is_null(), "no probability is served");
    assert_eq!(line("npo epochs=2")["whitebox"][0]["attack"], "logit_lens");
    assert_eq!(line("npo epochs=2")["cost"]["steps"], 6.0);
    assert_eq!(line("alias")["whitebox"].as_array().unwrap().len(), 0);
    let html = fs::read_to_string(path.join("merged/report.html")).unwrap();
    assert_eq!(outside(&html), Vec::<&str>::new());
    assert!(html.contains("Utility against the leak") && html.contains("compare deploy/jobs"));
}

#[test]
fn what_cannot_run_is_said_before_anything_does() {
    let folder = workplace();
    let path = folder.path();
    let job = path.join("deploy/jobs/smoke.toml");
    let text = fs::read_to_string(&job).unwrap();
    let compare = ["compare", "deploy/jobs/smoke.toml", "--out", "out"];
    for (from, to, want) in [
        ("retain99", "retain98", "splits.retain: "),
        (
            "method = \"gradient_ascent\"",
            "method = \"ascent\"",
            "there is no method `ascent`; there are ",
        ),
        ("[limits]", "[limit]", "unknown field `limit`"),
        ("use = \"alias\"", "use = \"alais\"", "did you mean `alias`?"),
        ("path = \"../../target/smoke/retain\"", "path = \"../../no-model\"", "no-model"),
        ("matrices = 4", "matrices = 0", "locate.matrices: is 0"),
        ("name = \"npo\"", "name = \"rmu\"\nset = { layer = 9 }", "there is no block 9"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&job, text.replace(from, to)).unwrap();
        let (ok, said) = run(path, &compare);
        assert!(!ok && said.contains(want) && said.contains("smoke.toml"), "{from}: {said}");
    }
    fs::write(&job, &text).unwrap();
    let (ok, said) = run(path, &["compare", "deploy/jobs/smoke.toml", "--pin"]);
    assert!(ok && said.contains("6 data files pinned"), "{said}");
    let rows = path.join("target/smoke/data/world_facts.jsonl");
    let changed = fs::read_to_string(&rows).unwrap().replacen("question", "question ", 1);
    fs::write(&rows, changed).unwrap();
    let (ok, said) = run(path, &compare);
    assert!(!ok && said.contains("data_hashes.world_facts: "), "{said}");
    assert!(!path.join("out").exists(), "nothing has run");
}

/// The shipped job has every edit, the published finetuning methods and every treatment, and stays
/// within what two cores do in half an hour.
#[test]
fn the_shipped_job_has_everything() {
    let job = Job::load(&root().join("deploy/jobs/lab.toml")).unwrap();
    assert_eq!(job.metrics.len(), METRICS.len());
    let of = |action: fn(&Action) -> Option<String>| -> Vec<String> {
        job.variants.iter().filter_map(|it| action(&it.action)).collect()
    };
    let edits = of(|it| match it {
        Action::Edit { edit, .. } => Some(edit.name.to_owned()),
        _ => None,
    });
    assert!(EDITS.iter().all(|it| edits.iter().any(|found| found == it.name)), "{edits:?}");
    let mut unlearn = of(|it| match it {
        Action::Unlearn { method, .. } => Some(method.name.to_owned()),
        _ => None,
    });
    unlearn.sort();
    unlearn.dedup();
    assert!(unlearn.len() >= 16, "{unlearn:?}");
    let guards = of(|it| match it {
        Action::Guard { treatment, .. } => treatment["use"].as_str().map(str::to_owned),
        _ => None,
    });
    for name in ["corrupt", "alias", "prefix", "in_context", "offset", "answer"] {
        assert!(guards.iter().any(|it| it == name), "{name}");
    }
    let points = grid::points(&job.variants, Some(1)).len();
    assert!((20..=60).contains(&points), "{points}");
}
