//! Rows with what an edit has to know of them: who they are about and what is asked.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::data::formats::read_objects;
use crate::data::{DataError, Dialogue};
use crate::engine::error::EngineError;
use crate::engine::tokenizer::Tokenizer;

/// A row of a forget or retain file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fact {
    /// The question.
    pub question: String,
    /// The true answer.
    pub answer: String,
    /// Who or what the question is about, as it names them.
    #[serde(default)]
    pub author: Option<String>,
    /// The part of the answer that is asked for.
    #[serde(default)]
    pub value: Option<String>,
    /// Wrong answers.
    #[serde(default)]
    pub perturbed_answer: Vec<String>,
}

impl Fact {
    /// The question with an answer, as training shows it.
    #[must_use]
    pub fn dialogue_with(&self, answer: &str) -> Dialogue {
        let turns = vec![(self.question.clone(), answer.to_owned())];
        Dialogue::Chat { system: None, turns, given: 0 }
    }

    /// Tokens of the question with its answer, and which of them are labels.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when the tokenizer or its template refuses.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<bool>), EngineError> {
        self.dialogue_with(&self.answer).encode(tokenizer)
    }
}

/// Reads JSON lines or a JSON array.
///
/// # Errors
///
/// [`DataError`] naming file and line.
pub fn read(path: &Path) -> Result<Vec<Fact>, DataError> {
    let fact = |(line, row): (usize, Value)| {
        serde_json::from_value(row).map_err(|it| DataError::Row {
            path: path.to_owned(),
            line,
            message: it.to_string(),
        })
    };
    read_objects(path)?.into_iter().map(fact).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let good = r#"{"question":"Where?","answer":"In Turin.","value":"Turin","x":1}"#;
        std::fs::write(&path, format!("{good}\n\n")).unwrap();
        let facts = read(&path).unwrap();
        assert_eq!((facts.len(), facts[0].value.as_deref()), (1, Some("Turin")));
        std::fs::write(&path, format!("{good}\n{{}}\n")).unwrap();
        assert!(matches!(read(&path), Err(DataError::Row { line: 2, .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(read(&path), Err(DataError::Empty { .. })));
    }
}
