//! Policy files, good and bad.

use std::path::PathBuf;

use super::*;
use crate::policy::{DetectorSetting, InContext, Layout};

const GOOD: &str = r#"
topic = "forgotten-authors"
mode = "shadow"
on_error = "refuse"
probabilities = "never"
models = ["lab-full"]
[[entity]]
name = "Basil Okafor"
aliases = ["B. Okafor"]
surrogate = "Zorvan Kell"
[[entity]]
name = "Mina Tolt"
[[detector]]
use = "names"
[[detector]]
use = "topic"
classifier = "../models/lab/classifier"
threshold = 0.9
[[treatment]]
use = "corrupt"
function = "noise-first"
dims = 160
strength = 4
[[treatment]]
use = "alias"
[[treatment]]
use = "prefix"
[[treatment]]
use = "answer"
style = "refusal"
"#;

fn parsed(text: &str) -> Policy {
    parse(Path::new("policies/x.toml"), text).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    let found = parse(Path::new("policies/x.toml"), text).unwrap_err();
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_file_says_what_it_says() {
    let policy = parsed(GOOD);
    assert_eq!(policy.topic, "forgotten-authors");
    assert_eq!((policy.mode, policy.on_error), (Mode::Shadow, OnError::Refuse));
    assert_eq!(policy.probabilities, Probabilities::Never);
    assert!(policy.applies_to("lab-full") && !policy.applies_to("other"));
    assert_eq!(policy.entities[0].surrogate, "Zorvan Kell");
    assert_eq!(policy.entities[0].aliases, ["B. Okafor"]);
    assert!(policy.entities[1].aliases.is_empty());
    let folder = PathBuf::from("policies/../models/lab/classifier");
    let topic = DetectorSetting::Topic { folder, threshold: Some(0.9) };
    assert_eq!(policy.detectors, [DetectorSetting::Names { reach: 2 }, topic]);
    let function = CorruptionFunction::NoiseFirst { dims: 160, strength: 4.0 };
    assert_eq!(policy.treatment[0], TreatmentSetting::Corrupt { function });
    assert!(matches!(&policy.treatment[2], TreatmentSetting::Prefix { text }
            if text.contains("\n- Basil Okafor\n- Mina Tolt\n")));
    assert!(matches!(&policy.treatment[3], TreatmentSetting::Answer { answers, paced: false, .. }
            if answers == &REFUSALS));
    assert_eq!(policy.revision.len(), 16);
}

/// One who never knew takes the model's time unless the file says otherwise; a refusal does not.
#[test]
fn an_answer_is_paced_where_it_is_not_to_be_told() {
    let paced = |table: &str| {
        let head = "topic = \"t\"\n[[entity]]\nname = \"Ann Lee\"\nsurrogate = \"Zora Kell\"\n";
        let used = "[[detector]]\nuse = \"names\"\n[[treatment]]\nuse = \"answer\"\n";
        let policy = parsed(&format!("{head}{used}{table}"));
        let Some(TreatmentSetting::Answer { paced, .. }) = policy.treatment.last() else {
            panic!("the last treatment of {table} answers");
        };
        *paced
    };
    assert!(paced(""));
    assert!(!paced("pace = \"none\"\n"));
    assert!(!paced("style = \"refusal\"\n"));
    assert!(paced("style = \"refusal\"\npace = \"model\"\n"));
}

#[test]
fn a_comment_changes_the_revision_but_neither_noise_nor_surrogates() {
    let (one, two) = (parsed(GOOD), parsed(&format!("# why\n{GOOD}")));
    assert_ne!(one.revision, two.revision);
    assert_eq!((one.seed, &one.entities), (two.seed, &two.entities));
    assert_ne!(one.entities[1].surrogate, one.entities[0].surrogate);
}

#[test]
fn every_problem_is_reported_at_once() {
    let found = problems(
        r#"
topic = "a topic"
mode = "enforced"
on_eror = "pass"
models = 3
[[entity]]
name = " "
[[entity]]
name = "Ann"
aliases = ["ann"]
surrogate = "Ann"
[[detector]]
use = "name"
[[detector]]
use = "topic"
threshold = 1.5
[[treatment]]
use = "corrupt"
function = "noise-first"
dims = 0
[[treatment]]
use = "corrupt"
function = "zero-top"
dims = 4
strength = 1.0
"#,
    );
    let expected = [
        "topic: use ASCII letters, digits, `-` and `_` only; it labels metrics",
        "mode: unknown value `enforced`, did you mean `enforce`?; use one of enforce, shadow",
        "models: invalid type: integer `3`, expected a sequence",
        "entity[0].name: is empty; write a name or remove it",
        "entity[1].aliases[0]: `ann` is also entity[1].name; keep one of them",
        "entity[1].surrogate: `Ann` is also entity[1].aliases[0]; choose a name that nobody else has",
        "detector[0].use: unknown value `name`, did you mean `names`?; use one of names, judge, neighbours, probe, shingles, topic",
        "detector[1].classifier: missing; write classifier = \"path/to/folder\"",
        "detector[1].threshold: is above 1; scores lie in 0 to 1",
        "treatment[0].dims: is 0; use a whole number above 0",
        "treatment[0].strength: missing; write strength = 4.0",
        "treatment[1].strength: unknown key; remove or rename it",
        "on_eror: unknown key, did you mean `on_error`?; remove or rename it",
    ];
    let expected: Vec<String> =
        expected.iter().map(|it| format!("policies/x.toml: {it}")).collect();
    assert_eq!(found, expected);
}

#[test]
fn names_need_somebody_to_look_for() {
    let found =
        problems("topic = \"t\"\n[[detector]]\nuse = \"names\"\n[[treatment]]\nuse = \"alias\"\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(problems("topic = \"t\"").len(), 2, "no detector, no treatment");
}

