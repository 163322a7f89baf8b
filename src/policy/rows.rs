//! The files of rows that a policy names: JSON objects, one a line.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::Example;
use crate::text::normalise;

/// What is used of a row; other keys are of no interest.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    question: Option<String>,
    answer: Option<String>,
    text: Option<String>,
    #[serde(default)]
    perturbed_answer: Vec<String>,
    #[serde(default)]
    values: Vec<String>,
}

impl Row {
    /// What somebody would ask: a row of the store.
    pub(super) fn asked(self) -> Result<String, String> {
        filled(self.question.or(self.text), "`question` or `text`")
    }

    /// What must not be copied: `text`, else the answer, which the model would give.
    pub(super) fn copied(self) -> Result<String, String> {
        filled(self.text.or(self.answer), "`text` or `answer`")
    }

    /// A question with its answers, as TOFU's files have them.
    pub(super) fn example(self) -> Result<Example, String> {
        let question = filled(self.question, "`question`")?;
        let answer = filled(self.answer, "`answer`")?;
        let mut wrong = self.perturbed_answer;
        wrong.retain(|it| it.trim() != answer.trim() && !it.trim().is_empty());
        Ok(Example { question, answer, wrong })
    }

    /// The values of a kind.
    pub(super) fn kind(self) -> Result<Vec<String>, String> {
        if let Some(it) = self.values.iter().find(|it| letters(it) < FEWEST_LETTERS) {
            let why = "has fewer than three letters and digits, which text has for other reasons";
            return Err(format!("`{it}` {why}; remove it"));
        }
        let different: HashSet<String> =
            self.values.iter().map(|it| normalise(it.trim()).text).collect();
        if different.len() < 2 {
            return Err(
                "needs `values`, a list of two or more that differ and can stand for each other"
                    .to_owned(),
            );
        }
        Ok(self.values)
    }
}

/// Letters and digits from which on a value is one.
const FEWEST_LETTERS: usize = 3;

fn letters(text: &str) -> usize {
    text.chars().filter(|it| it.is_alphanumeric()).count()
}

fn filled(text: Option<String>, what: &str) -> Result<String, String> {
    text.filter(|it| !it.trim().is_empty()).ok_or_else(|| format!("needs {what} with some text"))
}

/// A file's rows and its bytes. The message of an error names the file and the line.
pub(super) fn read<T>(
    path: &Path,
    of: impl Fn(Row) -> Result<T, String>,
) -> Result<(Vec<T>, String), String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        format!("`{shown}` cannot be read ({error}); name a file of JSON lines")
    })?;
    let mut rows = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|it| !it.1.trim().is_empty()) {
        let row = serde_json::from_str::<Row>(line).map_err(|it| it.to_string()).and_then(&of);
        rows.push(row.map_err(|it| format!("`{shown}` line {}: {it}", at + 1))?);
    }
    if rows.is_empty() {
        return Err(format!("`{shown}` has no rows; add one"));
    }
    Ok((rows, text))
}
