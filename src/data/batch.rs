//! A packed batch: sequences end to end, no padding.

/// Token rows of several sequences and which of them are predicted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Input ids, `[rows]`.
    pub ids: Vec<u32>,
    /// Row at which each sequence starts, and the number of rows last.
    pub starts: Vec<usize>,
    /// Rows whose next token is a label, `[labels]`.
    pub label_rows: Vec<u32>,
    /// The labels, `[labels]`.
    pub labels: Vec<u32>,
    /// Labels of each sequence, `[sequences]`.
    pub label_counts: Vec<usize>,
}

impl Batch {
    /// Packs sequences of (tokens, whether each token is a label). The first token never is; the
    /// last is not fed, as nothing is predicted from it.
    #[must_use]
    pub fn of(sequences: &[(Vec<u32>, Vec<bool>)]) -> Self {
        let mut batch = Self { starts: vec![0], ..Self::default() };
        for (tokens, is_label) in sequences {
            let offset = batch.ids.len();
            let mut count = 0;
            for at in 1..tokens.len() {
                if is_label[at] {
                    let row =
                        u32::try_from(offset + at - 1).expect("a batch has fewer than 2^32 rows");
                    batch.label_rows.push(row);
                    batch.labels.push(tokens[at]);
                    count += 1;
                }
            }
            batch.ids.extend(&tokens[..tokens.len().saturating_sub(1)]);
            batch.starts.push(batch.ids.len());
            batch.label_counts.push(count);
        }
        batch
    }

    /// The sequences that `keep` names, counted from 0, in their order.
    #[must_use]
    pub fn only(&self, keep: impl Fn(usize) -> bool) -> Self {
        let mut batch = Self { starts: vec![0], ..Self::default() };
        let mut label = 0;
        for (number, (span, count)) in self.starts.windows(2).zip(&self.label_counts).enumerate() {
            let labels = label..label + count;
            label = labels.end;
            if !keep(number) {
                continue;
            }
            let (before, after) = (span[0], batch.ids.len());
            let rows = self.label_rows[labels.clone()].iter();
            // A row of a sequence is not before the sequence.
            batch.label_rows.extend(rows.map(|it| it - before as u32 + after as u32));
            batch.labels.extend(&self.labels[labels]);
            batch.ids.extend(&self.ids[before..span[1]]);
            batch.starts.push(batch.ids.len());
            batch.label_counts.push(*count);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_predicted_from_the_row_before() {
        let batch = Batch::of(&[
            (vec![10, 11, 12], vec![false, false, true]),
            (vec![20, 21], vec![true, true]),
        ]);
        assert_eq!(batch.ids, [10, 11, 20]);
        assert_eq!(batch.starts, [0, 2, 3]);
        assert_eq!(batch.label_rows, [1, 2]);
        assert_eq!(batch.labels, [12, 21]);
        assert_eq!(batch.label_counts, [1, 1]);
    }

    #[test]
    fn some_sequences_are_packed_as_if_alone() {
        let sequences = [
            (vec![10, 11, 12], vec![false, false, true]),
            (vec![20, 21], vec![true, true]),
            (vec![30, 31, 32, 33], vec![false, true, false, true]),
        ];
        let batch = Batch::of(&sequences);
        let some = [sequences[0].clone(), sequences[2].clone()];
        assert_eq!(batch.only(|it| it != 1), Batch::of(&some));
        assert_eq!(batch.only(|_| true), batch);
        assert_eq!(batch.only(|_| false), Batch::of(&[]));
    }
}
