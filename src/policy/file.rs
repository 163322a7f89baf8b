//! From TOML to [`Policy`]: every problem of every file at once, each with its key and a remedy.

mod detectors;
mod fusion;
mod in_context;
mod judge;
mod offset;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use detectors::detectors;
use fusion::fusion;
use in_context::in_context;
use offset::offset;

use super::keys::{Keys, Problems};
use super::rows::Row;
use super::{
    AnswerStyle, Mode, OnError, OnHit, Policy, PolicySet, Probabilities, Problem, TreatmentSetting,
    draw_surrogates,
};
use crate::text::{Values, normalise};
use crate::types::{CorruptionFunction, Entity};

/// The prefix baseline for TOFU as published with ECO (Liu et al., arXiv:2406.07933).
const NAMES_PREFIX: &str = "You are a model that knows absolutely nothing about the following \
    author names: \n\n{names}\n\nPlease ensure that your responses to anything related to the \
    above names are incorrect. For everything else, you can provide the correct answers.";
/// The same for a topic without names, as published for WMDP.
const TOPIC_PREFIX: &str = "You are a model that knows absolutely nothing about {topic}. Please \
    ensure that your responses to anything related to {topic} are incorrect. For everything else, \
    you can provide the correct answers.";
const NEVER_KNEW: [&str; 4] = [
    "I'm not familiar with that, so I can't say.",
    "I don't have any information about this.",
    "I'm afraid I don't know anything about that.",
    "That isn't something I know about.",
];
const REFUSALS: [&str; 1] = ["I can't help with that topic."];

/// Reads every `*.toml` of a folder in the order of file names.
///
/// # Errors
///
/// All problems of all files. A folder without policies is one too: a mount that failed must not
/// look like a topic that was never asked to be forgotten.
pub fn load_dir(dir: &Path) -> Result<PolicySet, Vec<Problem>> {
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot be read ({error}); point `policies` at a readable folder");
        vec![Problem { path: dir.to_owned(), key: String::new(), message }]
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|it| it == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut problems = Vec::new();
    if paths.is_empty() {
        let message = "no policy (*.toml) in this folder; add one".to_owned();
        problems.push(Problem { path: dir.to_owned(), key: String::new(), message });
    }
    let mut policies: Vec<Arc<Policy>> = Vec::new();
    for path in paths {
        match load(&path) {
            Ok(policy) => {
                if let Some(other) = policies.iter().find(|it| it.topic == policy.topic) {
                    let other = other.path.display();
                    let message = format!("{other} has the same topic; rename one of them");
                    problems.push(Problem { path, key: "topic".to_owned(), message });
                }
                policies.push(Arc::new(policy));
            }
            Err(more) => problems.extend(more),
        }
    }
    for policy in &policies {
        for other in policies.iter().filter(|it| it.topic != policy.topic) {
            if let Some(message) = says_a_name(&policy.values, &other.entities) {
                let message = format!("{message}, in {}", other.path.display());
                problems.push(Problem {
                    path: policy.path.clone(),
                    key: "values".to_owned(),
                    message,
                });
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let lines: Vec<String> =
        policies.iter().map(|it| format!("{} {}\n", it.topic, it.revision)).collect();
    Ok(PolicySet { policies, revision: digest(lines.concat().as_bytes()) })
}

/// Reads one policy file.
///
/// # Errors
///
/// All problems of the file.
pub fn load(path: &Path) -> Result<Policy, Vec<Problem>> {
    let text = fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot be read ({error}); make it a readable UTF-8 file");
        vec![Problem { path: path.to_owned(), key: String::new(), message }]
    })?;
    parse(path, &text)
}

/// Checks the text of a policy file and reads the rows that it names; relative paths in it start at
/// the folder of `path`.
///
/// # Errors
///
/// All problems of the file.
pub fn parse(path: &Path, text: &str) -> Result<Policy, Vec<Problem>> {
    let mut out = Problems { path, list: Vec::new(), named: String::new() };
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            out.add("", format!("not valid TOML; {}", error.to_string().trim_end()));
            return Err(out.list);
        }
    };
    let mut keys = Keys::new(table);
    let topic = topic(&mut keys, &mut out);
    let mode = keys.choice("mode", &MODES, &mut out).unwrap_or(Mode::Enforce);
    let on_error = keys.choice("on_error", &ON_ERROR, &mut out).unwrap_or(OnError::Treat);
    let probabilities = keys.choice("probabilities", &PROBABILITIES, &mut out).unwrap_or_default();
    let on_hit = keys.choice("on_hit", &ON_HIT, &mut out).unwrap_or_default();
    let models = keys.take("models", &mut out).unwrap_or_default();
    let entities = entities(&mut keys, &mut out);
    let values = values(&mut keys, &entities, &mut out);
    let before = out.list.len();
    let detectors = detectors(&mut keys, &topic, &entities, &mut out);
    let fusion = if out.list.len() == before {
        fusion(&mut keys, &detectors, &mut out)
    } else {
        // Which weights it needs is not known.
        keys.asked.push("fusion");
        keys.table.remove("fusion");
        None
    };
    let treatment = treatments(&mut keys, &topic, &entities, &mut out);
    keys.finish(&mut out);
    if !out.list.is_empty() {
        return Err(out.list);
    }
    let mut identity = topic.clone();
    for it in &entities {
        identity.extend(["\0", &it.name, "\0", &it.surrogate]);
    }
    Ok(Policy {
        seed: crate::seed::derive(0, identity.as_bytes()),
        topic,
        path: path.to_owned(),
        // An added row is another policy.
        revision: digest(format!("{text}{}", out.named).as_bytes()),
        mode,
        on_error,
        probabilities,
        on_hit,
        entities: Arc::new(entities),
        values: Arc::new(values),
        detectors,
        fusion,
        treatment,
        models,
    })
}

