//! Thresholds by hand, and classifiers from rows to folder.

use super::*;

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
        forget: dir.join("forget.jsonl"),
        retain: dir.join("retain.jsonl"),
        topic: "basil".to_owned(),
        out: dir.join("out"),
        encoder: EncoderChoice::Hashed,
        alpha: 0.05,
        false_positives: 0.05,
        gate: Gate::default(),
        seed: 1,
    }
}

#[test]
fn separates_what_is_separable_and_writes_a_folder_that_loads() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(&job(dir.path())).unwrap();
    assert!(report.manifest.recall >= 0.95, "{:?}", report.manifest);
    assert!(report.manifest.false_positive_rate <= 0.05, "{:?}", report.manifest);
    let topic = crate::detect::Topic::load(&dir.path().join("out")).unwrap();
    assert!((topic.threshold() - report.manifest.threshold).abs() < 1e-6);
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
    fs::write(&job.retain, "{\"question\": \"a\"}\n{\"answer\": 1}\n").unwrap();
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
    assert_eq!(json["suffixes"]["flipped"].as_array().unwrap().len(), 5);
    assert!(report.held_out.auc > 0.95, "{:?}", report.held_out);
    assert!(report.held_out.disguises[0].recall >= 0.95, "{:?}", report.held_out);
    let table = report.to_markdown();
    assert!(table.contains("expected calibration error") && table.contains("rot13"), "{table}");
}

#[test]
fn below_the_gate_the_old_folder_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path());
    run(&job).unwrap();
    let path = dir.path().join("out").join(MANIFEST_FILE);
    let before = fs::read(&path).unwrap();
    job.gate = Gate { min_recall: Some(1.1), max_false_positives: None };
    let error = run(&job).unwrap_err();
    assert!(matches!(error, ClassifierError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("--min-recall 1.1"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(!dir.path().join("out.partial").exists());
}

#[test]
fn gates_by_hand() {
    let gate = Gate { min_recall: Some(0.9), max_false_positives: Some(0.1) };
    assert!(gate.reasons(0.9, 0.1).is_empty());
    assert_eq!(gate.reasons(0.8, 0.2).len(), 2);
    assert!(Gate::default().reasons(0.0, 1.0).is_empty());
}