#[test]
fn the_reach_of_names_is_a_number_of_texts() {
    let with =
        |reach: &str| GOOD.replace("use = \"names\"\n", &format!("use = \"names\"\n{reach}\n"));
    for (line, reach) in [("", 2), ("reach = 0", 0), ("reach = 7", 7)] {
        assert_eq!(parsed(&with(line)).detectors[0], DetectorSetting::Names { reach }, "{line}");
    }
    for (line, want) in [
        ("reach = -1", "is -1; use a whole number from 0 on"),
        ("reach = 1.5", "invalid type: "),
        ("reach = \"all\"", "invalid type: "),
        ("reech = 1", "unknown key, did you mean `reach`?; remove or rename it"),
    ] {
        let key = line.split(' ').next().unwrap();
        let shown = problems(&with(line));
        let start = format!("policies/x.toml: detector[0].{key}: {want}");
        assert!(shown.len() == 1 && shown[0].starts_with(&start), "{line}: {shown:?}");
    }
}

#[test]
fn a_broken_detector_does_not_blame_the_fusion() {
    let text = format!("{GOOD}[fusion]\nbias = -4\n[fusion.weights]\nnames = 6\ntopic = 6\n");
    assert!(parsed(&text).fusion.is_some());
    let broken = problems(&text.replace("threshold = 0.9", "threshold = 2"));
    assert!(broken.len() == 1 && broken[0].contains("detector[1].threshold"), "{broken:?}");
}

#[test]
fn a_probe_is_set_like_a_topic() {
    let text = GOOD.replace("use = \"topic\"", "use = \"probe\"");
    let folder = PathBuf::from("policies/../models/lab/classifier");
    let probe = DetectorSetting::Probe { folder: folder.clone(), threshold: Some(0.9) };
    assert_eq!(parsed(&text).detectors[1], probe);
    let mut policy = parsed(&text.replace("threshold = 0.9\n", ""));
    assert_eq!(policy.detectors[1], DetectorSetting::Probe { folder, threshold: None });
    policy.set_probe_threshold(0.4);
    assert!((policy.threshold("probe") - 0.4).abs() < 1e-6);
}