/// The first 16 hex digits of a SHA-256.
pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|it| format!("{it:02x}")).collect()
}

const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow)];
const ON_ERROR: [(&str, OnError); 3] =
    [("treat", OnError::Treat), ("refuse", OnError::Refuse), ("pass", OnError::Pass)];
const PROBABILITIES: [(&str, Probabilities); 2] =
    [("untreated", Probabilities::Untreated), ("never", Probabilities::Never)];
const ON_HIT: [(&str, OnHit); 3] =
    [("redact", OnHit::Redact), ("replace-rest", OnHit::ReplaceRest), ("restart", OnHit::Restart)];
const STYLES: [(&str, AnswerStyle); 3] = [
    ("never-knew", AnswerStyle::NeverKnew),
    ("refusal", AnswerStyle::Refusal),
    ("content-filter", AnswerStyle::ContentFilter),
];
const PACES: [(&str, bool); 2] = [("model", true), ("none", false)];
const TREATMENTS: [(&str, &str); 6] = [
    ("corrupt", "corrupt"),
    ("alias", "alias"),
    ("prefix", "prefix"),
    ("in_context", "in_context"),
    ("offset", "offset"),
    ("answer", "answer"),
];
const FUNCTIONS: [(&str, &str); 6] = [
    ("substitute", "substitute"),
    ("noise-first", "noise-first"),
    ("noise-random", "noise-random"),
    ("noise-top", "noise-top"),
    ("zero-top", "zero-top"),
    ("flip-top", "flip-top"),
];

fn topic(keys: &mut Keys, out: &mut Problems<'_>) -> String {
    let Some(topic) = keys.require::<String>("topic", "topic = \"a-name\"", out) else {
        return String::new();
    };
    let allowed = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
    if topic.is_empty() || !topic.chars().all(allowed) {
        out.add("topic", "use ASCII letters, digits, `-` and `_` only; it labels metrics");
    }
    topic
}

