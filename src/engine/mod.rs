//! The in-process engine: one decoder of the Llama family, written for serving. Many requests share
//! a step (packed rows, prompts and single tokens mixed), each with its own cache slot, sampler and
//! corrupted rows.

pub mod corruptor;
pub mod decoder;
pub mod device;
pub mod error;
pub mod hub;
pub mod kv_cache;
pub mod model_config;
pub mod offset;
pub mod ops;
pub mod rope;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
pub mod tokenizer;
pub mod weights;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::types::{Offset, OffsetPair};
use corruptor::EmbeddingTable;
use error::EngineError;
use kv_cache::KvCache;
use model_config::ModelConfig;
use offset::{Companions, Shift};
use sequence::{Prompt, Task};
use tokenizer::Tokenizer;
use worker::{Job, Worker};

/// Sizes of the engine.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Requests that may wait.
    pub queue: usize,
    /// Sequences that run together.
    pub slots: usize,
    /// Most rows of one step.
    pub step_rows: usize,
    /// Most positions of a sequence; the model's own limit when it is lower.
    pub context: usize,
    /// Where to run, and in which dtype.
    pub device: (Device, DType),
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            queue: 64,
            slots: 16,
            step_rows: 512,
            context: 4096,
            device: (Device::Cpu, DType::F32),
        }
    }
}

/// A running model.
#[derive(Debug)]
pub struct Engine {
    jobs: Sender<Vec<Job>>,
    queue: usize,
    context: usize,
    companions: Companions,
    /// Where the weights came from, when they came from files.
    folder: Option<PathBuf>,
    /// Sizes of the model.
    pub config: ModelConfig,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its embedding rows.
    pub table: Arc<EmbeddingTable>,
}

impl Engine {
    /// Loads a Hugging Face folder and starts the worker thread.
    ///
    /// # Errors
    ///
    /// [`EngineError::File`] naming what is missing or damaged.
    pub fn load(folder: &Path, settings: &EngineSettings) -> Result<Self, EngineError> {
        let (device, dtype) = &settings.device;
        let decoder = weights::load(folder, device, *dtype)?;
        let tokenizer = Tokenizer::read(folder, &decoder.config.end_tokens)?;
        if tokenizer.vocab_size() > decoder.config.vocab_size {
            let message = format!(
                "has {} tokens, the model's embedding table {}; it belongs to another model",
                tokenizer.vocab_size(),
                decoder.config.vocab_size
            );
            return Err(EngineError::file(&folder.join("tokenizer.json"), message));
        }
        let engine = Self::start(decoder, tokenizer, settings)?;
        Ok(Self { folder: Some(folder.to_owned()), ..engine })
    }

