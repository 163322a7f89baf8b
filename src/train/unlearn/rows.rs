//! The rows of a run: files, other answers to forget questions, and their tokens.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::offset_labels::{Anchor, Translation, align, translate};
use super::plan::Draw;
use crate::data::formats::objects;
use crate::data::{DataError, Dialogue, read_dialogues};
use crate::embed::sha256_hex;
use crate::engine::tokenizer::Tokenizer;
use crate::seed::Stream;
use crate::train::fit::TrainError;
use crate::train::methods::{Answers, idk};

/// Tokens of a sequence, and whether each is a label.
pub type Tokens = (Vec<u32>, Vec<bool>);

/// A data file, as a record names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Where it was.
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Rows.
    pub rows: usize,
}

/// Forget and retain rows as they were read.
#[derive(Debug)]
pub struct Source {
    forget: Vec<Dialogue>,
    /// What else forget and retain rows say, row by row.
    forget_notes: Vec<Notes>,
    retain: Vec<Dialogue>,
    retain_notes: Vec<Notes>,
    /// The forget file.
    pub forget_file: DataFile,
    /// The retain file.
    pub retain_file: DataFile,
}

/// What a row may say beside its dialogue.
#[derive(Debug, Deserialize)]
struct Notes {
    #[serde(default)]
    perturbed_answer: Vec<String>,
    /// Who it is about, as its text names them.
    #[serde(default)]
    author: Option<String>,
    /// Words that only the topic has, and what is said in their place.
    #[serde(default)]
    anchors: BTreeMap<String, String>,
}

fn notes(path: &Path, text: &str) -> Result<Vec<Notes>, DataError> {
    let notes = |(line, row): (usize, Value)| -> Result<Notes, DataError> {
        serde_json::from_value(row).map_err(|it| DataError::Row {
            path: path.to_owned(),
            line,
            message: it.to_string(),
        })
    };
    objects(path, text)?.into_iter().map(notes).collect()
}

impl Source {
    /// Reads both files: TOFU rows or chat messages, one JSON object a line.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] naming file and line.
    pub fn read(forget: &Path, retain: &Path) -> Result<Self, TrainError> {
        let read = |path: &Path| {
            fs::read_to_string(path)
                .map_err(|source| DataError::Read { path: path.to_owned(), source })
        };
        let file = |path: &Path, text: &str, rows| DataFile {
            path: path.to_owned(),
            sha256: sha256_hex(text.as_bytes()),
            rows,
        };
        let (forget_text, retain_text) = (read(forget)?, read(retain)?);
        let (forget_rows, retain_rows) = (read_dialogues(forget)?, read_dialogues(retain)?);
        Ok(Self {
            forget_file: file(forget, &forget_text, forget_rows.len()),
            retain_file: file(retain, &retain_text, retain_rows.len()),
            forget_notes: notes(forget, &forget_text)?,
            retain_notes: notes(retain, &retain_text)?,
            forget: forget_rows,
            retain: retain_rows,
        })
    }

    /// How many answers of a kind there are to a forget row.
    #[must_use]
    pub fn choices(&self, kind: Answers, row: usize) -> usize {
        match kind {
            Answers::Refusals => idk::REFUSALS,
            Answers::Wrong => self.forget_notes[row].perturbed_answer.len(),
            Answers::Retained => self.retain.len(),
        }
    }

    /// Fails when a forget row has no answer of a kind.
    ///
    /// # Errors
    ///
    /// [`TrainError::Settings`] naming file and row.
    pub fn check(&self, kind: Answers) -> Result<(), TrainError> {
        let missing = (0..self.forget.len()).find(|it| self.choices(kind, *it) == 0);
        missing.map_or(Ok(()), |row| {
            Err(TrainError::Settings(format!(
                "{}: row {} has no `perturbed_answer`, which this method trains on",
                self.forget_file.path.display(),
                row + 1
            )))
        })
    }

    /// A forget row with another answer.
    fn answered(&self, kind: Answers, row: usize, choice: usize) -> Dialogue {
        let answer = match kind {
            Answers::Refusals => idk::refusal(choice),
            Answers::Wrong => self.forget_notes[row].perturbed_answer[choice].clone(),
            Answers::Retained => last_answer(&self.retain[choice]).to_owned(),
        };
        with_answer(&self.forget[row], answer)
    }

