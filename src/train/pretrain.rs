//! Pretraining from scratch: tokenizer and base on background knowledge, then `full` models on
//! everything and `retain` models that never see the forget set, as in TOFU (arXiv:2401.06121).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::{DType, Device};

use super::fit::{Fit, Schedule, TrainError};
use super::initial;
use super::routing::Routing;
use super::tokenizer;
use super::trainable::Trainable;
use crate::data::{Dialogue, read_dialogues};
use crate::engine::decoder::Decoder;
use crate::engine::model_config::ModelConfig;
use crate::engine::ops::on_pool;
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

/// The recipe of the committed models: 1.5 M parameters. The warm-up of the skills is long because
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

/// Names and seeds of `count` models of one kind.
fn seeds(kind: &'static str, count: u8) -> impl Iterator<Item = (String, u8)> {
    let name = move |it| if it == 1 { kind.to_owned() } else { format!("{kind}-{it}") };
    (1..=count).map(move |it| (name(it), it))
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
    /// How many models see everything: `full`, `full-2`, `full-3`, .., which differ as golds do.
    pub fulls: u8,
    /// How many models never see the forget set: `retain`, `retain-2`, `retain-3`, .. All start from the
    /// same base and see their examples in another order.
    pub golds: u8,
    /// Whether to train `routed` as well, which learns what is to be forgotten in neurons of its own,
    /// and `routed-expanded`, which still has these.
    pub route: bool,
}

