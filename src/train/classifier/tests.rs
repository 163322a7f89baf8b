//! Thresholds by hand, and classifiers from rows to folder.

use super::*;
use crate::detect::Detector;
use crate::types::{Place, View};

/// n = 9 and alpha = .1: the ceil(10 * .9) = 9th smallest.
#[test]
fn quiet_threshold_by_hand() {
    let scores = vec![0.1, 0.9, 0.5, 0.7];
    assert_eq!(quiet(scores.clone(), 0.25), 0.7f32.next_up());
    assert_eq!(quiet(scores.clone(), 0.0), 0.9f32.next_up());
    assert!(quiet(scores, 1.0).abs() < f32::EPSILON);
}

#[test]
fn conformal_quantile_by_hand() {
    let scores: Vec<f32> = (1..=9u8).rev().map(f32::from).collect();
    assert!((conformal_quantile(scores.clone(), 0.1) - 9.0).abs() < 1e-6);
    assert!((conformal_quantile(scores, 0.5) - 5.0).abs() < 1e-6);
}

fn job(dir: &Path) -> ClassifierJob {
    let rows = |about: &str| -> String {
        let ask = ["Where was", "When was", "Who is", "What did", "Tell me about"];
        (0..60)
            .map(|it| format!("{{\"question\": \"{} {about} {it}?\"}}\n", ask[it % ask.len()]))
            .collect()
    };
    fs::write(dir.join("forget.jsonl"), rows("Basil Okafor")).unwrap();
    fs::write(dir.join("retain.jsonl"), rows("the old lighthouse")).unwrap();
    ClassifierJob {
        forget: vec![dir.join("forget.jsonl")],
        retain: vec![dir.join("retain.jsonl")],
        topic: "basil".to_owned(),
        out: dir.join("out"),
        encoder: EncoderChoice::Hashed,
        alpha: 0.001,
        false_positives: 0.05,
        gate: Gate::default(),
        study: Study::default(),
        seed: 1,
    }
}

#[test]
fn separates_what_is_separable_and_writes_a_folder_that_loads() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(&job(dir.path())).unwrap();
    assert!(report.manifest.recall >= 0.9, "{:?}", report.manifest);
    assert!(report.manifest.false_positive_rate <= 0.05, "{:?}", report.manifest);
    let topic = crate::detect::Topic::load(&dir.path().join("out")).unwrap();
    assert!((topic.threshold() - report.manifest.threshold).abs() < 1e-6);
    let pieces = r#""Where" + " was " + "Basil" + " Okaf" + "or 3?""#;
    let seen = topic.inspect(Place::Text(0), pieces).unwrap().swap_remove(0);
    assert!(seen.score >= topic.threshold() && seen.view == View::Respelled, "{seen:?}");
    // Again over the old one.
    run(&job(dir.path())).unwrap();
}

#[test]
fn a_changed_head_does_not_load() {
    let dir = tempfile::tempdir().unwrap();
    run(&job(dir.path())).unwrap();
    let path = dir.path().join("out").join(HEAD_FILE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = crate::detect::Topic::load(&dir.path().join("out")).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(format!("{error} {cause}").contains("head_sha256"), "{error} {cause}");
}

#[test]
fn bad_rows_are_named_and_foreign_folders_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(dir.path());
    fs::write(&job.retain[0], "{\"question\": \"a\"}\n{\"answer\": 1}\n").unwrap();
    let error = run(&job).unwrap_err().to_string();
    assert!(error.contains("retain.jsonl:2"), "{error}");
    let mut job = self::job(dir.path());
    job.out = dir.path().to_owned();
    assert!(run(&job).unwrap_err().to_string().contains("not a classifier folder"));
}

