//! Tokenizer and chat template of a model folder, and text from tokens as they arrive.

use std::ops::Range;
use std::path::Path;

use minijinja::{Environment, context};
use serde::Deserialize;

use super::error::EngineError;
use crate::types::Message;

/// Everything between text and token ids.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    template: Option<Environment<'static>>,
    bos: Option<String>,
    eos: Option<String>,
    end_tokens: Vec<u32>,
    special: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct RawConfig {
    chat_template: Option<String>,
    bos_token: Option<TokenText>,
    eos_token: Option<TokenText>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenText {
    Plain(String),
    Added { content: String },
}

impl TokenText {
    fn into_text(self) -> String {
        match self {
            Self::Plain(text) | Self::Added { content: text } => text,
        }
    }
}

/// A tokenised prompt. Offsets are bytes of `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Where each token came from in the rendered text.
    pub offsets: Vec<Range<usize>>,
    /// Where each text of the input lies in the rendered text, without whitespace around it.
    pub texts: Vec<Range<usize>>,
    /// Bytes of whitespace at the beginning of each text of the input.
    pub leads: Vec<usize>,
}

impl Encoded {
    /// Tokens that overlap a byte range of the rendered text.
    #[must_use]
    pub fn tokens_in(&self, span: &Range<usize>) -> Vec<usize> {
        let first = self.offsets.partition_point(|it| it.end <= span.start);
        let end = self.offsets.partition_point(|it| it.start < span.end);
        (first..end).filter(|it| !self.offsets[*it].is_empty()).collect()
    }

