//! `[[treatment]]` with `use = "offset"`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Keys, Problems};
use crate::policy::TreatmentSetting;
use crate::types::{Offset, OffsetPair};

/// With the served model as the anti-expert, this weight makes it the expert.
const ALPHA: f64 = 1.0;

pub(super) fn offset(keys: &mut Keys, out: &mut Problems<'_>) -> Option<TreatmentSetting> {
    let beside = out.path.parent().unwrap_or(Path::new("")).to_owned();
    let expert: Option<PathBuf> = keys.require("expert", "expert = \"path/to/model\"", out);
    let remedy = "anti_expert = \"path/to/model\"";
    let anti_expert: Option<PathBuf> = keys.require("anti_expert", remedy, out);
    let alpha = keys.positive("alpha", out).unwrap_or(ALPHA) as f32;
    let (expert, anti_expert) = (beside.join(expert?), beside.join(anti_expert?));
    if expert == anti_expert {
        out.add(&keys.key("anti_expert"), "is the expert, and adds nothing; name another model");
    }
    let pair = Arc::new(OffsetPair { expert, anti_expert });
    Some(TreatmentSetting::Offset(Offset { pair, alpha }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::file::parse;

    fn text(keys: &str) -> String {
        format!(
            "topic = \"t\"\n[[detector]]\nuse = \"topic\"\nclassifier = \"c\"\n\
             [[treatment]]\nuse = \"offset\"\n{keys}"
        )
    }

    #[test]
    fn folders_start_at_the_policy_and_alpha_is_one() {
        let path = Path::new("policies/t.toml");
        for (keys, alpha) in [("", 1.0), ("alpha = 0.5\n", 0.5), ("alpha = 2\n", 2.0)] {
            let text = text(&format!("expert = \"a\"\nanti_expert = \"/b\"\n{keys}"));
            let policy = parse(path, &text).unwrap();
            let pair = OffsetPair { expert: "policies/a".into(), anti_expert: "/b".into() };
            let want = TreatmentSetting::Offset(Offset { pair: Arc::new(pair), alpha });
            assert_eq!(policy.treatment, [want], "{keys}");
        }
    }

    #[test]
    fn every_unusable_key_is_named() {
        for (keys, want) in [
            ("anti_expert = \"b\"\n", "expert: missing; write expert = \"path/to/model\""),
            ("expert = \"a\"\n", "anti_expert: missing; write anti_expert = "),
            ("expert = \"a\"\nanti_expert = \"a\"\n", "anti_expert: is the expert, and adds"),
            ("expert = \"a\"\nanti_expert = \"b\"\nalpha = 0\n", "alpha: is 0; use a finite"),
            ("expert = \"a\"\nanti_expert = \"b\"\nalpha = inf\n", "alpha: is inf; use a finite"),
            ("expert = \"a\"\nanti_expert = \"b\"\nalfa = 1\n", "alfa: unknown key, did you mean"),
        ] {
            let found = parse(Path::new("t.toml"), &text(keys)).unwrap_err();
            let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
            let start = format!("t.toml: treatment[0].{want}");
            assert!(shown.len() == 1 && shown[0].starts_with(&start), "{keys}: {shown:?}");
        }
    }
}
