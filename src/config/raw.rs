//! The file as it is written, and the step from it to a checked [`Config`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::{Config, ConfigError, DEFAULT_LISTEN, DEFAULT_MODEL, DEFAULT_POLICIES};
use super::{Flags, ModelSource, Secret};

/// A variable of the environment, `None` when unset or empty.
type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The keys of `deploy/proxy.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    listen: Option<String>,
    model: Option<PathBuf>,
    model_id: Option<String>,
    upstream: Option<String>,
    upstream_api_key_env: Option<String>,
    upstream_ca: Option<PathBuf>,
    policies: Option<PathBuf>,
    queue: Option<usize>,
    max_batch: Option<usize>,
    max_body_bytes: Option<usize>,
    api_key_env: Option<String>,
    operator_key_env: Option<String>,
    drain_seconds: Option<u64>,
    audit_log: Option<PathBuf>,
    log_json: Option<bool>,
}

/// What one source says about where answers come from.
struct Choice {
    origin: String,
    model: Option<PathBuf>,
    upstream: Option<String>,
}

/// What is needed of an upstream besides its address.
struct Remote {
    api_key: Option<Secret>,
    authorities: Option<PathBuf>,
}

impl RawConfig {
    /// Merges the file with what outranks it. `origin` names the file in messages.
    pub(super) fn check(
        self,
        origin: &str,
        flags: Flags,
        environment: &Environment<'_>,
    ) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        let choices = [
            Choice { origin: "flags".to_owned(), model: flags.model, upstream: flags.upstream },
            Choice {
                origin: "environment".to_owned(),
                model: environment("UNLEARN_MODEL").map(PathBuf::from),
                upstream: environment("UNLEARN_UPSTREAM"),
            },
            Choice { origin: origin.to_owned(), model: self.model, upstream: self.upstream },
        ];
        let id = flags.model_id.or(self.model_id);
        let mut secret = |key: &str, variable: Option<String>| {
            let variable = variable?;
            let value = environment(&variable);
            if value.is_none() {
                let remedy = "set it or remove the key";
                problems.push(format!("{origin}: {key}: `{variable}` is not set; {remedy}"));
            }
            value.map(Secret::new)
        };
        let api_key = secret("api_key_env", self.api_key_env);
        let operator_key = secret("operator_key_env", self.operator_key_env);
        let upstream_key = secret("upstream_api_key_env", self.upstream_api_key_env);
        let listen = flags.listen.or_else(|| environment("UNLEARN_LISTEN")).or(self.listen);
        let policies = flags
            .policies
            .or_else(|| environment("UNLEARN_POLICIES").map(PathBuf::from))
            .or(self.policies);
        let mut count = |key: &str, value: Option<usize>, default: usize| {
            let value = value.unwrap_or(default);
            if value == 0 {
                problems.push(format!("{origin}: {key}: is 0; use a whole number above 0"));
            }
            value
        };
        let queue = count("queue", self.queue, 64);
        let max_batch = count("max_batch", self.max_batch, 16);
        let max_body_bytes = count("max_body_bytes", self.max_body_bytes, 4 << 20);
        let listen = address(listen.as_deref().unwrap_or(DEFAULT_LISTEN), &mut problems);
        let remote = Remote { api_key: upstream_key, authorities: self.upstream_ca };
        let model = source(choices, id, remote, &mut problems);
        match listen {
            Some(listen) if problems.is_empty() => Ok(Config {
                listen,
                model,
                policies: policies.unwrap_or_else(|| DEFAULT_POLICIES.into()),
                queue,
                max_batch,
                max_body_bytes,
                api_key,
                operator_key,
                drain: Duration::from_secs(self.drain_seconds.unwrap_or(10)),
                audit_log: self.audit_log,
                log_json: self.log_json.unwrap_or(false),
            }),
            _ => Err(ConfigError::Invalid { problems }),
        }
    }
}

fn address(text: &str, problems: &mut Vec<String>) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        problems.push(format!("listen: `{text}` is no address; write one as {DEFAULT_LISTEN}"));
    }
    address
}

/// The first source that names a model or an upstream; the bundled model when none does.
fn source(
    choices: [Choice; 3],
    id: Option<String>,
    remote: Remote,
    problems: &mut Vec<String>,
) -> ModelSource {
    let chosen = choices.into_iter().find(|it| it.model.is_some() || it.upstream.is_some());
    let local = |folder: PathBuf, id: Option<String>| {
        let id = id.unwrap_or_else(|| default_id(&folder));
        ModelSource::Local { folder, id }
    };
    let Some(Choice { origin, model, upstream }) = chosen else {
        return local(DEFAULT_MODEL.into(), id);
    };
    if model.is_some() && upstream.is_some() {
        problems.push(format!("{origin}: both `model` and `upstream`; keep one of them"));
    }
    let Some(url) = upstream else {
        return local(model.unwrap_or_else(|| DEFAULT_MODEL.into()), id);
    };
    let url = url.trim_end_matches('/').to_owned();
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if model.is_none() && host.is_none_or(str::is_empty) {
        let remedy = "write the base URL, as http://127.0.0.1:8000/v1";
        problems
            .push(format!("{origin}: upstream: `{url}` is no http:// or https:// URL; {remedy}"));
    }
    let Remote { api_key, authorities } = remote;
    ModelSource::Upstream { url, api_key, authorities }
}

/// The last two components of a model's folder, less a leading `models`: `lab-full`.
fn default_id(folder: &Path) -> String {
    let parts: Vec<_> = folder
        .components()
        .filter_map(|it| match it {
            std::path::Component::Normal(name) => Some(name.to_string_lossy()),
            _ => None,
        })
        .collect();
    let last = parts.iter().skip(parts.len().saturating_sub(2));
    let named: Vec<&str> = last.map(AsRef::as_ref).filter(|it| *it != "models").collect();
    if named.is_empty() { "model".to_owned() } else { named.join("-") }
}