#[test]
fn reports_beside_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(&job(dir.path())).unwrap();
    let text = fs::read_to_string(dir.path().join("out").join(REPORT_FILE)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["disguises"].as_array().unwrap().len(), crate::text::disguise::ALL.len());
    assert_eq!(json["suffixes"]["flipped"].as_array().unwrap().len(), 8);
    assert!(report.held_out.reached.auc > 0.95, "{:?}", report.held_out);
    assert!(report.held_out.disguises[0].recall >= 0.9, "{:?}", report.held_out);
    let table = report.to_markdown();
    assert!(table.contains("expected calibration error") && table.contains("rot13"), "{table}");
    let folder = dir.path().join("out");
    assert_eq!(fs::read_to_string(folder.join(MARKDOWN_FILE)).unwrap(), table);
    assert!(fs::read(folder.join("roc.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(fs::read_to_string(folder.join("roc.svg")).unwrap().contains("classifier, AUC"));
    assert_eq!(json["recall_at"][1]["false_positives"], 0.02);
    assert_eq!(report.held_out.roc.last(), Some(&(1.0, 1.0)));
}

#[test]
fn below_the_gate_the_old_folder_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path());
    run(&job).unwrap();
    let path = dir.path().join("out").join(MANIFEST_FILE);
    let before = fs::read(&path).unwrap();
    job.gate = Gate { min_recall: Some(1.1), ..Gate::default() };
    let error = run(&job).unwrap_err();
    assert!(matches!(error, ClassifierError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("--min-recall 1.1"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(!dir.path().join("out.partial").exists());
    let rejected = dir.path().join("out.rejected");
    assert!(rejected.join(REPORT_FILE).exists() && rejected.join("roc.svg").exists());
    assert!(!rejected.join(MANIFEST_FILE).exists() && !rejected.join(HEAD_FILE).exists());
}

#[test]
fn gates_by_hand() {
    let any = |_: f64| 1.0;
    let gate =
        Gate { min_recall: Some(0.9), at_false_positives: None, max_false_positives: Some(0.1) };
    assert!(gate.reasons(0.9, 0.1, any).is_empty());
    assert_eq!(gate.reasons(0.8, 0.2, any).len(), 2);
    assert!(Gate::default().reasons(0.0, 1.0, any).is_empty());
    let at = Gate { at_false_positives: Some(0.02), ..gate };
    assert!(at.reasons(0.5, 0.1, any).is_empty());
    let reasons = at.reasons(1.0, 0.1, |share| 40.0 * share);
    assert_eq!(reasons, ["recall 0.8000 at --at-fpr 0.02 is below --min-recall 0.9"]);
}

/// Of ten forget scores, two are below the higher of the two bounds.
#[test]
fn thresholds_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path());
    (job.alpha, job.false_positives) = (0.1, 0.0);
    let forget: Vec<f32> = (1..=10u8).map(|it| f32::from(it) / 10.0).collect();
    // ceil(11 * .9) = 10: the largest of 1 - score, so that every row is seen.
    let (threshold, attained) = calibrate(&job, &forget, vec![0.05]);
    assert!((threshold - 0.1).abs() < 1e-6, "{threshold}");
    assert!((attained - 0.1).abs() < 1e-9, "{attained}");
    let (threshold, attained) = calibrate(&job, &forget, vec![0.25]);
    assert_eq!(threshold, 0.25f32.next_up());
    assert!((attained - 3.0 / 11.0).abs() < 1e-9, "{attained}");
}

/// Held-out files, hard non-targets, disguises in training, and a learning curve, from CSV and JSON.
#[test]
fn studies_what_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path());
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let csv = |about: &str| -> String {
        (0..12).map(|it| format!("Does {about} like number {it}?,a,b,c,d,{}\n", it % 4)).collect()
    };
    job.study = Study {
        test_forget: vec![file("asked.csv", csv("Basil Okafor"))],
        test_retain: vec![file("other.csv", csv("the old lighthouse"))],
        hard: vec![file("namesakes.csv", csv("Basil Fawlty"))],
        augment: true,
        curve: vec![5, 60],
        curve_seeds: 2,
        ..Study::default()
    };
    let report = run(&job).unwrap();
    assert_eq!((report.manifest.n_forget, report.manifest.calibration.n_test_forget), (60, 12));
    assert_eq!(report.manifest.calibration.method, "cross");
    let measured = &report.held_out;
    assert!(measured.reached.auc > 0.95, "{measured:?}");
    assert_eq!(
        (measured.reached.hard[0].name.as_str(), measured.reached.hard[0].texts),
        ("namesakes", 12)
    );
    assert_eq!(measured.curve.iter().map(|it| it.rows).collect::<Vec<_>>(), [5, 60]);
    let table = report.to_markdown();
    assert!(table.contains("| namesakes | 12 |") && table.contains("| forget rows |"), "{table}");
    job.study.curve = vec![61];
    let error = run(&job).unwrap_err().to_string();
    assert!(error.contains("60 rows are too few; at least 61 are needed"), "{error}");
}

/// Of 60 and 60 rows, whatever is held out for the classifier itself.
#[test]
fn folds_hold_every_row_out_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path());
    job.study.folds = 3;
    let report = run(&job).unwrap();
    let once = report.held_out.once.as_ref().unwrap();
    let reached = &once.reached;
    assert_eq!((once.folds, reached.forget_texts, reached.retain_texts), (3, 60, 60));
    assert!(reached.recall > 0.9 && reached.auc > 0.99, "{once:?}");
    assert!(reached.false_positive_rate <= 0.1, "{once:?}");
    assert!(report.to_markdown().contains("| every row held out once (3 classifiers) | |"));
    let file = fs::read_to_string(job.out.join(REPORT_FILE)).unwrap();
    assert!(file.contains("\"folds\": 3"), "{file}");
    // The classifier is the one that there is without folds.
    job.study.folds = 0;
    assert_eq!(run(&job).unwrap().manifest, report.manifest);
}
