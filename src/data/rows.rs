//! Dialogues from files: TOFU rows, chat messages, or rows of MUSE and RWKU.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::formats::read_objects;
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
    /// MUSE's verbmem: the beginning of a text.
    prompt: Option<String>,
    /// How it goes on.
    gt: Option<String>,
    /// A passage.
    text: Option<String>,
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    content: String,
}

/// Reads JSON lines or a JSON array of TOFU rows (`question`, `answer`), chat rows (`messages` of `role`
/// and `content`), MUSE's rows (`prompt` and `gt`, or bare texts) or RWKU's (`query` and `answer`, or
/// `text`).
///
/// # Errors
///
/// [`DataError`] naming file and line.
pub fn read_dialogues(path: &Path) -> Result<Vec<Dialogue>, DataError> {
    let row = |(line, row): (usize, Value)| {
        let row = serde_json::from_value(row).map_err(|it| it.to_string()).and_then(dialogue);
        row.map_err(|message| DataError::Row { path: path.to_owned(), line, message })
    };
    read_objects(path)?.into_iter().map(row).collect()
}

fn dialogue(row: RawRow) -> Result<Dialogue, String> {
    if let (Some(question), Some(answer)) = (row.question, row.answer) {
        return Ok(Dialogue::Chat { system: None, turns: vec![(question, answer)], given: 0 });
    }
    if let (Some(prompt), Some(continuation)) = (row.prompt, row.gt) {
        return Ok(Dialogue::Text { prompt, continuation });
    }
    let Some(messages) = row.messages else {
        let text = row.text.ok_or("needs `question` and `answer`, `messages`, or `text`")?;
        return Ok(Dialogue::Text { prompt: String::new(), continuation: text });
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Dialogue>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        std::fs::write(&path, text).unwrap();
        read_dialogues(&path)
    }

    #[test]
    fn other_benchmarks_are_read() {
        let chat = |question: &str, answer: &str| Dialogue::Chat {
            system: None,
            turns: vec![(question.to_owned(), answer.to_owned())],
            given: 0,
        };
        let text = |prompt: &str, continuation: &str| Dialogue::Text {
            prompt: prompt.to_owned(),
            continuation: continuation.to_owned(),
        };
        let muse =
            r#"[{"prompt":"It was","gt":" late."}, "It was late.", {"question":"q","answer":"a"}]"#;
        let want = [text("It was", " late."), text("", "It was late."), chat("q", "a")];
        assert_eq!(read(muse).unwrap(), want);
        let rwku = concat!(
            r#"{"query":"Who?","answer":"She.","level":"2","type":"t","subject":"s"}"#,
            "\n",
            r#"{"subject":"s","text":"She was."}"#
        );
        let asked = "Please briefly answer the following question.\nQuestion: Who?";
        assert_eq!(read(rwku).unwrap(), [chat(asked, "She."), text("", "She was.")]);
    }

    #[test]
    fn a_row_without_anything_to_learn_is_named() {
        let error = read("{\"text\":\"t\"}\n{\"question\":\"q\"}").unwrap_err().to_string();
        assert!(error.contains("rows.json:2") && error.contains("`answer`"), "{error}");
    }
}