    /// Starts the worker thread over a decoder in memory.
    ///
    /// # Errors
    ///
    /// [`EngineError::Tensor`] when there is no memory for the cache.
    pub fn start(
        decoder: decoder::Decoder,
        tokenizer: Tokenizer,
        settings: &EngineSettings,
    ) -> Result<Self, EngineError> {
        let (config, tokenizer) = (decoder.config.clone(), Arc::new(tokenizer));
        let table = Arc::new(EmbeddingTable::new(&decoder.embedding)?);
        let context = settings.context.min(config.context_length);
        let (device, dtype) = (decoder.device().clone(), decoder.dtype());
        let cache = KvCache::new(&config, &decoder.rope, settings.slots, context, &device, dtype)?;
        let companions = Companions::new(settings.slots, context, (device, dtype));
        let worker = Worker {
            decoder: decoder.turned()?,
            tokenizer: tokenizer.clone(),
            cache,
            slots: (0..settings.slots).map(|_| None).collect(),
            step_rows: settings.step_rows,
        };
        let (jobs, receiver) = tokio::sync::mpsc::channel(settings.queue);
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || worker.run(receiver))
            .map_err(|_no_thread| EngineError::Stopped)?;
        let (queue, folder) = (settings.queue, None);
        Ok(Self { jobs, queue, context, companions, folder, config, tokenizer, table })
    }

    /// Reads the models of a pair, unless that was done before; they stay in memory.
    ///
    /// # Errors
    ///
    /// [`EngineError::File`] for a model that is missing or damaged, or that has another vocabulary
    /// or fewer positions than the served one.
    pub fn load_offset(&self, pair: &OffsetPair) -> Result<(), EngineError> {
        self.companions.load(pair, &self.config, &self.tokenizer)
    }

    /// The offset of a request with its models, for its [`Prompt`].
    ///
    /// # Errors
    ///
    /// [`EngineError::NotLoaded`] before [`Engine::load_offset`].
    pub fn shift(&self, offset: &Offset) -> Result<Shift, EngineError> {
        self.companions.shift(offset)
    }

    /// Most tokens of prompt and reply together.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// SHA-256 of the weights' files, which tells a model from others of its size; `None` for a model
    /// that came from memory. Reads all of them.
    ///
    /// # Errors
    ///
    /// [`EngineError::File`] when a file cannot be read any more.
    pub fn weights_sha256(&self) -> Result<Option<String>, EngineError> {
        self.folder.as_deref().map(weights::sha256).transpose()
    }

    /// Whether the worker runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Queues the tasks of one request, all or none. Results come through the tasks' own channels.
    ///
    /// # Errors
    ///
    /// [`EngineError::EmptyPrompt`], [`EngineError::TooLong`], [`EngineError::QueueFull`] or
    /// [`EngineError::Stopped`].
    pub fn submit(&self, prompt: &Prompt, tasks: Vec<Task>) -> Result<(), EngineError> {
        for task in &tasks {
            self.check(prompt.ids.len(), task)?;
        }
        let jobs = tasks.into_iter().map(|task| Job { prompt: prompt.clone(), task }).collect();
        self.send(jobs)
    }

    /// Queues a task that scores or reads, and waits for room in the queue.
    ///
    /// # Errors
    ///
    /// [`EngineError::EmptyPrompt`], [`EngineError::TooLong`], [`EngineError::Layer`] or
    /// [`EngineError::Stopped`].
    pub async fn submit_waiting(&self, prompt: Prompt, task: Task) -> Result<(), EngineError> {
        self.check(prompt.ids.len(), &task)?;
        self.jobs.send(vec![Job { prompt, task }]).await.map_err(|_closed| EngineError::Stopped)
    }

    /// Whether a prompt of so many tokens and a reply of so many fit the context.
    ///
    /// # Errors
    ///
    /// [`EngineError::EmptyPrompt`] or [`EngineError::TooLong`].
    pub fn fits(&self, prompt: usize, reply: usize) -> Result<(), EngineError> {
        if prompt == 0 {
            return Err(EngineError::EmptyPrompt);
        }
        let tokens = prompt.saturating_add(reply);
        if tokens > self.context {
            return Err(EngineError::TooLong { tokens, limit: self.context });
        }
        Ok(())
    }

    fn check(&self, prompt: usize, task: &Task) -> Result<(), EngineError> {
        let reply = match task {
            Task::Generate { max_tokens, .. } => *max_tokens,
            Task::Score { .. } | Task::Hidden { .. } => 0,
        };
        self.fits(prompt, reply)?;
        if let Task::Hidden { layer, .. } = task
            && !(1..=self.config.layers).contains(layer)
        {
            return Err(EngineError::Layer { layer: *layer, layers: self.config.layers });
        }
        Ok(())
    }

    fn send(&self, jobs: Vec<Job>) -> Result<(), EngineError> {
        self.jobs.try_send(jobs).map_err(|it| match it {
            TrySendError::Full(_) => EngineError::QueueFull { queued: self.queue },
            TrySendError::Closed(_) => EngineError::Stopped,
        })
    }
}
