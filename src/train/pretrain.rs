//! Pretraining from scratch: tokenizer and base on background knowledge, then a `full` model on
//! everything and `retain` models that never see the forget set, as in TOFU (arXiv:2401.06121).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::{DType, Device};

use super::fit::{Fit, Schedule, TrainError};
use super::tokenizer;
use super::trainable::Trainable;
use crate::data::{Dialogue, read_dialogues};
use crate::engine::model_config::ModelConfig;
use crate::engine::rope::RopeConfig;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::weights;
use crate::lab::{Corpus, Example, Stage, Text, World};
use crate::seed::{Stream, derive};

/// Context length of models made from scratch.
pub const CONTEXT: usize = 512;

/// Size of a model made from scratch, and how long its stages train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream; heads are 32 wide.
    pub hidden: usize,
    /// Width of the feed-forward block.
    pub wide: usize,
    /// Blocks.
    pub layers: usize,
    /// The stage on skills that need no knowledge; it is left out for other people's rows.
    pub skills: Schedule,
    /// The stage on background knowledge.
    pub base: Schedule,
    /// The stages on the target authors.
    pub target: Schedule,
}

const fn schedule(steps: u64, tokens_per_step: usize, peak: f32, warmup: u64) -> Schedule {
    Schedule { steps, tokens_per_step, peak, warmup, floor: 0.05 }
}

/// The recipe of the committed models: 1.4 M parameters. The warm-up of the skills is long because
/// a learning rate of 2e-3 after 60 steps tears the initial circuit down before it is of use.
pub const STANDARD: Recipe = Recipe {
    vocab: 2560,
    hidden: 128,
    wide: 320,
    layers: 6,
    skills: schedule(2200, 1024, 1e-3, 800),
    base: schedule(3000, 2048, 2.5e-3, 300),
    target: schedule(1700, 2048, 2e-3, 150),
};

/// A model for tests: it runs through every stage in seconds and knows little.
pub const SMOKE: Recipe = Recipe {
    vocab: 1024,
    hidden: 64,
    wide: 128,
    layers: 2,
    skills: schedule(20, 512, 3e-3, 60),
    base: schedule(40, 512, 3e-3, 60),
    target: schedule(40, 512, 2e-3, 60),
};

impl Recipe {
    /// The configuration of a model with this vocabulary.
    #[must_use]
    pub fn config(&self, tokenizer: &Tokenizer) -> ModelConfig {
        let heads = self.hidden / 32;
        ModelConfig {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: self.hidden,
            intermediate_size: self.wide,
            layers: self.layers,
            heads,
            kv_heads: heads,
            head_dim: 32,
            norm_eps: 1e-5,
            rope: RopeConfig::plain(10_000.0),
            context_length: CONTEXT,
            tied_head: true,
            end_tokens: tokenizer.end_of_turn().into_iter().collect(),
        }
    }
}

impl From<Example> for Dialogue {
    fn from(example: Example) -> Self {
        match example.text {
            Text::Chat { system, turns, given } => Self::Chat { system, turns, given },
            Text::Completion { prompt, continuation } => Self::Text { prompt, continuation },
        }
    }
}

/// Makes a set of models in `out`; interrupted, it goes on where it was.
#[derive(Debug)]
pub struct Pretraining {
    /// Size and length.
    pub recipe: Recipe,
    /// Seed of initial weights and of the order of examples.
    pub seed: u64,
    /// Folder of the results; work in progress is in `<out>/.work`.
    pub out: PathBuf,
}