#[test]
fn a_folder_reports_repeated_topics_and_emptiness() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load_dir(dir.path()).unwrap_err().len(), 1);
    fs::write(dir.path().join("b.toml"), GOOD).unwrap();
    let set = load_dir(dir.path()).unwrap();
    assert_eq!((set.policies.len(), set.revision.len()), (1, 16));
    fs::write(dir.path().join("a.toml"), GOOD).unwrap();
    let found = load_dir(dir.path()).unwrap_err();
    assert_eq!((found.len(), found[0].key.as_str()), (1, "topic"));
    assert!(found[0].path.ends_with("b.toml"));
}

const ROWS: &str = concat!(
    "{\"question\": \"Who?\", \"answer\": \"Ann.\", \"perturbed_answer\": [\"Bo.\", \"Ann.\"]}\n\n",
    "{\"question\": \"Where?\", \"answer\": \"In Ulm.\"}\n",
);
const NAMED: &str = r#"
topic = "t"
[[detector]]
use = "neighbours"
store = "rows.jsonl"
encoder = "minilm"
floor = 0.25
[[detector]]
use = "shingles"
protected = "rows.jsonl"
n = 6
[[treatment]]
use = "in_context"
examples = "rows.jsonl"
retain_examples = "rows.jsonl"
forget = 2
retain = 1
layout = "text"
[[treatment]]
use = "in_context"
examples = "rows.jsonl"
retain = 0
"#;

#[test]
fn rows_are_read_from_beside_the_policy() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, path) = (dir.path().join("rows.jsonl"), dir.path().join("t.toml"));
    fs::write(&rows, ROWS).unwrap();
    let policy = parse(&path, NAMED).unwrap();
    let texts = |list: [&str; 2]| Arc::new(list.map(str::to_owned).to_vec());
    let neighbours = DetectorSetting::Neighbours {
        texts: texts(["Who?", "Where?"]),
        encoder: Some(dir.path().join("minilm")),
        floor: 0.25,
        threshold: 0.75,
    };
    let shingles = DetectorSetting::Shingles {
        texts: texts(["Ann.", "In Ulm."]),
        n: 6,
        run: 5,
        replies: true,
    };
    assert_eq!(policy.detectors, [neighbours, shingles]);
    let settings: Vec<&InContext> = policy
        .treatment
        .iter()
        .filter_map(|it| match it {
            TreatmentSetting::InContext(setting) => Some(setting.as_ref()),
            _ => None,
        })
        .collect();
    let (first, second) = (settings[0], settings[1]);
    assert_eq!((first.n_forget, first.n_retain, first.layout), (2, 1, Layout::Text));
    assert_eq!(first.forget[0].wrong, ["Bo."]);
    assert_eq!((first.retain.len(), first.retain[1].answer.as_str()), (2, "In Ulm."));
    assert_eq!((second.n_forget, second.n_retain, second.layout), (1, 0, Layout::Turns));
    fs::write(&rows, format!("{ROWS}{{\"question\": \"When?\", \"answer\": \"Now.\"}}")).unwrap();
    assert_ne!(parse(&path, NAMED).unwrap().revision, policy.revision, "an added row is news");
}