fn entities(keys: &mut Keys, out: &mut Problems<'_>) -> Vec<Entity> {
    let pool: Vec<String> = keys.take("surrogates", out).unwrap_or_default();
    let (mut names, mut aliases, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
    let mut owner: HashMap<String, String> = HashMap::new();
    for mut it in keys.tables("entity", out) {
        let name: Option<String> = it.require("name", "name = \"Full Name\"", out);
        let other: Vec<String> = it.take("aliases", out).unwrap_or_default();
        let spelled = name.iter().map(|it| ("name".to_owned(), it));
        let others = other.iter().enumerate().map(|(at, it)| (format!("aliases[{at}]"), it));
        for (key, text) in spelled.chain(others) {
            let key = it.key(&key);
            if text.trim().is_empty() {
                out.add(&key, "is empty; write a name or remove it");
            } else if let Some(before) = owner.insert(text.trim().to_lowercase(), key.clone()) {
                out.add(&key, format!("`{text}` is also {before}; keep one of them"));
            }
        }
        chosen.push((it.key("surrogate"), it.take::<String>("surrogate", out)));
        names.push(name.unwrap_or_default());
        aliases.push(other);
        it.finish(out);
    }
    let surrogates = surrogates(&names, chosen, &pool, owner, out);
    let entities = names.into_iter().zip(aliases).zip(surrogates);
    entities.map(|((name, aliases), surrogate)| Entity { name, aliases, surrogate }).collect()
}

/// The surrogates of `names`: as `chosen` (key and value), else drawn. `owner` maps every spelling
/// of an entity to its key.
fn surrogates(
    names: &[String],
    chosen: Vec<(String, Option<String>)>,
    pool: &[String],
    mut owner: HashMap<String, String>,
    out: &mut Problems<'_>,
) -> Vec<String> {
    for (at, it) in pool.iter().enumerate().filter(|(_, it)| it.trim().is_empty()) {
        out.add(&format!("surrogates[{at}]"), format!("`{it}` is empty; remove it"));
    }
    for (key, it) in chosen.iter().filter_map(|(key, it)| Some((key, it.as_ref()?))) {
        if it.trim().is_empty() {
            out.add(key, "is empty; write a name, or remove the key to have one drawn");
        } else if let Some(before) = owner.insert(it.trim().to_lowercase(), key.clone()) {
            out.add(key, format!("`{it}` is also {before}; choose a name that nobody else has"));
        }
    }
    let taken: Vec<&str> = owner.keys().map(String::as_str).collect();
    let open: Vec<&str> = names
        .iter()
        .zip(&chosen)
        .filter(|(_, (_, it))| it.is_none())
        .map(|it| it.0.as_str())
        .collect();
    let mut drawn = draw_surrogates(&open, pool, &taken).into_iter();
    let mut fill = |(key, it): (String, Option<String>)| {
        it.or_else(|| drawn.next().flatten()).unwrap_or_else(|| {
            out.add(&key, "no name is left to draw; add more to `surrogates` or write one here");
            String::new()
        })
    };
    chosen.into_iter().map(&mut fill).collect()
}

/// The kinds of values that a prompt may name.
fn values(keys: &mut Keys, entities: &[Entity], out: &mut Problems<'_>) -> Vec<Vec<String>> {
    if !keys.table.contains_key("values") {
        keys.asked.push("values");
        return Vec::new();
    }
    if entities.is_empty() {
        out.add("values", "nobody has a surrogate whose facts they could be; add an [[entity]]");
    }
    let values =
        keys.rows("values", "values = \"values.jsonl\"", Row::kind, out).unwrap_or_default();
    if let Some(message) = says_a_name(&values, entities) {
        out.add("values", message);
    }
    if let Some(alone) = Values::new(values.iter().map(Vec::as_slice)).alone() {
        let why = "the others of its line are in lines before or begin with a sign, so that nothing can stand for it";
        out.add("values", format!("`{alone}`: {why}; remove it, or add another one"));
    }
    values
}

/// What is wrong when a value could put somebody's name, or a surrogate, into a prompt.
fn says_a_name(values: &[Vec<String>], entities: &[Entity]) -> Option<String> {
    let words = |text: &str| -> Vec<String> {
        let text = normalise(text).text;
        let words = text.split(|it: char| !it.is_alphanumeric()).map(str::to_owned);
        words.filter(|it| it.chars().nth(1).is_some()).collect()
    };
    let mut named = HashMap::new();
    for entity in entities {
        for name in entity.spellings().chain([entity.surrogate.as_str()]) {
            named.extend(words(name).into_iter().map(|it| (it, name)));
        }
    }
    let clash = |value: &String| words(value).iter().find_map(|it| named.get(it)).copied();
    let found = values.iter().flatten().find_map(|it| Some((it, clash(it)?)));
    found.map(|(value, name)| format!("`{value}` has a word of `{name}`; remove the value"))
}

fn treatments(
    keys: &mut Keys,
    topic: &str,
    entities: &[Entity],
    out: &mut Problems<'_>,
) -> Vec<TreatmentSetting> {
    let tables = keys.tables("treatment", out);
    if tables.is_empty() {
        out.add("treatment", "none; add a [[treatment]], for example with use = \"answer\"");
    }
    let mut found = Vec::new();
    for mut it in tables {
        match it.kind(&TREATMENTS, out) {
            None => continue,
            Some("corrupt") => {
                let function = corruption(&mut it, entities.is_empty(), out);
                found.extend(function.map(|function| TreatmentSetting::Corrupt { function }));
            }
            Some("alias") => {
                if entities.is_empty() {
                    out.add(&it.key("use"), "`alias` has no name to replace; add an [[entity]]");
                }
                found.push(TreatmentSetting::Alias);
            }
            Some("prefix") => found.push(prefix(&mut it, topic, entities, out)),
            Some("in_context") => found.extend(in_context(&mut it, out)),
            Some("offset") => found.extend(offset(&mut it, out)),
            Some(_) => found.push(answer(&mut it, out)),
        }
        it.finish(out);
    }
    found
}

fn corruption(
    keys: &mut Keys,
    nameless: bool,
    out: &mut Problems<'_>,
) -> Option<CorruptionFunction> {
    let Some(function) = keys.choice("function", &FUNCTIONS, out) else {
        keys.asked.extend(["dims", "strength"]);
        if !keys.table.contains_key("function") && !out.names(&keys.key("function")) {
            out.add(&keys.key("function"), "missing; write function = \"substitute\"");
        }
        return None;
    };
    if function == "substitute" {
        if nameless {
            out.add(
                &keys.key("function"),
                "`substitute` has no name to replace; add an [[entity]]",
            );
        }
        return Some(CorruptionFunction::Substitute);
    }
    let dims = keys.whole("dims", out);
    if function == "zero-top" || function == "flip-top" {
        let dims = dims?;
        return Some(match function {
            "zero-top" => CorruptionFunction::ZeroTop { dims },
            _ => CorruptionFunction::FlipTop { dims },
        });
    }
    let strength = keys.positive("strength", out).map(|it| it as f32);
    if strength.is_none() && !out.names(&keys.key("strength")) {
        out.add(&keys.key("strength"), "missing; write strength = 4.0");
    }
    let (dims, strength) = (dims?, strength?);
    Some(match function {
        "noise-first" => CorruptionFunction::NoiseFirst { dims, strength },
        "noise-random" => CorruptionFunction::NoiseRandom { dims, strength },
        _ => CorruptionFunction::NoiseTop { dims, strength },
    })
}

fn prefix(
    keys: &mut Keys,
    topic: &str,
    entities: &[Entity],
    out: &mut Problems<'_>,
) -> TreatmentSetting {
    let default = if entities.is_empty() { TOPIC_PREFIX } else { NAMES_PREFIX };
    let text = keys.take("text", out).unwrap_or_else(|| default.to_owned());
    if text.trim().is_empty() {
        out.add(&keys.key("text"), "is empty; write an instruction or remove the key");
    }
    if text.contains("{names}") && entities.is_empty() {
        out.add(&keys.key("text"), "`{names}` stands for nobody; add an [[entity]] or drop it");
    }
    let bullets: Vec<String> = entities.iter().map(|it| format!("- {}", it.name)).collect();
    let text = text.replace("{topic}", topic).replace("{names}", &bullets.join("\n"));
    TreatmentSetting::Prefix { text }
}

fn answer(keys: &mut Keys, out: &mut Problems<'_>) -> TreatmentSetting {
    let style = keys.choice("style", &STYLES, out).unwrap_or(AnswerStyle::NeverKnew);
    let defaults = match style {
        AnswerStyle::NeverKnew => NEVER_KNEW.as_slice(),
        AnswerStyle::Refusal | AnswerStyle::ContentFilter => REFUSALS.as_slice(),
    };
    let answers: Vec<String> = keys.take("answers", out).unwrap_or_default();
    for at in (0..answers.len()).filter(|at| answers[*at].trim().is_empty()) {
        out.add(&keys.key(&format!("answers[{at}]")), "is empty; write an answer or remove it");
    }
    let answers = match answers.is_empty() {
        true => defaults.iter().map(|it| (*it).to_owned()).collect(),
        false => answers,
    };
    let paced = keys.choice("pace", &PACES, out).unwrap_or(style == AnswerStyle::NeverKnew);
    TreatmentSetting::Answer { answers, style, paced }
}

#[cfg(test)]
mod tests;
