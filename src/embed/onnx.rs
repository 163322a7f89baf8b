//! Sentence encoders through ONNX Runtime, which is opened when the first one is loaded.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;
use tokenizers::Tokenizer;

use super::{EmbedError, Encoder, read, sha256_hex, to_unit};

/// Most tokens of one text, special ones included: the positions of a BERT encoder.
pub const MAX_TOKENS: usize = 512;

/// Where the runtime lies when nobody says.
const DEFAULT_RUNTIME: &str = ".runtime";

/// One process, one runtime: the first path that loads stays.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// How to run a sentence encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxOptions {
    /// The runtime library or a folder with it (`ORT_DYLIB_PATH`); `None` is `.runtime/`.
    pub runtime: Option<PathBuf>,
    /// Sessions of one thread each, which is also how many texts are encoded at a time.
    pub sessions: usize,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self { runtime: None, sessions: 1 }
    }
}

/// A folder with `model.onnx` and `tokenizer.json`.
///
/// The model takes `input_ids` and `attention_mask`, and `token_type_ids` where it has them, as
/// `[1, tokens]` of `i64`; its first output is `[1, dim]`, or `[1, tokens, dim]` and then averaged
/// over the tokens. What the tokenizer's file says about padding and truncation is ignored.
pub struct Onnx {
    tokenizer: Tokenizer,
    sessions: Mutex<Vec<Session>>,
    returned: Condvar,
    dim: usize,
    sha256: String,
}

impl fmt::Debug for Onnx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Onnx")
            .field("dim", &self.dim)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

impl Onnx {
    /// Loads the folder, and the runtime when no encoder was loaded before.
    ///
    /// # Errors
    ///
    /// [`EmbedError::NoRuntime`] without a usable runtime; else what is wrong with the folder.
    pub fn load(dir: &Path, options: &OnnxOptions) -> Result<Self, EmbedError> {
        let sha256 = sha256_hex(&read(&dir.join("model.onnx"))?);
        let tokenizer = load_tokenizer(&dir.join("tokenizer.json"))?;
        let sessions = (0..options.sessions.max(1))
            .map(|_| session(dir, options))
            .collect::<Result<Vec<_>, _>>()?;
        let mut encoder = Self {
            tokenizer,
            sessions: Mutex::new(sessions),
            returned: Condvar::new(),
            dim: 0,
            sha256,
        };
        encoder.dim = encoder.encode_one("a")?.len();
        Ok(encoder)
    }

    fn encode_one(&self, text: &str) -> Result<Vec<f32>, EmbedError> {
        let ids = self.tokenizer.encode_fast(text, true).map_err(failed("tokenised"))?;
        let ids: Vec<i64> = ids.get_ids().iter().map(|it| i64::from(*it)).collect();
        if ids.len() > MAX_TOKENS {
            return Err(EmbedError::TooLong { tokens: ids.len(), limit: MAX_TOKENS });
        }
        let mut vector = if ids.is_empty() {
            vec![0.0; self.dim]
        } else {
            self.with_session(|session| pooled(session, ids))?
        };
        to_unit(&mut vector);
        Ok(vector)
    }

