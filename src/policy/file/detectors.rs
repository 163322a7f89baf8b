//! The `[[detector]]` tables.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::judge::judge;
use super::{Keys, Problems};
use crate::policy::rows::Row;
use crate::policy::{
    DEFAULT_NEIGHBOURS_THRESHOLD, DetectorSetting, JUDGE, NAMES, NEIGHBOURS, PROBE, SHINGLES, TOPIC,
};
use crate::types::Entity;

const DETECTORS: [(&str, &str); 6] = [
    (NAMES, NAMES),
    (JUDGE, JUDGE),
    (NEIGHBOURS, NEIGHBOURS),
    (PROBE, PROBE),
    (SHINGLES, SHINGLES),
    (TOPIC, TOPIC),
];
/// Texts into which a name may reach from the one where it begins: past a reply to the next message.
const REACH: usize = 2;
/// Words in a shingle; shorter ones match stock phrases.
const SHINGLE_WORDS: usize = 8;
/// With [`SHINGLE_WORDS`], a copy of twelve words.
const SHINGLE_RUN: usize = 5;

pub(super) fn detectors(
    keys: &mut Keys,
    label: &str,
    entities: &[Entity],
    out: &mut Problems<'_>,
) -> Vec<DetectorSetting> {
    let tables = keys.tables("detector", out);
    if tables.is_empty() {
        out.add("detector", "none; add a [[detector]] with use = \"names\" or \"topic\"");
    }
    let mut found: Vec<DetectorSetting> = Vec::new();
    for mut it in tables {
        let Some(kind) = it.kind(&DETECTORS, out) else { continue };
        if found.iter().any(|it| it.name() == kind) {
            out.add(&it.key("use"), format!("`{kind}` is used twice; keep one"));
        }
        match kind {
            NAMES => {
                if entities.is_empty() {
                    out.add(&it.key("use"), "`names` has nobody to look for; add an [[entity]]");
                }
                let reach = it.count("reach", REACH, 0, out);
                found.push(DetectorSetting::Names { reach });
            }
            JUDGE => found.push(judge(&mut it, label, entities, out)),
            NEIGHBOURS => found.extend(neighbours(&mut it, out)),
            SHINGLES => found.extend(shingles(&mut it, out)),
            PROBE => {
                let (folder, threshold) = classifier(&mut it, out);
                found.push(DetectorSetting::Probe { folder, threshold });
            }
            _ => {
                let (folder, threshold) = classifier(&mut it, out);
                found.push(DetectorSetting::Topic { folder, threshold });
            }
        }
        it.finish(out);
    }
    found
}

/// The folder of a classifier and the policy's own threshold.
fn classifier(keys: &mut Keys, out: &mut Problems<'_>) -> (PathBuf, Option<f32>) {
    let remedy = "classifier = \"path/to/folder\"";
    let folder: PathBuf = keys.require("classifier", remedy, out).unwrap_or_default();
    let folder = out.path.parent().unwrap_or(Path::new("")).join(folder);
    (folder, threshold(keys, out))
}

fn neighbours(keys: &mut Keys, out: &mut Problems<'_>) -> Option<DetectorSetting> {
    let texts = keys.rows("store", "store = \"forget.jsonl\"", Row::asked, out);
    let encoder: Option<PathBuf> = keys.take("encoder", out);
    let folder = out.path.parent().unwrap_or(Path::new(""));
    let encoder = encoder.map(|it| folder.join(it));
    let floor: f32 = keys.take("floor", out).unwrap_or(0.0);
    if !(0.0..1.0).contains(&floor) {
        out.add(&keys.key("floor"), format!("is {floor}; use a cosine from 0 to below 1"));
    }
    let threshold = threshold(keys, out).unwrap_or(DEFAULT_NEIGHBOURS_THRESHOLD);
    Some(DetectorSetting::Neighbours { texts: Arc::new(texts?), encoder, floor, threshold })
}

fn shingles(keys: &mut Keys, out: &mut Problems<'_>) -> Option<DetectorSetting> {
    let texts = keys.rows("protected", "protected = \"book.jsonl\"", Row::copied, out);
    let n = keys.count("n", SHINGLE_WORDS, 1, out);
    let run = keys.count("run", SHINGLE_RUN, 1, out);
    let replies = keys.take("replies", out).unwrap_or(true);
    Some(DetectorSetting::Shingles { texts: Arc::new(texts?), n, run, replies })
}

pub(super) fn threshold(keys: &mut Keys, out: &mut Problems<'_>) -> Option<f32> {
    let threshold = keys.positive("threshold", out).map(|it| it as f32);
    if threshold.is_some_and(|it| it > 1.0) {
        out.add(&keys.key("threshold"), "is above 1; scores lie in 0 to 1");
    }
    threshold
}