    /// Where bytes of a text of the input lie in the rendered text.
    #[must_use]
    pub fn rendered(&self, text: usize, span: &Range<usize>) -> Option<Range<usize>> {
        let (at, lead) = (self.texts.get(text)?, self.leads.get(text)?);
        let place = |byte: usize| (at.start + byte.saturating_sub(*lead)).min(at.end);
        Some(place(span.start)..place(span.end))
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` and `tokenizer_config.json` (with `chat_template`, or the template in
    /// `chat_template.jinja`) of a folder. `end_tokens` are those of `config.json`.
    ///
    /// # Errors
    ///
    /// [`EngineError::File`] naming the file.
    pub fn read(folder: &Path, end_tokens: &[u32]) -> Result<Self, EngineError> {
        let path = folder.join("tokenizer.json");
        let inner = tokenizers::Tokenizer::from_file(&path)
            .map_err(|it| EngineError::file(&path, it.to_string()))?;
        let path = folder.join("tokenizer_config.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|it| EngineError::file(&path, it.to_string()))?;
        let raw: RawConfig =
            serde_json::from_str(&text).map_err(|it| EngineError::file(&path, it.to_string()))?;
        let beside = std::fs::read_to_string(folder.join("chat_template.jinja")).ok();
        let eos = raw.eos_token.map(TokenText::into_text);
        let mut tokenizer = Self::new(inner, raw.chat_template.or(beside), eos)
            .map_err(|it| EngineError::file(&path, it.to_string()))?;
        tokenizer.bos = raw.bos_token.map(TokenText::into_text);
        tokenizer.end_tokens.extend(end_tokens);
        tokenizer.end_tokens.sort_unstable();
        tokenizer.end_tokens.dedup();
        Ok(tokenizer)
    }

    /// A tokenizer with a chat template and the text of its end-of-turn token.
    ///
    /// # Errors
    ///
    /// [`EngineError::Template`] when the template does not parse.
    pub fn new(
        mut inner: tokenizers::Tokenizer,
        template: Option<String>,
        eos: Option<String>,
    ) -> Result<Self, EngineError> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|it| EngineError::Tokenizer(it.to_string()))?;
        let template = template.map(environment).transpose()?;
        let end_tokens = eos.iter().filter_map(|it| inner.token_to_id(it)).collect();
        let special = inner
            .get_added_tokens_decoder()
            .into_values()
            .filter(|it| it.special)
            .map(|it| it.content)
            .collect();
        Ok(Self { inner, template, bos: None, eos, end_tokens, special })
    }

    /// Number of ids.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The first id that is not the same token in both; `None` for one and the same vocabulary.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<u32> {
        let ids = self.vocab_size().max(other.vocab_size());
        let differs = |id: &u32| self.inner.id_to_token(*id) != other.inner.id_to_token(*id);
        (0u32..).take(ids).find(differs)
    }

    /// Tokens that end a turn.
    #[must_use]
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// The token that the template puts after an assistant's turn.
    #[must_use]
    pub fn end_of_turn(&self) -> Option<u32> {
        self.eos
            .as_ref()
            .and_then(|it| self.inner.token_to_id(it))
            .or(self.end_tokens.first().copied())
    }

    /// Client text with the spelling of control tokens made harmless, byte for byte.
    #[must_use]
    pub fn harmless(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for special in &self.special {
            if special.is_ascii() && !special.is_empty() && out.contains(special.as_str()) {
                let rest: String = special.chars().skip(1).collect();
                out = out.replace(special.as_str(), &format!("({rest}"));
            }
        }
        out
    }

    /// Renders a conversation by the chat template. With a last assistant message the result stops
    /// inside that turn, so that the model continues it; else it ends where the reply begins.
    ///
    /// # Errors
    ///
    /// [`EngineError::Template`] when the model has no template or the template refuses.
    pub fn render(&self, messages: &[Message]) -> Result<String, EngineError> {
        use crate::types::Role;
        let prefill = messages.last().filter(|it| it.role == Role::Assistant);
        let turns = &messages[..messages.len() - usize::from(prefill.is_some())];
        let mut text = self.render_turns(turns, true)?;
        if let Some(prefill) = prefill {
            text.push_str(&self.harmless(&prefill.content));
        }
        Ok(text)
    }

    /// Renders whole turns.
    ///
    /// # Errors
    ///
    /// [`EngineError::Template`] when the model has no template or the template refuses.
    pub fn render_turns(
        &self,
        turns: &[Message],
        generation_prompt: bool,
    ) -> Result<String, EngineError> {
        let Some(environment) = &self.template else {
            let message = "the model has no chat template; use /v1/completions".to_owned();
            return Err(EngineError::Template(message));
        };
        let messages: Vec<_> = turns
            .iter()
            .map(|it| context! { role => it.role.as_str(), content => self.harmless(&it.content) })
            .collect();
        let values = context! {
            messages,
            add_generation_prompt => generation_prompt,
            bos_token => self.bos.as_deref().unwrap_or(""),
            eos_token => self.eos.as_deref().unwrap_or(""),
        };
        let template = environment.get_template("chat").expect("the template was added");
        template.render(values).map_err(|it| EngineError::Template(it.to_string()))
    }

    /// Tokenises a conversation as [`Tokenizer::render`] renders it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Template`] or [`EngineError::Tokenizer`].
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Encoded, EngineError> {
        let text = self.render(messages)?;
        let mut encoded = self.encode(&text, false)?;
        encoded.texts.clear();
        encoded.leads.clear();
        let mut from = 0;
        for message in messages {
            let content = self.harmless(&message.content);
            // Templates put contents in order and at most trim them.
            let trimmed = content.trim();
            let at =
                text.get(from..).and_then(|it| it.find(trimmed)).ok_or(EngineError::Span)? + from;
            let lead = content.len() - content.trim_start().len();
            encoded.texts.push(at..at + trimmed.len());
            encoded.leads.push(lead);
            from = at + trimmed.len();
        }
        Ok(encoded)
    }

    /// Tokenises text; `special` adds the tokenizer's own beginning token.
    ///
    /// # Errors
    ///
    /// [`EngineError::Tokenizer`].
    pub fn encode(&self, text: &str, special: bool) -> Result<Encoded, EngineError> {
        let encoding = self
            .inner
            .encode(text, special)
            .map_err(|it| EngineError::Tokenizer(it.to_string()))?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            offsets: encoding.get_offsets().iter().map(|it| it.0..it.1).collect(),
            texts: std::iter::once(0..text.len()).collect(),
            leads: vec![0],
        })
    }

    /// Text of ids, control tokens left out.
    ///
    /// # Errors
    ///
    /// [`EngineError::Tokenizer`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, EngineError> {
        self.inner.decode(ids, true).map_err(|it| EngineError::Tokenizer(it.to_string()))
    }

    /// Whether an id is a control token.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some_and(|it| self.special.contains(&it))
    }

    /// The exact bytes of one token.
    #[must_use]
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else { return Vec::new() };
        if self.special.contains(&token) {
            return Vec::new();
        }
        if let Some(hex) = token.strip_prefix("<0x").and_then(|it| it.strip_suffix('>')) {
            return u8::from_str_radix(hex, 16)
                .map_or_else(|_| token.clone().into_bytes(), |it| vec![it]);
        }
        byte_level(&token).unwrap_or_else(|| token.replace('\u{2581}', " ").into_bytes())
    }

    /// Writes `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Tokenizer`] when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), EngineError> {
        self.inner.save(path, false).map_err(|it| EngineError::Tokenizer(it.to_string()))
    }
}

