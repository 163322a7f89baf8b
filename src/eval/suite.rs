//! TOFU's row scores of a backend, guarded or not: teacher-forced losses and a greedy reply.

use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::rouge::rouge_l;
use super::tofu::RowScores;
use crate::backend::{Backend, BackendError};
use crate::data::DataError;
use crate::data::formats::read_objects;
use crate::types::{Input, Message, ReplyEvent, Request, Role};

/// Most tokens of a greedy reply, as in TOFU's code.
const REPLY_TOKENS: usize = 200;

/// A row of TOFU's `*_perturbed` files, or of the lab's, which also mark the value asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Row {
    /// The question.
    pub question: String,
    /// Other wordings of it, which are asked too where a value is marked.
    #[serde(default)]
    pub held_out_questions: Vec<String>,
    /// The true answer.
    pub answer: String,
    /// The true answer in other words.
    #[serde(default)]
    pub paraphrased_answer: Option<String>,
    /// Wrong answers; none in plain questions and answers.
    #[serde(default)]
    pub perturbed_answer: Vec<String>,
    /// The part of the answer that is asked for.
    #[serde(default)]
    pub value: Option<String>,
    /// Whether the answer repeats the name in the question.
    #[serde(default)]
    pub restates_name: bool,
}

/// Why a model could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The backend failed.
    #[error("the model failed")]
    Backend(#[from] BackendError),
    /// A data file cannot be used.
    #[error("{}:{line}: {message}", path.display())]
    Data {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1; 0 for the whole file.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A result cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl From<DataError> for EvalError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Read { path, source } => {
                Self::Data { path, line: 0, message: source.to_string() }
            }
            DataError::Row { path, line, message } => Self::Data { path, line, message },
            DataError::Empty { path } => {
                Self::Data { path, line: 0, message: "no rows".to_owned() }
            }
        }
    }
}

/// Reads JSON lines or a JSON array: TOFU's rows, plain `question` and `answer`, RWKU's `query`, or
/// MUSE's `prompt` and `gt`, whose beginning is then what is asked.
///
/// # Errors
///
/// [`EvalError::Data`] naming file and line.
pub fn read_rows(path: &Path) -> Result<Vec<Row>, EvalError> {
    let row = |(line, mut row): (usize, Value)| {
        if let Some(row) = row.as_object_mut().filter(|it| !it.contains_key("question")) {
            renamed(row, "prompt", "question");
            renamed(row, "gt", "answer");
        }
        let bad = |it: serde_json::Error| EvalError::Data {
            path: path.to_owned(),
            line,
            message: it.to_string(),
        };
        serde_json::from_value(row).map_err(bad)
    };
    read_objects(path)?.into_iter().map(row).collect()
}

fn renamed(row: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = row.remove(from) {
        row.insert(to.to_owned(), value);
    }
}

/// A system under measurement.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Guarded or not.
    pub backend: &'a dyn Backend,
    /// The model id to ask for.
    pub model: &'a str,
}

