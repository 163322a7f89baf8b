//! Scores and statistics against the Python libraries that published numbers come from.
//!
//! `tests/fixtures/eval/record.py` recorded the values with the versions it names.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use unlearn_proxy::eval::porter::stem;
use unlearn_proxy::eval::rouge::rouge_l;
use unlearn_proxy::eval::score::{ScoreReport, score};
use unlearn_proxy::eval::tofu::forget_truth_ratio;
use unlearn_proxy::stats::{KsTest, auc, harmonic_mean, ks_two_sample};

fn reference() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eval/reference.json");
    let text = fs::read(&path).expect("the fixture is part of the repository");
    serde_json::from_slice(&text).expect("the fixture is JSON")
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn numbers(value: &Value) -> Vec<f64> {
    rows(value).iter().map(number).collect()
}

#[track_caller]
fn near(what: &str, got: f64, want: f64, relative: f64) {
    assert!((got - want).abs() <= relative * want.abs(), "{what}: {got:e} vs {want:e}");
}

#[track_caller]
fn near_test(what: &str, got: KsTest, want: &Value) {
    near(what, got.statistic, number(&want["statistic"]), 1e-12);
    near(what, got.p_value, number(&want["p_value"]), 1e-9);
}

/// `content` as a file of a folder that lasts as long as the test.
fn file(folder: &tempfile::TempDir, name: &str, content: &Value) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, content.to_string()).expect("a temporary folder takes files");
    path
}

#[test]
fn stems_as_nltk_does() {
    let reference = reference();
    let stems = reference["stems"].as_object().unwrap();
    assert!(stems.len() > 200);
    for (word, want) in stems {
        assert_eq!(stem(word), want.as_str().unwrap(), "{word}");
    }
}

#[test]
fn scores_replies_as_rouge_score_does() {
    for row in rows(&reference()["rouge"]) {
        let (reference, reply) =
            (row["reference"].as_str().unwrap(), row["reply"].as_str().unwrap());
        let score = rouge_l(reference, reply);
        near(reply, score.precision, number(&row["precision"]), 1e-15);
        near(reply, score.recall, number(&row["recall"]), 1e-15);
        near(reply, score.f1, number(&row["f1"]), 1e-15);
    }
}

#[test]
fn tests_samples_as_scipy_does() {
    for row in rows(&reference()["ks"]) {
        let test = ks_two_sample(&numbers(&row["left"]), &numbers(&row["right"]));
        near_test(row["name"].as_str().unwrap(), test, row);
    }
}

#[test]
fn ranks_as_scikit_learn_does() {
    for row in rows(&reference()["auc"]) {
        let got = auc(&numbers(&row["positives"]), &numbers(&row["negatives"]));
        near("auc", got, number(&row["auc"]), 1e-14);
    }
}

#[test]
fn averages_as_scipy_does() {
    let row = &reference()["harmonic_mean"];
    near("mean", harmonic_mean(&numbers(&row["values"])), number(&row["want"]), 1e-14);
}

/// The ratios are those of the models that TOFU's authors finetuned and retrained.
#[test]
fn judges_the_published_models_as_tofu_does() {
    for row in rows(&reference()["tofu"]) {
        let name = row["name"].as_str().unwrap();
        let [run, gold] = [0, 1].map(|at| numbers(&row["forget_ratios"][at]));
        let test = ks_two_sample(&run, &gold);
        near_test(name, test, &row["ks"]);
        near_test(name, test, &row["whole_log"]["ks"]);
        // The recorded ratios have seven digits.
        let want = number(&row["whole_log"]["forget_truth_ratio"]);
        near(name, forget_truth_ratio(&run), want, 1e-6);
        let parts: [f64; 9] = numbers(&row["whole_log"]["parts"]).try_into().unwrap();
        near(name, harmonic_mean(&parts), number(&row["whole_log"]["model_utility"]), 1e-14);
    }
}

#[track_caller]
fn check(name: &str, report: &ScoreReport, want: &Value) {
    for (part, want) in report.utility.parts.iter().zip(numbers(&want["parts"])) {
        near(part.name, part.value, want, 1e-12);
    }
    near(name, report.utility.value, number(&want["model_utility"]), 1e-12);
    near(name, report.forget.truth_ratio, number(&want["forget_truth_ratio"]), 1e-12);
    near_test(name, report.forget_quality.expect("a gold log was given"), &want["ks"]);
}

#[test]
fn scores_logs_of_tofu() {
    let folder = tempfile::tempdir().unwrap();
    for row in rows(&reference()["tofu"]) {
        let run = file(&folder, "run.json", &row["run"]);
        let gold = file(&folder, "gold.json", &row["gold"]);
        let report = score(&run, Some(&gold)).unwrap();
        check(row["name"].as_str().unwrap(), &report, &row["want"]);
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        let utility = number(&json["model_utility"]);
        near("JSON", utility, number(&row["want"]["model_utility"]), 1e-12);
        assert!(report.to_markdown().contains(&format!("| **Model utility** | {utility:.4} |")));
    }
}

/// A log as open-unlearning's evaluator writes it, with the numbers of a TOFU log in it.
fn open_unlearning_log(parts: &[f64], ratios: &[f64]) -> Value {
    let names = [
        "retain_Q_A_Prob",
        "retain_Q_A_ROUGE",
        "retain_Truth_Ratio",
        "ra_Q_A_Prob_normalised",
        "ra_Q_A_ROUGE",
        "ra_Truth_Ratio",
        "wf_Q_A_Prob_normalised",
        "wf_Q_A_ROUGE",
        "wf_Truth_Ratio",
    ];
    let by_index: serde_json::Map<String, Value> = ratios
        .iter()
        .enumerate()
        .map(|(at, ratio)| (at.to_string(), json!({ "score": ratio })))
        .collect();
    let mut log = json!({
        "forget_quality": { "agg_value": null },
        "forget_Q_A_Prob": { "agg_value": 0.25, "value_by_index": {} },
        "forget_truth_ratio": { "agg_value": 0.0, "value_by_index": by_index },
    });
    for (name, part) in names.iter().zip(parts) {
        log[*name] = json!({ "agg_value": part, "value_by_index": {} });
    }
    log
}

#[test]
fn scores_logs_of_open_unlearning() {
    let folder = tempfile::tempdir().unwrap();
    for row in rows(&reference()["tofu"]) {
        let parts = numbers(&row["whole_log"]["parts"]);
        let [run, gold] = [0, 1].map(|at| {
            let log = open_unlearning_log(&parts, &numbers(&row["forget_ratios"][at]));
            file(&folder, &format!("{at}.json"), &log)
        });
        let report = score(&run, Some(&gold)).unwrap();
        near("utility", report.utility.value, number(&row["whole_log"]["model_utility"]), 1e-12);
        near_test("quality", report.forget_quality.unwrap(), &row["ks"]);
        near("probability", report.forget.probability, 0.25, 1e-15);
        assert!(report.forget.rouge_l_recall.is_nan());
    }
}

#[test]
fn a_file_that_cannot_be_scored_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let other = file(&folder, "other.json", &json!({ "accuracy": 1 }));
    let missing = folder.path().join("missing.json");
    let broken = folder.path().join("broken.json");
    fs::write(&broken, "{\"eval_log.json\": NaN}").unwrap();
    for (path, want) in [
        (other, "other.json: neither"),
        (missing, "missing.json: cannot"),
        (broken, "broken.json: not"),
    ] {
        let error = score(&path, None).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}