fn environment(template: String) -> Result<Environment<'static>, EngineError> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message))
        },
    );
    environment
        .add_template_owned("chat", template)
        .map_err(|it| EngineError::Template(it.to_string()))?;
    Ok(environment)
}

/// Bytes of a token in GPT-2's byte-to-character alphabet; `None` when a character is not in it.
fn byte_level(token: &str) -> Option<Vec<u8>> {
    token
        .chars()
        .map(|it| match it as u32 {
            code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
            // The 68 bytes without a printable character follow from U+0100 in byte order.
            code @ 0x100..=0x143 => {
                let hidden = (0u8..=0x20).chain(0x7F..=0xA0).chain(std::iter::once(0xAD));
                hidden.into_iter().nth((code - 0x100) as usize)
            }
            _ => None,
        })
        .collect()
}

/// Text from tokens as they arrive, whole characters only.
#[derive(Debug, Default)]
pub struct TextStream {
    ids: Vec<u32>,
    /// Tokens before this one only give context to the decoder.
    context: usize,
    /// Tokens before this one have been turned into text.
    read: usize,
}

impl TextStream {
    /// The text that follows `prompt`: its last tokens, back to a control token, give the decoder
    /// context, so that a space between prompt and reply is neither lost nor invented.
    #[must_use]
    pub fn after(tokenizer: &Tokenizer, prompt: &[u32]) -> Self {
        let ids: Vec<u32> = prompt
            .iter()
            .rev()
            .take(4)
            .take_while(|it| !tokenizer.is_special(**it))
            .copied()
            .collect();
        let ids: Vec<u32> = ids.into_iter().rev().collect();
        Self { context: 0, read: ids.len(), ids }
    }

    /// Adds a token and returns the text that is now complete.
    ///
    /// # Errors
    ///
    /// [`EngineError::Tokenizer`].
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, EngineError> {
        self.ids.push(id);
        self.advance(tokenizer, false)
    }

    /// The rest, incomplete bytes replaced by U+FFFD.
    ///
    /// # Errors
    ///
    /// [`EngineError::Tokenizer`].
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, EngineError> {
        self.advance(tokenizer, true)
    }

    fn advance(&mut self, tokenizer: &Tokenizer, flush: bool) -> Result<String, EngineError> {
        let before = tokenizer.decode(&self.ids[self.context..self.read])?;
        let after = tokenizer.decode(&self.ids[self.context..])?;
        // An incomplete character decodes to U+FFFD; a literal one in the text is followed by more
        // text soon, and is at most four tokens of bytes away from being let through.
        let incomplete = after.ends_with('\u{FFFD}') && self.ids.len() - self.read < 4;
        if after.len() <= before.len() || (incomplete && !flush) {
            return Ok(String::new());
        }
        let text = after.get(before.len()..).unwrap_or_default().to_owned();
        self.context = self.read;
        self.read = self.ids.len();
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A template that trims moves a text's bytes by the whitespace that it takes away.
    #[test]
    fn spans_of_trimmed_texts_lie_where_their_letters_are() {
        let encoded = Encoded {
            ids: vec![0, 1, 2],
            offsets: vec![0..3, 3..6, 6..9],
            texts: std::iter::once(3..9).collect(),
            leads: vec![5000],
        };
        assert_eq!(encoded.rendered(0, &(5003..5006)), Some(6..9));
        assert_eq!(encoded.rendered(0, &(4990..5001)), Some(3..4));
        assert_eq!(encoded.rendered(1, &(0..1)), None);
        assert_eq!(encoded.tokens_in(&(3..4)), [1]);
        assert_eq!(encoded.tokens_in(&(2..7)), [0, 1, 2]);
        assert!(encoded.tokens_in(&(9..12)).is_empty());
    }
}