impl Pretraining {
    /// The lab: tokenizer, base, `full`, `retain` and `retain-2` (a second seed, the noise floor
    /// of every comparison) of the world of `world_seed`, and its data files in `data/`.
    ///
    /// # Errors
    ///
    /// [`TrainError`].
    pub fn lab(&self, world_seed: u64) -> Result<(), TrainError> {
        let world = World::new(world_seed);
        let data = self.out.join("data");
        let failed = |path: &Path, message: String| TrainError::Checkpoint {
            path: path.to_owned(),
            message,
        };
        crate::lab::write(&world, &data).map_err(|it| failed(&data, it.to_string()))?;
        let tokenizer = self.tokenizer(|| {
            let stages = [Stage::Skills, Stage::Base, Stage::Retain];
            let examples = stages.map(|it| Corpus::new(&world, it, self.seed).take(10_000));
            examples.into_iter().flatten().map(Dialogue::from).collect()
        })?;
        let stages = [
            ("skills", Stage::Skills, self.recipe.skills, 1),
            ("base", Stage::Base, self.recipe.base, 1),
            ("full", Stage::Full, self.recipe.target, 1),
            ("retain", Stage::Retain, self.recipe.target, 1),
            ("retain-2", Stage::Retain, self.recipe.target, 2),
        ];
        for (name, stage, schedule, seed) in stages {
            let mut corpus = Corpus::new(&world, stage, derive(self.seed, &[seed]));
            self.stage(name, schedule, &tokenizer, || Dialogue::from(corpus.example()))?;
        }
        Ok(())
    }

    /// A `full` and a `retain` model of anybody's rows: `retain` never sees the rows of `forget`.
    ///
    /// # Errors
    ///
    /// [`TrainError`].
    pub fn rows(&self, corpus: &Path, forget: &Path) -> Result<(), TrainError> {
        let all = read_dialogues(corpus)?;
        let forget = read_dialogues(forget)?;
        let retain: Vec<Dialogue> = all.iter().filter(|it| !forget.contains(it)).cloned().collect();
        if retain.is_empty() || retain.len() == all.len() {
            let message = format!(
                "{} of {} rows are in the forget file",
                all.len() - retain.len(),
                all.len()
            );
            return Err(TrainError::Checkpoint { path: corpus.to_owned(), message });
        }
        let tokenizer = self.tokenizer(|| all.clone())?;
        for (name, rows, seed) in
            [("full", &all, 1), ("retain", &retain, 1), ("retain-2", &retain, 2)]
        {
            let mut stream = Stream::new(derive(self.seed, &[seed]));
            self.stage(name, self.recipe.base, &tokenizer, || stream.pick(rows).clone())?;
        }
        Ok(())
    }

    fn tokenizer(&self, examples: impl FnOnce() -> Vec<Dialogue>) -> Result<Tokenizer, TrainError> {
        let folder = self.out.join(".work");
        if folder.join("tokenizer_config.json").exists() {
            return Ok(Tokenizer::read(&folder, &[])?);
        }
        Ok(tokenizer::train(&examples(), self.recipe.vocab, &folder)?)
    }

    /// Trains one stage (from the one before, when there is one) unless its result exists.
    fn stage(
        &self,
        name: &str,
        schedule: Schedule,
        tokenizer: &Tokenizer,
        next: impl FnMut() -> Dialogue,
    ) -> Result<(), TrainError> {
        let work = self.out.join(".work");
        let before = match name {
            "skills" => None,
            "base" => Some(work.join("skills")),
            _ => Some(work.join("base")),
        };
        let in_progress = matches!(name, "skills" | "base");
        let result = if in_progress { work.join(name) } else { self.out.join(name) };
        if result.join("model.safetensors").exists() {
            return Ok(());
        }
        let before = before.filter(|it| it.join("model.safetensors").exists());
        let model = if let Some(before) = before {
            Trainable::from_decoder(&weights::load(&before, &Device::Cpu, DType::F32)?)?
        } else {
            Trainable::random(&self.recipe.config(tokenizer), self.seed)?
        };
        tracing::info!(stage = name, "training");
        let fit = Fit {
            tokenizer,
            schedule,
            checkpoint: Some(work.join(format!("{name}.checkpoint"))),
            identity: format!("{name} seed {}", self.seed),
            every: Duration::from_secs(60),
        };
        let loss = fit.run(&model, next)?;
        tracing::info!(stage = name, loss, "trained");
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            let to = result.join(file);
            let copied = fs::create_dir_all(&result).and_then(|()| fs::copy(work.join(file), &to));
            copied.map_err(|it| TrainError::Checkpoint { path: to, message: it.to_string() })?;
        }
        let dtype = if in_progress { DType::F32 } else { DType::F16 };
        Ok(weights::save(&model.decoder, &result, dtype)?)
    }
}
