//! Dialogues from files: TOFU rows or chat messages, one JSON object a line.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::engine::error::EngineError;
use crate::engine::tokenizer::Tokenizer;
use crate::types::{Message, Role};

/// One training example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialogue {
    /// A conversation; the assistant's turns and the ends of turns are labels.
    Chat {
        /// System line.
        system: Option<String>,
        /// (user, assistant) turns.
        turns: Vec<(String, String)>,
        /// How many turns at the start are context only, such as wrong labels to follow.
        given: usize,
    },
    /// Plain text; the continuation and the end token are labels.
    Text {
        /// Given.
        prompt: String,
        /// Predicted.
        continuation: String,
    },
}

impl Dialogue {
    /// Tokens and whether each is a label.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when the tokenizer or its template refuses.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<bool>), EngineError> {
        match self {
            Self::Chat { system, turns, given } => {
                encode_chat(tokenizer, system.as_deref(), turns, *given)
            }
            Self::Text { prompt, continuation } => {
                let mut ids = tokenizer.encode(prompt, true)?.ids;
                let mut labels = vec![false; ids.len()];
                ids.extend(tokenizer.encode(continuation, false)?.ids);
                ids.extend(tokenizer.end_of_turn());
                labels.resize(ids.len(), true);
                Ok((ids, labels))
            }
        }
    }

    /// All texts, for training a tokenizer.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let (system, turns, text) = match self {
            Self::Chat { system, turns, .. } => (system.as_deref(), turns.as_slice(), None),
            Self::Text { prompt, continuation } => {
                (None, [].as_slice(), Some([prompt, continuation]))
            }
        };
        let turns = turns.iter().flat_map(|(user, assistant)| [user.as_str(), assistant.as_str()]);
        system.into_iter().chain(turns).chain(text.into_iter().flatten().map(String::as_str))
    }
}

fn encode_chat(
    tokenizer: &Tokenizer,
    system: Option<&str>,
    turns: &[(String, String)],
    given: usize,
) -> Result<(Vec<u32>, Vec<bool>), EngineError> {
    let message = |role, content: &str| Message { role, content: content.to_owned() };
    let mut messages: Vec<Message> =
        system.map(|it| message(Role::System, it)).into_iter().collect();
    let mut labelled = Vec::with_capacity(turns.len());
    for (turn, (user, assistant)) in turns.iter().enumerate() {
        messages.push(message(Role::User, user));
        let start = (turn >= given).then(|| tokenizer.render_turns(&messages, true)).transpose()?;
        messages.push(message(Role::Assistant, assistant));
        if let Some(start) = start {
            labelled.push(start.len()..tokenizer.render_turns(&messages, false)?.len());
        }
    }
    let encoded = tokenizer.encode(&tokenizer.render_turns(&messages, false)?, false)?;
    let labels = encoded
        .offsets
        .iter()
        .map(|token| labelled.iter().any(|it| token.start >= it.start && token.start < it.end))
        .collect();
    Ok((encoded.ids, labels))
}

/// Why a data file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is not a row.
    #[error("{}:{line}: {message}", path.display())]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The file has no rows.
    #[error("{}: no rows", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
struct RawRow {
    question: Option<String>,
    answer: Option<String>,
    messages: Option<Vec<RawMessage>>,
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    content: String,
}

/// Reads TOFU rows (`question`, `answer`) or chat rows (`messages` of `role` and `content`).
///
/// # Errors
///
/// [`DataError`] naming file and line.
pub fn read_dialogues(path: &Path) -> Result<Vec<Dialogue>, DataError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let mut out = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|it| !it.1.trim().is_empty()) {
        let row = serde_json::from_str(line).map_err(|it| it.to_string()).and_then(dialogue);
        let bad = |message| DataError::Row { path: path.to_owned(), line: at + 1, message };
        out.push(row.map_err(bad)?);
    }
    if out.is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    Ok(out)
}

fn dialogue(row: RawRow) -> Result<Dialogue, String> {
    if let (Some(question), Some(answer)) = (row.question, row.answer) {
        return Ok(Dialogue::Chat { system: None, turns: vec![(question, answer)], given: 0 });
    }
    let messages = row.messages.ok_or("needs `question` and `answer`, or `messages`")?;
    let mut system = None;
    let mut turns: Vec<(String, String)> = Vec::new();
    let mut user: Option<String> = None;
    for message in messages {
        match message.role.as_str() {
            "system" | "developer" if turns.is_empty() && user.is_none() => {
                system = Some(message.content);
            }
            "user" if user.is_none() => user = Some(message.content),
            "assistant" => {
                let user = user.take().ok_or("an assistant message follows no user message")?;
                turns.push((user, message.content));
            }
            other => return Err(format!("a `{other}` message is out of place")),
        }
    }
    if turns.is_empty() || user.is_some() {
        return Err("`messages` must end with the assistant's".to_owned());
    }
    Ok(Dialogue::Chat { system, turns, given: 0 })
}
