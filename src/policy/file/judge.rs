//! `[[detector]]` with `use = "judge"`.

use std::sync::Arc;
use std::time::Duration;

use super::detectors::threshold;
use super::{Keys, Problems};
use crate::policy::{DetectorSetting, JudgeServer, JudgeSetting};
use crate::types::Entity;

/// The filter of Thaker et al. (arXiv:2403.03329) for TOFU as re-implemented by DRAGON, for whatever
/// has a name.
const NAMES_QUESTION: &str =
    "Does the text ask about, mention or contain information about any of these: {names}?";
/// The same for a topic without names.
const TOPIC_QUESTION: &str = "Is the text about {topic}?";
/// From this probability of yes on a text counts as seen, where the policy does not say.
const THRESHOLD: f32 = 0.5;
const DEADLINE: Duration = Duration::from_secs(10);
/// In seconds; nobody waits longer for a reply to begin.
const LONGEST_DEADLINE: f64 = 600.0;

pub(super) fn judge(
    keys: &mut Keys,
    topic: &str,
    entities: &[Entity],
    out: &mut Problems<'_>,
) -> DetectorSetting {
    let question = question(keys, topic, entities, out);
    let model = filled(keys, "model", out);
    let server = server(keys, out);
    if server.is_some() && model.is_none() && !out.names(&keys.key("model")) {
        out.add(&keys.key("model"), "missing; name a model of `upstream`");
    }
    let deadline = deadline(keys, out);
    let threshold = threshold(keys, out).unwrap_or(THRESHOLD);
    DetectorSetting::Judge(Arc::new(JudgeSetting { question, model, server, deadline, threshold }))
}

fn question(keys: &mut Keys, topic: &str, entities: &[Entity], out: &mut Problems<'_>) -> String {
    let default = if entities.is_empty() { TOPIC_QUESTION } else { NAMES_QUESTION };
    let text = filled(keys, "question", out).unwrap_or_else(|| default.to_owned());
    if text.contains("{names}") && entities.is_empty() {
        out.add(&keys.key("question"), "`{names}` stands for nobody; add an [[entity]] or drop it");
    }
    let names: Vec<&str> = entities.iter().map(|it| it.name.as_str()).collect();
    // A topic is spelt as a label.
    let topic = topic.replace(['-', '_'], " ");
    text.replace("{topic}", &topic).replace("{names}", &names.join(", "))
}

fn server(keys: &mut Keys, out: &mut Problems<'_>) -> Option<JudgeServer> {
    let url = filled(keys, "upstream", out);
    let api_key_env = filled(keys, "api_key_env", out);
    if url.is_none() && api_key_env.is_some() && !out.names(&keys.key("upstream")) {
        out.add(&keys.key("api_key_env"), "belongs to `upstream`; add that or remove this");
    }
    let url = url?;
    if !url.starts_with("http://") && !url.starts_with("https://") {
        out.add(&keys.key("upstream"), "is no http:// or https:// URL; write its base URL");
    }
    Some(JudgeServer { url, api_key_env })
}

fn deadline(keys: &mut Keys, out: &mut Problems<'_>) -> Duration {
    let Some(seconds) = keys.positive("deadline", out) else { return DEADLINE };
    if seconds > LONGEST_DEADLINE {
        out.add(&keys.key("deadline"), "is above 600; it is seconds for one answer");
        return DEADLINE;
    }
    Duration::from_secs_f64(seconds)
}

/// A text that must not be empty, when the key is there.
fn filled(keys: &mut Keys, key: &'static str, out: &mut Problems<'_>) -> Option<String> {
    let text: String = keys.take(key, out)?;
    if text.trim().is_empty() {
        out.add(&keys.key(key), "is empty; fill it in or remove the key");
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::file::parse;

    const REST: &str = "[[treatment]]\nuse = \"answer\"\n";
    const NAMED: &str = "[[entity]]\nname = \"Ann Lee\"\n[[entity]]\nname = \"Bo Ek\"\n";

    /// A policy with a judge of these keys.
    fn text(entities: &str, keys: &str) -> String {
        format!("topic = \"dead_poets\"\n{entities}[[detector]]\nuse = \"judge\"\n{keys}{REST}")
    }

    fn setting(entities: &str, keys: &str) -> JudgeSetting {
        let policy = parse(Path::new("t.toml"), &text(entities, keys)).unwrap();
        assert_eq!(policy.detectors[0].name(), "judge");
        let DetectorSetting::Judge(setting) = &policy.detectors[0] else { panic!("{policy:?}") };
        JudgeSetting::clone(setting)
    }

    #[test]
    fn the_question_is_made_of_the_names_or_the_topic() {
        let named = setting(NAMED, "");
        assert!(named.question.ends_with("information about any of these: Ann Lee, Bo Ek?"));
        assert_eq!((named.model, named.server), (None, None));
        assert_eq!((named.deadline, named.threshold), (Duration::from_secs(10), 0.5));
        assert_eq!(setting("", "").question, "Is the text about dead poets?");
        let own = setting(NAMED, "question = \"{names} or {topic}?\"\n");
        assert_eq!(own.question, "Ann Lee, Bo Ek or dead poets?");
    }

    #[test]
    fn a_judge_may_have_its_own_server() {
        let own = setting(
            "",
            "upstream = \"https://judge.example/v1\"\nmodel = \"big\"\napi_key_env = \"KEY\"\n\
             deadline = 0.5\nthreshold = 0.7\n",
        );
        let server = JudgeServer {
            url: "https://judge.example/v1".to_owned(),
            api_key_env: Some("KEY".to_owned()),
        };
        assert_eq!((own.server, own.model.as_deref()), (Some(server), Some("big")));
        assert_eq!((own.deadline, own.threshold), (Duration::from_millis(500), 0.7));
    }

    #[test]
    fn every_unusable_key_is_named() {
        for (keys, want) in [
            ("question = \" \"\n", "question: is empty; fill it in or remove the key"),
            ("question = \"{names}?\"\n", "question: `{names}` stands for nobody"),
            ("model = \"\"\n", "model: is empty"),
            ("upstream = \"ftp://x\"\nmodel = \"m\"\n", "upstream: is no http:// or https:// URL"),
            ("upstream = \"http://x/v1\"\n", "model: missing; name a model of `upstream`"),
            ("api_key_env = \"K\"\n", "api_key_env: belongs to `upstream`"),
            ("deadline = 0\n", "deadline: is 0; use a finite number above 0"),
            ("deadline = 601\n", "deadline: is above 600"),
            ("threshold = 1.5\n", "threshold: is above 1"),
            ("thresold = 0.5\n", "thresold: unknown key, did you mean `threshold`?"),
        ] {
            let found = parse(Path::new("t.toml"), &text("", keys)).unwrap_err();
            let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
            let start = format!("t.toml: detector[0].{want}");
            assert!(shown.len() == 1 && shown[0].starts_with(&start), "{keys}: {shown:?}");
        }
    }
}