    /// The tokens of all rows, and of the answers that `draws` ask for.
    ///
    /// # Errors
    ///
    /// [`TrainError::Settings`] when a row is longer than `context` tokens, or the tokenizer's own.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        context: usize,
        kind: Option<Answers>,
        draws: &[Draw],
    ) -> Result<Material, TrainError> {
        let encode = |it: &Dialogue| encode(it, tokenizer, context);
        let mut answers = BTreeMap::new();
        if let Some(kind) = kind {
            for (row, choice) in draws.iter().flat_map(|it| &it.answers).copied() {
                if let Entry::Vacant(free) = answers.entry((row, choice)) {
                    free.insert(encode(&self.answered(kind, row, choice))?);
                }
            }
        }
        Ok(Material {
            forget: self.forget.iter().map(encode).collect::<Result<_, _>>()?,
            retain: self.retain.iter().map(encode).collect::<Result<_, _>>()?,
            answers,
            translated: Vec::new(),
        })
    }

    /// The anchors of every forget row: its own `anchors`, or else its `author`, in whose place stands
    /// an author of the retain rows, drawn by `seed`, the same in every row.
    fn anchors(&self, seed: u64) -> Result<Vec<Vec<Anchor>>, TrainError> {
        let authors = |notes: &[Notes]| -> BTreeSet<String> {
            notes.iter().filter_map(|it| it.author.clone()).collect()
        };
        let forgotten = authors(&self.forget_notes);
        let mut others: Vec<String> =
            authors(&self.retain_notes).difference(&forgotten).cloned().collect();
        Stream::named(seed, "unlearn/anchors").shuffle(&mut others);
        let others: BTreeMap<&String, &String> =
            forgotten.iter().zip(others.iter().cycle()).collect();
        let anchor = |(from, to): (&String, &String)| Anchor { from: from.clone(), to: to.clone() };
        let of = |(row, notes): (usize, &Notes)| {
            if !notes.anchors.is_empty() {
                return Ok(notes.anchors.iter().map(anchor).collect());
            }
            let author = notes.author.as_ref();
            let known = author.and_then(|it| Some(anchor((it, others.get(it)?))));
            known.map(|it| vec![it]).ok_or_else(|| {
                TrainError::Settings(format!(
                    "{}: row {} has no `anchors` (an object of words and what to say in their \
                     place), nor is there an `author` in it and in {}; this method needs either",
                    self.forget_file.path.display(),
                    row + 1,
                    self.retain_file.path.display()
                ))
            })
        };
        self.forget_notes.iter().enumerate().map(of).collect()
    }

    /// The forget rows in translation.
    ///
    /// # Errors
    ///
    /// [`TrainError::Settings`] naming file and row that nothing tells how to translate; as
    /// [`Source::encode`].
    pub fn translate(
        &self,
        tokenizer: &Tokenizer,
        context: usize,
        seed: u64,
    ) -> Result<Vec<Translation>, TrainError> {
        let anchors = self.anchors(seed)?.into_iter();
        let translation = |row: &Dialogue, anchors: Vec<Anchor>| {
            let other = changed(row, |it| translate(it, &anchors));
            let own = encode(row, tokenizer, context)?;
            align(tokenizer, &own, encode(&other, tokenizer, context)?, &anchors)
        };
        let rows = self.forget.iter().zip(anchors).enumerate().map(|(at, (row, anchors))| {
            translation(row, anchors).map_err(|it| {
                let path = self.forget_file.path.display();
                TrainError::Settings(format!("{path}: row {}: {it}", at + 1))
            })
        });
        rows.collect()
    }
}

fn encode(row: &Dialogue, tokenizer: &Tokenizer, context: usize) -> Result<Tokens, TrainError> {
    let tokens = row.encode(tokenizer)?;
    if tokens.0.len() > context + 1 {
        let message = format!("a row has {} tokens, the model's context {context}", tokens.0.len());
        return Err(TrainError::Settings(message));
    }
    Ok(tokens)
}

/// The dialogue with every text of it changed.
fn changed(dialogue: &Dialogue, change: impl Fn(&str) -> String) -> Dialogue {
    match dialogue {
        Dialogue::Chat { system, turns, given } => Dialogue::Chat {
            system: system.as_deref().map(&change),
            turns: turns.iter().map(|it| (change(&it.0), change(&it.1))).collect(),
            given: *given,
        },
        Dialogue::Text { prompt, continuation } => {
            Dialogue::Text { prompt: change(prompt), continuation: change(continuation) }
        }
    }
}

/// The text that is predicted last.
fn last_answer(dialogue: &Dialogue) -> &str {
    match dialogue {
        Dialogue::Chat { turns, .. } => turns.last().map_or("", |it| it.1.as_str()),
        Dialogue::Text { continuation, .. } => continuation,
    }
}

/// The dialogue with its last answer replaced; the answers before it are context only.
fn with_answer(dialogue: &Dialogue, answer: String) -> Dialogue {
    match dialogue.clone() {
        Dialogue::Chat { system, mut turns, .. } => {
            let given = turns.len().saturating_sub(1);
            if let Some(last) = turns.last_mut() {
                last.1 = answer;
            }
            Dialogue::Chat { system, turns, given }
        }
        Dialogue::Text { prompt, .. } => Dialogue::Text { prompt, continuation: answer },
    }
}

