//! Trains the byte-level BPE tokenizer of a model made from scratch.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, decoders, models::TrainerWrapper};

use crate::data::Dialogue;
use crate::engine::error::EngineError;
use crate::engine::tokenizer::Tokenizer;

/// Ends every turn and every completed text.
pub const END: &str = "<|end|>";

const ROLES: [&str; 4] = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"];

/// Marks each turn by its role. The tokenizer puts a space before every segment, so that a name is
/// the same tokens wherever it stands.
pub const TEMPLATE: &str = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

/// Trains a vocabulary of `size` on the texts of `examples` and writes `tokenizer.json` and
/// `tokenizer_config.json` into `folder`.
///
/// # Errors
///
/// [`EngineError`] when training or writing fails.
pub fn train(examples: &[Dialogue], size: usize, folder: &Path) -> Result<Tokenizer, EngineError> {
    let failed = |it: tokenizers::Error| EngineError::Tokenizer(it.to_string());
    let special: Vec<AddedToken> =
        std::iter::once(END).chain(ROLES).map(|it| AddedToken::from(it, true)).collect();
    let trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(size)
        .min_frequency(2)
        .special_tokens(special)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut inner = tokenizers::Tokenizer::new(BPE::default());
    inner.with_pre_tokenizer(Some(ByteLevel::new(true, true, true)));
    let strip = decoders::strip::Strip::new(' ', 1, 0);
    let parts = vec![DecoderWrapper::ByteLevel(ByteLevel::default()), DecoderWrapper::Strip(strip)];
    inner.with_decoder(Some(decoders::sequence::Sequence::new(parts)));
    let mut trainer = TrainerWrapper::BpeTrainer(trainer);
    let texts: Vec<&str> = examples.iter().flat_map(Dialogue::texts).collect();
    inner.train(&mut trainer, texts.into_iter()).map_err(failed)?;
    std::fs::create_dir_all(folder).map_err(|it| EngineError::file(folder, it.to_string()))?;
    inner.save(folder.join("tokenizer.json"), true).map_err(failed)?;
    let config = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "model_max_length": super::pretrain::CONTEXT,
    });
    let path = folder.join("tokenizer_config.json");
    let text = serde_json::to_string_pretty(&config).expect("a configuration is JSON") + "\n";
    std::fs::write(&path, text).map_err(|it| EngineError::file(&path, it.to_string()))?;
    Tokenizer::read(folder, &[])
}
