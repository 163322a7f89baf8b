//! The `[fusion]` table.

use super::detectors::threshold;
use super::{Keys, Problems};
use crate::policy::fusion::logistic;
use crate::policy::{DetectorSetting, Fusion, fused};

/// From this fused score on the topic counts as seen, where the policy does not say.
const THRESHOLD: f32 = 0.5;

pub(super) fn fusion(
    keys: &mut Keys,
    detectors: &[DetectorSetting],
    out: &mut Problems<'_>,
) -> Option<Fusion> {
    let known = out.list.len();
    let mut table = keys.table("fusion", out)?;
    let threshold = threshold(&mut table, out).unwrap_or(THRESHOLD);
    let bias: Option<f32> = table.require("bias", "bias = -4.0", out);
    if let Some(bias) = bias.filter(|it| !it.is_finite()) {
        out.add(&table.key("bias"), format!("is {bias}; use a finite number"));
    }
    if !table.table.contains_key("weights") {
        out.add(&table.key("weights"), "missing; write a [fusion.weights] table");
    }
    let weights = table.table("weights", out).map(|it| weights(it, detectors, out));
    let places = (table.key("bias"), table.key("weights"));
    table.finish(out);
    if out.list.len() > known {
        return None;
    }
    let fusion = Fusion { threshold, bias: bias?, weights: weights? };
    if fused(&[], &fusion) >= threshold {
        out.add(&places.0, "is enough without any evidence; lower it, or everything is treated");
    }
    let most = fusion.bias + fusion.weights.iter().map(|it| it.1).sum::<f32>();
    if logistic(most) < threshold {
        out.add(
            &places.1,
            "do not reach the threshold together; raise them, or nothing is treated",
        );
    }
    Some(fusion)
}

fn weights(
    mut keys: Keys,
    detectors: &[DetectorSetting],
    out: &mut Problems<'_>,
) -> Vec<(&'static str, f32)> {
    let mut weights = Vec::new();
    for name in detectors.iter().map(DetectorSetting::name) {
        let weight: Option<f32> = keys.require(name, &format!("{name} = 4.0"), out);
        if let Some(weight) = weight.filter(|it| !(it.is_finite() && *it >= 0.0)) {
            out.add(&keys.key(name), format!("is {weight}; use a finite number from 0 on"));
        }
        weights.extend(weight.map(|it| (name, it)));
    }
    keys.finish(out);
    weights
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::file::parse;
    use crate::policy::{NAMES, TOPIC};

    fn text(fusion: &str) -> String {
        format!(
            "topic = \"t\"\n[[entity]]\nname = \"Ann\"\n[[detector]]\nuse = \"names\"\n\
             [[detector]]\nuse = \"topic\"\nclassifier = \"c\"\n[[treatment]]\nuse = \"alias\"\n{fusion}"
        )
    }

    #[test]
    fn a_fusion_says_what_it_says() {
        let parsed = |fusion: &str| parse(Path::new("t.toml"), &text(fusion)).unwrap().fusion;
        assert_eq!(parsed(""), None);
        let weights = "[fusion.weights]\nnames = 6\ntopic = 2.5\n";
        let want = Fusion { threshold: 0.5, bias: -3.0, weights: vec![(NAMES, 6.0), (TOPIC, 2.5)] };
        assert_eq!(parsed(&format!("[fusion]\nbias = -3\n{weights}")), Some(want.clone()));
        let higher = format!("[fusion]\nthreshold = 0.9\nbias = -3.0\n{weights}");
        assert_eq!(parsed(&higher), Some(Fusion { threshold: 0.9, ..want }));
    }

    #[test]
    fn every_unusable_value_is_named() {
        let weights = "[fusion.weights]\nnames = 6\ntopic = 2\n";
        for (fusion, want) in [
            (format!("[fusion]\n{weights}"), "fusion.bias: missing; write bias = -4.0"),
            (format!("[fusion]\nbias = inf\n{weights}"), "fusion.bias: is inf; use a finite"),
            (format!("[fusion]\nbias = 0.1\n{weights}"), "fusion.bias: is enough without any"),
            (format!("[fusion]\nbias = -9\n{weights}"), "fusion.weights: do not reach the"),
            (
                format!("[fusion]\nbias = -3\nthreshold = 2\n{weights}"),
                "fusion.threshold: is above 1",
            ),
            (format!("[fusion]\nbias = -3\nbiass = 1\n{weights}"), "fusion.biass: unknown key"),
            ("[fusion]\nbias = -3\n".to_owned(), "fusion.weights: missing; write a [fusion.w"),
            (
                "[fusion]\nbias = -3\n[fusion.weights]\nnames = 6\n".to_owned(),
                "fusion.weights.topic: missing; write topic = 4.0",
            ),
            (
                "[fusion]\nbias = -3\n[fusion.weights]\nnames = 6\ntopic = -1\n".to_owned(),
                "fusion.weights.topic: is -1; use a finite number from 0 on",
            ),
            (
                format!("[fusion]\nbias = -3\n{weights}judge = 1\n"),
                "fusion.weights.judge: unknown key",
            ),
            ("fusion = 3\n".to_owned(), "fusion: invalid type"),
        ] {
            // A key of the file stands before its tables.
            let text = if fusion.starts_with('[') {
                text(&fusion)
            } else {
                format!("{fusion}{}", text(""))
            };
            let found = parse(Path::new("t.toml"), &text).unwrap_err();
            let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
            let start = format!("t.toml: {want}");
            assert!(shown.len() == 1 && shown[0].starts_with(&start), "{fusion}: {shown:?}");
        }
    }
}