impl Subject<'_> {
    /// Scores rows in their order, sixteen at a time. `paraphrased` uses the paraphrased answers, as
    /// TOFU does on forget and retain rows; elsewhere the answer itself stands in for them. Losses of
    /// a backend without [scoring](crate::backend::Capabilities::scoring) are NaN.
    ///
    /// # Errors
    ///
    /// [`EvalError::Backend`].
    pub async fn score_rows(
        self,
        rows: &[Row],
        paraphrased: bool,
        mut done: impl FnMut(),
    ) -> Result<Vec<RowScores>, EvalError> {
        let scores = rows.iter().map(|it| self.score_row(it, paraphrased));
        let stream = futures::stream::iter(scores).buffered(16);
        Ok(stream.inspect_ok(|_| done()).try_collect().await?)
    }

    async fn score_row(self, row: &Row, paraphrased: bool) -> Result<RowScores, BackendError> {
        let paraphrase = row.paraphrased_answer.as_ref().filter(|_| paraphrased);
        let mut perturbed_nll = Vec::with_capacity(row.perturbed_answer.len());
        for answer in &row.perturbed_answer {
            perturbed_nll.push(self.nll(&row.question, answer).await?);
        }
        let reply = self.reply(user(&row.question)).await?;
        Ok(RowScores {
            nll: self.nll(&row.question, &row.answer).await?,
            paraphrased_nll: match paraphrase {
                Some(answer) => Some(self.nll(&row.question, answer).await?),
                None => None,
            },
            perturbed_nll,
            rouge_l_recall: rouge_l(&row.answer, &reply).recall,
            value_correct: self.values_correct(row, &reply).await?,
            value_nll: self.value_nll(row).await?,
            restates_name: row.restates_name,
        })
    }

    /// Whether the replies to a question and to its other wordings have its value.
    async fn values_correct(self, row: &Row, reply: &str) -> Result<Vec<bool>, BackendError> {
        let Some(value) = &row.value else { return Ok(Vec::new()) };
        let mut correct = vec![contains(reply, value)];
        for question in &row.held_out_questions {
            correct.push(contains(&self.reply(user(question)).await?, value));
        }
        Ok(correct)
    }

    /// NaN where the backend has no log-probabilities of a given text.
    async fn nll(self, question: &str, answer: &str) -> Result<f64, BackendError> {
        if !self.backend.capabilities().scoring {
            return Ok(f64::NAN);
        }
        let request = Request::new(self.model, user(question));
        Ok(self.backend.score(request, answer, true).await?.mean_nll())
    }

    /// Loss of the value alone, after the part of the answer before it.
    async fn value_nll(self, row: &Row) -> Result<Option<f64>, BackendError> {
        if !self.backend.capabilities().scoring {
            return Ok(None);
        }
        let Some(value) = &row.value else { return Ok(None) };
        let Some((before, _)) = row.answer.split_once(value.as_str()) else { return Ok(None) };
        let Input::Chat(mut messages) = user(&row.question) else { return Ok(None) };
        if !before.is_empty() {
            messages.push(Message { role: Role::Assistant, content: before.to_owned() });
        }
        let request = Request::new(self.model, Input::Chat(messages));
        Ok(Some(self.backend.score(request, value, false).await?.mean_nll()))
    }

    /// The greedy reply.
    ///
    /// # Errors
    ///
    /// [`BackendError`] of the backend.
    pub async fn reply(self, input: Input) -> Result<String, BackendError> {
        self.reply_within(input, REPLY_TOKENS).await
    }

    /// The same of at most `tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`BackendError`] of the backend.
    pub async fn reply_within(self, input: Input, tokens: usize) -> Result<String, BackendError> {
        let mut request = Request::new(self.model, input);
        request.sampling.temperature = 0.0;
        request.max_tokens = Some(tokens);
        let mut stream = self.backend.generate(request).await?;
        let mut reply = String::new();
        while let Some(event) = stream.next().await {
            if let ReplyEvent::Text { text, .. } = event? {
                reply.push_str(&text);
            }
        }
        Ok(reply)
    }
}

/// A question as the only turn.
#[must_use]
pub fn user(question: &str) -> Input {
    Input::Chat(vec![Message { role: Role::User, content: question.to_owned() }])
}

/// Whether a reply has the value as whole words, without case.
#[must_use]
pub fn contains(reply: &str, value: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let separate = |it: char| !it.is_alphanumeric();
        text.to_lowercase().split(separate).filter(|it| !it.is_empty()).map(str::to_owned).collect()
    };
    let (reply, value) = (words(reply), words(value));
    !value.is_empty() && reply.windows(value.len()).any(|it| it == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Row>, EvalError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        std::fs::write(&path, text).unwrap();
        read_rows(&path)
    }

    #[test]
    fn rows_of_other_benchmarks() {
        let rows = read(
            r#"[{"prompt":"It was","gt":"late."}, {"query":"Who?","answer":"She."},
                {"question":"Why?","answer":"So.","prompt":"ignored"}]"#,
        )
        .unwrap();
        let pairs: Vec<_> = rows.iter().map(|it| (&*it.question, &*it.answer)).collect();
        assert_eq!(pairs, [("It was", "late."), ("Who?", "She."), ("Why?", "So.")]);
        assert!(rows[0].perturbed_answer.is_empty() && rows[0].value.is_none());
        let error = read("{\"question\":\"q\",\"answer\":\"a\"}\n{\"query\":\"q\"}").unwrap_err();
        assert!(matches!(error, EvalError::Data { line: 2, .. }), "{error:?}");
        assert!(matches!(read(""), Err(EvalError::Data { line: 0, .. })));
    }

    #[test]
    fn a_value_counts_as_whole_words() {
        assert!(contains("He was born in Lisbon.", "lisbon"));
        assert!(contains("On 3 October, she said.", "3 October"));
        assert!(!contains("Lisbonne", "Lisbon"));
        assert!(!contains("October 3", "3 October"));
        assert!(!contains("anything", ""));
    }
}
