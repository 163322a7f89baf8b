//! What the server is told: flags, then `UNLEARN_*`, then the file, then defaults.
//!
//! A [`Config`] is checked and complete. Secrets are named by environment variable in the file and
//! never written there; [`process_environment`] is the only place that reads the environment.

mod raw;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raw::RawConfig;

/// Where the server listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
/// The bundled model.
pub const DEFAULT_MODEL: &str = "models/lab/full";
/// Where policies are looked for unless told otherwise.
pub const DEFAULT_POLICIES: &str = "policies";

/// A credential; its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a credential.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The credential itself, for a header or a comparison.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where answers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// The in-process engine.
    Local {
        /// A folder in Hugging Face layout.
        folder: PathBuf,
        /// The id that clients send.
        id: String,
    },
    /// Any OpenAI-compatible server.
    Upstream {
        /// Its base URL, without a slash at the end.
        url: String,
        /// Its API key.
        api_key: Option<Secret>,
        /// A PEM file of certificate authorities to trust besides the web's.
        authorities: Option<PathBuf>,
    },
}

/// The checked configuration of a server. Relative paths start at the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where answers come from.
    pub model: ModelSource,
    /// The folder of policies.
    pub policies: PathBuf,
    /// Requests that may wait for the engine before the next is turned away.
    pub queue: usize,
    /// Most sequences that the engine decodes together.
    pub max_batch: usize,
    /// Largest request body in bytes.
    pub max_body_bytes: usize,
    /// The key that clients must send; `None` lets everybody in.
    pub api_key: Option<Secret>,
    /// The key for metrics and `/admin`; where it is `None`, that of clients opens them.
    pub operator_key: Option<Secret>,
    /// How long running replies may take to end once the server is told to stop.
    pub drain: Duration,
    /// Where rulings are recorded.
    pub audit_log: Option<PathBuf>,
    /// Whether log lines are JSON.
    pub log_json: bool,
}

/// What the command line says; it wins over everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// Address and port.
    pub listen: Option<String>,
    /// Folder of a model; excludes `upstream`.
    pub model: Option<PathBuf>,
    /// Base URL of a server; excludes `model`.
    pub upstream: Option<String>,
    /// The id that clients send for the local model.
    pub model_id: Option<String>,
    /// Folder of policies.
    pub policies: Option<PathBuf>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a value of the wrong type.
    #[error("{}: not a valid configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Values that cannot be used: all of them.
    #[error("{}", problems.join("\n"))]
    Invalid {
        /// One line each: where the value comes from, what is wrong, what to do.
        problems: Vec<String>,
    },
}

impl Config {
    /// Merges and checks every source. `environment` is [`process_environment`] outside tests; an
    /// empty variable counts as unset.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or parsed, and for values that cannot be used.
    pub fn load(
        flags: Flags,
        file: Option<&Path>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let raw = match file {
            None => RawConfig::default(),
            Some(path) => read(path)?,
        };
        let origin = file.map_or_else(|| "configuration".to_owned(), |it| it.display().to_string());
        let environment = |key: &str| environment(key).filter(|it| !it.is_empty());
        raw.check(&origin, flags, &environment)
    }
}

fn read(path: &Path) -> Result<RawConfig, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| {
        let source = Box::new(source);
        ConfigError::Parse { path: path.to_owned(), source }
    })
}

/// A variable of this process's environment, when it is set and valid UTF-8.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn process_environment(key: &str) -> Option<String> {
    std::env::var(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../deploy/proxy.toml");

    fn load(text: &str, flags: Flags, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(flags, Some(&path), &|key| {
            variables.iter().find(|it| it.0 == key).map(|it| it.1.to_owned())
        })
    }

    fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        match load(text, Flags::default(), variables).unwrap_err() {
            ConfigError::Invalid { problems } => problems,
            other => panic!("{other:?}"),
        }
    }

    fn local(folder: &str, id: &str) -> ModelSource {
        ModelSource::Local { folder: PathBuf::from(folder), id: id.to_owned() }
    }

    #[test]
    fn the_shipped_file_states_the_defaults() {
        let default = Config::load(Flags::default(), None, &|_| None).unwrap();
        assert_eq!(load(FILE, Flags::default(), &[]).unwrap(), default);
        // A key is commented out as `#key`, prose as `# prose`.
        let lines = FILE.lines().filter_map(|it| it.strip_prefix('#'));
        let stated: Vec<&str> =
            lines.filter(|it| it.contains(" = ") && !it.starts_with(' ')).collect();
        assert_eq!(stated.len(), 9);
        assert_eq!(load(&stated.join("\n"), Flags::default(), &[]).unwrap(), default);
        assert_eq!(default.model, local("models/lab/full", "lab-full"));
        assert_eq!((default.queue, default.max_batch, default.max_body_bytes), (64, 16, 4 << 20));
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let file = "listen = \"127.0.0.1:1\"\nmodel = \"models/a\"\npolicies = \"one\"\n";
        let variables = [("UNLEARN_LISTEN", "127.0.0.1:2"), ("UNLEARN_POLICIES", "two")];
        let flags = Flags { policies: Some("three".into()), ..Flags::default() };
        let config = load(file, flags, &variables).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.policies, Path::new("three"));
        assert_eq!(config.model, local("models/a", "a"));
        let empty = load(file, Flags::default(), &[("UNLEARN_LISTEN", "")]).unwrap();
        assert_eq!(empty.listen.port(), 1);
    }

    #[test]
    fn an_upstream_named_later_replaces_the_model_named_earlier() {
        let file = "model = \"models/a\"\nupstream_api_key_env = \"KEY\"\n";
        let variables = [("UNLEARN_UPSTREAM", "http://vllm:8000/v1/"), ("KEY", "hunter2")];
        let config = load(file, Flags::default(), &variables).unwrap();
        let api_key = Some(Secret::new("hunter2".to_owned()));
        let url = "http://vllm:8000/v1".to_owned();
        assert_eq!(config.model, ModelSource::Upstream { url, api_key, authorities: None });
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn every_unusable_value_is_listed() {
        let file = "listen = \"here\"\nmodel = \"m\"\nupstream = \"vllm:8000\"\nqueue = 0\n\
                    api_key_env = \"MISSING\"\noperator_key_env = \"GONE\"\n";
        let found = problems(file, &[]);
        assert_eq!(found.len(), 5, "{found:#?}");
        for variable in ["MISSING", "GONE"] {
            assert!(found.iter().any(|it| it.contains(variable)), "{found:#?}");
        }
        let scheme = problems("upstream = \"vllm:8000\"", &[]);
        assert!(scheme[0].contains("http://"), "{scheme:?}");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = load("listne = \"x\"", Flags::default(), &[]).unwrap_err();
        assert!(matches!(error, ConfigError::Parse { .. }));
        let missing = Config::load(Flags::default(), Some(Path::new("no/such.toml")), &|_| None);
        assert!(matches!(missing, Err(ConfigError::Read { .. })));
    }
}
