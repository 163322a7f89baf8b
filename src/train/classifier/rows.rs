//! From files to the texts that a classifier is trained and tested on.

use std::collections::HashSet;
use std::path::PathBuf;

use super::ClassifierError;
use super::dates::written_out;
use crate::data::{DataError, Wordings, read_questions};
use crate::embed::WINDOW_WORDS;
use crate::seed::{Stream, derive};
use crate::text::disguise;

/// Parts of the training rows, each scored by a head of the others.
pub(super) const FOLDS: usize = 5;
/// One row in so many is held out where no file is.
const HELD_OUT: usize = 5;
/// Disguises of every wording, where training has them.
const DISGUISES: usize = 2;

/// A text to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    /// Whether it is about the topic.
    pub(super) about: bool,
    /// Which row of its side it belongs to.
    pub(super) row: usize,
    /// Whether it is a row's own wording, not one made of it.
    pub(super) own: bool,
}

impl Text {
    /// The fold of its row.
    pub(super) fn fold(&self) -> usize {
        self.row % FOLDS
    }
}

/// The rows of some files, one of each question.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Wordings>, DataError> {
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    for path in paths {
        rows.extend(read_questions(path)?.into_iter().filter(|it| seen.insert(it[0].clone())));
    }
    Ok(rows)
}

/// Rows in an order by the hash of their text, which is the same for any order of the files.
fn in_order(mut rows: Vec<Wordings>, seed: u64) -> Vec<Wordings> {
    rows.sort_by_cached_key(|it| derive(seed, it[0].as_bytes()));
    rows
}

/// Training and test rows: four fifths and one fifth, or all rows and those of the test files that
/// training does not have word for word.
pub(super) fn parts(
    rows: Vec<Wordings>,
    test: &[PathBuf],
    seed: u64,
) -> Result<(Vec<Wordings>, Vec<Wordings>), ClassifierError> {
    let mut rows = in_order(rows, seed);
    let Some(path) = test.first() else {
        let held_out = rows.split_off(rows.len() - rows.len() / HELD_OUT);
        return Ok((rows, held_out));
    };
    let mut held_out = read(test)?;
    {
        let trained: HashSet<&str> = rows.iter().flatten().map(String::as_str).collect();
        for row in &mut held_out {
            row.retain(|it| !trained.contains(it.as_str()));
        }
    }
    held_out.retain(|it| !it.is_empty());
    if held_out.is_empty() {
        return Err(ClassifierError::TooFew { path: path.clone(), rows: 0, needed: 1 });
    }
    Ok((rows, held_out))
}

/// Every wording, and with its date in words; where case and marks make a difference, also in lower case and without its last mark;
/// questions of both kinds in one text, which are the topic's, beside pairs of other questions; and in
/// disguise, where that is asked for, as many texts of either side, so that no disguise tells anything.
pub(super) fn training_texts(
    forget: &[Wordings],
    retain: &[Wordings],
    (is_caseless, augment): (bool, bool),
    stream: &mut Stream,
) -> Vec<Text> {
    let mut texts = Vec::new();
    for (about, rows) in [(true, forget), (false, retain)] {
        for (row, wordings) in rows.iter().enumerate() {
            for text in wordings {
                texts.push(Text { text: text.clone(), about, row, own: true });
                let dated = written_out(text).into_iter();
                texts.extend(dated.map(|text| Text { text, about, row, own: false }));
                if !is_caseless {
                    let bare = text.trim_end_matches(['?', '.', '!']).to_owned();
                    for text in [text.to_lowercase(), bare] {
                        texts.push(Text { text, about, row, own: false });
                    }
                }
            }
        }
    }
    for (row, wordings) in forget.iter().enumerate() {
        let one = &wordings[0];
        let (at, first) = partner(retain, row, stream);
        let (_, second) = partner(retain, row, stream);
        for (text, about, row) in [
            (format!("{one} {first}"), true, row),
            (format!("{first} {one}"), true, row),
            (format!("{first} {second}"), false, at),
            (format!("{second} {first}"), false, at),
        ] {
            // A longer one would be read in windows, some of them without the topic.
            if text.split_whitespace().count() <= WINDOW_WORDS {
                texts.push(Text { text, about, row, own: false });
            }
        }
        if !augment {
            continue;
        }
        for text in wordings {
            for _ in 0..DISGUISES {
                let (at, plain) = partner(retain, row, stream);
                // The first one is none.
                let (_, write) = disguise::ALL[1 + stream.below(disguise::ALL.len() - 1)];
                texts.push(Text { text: write(text), about: true, row, own: false });
                texts.push(Text { text: write(plain), about: false, row: at, own: false });
            }
        }
    }
    texts
}