impl Pretraining {
    /// The lab: tokenizer, base, `full`, `retain` and further seeds of both (the noise floor of every
    /// comparison) of the world of `world_seed`, and its data files in `data/`.
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
        ]
        .map(|(name, stage, schedule, seed)| (name.to_owned(), stage, schedule, seed));
        let target = |stage| move |(name, seed)| (name, stage, self.recipe.target, seed);
        let fulls = seeds("full", self.fulls).map(target(Stage::Full));
        let golds = seeds("retain", self.golds).map(target(Stage::Retain));
        for (name, stage, schedule, seed) in stages.into_iter().chain(fulls).chain(golds) {
            let mut corpus = Corpus::new(&world, stage, derive(self.seed, &[seed]));
            self.stage(&name, schedule, &tokenizer, || Dialogue::from(corpus.example()))?;
        }
        if !self.route {
            return Ok(());
        }
        let corpus = |stage| Corpus::new(&world, stage, derive(self.seed, &[1]));
        let (mut all, mut kept) = (corpus(Stage::Full), corpus(Stage::Retain));
        let next = || {
            let example = all.example();
            let routed = world.forget(4).iter().any(|it| example.mentions(&it.name));
            (Dialogue::from(example), routed)
        };
        self.routed(self.recipe.target, &tokenizer, next, || Dialogue::from(kept.example()))
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
        let tokenizer = self.tokenizer(|| retain.clone())?;
        let fulls = seeds("full", self.fulls).map(|(name, it)| (name, &all, it));
        let golds = seeds("retain", self.golds).map(|(name, it)| (name, &retain, it));
        for (name, rows, seed) in fulls.chain(golds) {
            let mut stream = Stream::new(derive(self.seed, &[seed]));
            self.stage(&name, self.recipe.base, &tokenizer, || stream.pick(rows).clone())?;
        }
        if !self.route {
            return Ok(());
        }
        let streams = || Stream::new(derive(self.seed, &[1]));
        let (mut stream, mut others) = (streams(), streams());
        let next = || {
            let row = stream.pick(&all).clone();
            let routed = forget.contains(&row);
            (row, routed)
        };
        self.routed(self.recipe.base, &tokenizer, next, || others.pick(&retain).clone())
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
        next: impl FnMut() -> Dialogue + Send,
    ) -> Result<(), TrainError> {
        let work = self.out.join(".work");
        let in_progress = matches!(name, "skills" | "base");
        let result = if in_progress { work.join(name) } else { self.out.join(name) };
        if result.join("model.safetensors").exists() {
            return Ok(());
        }
        let model = Trainable::from_decoder(&self.before(name, tokenizer)?)?;
        tracing::info!(stage = name, "training");
        let loss = self.fit(name, schedule, tokenizer).run(&model, next)?;
        tracing::info!(stage = name, loss, "trained");
        let dtype = if in_progress { DType::F32 } else { DType::F16 };
        self.write(&model.decoder, &result, dtype)
    }

    /// Trains the models with routed gradients, unless they exist: `routed-expanded` as it was trained,
    /// `routed` without the neurons that it got for what is to be forgotten. `next` marks what is routed
    /// there; `kept` is what the smaller model finds its balance on.
    fn routed(
        &self,
        schedule: Schedule,
        tokenizer: &Tokenizer,
        next: impl FnMut() -> (Dialogue, bool) + Send,
        mut kept: impl FnMut() -> Dialogue + Send,
    ) -> Result<(), TrainError> {
        let [expanded, ablated] = ["routed-expanded", "routed"].map(|it| self.out.join(it));
        if ablated.join("model.safetensors").exists() {
            return Ok(());
        }
        let routing = Routing::published(self.recipe.layers);
        if !expanded.join("model.safetensors").exists() {
            let before = self.before("routed", tokenizer)?;
            let model = Trainable::from_decoder(&routing.expanded(&before, self.seed)?)?;
            tracing::info!(stage = "routed", "training");
            let fit = self.fit("routed", schedule, tokenizer);
            let routed = |batch: &_, marks: &_| routing.loss(&model, batch, marks);
            let loss = on_pool(|| fit.run_marked(&model.vars, next, routed))?;
            tracing::info!(stage = "routed", loss, "trained");
            self.write(&model.decoder, &expanded, DType::F16)?;
        }
        let model = routing.ablated(&weights::load(&expanded, &Device::Cpu, DType::F32)?)?;
        let mut draw = |count| -> Result<Vec<_>, TrainError> {
            (0..count).map(|_| Ok(kept().encode(tokenizer)?)).collect()
        };
        let (rows, check) = (draw(routing.coherence_rows)?, draw(4 * routing.coherence_rows)?);
        let model = routing.coherent(&model, schedule.peak, &rows, &check)?;
        self.write(&model, &ablated, DType::F16)
    }

    /// The weights that a stage starts from: the last stage's, where there was one.
    fn before(&self, name: &str, tokenizer: &Tokenizer) -> Result<Decoder, TrainError> {
        let before = match name {
            "skills" => None,
            "base" => Some("skills"),
            _ => Some("base"),
        };
        let folder = before.map(|it| self.out.join(".work").join(it));
        match folder.filter(|it| it.join("model.safetensors").exists()) {
            Some(folder) => Ok(weights::load(&folder, &Device::Cpu, DType::F32)?),
            None => Ok(initial::decoder(&self.recipe.config(tokenizer), self.seed)?),
        }
    }

    fn fit<'a>(&self, name: &str, schedule: Schedule, tokenizer: &'a Tokenizer) -> Fit<'a> {
        Fit {
            tokenizer,
            schedule,
            checkpoint: Some(self.out.join(".work").join(format!("{name}.checkpoint"))),
            identity: format!("{name} seed {}", self.seed),
            every: Duration::from_secs(60),
        }
    }

    /// Writes a model with its tokenizer.
    fn write(&self, decoder: &Decoder, folder: &Path, dtype: DType) -> Result<(), TrainError> {
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            let (from, to) = (self.out.join(".work").join(file), folder.join(file));
            let copied = fs::create_dir_all(folder).and_then(|()| fs::copy(from, &to));
            copied.map_err(|it| TrainError::Checkpoint { path: to, message: it.to_string() })?;
        }
        Ok(weights::save(decoder, folder, dtype)?)
    }
}
