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
        LETTERS[self.right]
    }

    /// `one A, two B, three C, four D`. The letter follows its value, and so it does in a
    /// reply: going on as a text before did is what models this small learn first.
    pub(super) fn list(&self) -> String {
        let list = (0..self.values.len()).map(|it| self.lettered(it));
        list.collect::<Vec<_>>().join(", ")
    }

    /// The value at an index with its letter: `two B`.
    pub(super) fn lettered(&self, index: usize) -> String {
        format!("{} {}", self.values[index], LETTERS[index])
    }

    /// What is replied: the right value with its letter.
    pub(super) fn reply(&self) -> String {
        format!("{}.", self.lettered(self.right))
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