/// A retain row of the fold of a forget row, so that no fold's rows are known to the heads that score
/// it.
fn partner<'a>(retain: &'a [Wordings], row: usize, stream: &mut Stream) -> (usize, &'a str) {
    let fold = row % FOLDS;
    let choices = retain.len().saturating_sub(fold).div_ceil(FOLDS).max(1);
    let at = (fold + FOLDS * stream.below(choices)).min(retain.len() - 1);
    (at, &retain[at][0])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn rows(name: &str, count: usize) -> Vec<Wordings> {
        (0..count).map(|it| vec![format!("Where is {name} {it}?")]).collect()
    }

    #[test]
    fn made_texts_stay_in_the_fold_of_their_rows() {
        let (forget, retain) = (rows("Basil", 12), rows("Bergen", 13));
        let texts = training_texts(&forget, &retain, (true, true), &mut Stream::new(3));
        assert_eq!(texts.iter().filter(|it| it.own).count(), 25);
        // Twice two mixtures of two sentences, and twice two disguises, for each of the twelve.
        assert_eq!(texts.len(), 25 + 12 * 4 + 12 * 4);
        for text in texts.iter().filter(|it| it.text.contains("Bergen") && !it.own) {
            let numbers =
                text.text.split(|it: char| !it.is_ascii_digit()).filter(|it| !it.is_empty());
            let folds: HashSet<usize> =
                numbers.map(|it| it.parse::<usize>().unwrap() % FOLDS).collect();
            assert_eq!(folds, HashSet::from([text.fold()]), "{text:?}");
        }
        let about = |it: &&Text| it.about && !it.own;
        assert_eq!(texts.iter().filter(about).count(), 12 * 4);
        assert!(texts.iter().all(|it| it.about || !it.text.contains("Basil")));
    }

    #[test]
    fn long_questions_are_not_mixed_and_case_is_a_variation() {
        let long = vec![vec!["word ".repeat(WINDOW_WORDS)]; 10];
        let texts = training_texts(&long, &rows("Bergen", 10), (false, false), &mut Stream::new(3));
        assert!(texts.iter().all(|it| !it.about || !it.text.contains("Bergen")));
        assert!(texts.iter().any(|it| it.text == "where is bergen 3?" && !it.own));
        assert!(texts.iter().any(|it| it.text == "Where is Bergen 3" && !it.own));
    }

    #[test]
    fn a_fifth_is_held_out_or_what_training_does_not_have() {
        let (train, test) = parts(rows("Basil", 11), &[], 1).unwrap();
        assert_eq!((train.len(), test.len()), (9, 2));
        let all: HashSet<&Wordings> = train.iter().chain(&test).collect();
        assert_eq!(all.len(), 11);
        assert_ne!(parts(rows("Basil", 11), &[], 2).unwrap().0, train);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.jsonl");
        let row = |question: &str, more: &str| {
            format!("{{\"question\": \"{question}\", \"paraphrased_question\": \"{more}\"}}\n")
        };
        let known = row("Where is Basil 1?", "And where is Basil 2?");
        fs::write(&path, known + &row("Where is Basil 3?", "Where is Basil 4?")).unwrap();
        let (train, test) = parts(rows("Basil", 11), std::slice::from_ref(&path), 1).unwrap();
        assert_eq!(train.len(), 11);
        assert_eq!(test, [vec!["And where is Basil 2?".to_owned()]]);
        fs::write(&path, row("Where is Basil 3?", "Where is Basil 4?")).unwrap();
        let error =
            parts(rows("Basil", 11), std::slice::from_ref(&path), 1).unwrap_err().to_string();
        assert!(error.contains("t.jsonl: 0 rows are too few"), "{error}");
    }

    #[test]
    fn one_row_of_each_question() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a.jsonl", "b.csv"].map(|it| dir.path().join(it));
        fs::write(&paths[0], "{\"text\": \"One?\"}\n{\"text\": \"Two?\"}\n").unwrap();
        fs::write(&paths[1], "Two?,a,b,c,d,A\nThree?,a,b,c,d,A\n").unwrap();
        let want = ["One?", "Two?", "Three?"].map(|it| vec![it.to_owned()]);
        assert_eq!(read(&paths).unwrap(), want);
    }
}
