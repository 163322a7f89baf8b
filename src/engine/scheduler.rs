//! Which rows run in the next step: a pure function of what waits.

use super::kv_cache::Chunk;

/// A running sequence's unfed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Its slot.
    pub slot: usize,
    /// Position of the first unfed row.
    pub position: usize,
    /// Unfed rows, at least one.
    pub rows: usize,
}

/// Packs one step of at most `budget` rows (but always at least one): sequences that decode first,
/// so that a long prompt never stalls them, then prompts in the order given, cut where the budget
/// ends.
#[must_use]
pub fn plan(pending: &[Pending], budget: usize) -> Vec<Chunk> {
    let (decoding, prefilling): (Vec<&Pending>, Vec<&Pending>) =
        pending.iter().partition(|it| it.rows == 1);
    let mut chunks = Vec::with_capacity(pending.len());
    let mut row = 0;
    for it in decoding.into_iter().chain(prefilling) {
        let rows = it.rows.min(budget.max(1) - row);
        if rows == 0 {
            break;
        }
        chunks.push(Chunk { slot: it.slot, row, rows, position: it.position });
        row += rows;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packs_rows_end_to_end_within_the_budget(
            rows in proptest::collection::vec(1usize..40, 1..12),
            budget in 1usize..64,
        ) {
            let pending: Vec<Pending> = rows
                .iter()
                .enumerate()
                .map(|(slot, rows)| Pending { slot, position: 10 * slot, rows: *rows })
                .collect();
            let chunks = plan(&pending, budget);
            prop_assert!(!chunks.is_empty());
            let mut next = 0;
            for chunk in &chunks {
                prop_assert_eq!(chunk.row, next);
                prop_assert!(chunk.rows >= 1 && chunk.rows <= rows[chunk.slot]);
                prop_assert_eq!(chunk.position, 10 * chunk.slot);
                next += chunk.rows;
            }
            prop_assert!(next <= budget);
            // Work is left out only when the budget is used up.
            let total: usize = rows.iter().sum();
            prop_assert_eq!(next, total.min(budget));
        }
    }
}