    /// Runs with a session of the pool, waiting for one if need be.
    fn with_session<T>(&self, run: impl FnOnce(&mut Session) -> T) -> T {
        let mut free = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut session = loop {
            match free.pop() {
                Some(session) => break session,
                None => free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(free);
        let result = run(&mut session);
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        self.returned.notify_one();
        result
    }
}

impl Encoder for Onnx {
    fn dim(&self) -> usize {
        self.dim
    }

    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, EmbedError> {
        let mut out = Vec::with_capacity(texts.len() * self.dim);
        for text in texts {
            out.extend(self.encode_one(text)?);
        }
        Ok(out)
    }

    fn identity(&self) -> String {
        self.sha256.clone()
    }
}

fn failed<E: fmt::Display>(doing: &'static str) -> impl Fn(E) -> EmbedError {
    move |error| EmbedError::Runtime { doing, message: error.to_string() }
}

fn load_tokenizer(path: &Path) -> Result<Tokenizer, EmbedError> {
    let wrong = |error: tokenizers::Error| EmbedError::Content {
        path: path.to_owned(),
        key: "(whole file)",
        message: error.to_string(),
    };
    let mut tokenizer = Tokenizer::from_bytes(read(path)?).map_err(wrong)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(wrong)?;
    Ok(tokenizer)
}

/// The process's environment. Must come before any other call into `ort`, whose lazy load panics.
fn environment(runtime: Option<&Path>) -> Result<Environment, EmbedError> {
    let mut slot = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = slot.as_ref() {
        return Ok(environment.clone());
    }
    let path = find_runtime(runtime.unwrap_or(Path::new(DEFAULT_RUNTIME)))?;
    let no_runtime = |message: String| EmbedError::NoRuntime { path: path.clone(), message };
    let builder = ort::init_from(&path).map_err(|it| no_runtime(it.to_string()))?;
    let environment =
        builder.with_telemetry(false).build().map_err(|it| no_runtime(it.to_string()))?;
    Ok(slot.insert(environment).clone())
}

/// Whether a file of this name is the library.
pub(super) fn is_runtime(name: &str) -> bool {
    (name.starts_with("libonnxruntime.") && !name.contains("providers"))
        || name == "onnxruntime.dll"
}

/// The library itself, or the one in a folder.
fn find_runtime(path: &Path) -> Result<PathBuf, EmbedError> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let entries = std::fs::read_dir(path).map_err(|error| EmbedError::NoRuntime {
        path: path.to_owned(),
        message: format!("{error}; `proxy-train fetch-encoder` brings one"),
    })?;
    let is_library =
        |it: &PathBuf| is_runtime(&it.file_name().unwrap_or_default().to_string_lossy());
    entries.flatten().map(|it| it.path()).filter(is_library).max().ok_or_else(|| {
        EmbedError::NoRuntime {
            path: path.to_owned(),
            message: "the folder has no libonnxruntime".to_owned(),
        }
    })
}

/// A session of a folder's `model.onnx` on one thread that does not spin when idle, as an encoder has
/// them; loads the runtime when nothing did before.
///
/// # Errors
///
/// Those of [`Onnx::load`].
pub fn session(dir: &Path, options: &OnnxOptions) -> Result<Session, EmbedError> {
    let environment = environment(options.runtime.as_deref())?;
    let open = || -> ort::Result<Session> {
        Session::builder(&environment)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .commit_from_file(dir.join("model.onnx"))
    };
    open().map_err(failed("opened the model"))
}

/// The model's first output, averaged over tokens where it has them.
fn pooled(session: &mut Session, ids: Vec<i64>) -> Result<Vec<f32>, EmbedError> {
    let n_tokens = ids.len();
    let mut inputs: Vec<(Cow<'static, str>, SessionInputValue<'static>)> = Vec::with_capacity(3);
    let has_types = session.inputs().iter().any(|it| it.name() == "token_type_ids");
    let extra = has_types.then(|| ("token_type_ids", vec![0; n_tokens]));
    let given = [("input_ids", ids), ("attention_mask", vec![1; n_tokens])];
    for (name, values) in given.into_iter().chain(extra) {
        let tensor =
            Tensor::from_array(([1, n_tokens], values)).map_err(failed("built its input"))?;
        inputs.push((name.into(), tensor.into()));
    }
    let outputs = session.run(inputs).map_err(failed("ran the model"))?;
    let first =
        outputs.values().next().ok_or_else(|| failed("read the output")("there is none"))?;
    let (shape, values) = first.try_extract_tensor::<f32>().map_err(failed("read the output"))?;
    match **shape {
        [1, _] => Ok(values.to_vec()),
        [1, tokens, dim] if tokens as usize == n_tokens && dim > 0 => {
            let mut mean = vec![0.0; dim as usize];
            for row in values.chunks(dim as usize) {
                mean.iter_mut().zip(row).for_each(|(sum, it)| *sum += it / n_tokens as f32);
            }
            Ok(mean)
        }
        _ => Err(failed("read the output")(format!(
            "shape {:?} is neither [1, dim] nor [1, {n_tokens}, dim]",
            &**shape
        ))),
    }
}
