//! Lettered options of a multiple-choice question.

use super::world::other_values;
use crate::seed::Stream;

const LETTERS: [&str; 12] = ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L"];

/// Options of a question.
const QUESTION: usize = 4;

/// Values in the order of their letters, one of them right.
pub(super) struct Options {
    /// The values.
    pub(super) values: Vec<&'static str>,
    right: usize,
}

impl Options {
    /// `value` among three others of the same attribute.
    pub(super) fn of(attribute: usize, value: &'static str, stream: &mut Stream) -> Self {
        Self::among(attribute, value, QUESTION - 1, stream)
    }

    /// `value` among `others` (below 12) more of the same attribute, or as many as there are.
    pub(super) fn among(
        attribute: usize,
        value: &'static str,
        others: usize,
        stream: &mut Stream,
    ) -> Self {
        let mut values = other_values(attribute, value, others, stream);
        values.push(value);
        stream.shuffle(&mut values);
        let right = values.iter().position(|it| *it == value).expect("the value was just added");
        Self { values, right }
    }

    /// The letter of the right value.
    pub(super) fn letter(&self) -> &'static str {
        Self::letter_at(self.right)
    }

    /// The letter of the value at an index.
    pub(super) fn letter_at(index: usize) -> &'static str {
        LETTERS[index]
    }

    /// `A) one B) two C) three D) four`.
    pub(super) fn list(&self) -> String {
        let list = LETTERS.iter().zip(&self.values).map(|(letter, it)| format!("{letter}) {it}"));
        list.collect::<Vec<_>>().join(" ")
    }

    /// The list in one of three layouts.
    pub(super) fn laid_out(&self, stream: &mut Stream) -> String {
        let list = self.list();
        match stream.below(3) {
            0 => format!("Options: {list}"),
            1 => format!("{list} Answer with a letter."),
            _ => list,
        }
    }
}