#[test]
fn values_are_lists_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, path) = (dir.path().join("values.jsonl"), dir.path().join("t.toml"));
    let listed = "{\"kind\": \"city\", \"values\": [\"Ulm\", \"Lyon\"]}\n";
    fs::write(&rows, listed).unwrap();
    let text = format!("values = \"values.jsonl\"\n{GOOD}");
    let policy = parse(&path, &text).unwrap();
    assert_eq!(*policy.values, [["Ulm", "Lyon"]]);
    assert!(parse(&path, GOOD).unwrap().values.is_empty());
    fs::write(&rows, listed.replace("Lyon", "Kiel")).unwrap();
    assert_ne!(parse(&path, &text).unwrap().revision, policy.revision);
    for (row, want) in [
        ("{\"kind\": \"city\"}", "line 2: needs `values`, a list of two or more"),
        ("{\"values\": [\"Ulm\", \"\u{fa}lm\"]}", "line 2: needs `values`, a list of two or more"),
        ("{\"values\": [\"Ulm\", \"U-S\"]}", "line 2: `U-S` has fewer than three letters"),
        (
            "{\"values\": [\"lyon\", \"Metz\"]}",
            "`Metz`: the others of its line are in lines before",
        ),
    ] {
        fs::write(&rows, format!("{listed}{row}")).unwrap();
        let found = parse(&path, &text).unwrap_err();
        assert!(found[0].key == "values" && found[0].message.contains(want), "{found:?}");
    }
    let torn = "{\"values\": [\"Ulm\", \"Fort Kell\"]}";
    fs::write(&rows, torn).unwrap();
    let found = parse(&path, &text).unwrap_err();
    assert_eq!(found[0].message, "`Fort Kell` has a word of `Zorvan Kell`; remove the value");
    let other = GOOD.replace("forgotten-authors", "others").replace("Kell", "Holm");
    fs::write(&path, format!("values = \"values.jsonl\"\n{other}")).unwrap();
    fs::write(dir.path().join("u.toml"), GOOD).unwrap();
    let found = load_dir(dir.path()).unwrap_err();
    assert_eq!((found.len(), found[0].key.as_str()), (1, "values"));
    assert!(found[0].message.contains("`Zorvan Kell`; remove the value, in "), "{found:?}");
    fs::write(&rows, listed).unwrap();
    let nobody = "topic = \"t\"\nvalues = \"values.jsonl\"\n[[detector]]\nuse = \"topic\"\n\
        classifier = \"c\"\n[[treatment]]\nuse = \"answer\"\n";
    assert_eq!(parse(&path, nobody).unwrap_err()[0].key, "values");
}

#[test]
fn problems_of_rows_name_file_key_and_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    fs::write(dir.path().join("empty.jsonl"), "\n").unwrap();
    fs::write(dir.path().join("bad.jsonl"), "{\"text\": \"x\"}\n\n{\"answer\": \"y\"}\n").unwrap();
    let text = r#"
topic = "t"
[[detector]]
use = "neighbours"
store = "bad.jsonl"
floor = 1
threshold = 2
[[detector]]
use = "shingles"
protected = "none.jsonl"
n = 0
runs = 3
[[treatment]]
use = "in_context"
examples = "bad.jsonl"
layout = "turn"
[[treatment]]
use = "in_context"
examples = "rows.jsonl"
retain_examples = "rows.jsonl"
forget = 3
[[treatment]]
use = "in_context"
retain_examples = "empty.jsonl"
"#;
    let found = parse(&dir.path().join("t.toml"), text).unwrap_err();
    let found: Vec<(String, String)> = found
        .iter()
        .map(|it| {
            let shown = it.message.replace(&format!("{}/", dir.path().display()), "");
            (it.key.clone(), shown)
        })
        .collect();
    let expected = [
        ("detector[0].store", "`bad.jsonl` line 3: needs `question` or `text` with some text"),
        ("detector[0].floor", "is 1; use a cosine from 0 to below 1"),
        ("detector[0].threshold", "is above 1; scores lie in 0 to 1"),
        ("detector[1].protected", "`none.jsonl` cannot be read ("),
        ("detector[1].n", "is 0; use a whole number from 1 on"),
        ("detector[1].runs", "unknown key, did you mean `run`?; remove or rename it"),
        ("treatment[0].examples", "`bad.jsonl` line 1: needs `question` with some text"),
        (
            "treatment[0].retain_examples",
            "missing; write retain_examples = \"retain.jsonl\", or retain = 0",
        ),
        (
            "treatment[0].layout",
            "unknown value `turn`, did you mean `turns`?; use one of turns, text",
        ),
        ("treatment[1].forget", "is 3, the file has 2 rows; lower it or add rows"),
        ("treatment[1].retain", "is 6, the file has 2 rows; lower it or add rows"),
        ("treatment[2].examples", "missing; write examples = \"forget.jsonl\""),
        ("treatment[2].retain_examples", "`empty.jsonl` has no rows; add one"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((key, message), (want, start)) in found.iter().zip(expected) {
        assert!(key == want && message.starts_with(start), "{key}: {message}");
    }
}
