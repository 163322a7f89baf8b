//! `[[treatment]]` with `use = "in_context"`.

use std::sync::Arc;

use super::{Keys, Problems};
use crate::policy::rows::Row;
use crate::policy::{Example, InContext, Layout, TreatmentSetting};

const LAYOUTS: [(&str, Layout); 2] = [("turns", Layout::Turns), ("text", Layout::Text)];
/// As published: one example of what is to be forgotten.
const FORGET: usize = 1;
/// The most that was published.
const RETAIN: usize = 6;

pub(super) fn in_context(keys: &mut Keys, out: &mut Problems<'_>) -> Option<TreatmentSetting> {
    let forget = keys.rows("examples", "examples = \"forget.jsonl\"", Row::example, out);
    let n_forget = keys.count("forget", FORGET, 1, out);
    let n_retain = keys.count("retain", RETAIN, 0, out);
    let retain = if n_retain > 0 || keys.table.contains_key("retain_examples") {
        let remedy = "retain_examples = \"retain.jsonl\", or retain = 0";
        keys.rows("retain_examples", remedy, Row::example, out)
    } else {
        keys.asked.push("retain_examples");
        Some(Vec::new())
    };
    let layout = keys.choice("layout", &LAYOUTS, out).unwrap_or(Layout::Turns);
    let (forget, retain) = (forget?, retain?);
    let mut enough = |key: &str, n: usize, rows: &[Example]| {
        if n > rows.len() {
            let message = format!("is {n}, the file has {} rows; lower it or add rows", rows.len());
            out.add(&keys.key(key), message);
        }
    };
    enough("forget", n_forget, &forget);
    enough("retain", n_retain, &retain);
    let setting = InContext { forget, retain, n_forget, n_retain, layout };
    Some(TreatmentSetting::InContext(Arc::new(setting)))
}