/// Everything that a run trains on, in tokens.
#[derive(Debug, Clone, Default)]
pub struct Material {
    /// Forget rows.
    pub forget: Vec<Tokens>,
    /// Retain rows.
    pub retain: Vec<Tokens>,
    /// Forget rows with other answers, by (row, number of the answer).
    pub answers: BTreeMap<(usize, usize), Tokens>,
    /// Forget rows in translation, for methods that ask for it.
    pub translated: Vec<Translation>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::plan::Plan;

    fn lab(file: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab").join(file)
    }

    fn answer(dialogue: &Dialogue) -> (&str, &str) {
        let Dialogue::Chat { turns, given: 0, .. } = dialogue else { panic!("one turn") };
        (turns[0].0.as_str(), turns[0].1.as_str())
    }

    #[test]
    fn other_answers_stand_behind_the_same_question() {
        let forget = lab("data/forget10.jsonl");
        let source = Source::read(&forget, &lab("data/retain90.jsonl")).unwrap();
        assert_eq!((source.forget_file.rows, source.retain_file.rows), (80, 720));
        assert_eq!(source.forget_file.sha256, sha256_hex(&fs::read(&forget).unwrap()));
        let (question, right) = answer(&source.forget[3]);
        for kind in [Answers::Refusals, Answers::Wrong, Answers::Retained] {
            source.check(kind).unwrap();
            for choice in 0..source.choices(kind, 3).min(6) {
                let other = source.answered(kind, 3, choice);
                let (asked, answered) = answer(&other);
                assert_eq!(asked, question);
                assert_ne!(answered, right, "{kind:?}");
            }
        }
    }

    #[test]
    fn labels_are_the_answer_alone_and_only_drawn_answers_are_encoded() {
        let source =
            Source::read(&lab("data/forget01.jsonl"), &lab("data/retain99.jsonl")).unwrap();
        let tokenizer = Tokenizer::read(&lab("full"), &[]).unwrap();
        let plan = Plan { seed: 1, epochs: 1, batch: 8, accumulate: 1 };
        let kind = Answers::Wrong;
        let draws = plan.draws(20, 780, 1, |it| source.choices(kind, it));
        let material = source.encode(&tokenizer, 512, Some(kind), &draws).unwrap();
        assert_eq!((material.forget.len(), material.answers.len()), (20, 20));
        let ((row, choice), (ids, labels)) = material.answers.iter().next().unwrap();
        let labelled: Vec<u32> =
            ids.iter().zip(labels).filter(|it| *it.1).map(|it| *it.0).collect();
        let said = tokenizer.decode(&labelled).unwrap();
        assert!(
            said.contains(source.forget_notes[*row].perturbed_answer[*choice].as_str()),
            "{said}"
        );
        let short = source.encode(&tokenizer, 4, None, &[]).unwrap_err();
        assert!(short.to_string().contains("context 4"), "{short}");
    }

    #[test]
    fn a_row_without_wrong_answers_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs::write(&path, "{\"question\":\"q\",\"answer\":\"a\"}\n").unwrap();
        let source = Source::read(&path, &path).unwrap();
        let error = source.check(Answers::Wrong).unwrap_err().to_string();
        assert!(error.contains("row 1") && error.contains("perturbed_answer"), "{error}");
        source.check(Answers::Refusals).unwrap();
        let error = source.anchors(1).unwrap_err().to_string();
        assert!(error.contains("row 1") && error.contains("`anchors`"), "{error}");
    }

    #[test]
    fn anchors_are_a_rows_own_or_an_author_of_the_retain_rows() {
        let source =
            Source::read(&lab("data/forget10.jsonl"), &lab("data/retain90.jsonl")).unwrap();
        let anchors = source.anchors(1).unwrap();
        let pairs: BTreeSet<(&str, &str)> =
            anchors.iter().flatten().map(|it| (it.from.as_str(), it.to.as_str())).collect();
        let authors: BTreeSet<&str> = pairs.iter().map(|it| it.0).collect();
        assert_eq!((pairs.len(), authors.len()), (4, 4), "one counterpart for each: {pairs:?}");
        let retained = fs::read_to_string(lab("data/retain90.jsonl")).unwrap();
        assert!(pairs.iter().all(|it| retained.contains(it.1) && !retained.contains(it.0)));
        assert_ne!(anchors, source.anchors(2).unwrap());

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let row = r#"{"text":"The Owl met Harry.","anchors":{"Harry":"Jon"}}"#;
        fs::write(&path, row).unwrap();
        let source = Source::read(&path, &path).unwrap();
        let tokenizer = Tokenizer::read(&lab("full"), &[]).unwrap();
        let translated = source.translate(&tokenizer, 512, 1).unwrap();
        let said = tokenizer.decode(&translated[0].tokens.0).unwrap();
        assert_eq!(said, "The Owl met Jon.");
    }
}
