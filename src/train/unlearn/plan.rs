//! Which rows each step sees, all of it drawn before training: a run that is interrupted needs to
//! remember nothing but how many steps it has taken.

use crate::seed::Stream;

/// The rows of one pass, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// Passes over the forget set before this one.
    pub epoch: usize,
    /// Forget rows.
    pub forget: Vec<usize>,
    /// Retain rows, one per forget row.
    pub retain: Vec<usize>,
    /// (forget row, number of another answer to it), in the order of `forget`.
    pub answers: Vec<(usize, usize)>,
}

/// How rows are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Seed of order and pairs.
    pub seed: u64,
    /// Passes over the forget set.
    pub epochs: usize,
    /// Forget rows per pass, at least 1.
    pub batch: usize,
    /// Passes per step, at least 1: their gradients are averaged by forget rows. Where a loss is a mean over
    /// sequences that is what one large pass would give; means over tokens are taken in each pass.
    pub accumulate: usize,
}

impl Plan {
    /// The passes of a run over `forget` rows, each paired with a uniformly drawn one of `retain` rows
    /// (TOFU, arXiv:2401.06121) and with `per_row` of its own other answers, of which `choices` says
    /// how many there are. The last pass of an epoch may have fewer rows.
    #[must_use]
    pub fn draws(
        &self,
        forget: usize,
        retain: usize,
        per_row: usize,
        choices: impl Fn(usize) -> usize,
    ) -> Vec<Draw> {
        let mut stream = Stream::named(self.seed, "unlearn/rows");
        let mut order: Vec<usize> = (0..forget).collect();
        let mut draws = Vec::new();
        for epoch in 0..self.epochs {
            stream.shuffle(&mut order);
            for rows in order.chunks(self.batch.max(1)) {
                let retain = rows.iter().map(|_| stream.below(retain)).collect();
                let mut answers = Vec::with_capacity(per_row * rows.len());
                for row in rows {
                    let count = choices(*row);
                    answers.extend((0..per_row).map(|_| (*row, stream.below(count))));
                }
                draws.push(Draw { epoch, forget: rows.to_vec(), retain, answers });
            }
        }
        draws
    }

    /// The passes of each step: no step reaches into another epoch.
    pub fn steps<'a>(&self, draws: &'a [Draw]) -> impl Iterator<Item = &'a [Draw]> + use<'a> {
        let accumulate = self.accumulate.max(1);
        draws.chunk_by(|a, b| a.epoch == b.epoch).flat_map(move |it| it.chunks(accumulate))
    }

    /// Steps of one epoch over `forget` rows.
    #[must_use]
    pub fn steps_per_epoch(&self, forget: usize) -> usize {
        forget.div_ceil(self.batch.max(1)).div_ceil(self.accumulate.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_sees_every_forget_row_once() {
        let plan = Plan { seed: 5, epochs: 3, batch: 4, accumulate: 1 };
        let draws = plan.draws(10, 7, 2, |row| row + 1);
        assert_eq!(draws.len(), 3 * plan.steps_per_epoch(10));
        for epoch in 0..3 {
            let steps = draws.iter().filter(|it| it.epoch == epoch);
            let mut rows: Vec<usize> = steps.flat_map(|it| it.forget.clone()).collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
        for draw in &draws {
            assert_eq!(draw.retain.len(), draw.forget.len());
            assert!(draw.retain.iter().all(|it| *it < 7));
            let of: Vec<usize> = draw.answers.iter().step_by(2).map(|it| it.0).collect();
            assert_eq!(of, draw.forget);
            assert!(draw.answers.iter().all(|(row, answer)| answer <= row));
        }
        assert_ne!(draws[0].forget, draws[3].forget, "epochs have different orders");
    }

    /// Ten rows by threes are four passes, and by threes of these two steps an epoch.
    #[test]
    fn a_step_is_some_passes_of_one_epoch() {
        let plan = Plan { seed: 5, epochs: 2, batch: 3, accumulate: 3 };
        let draws = plan.draws(10, 7, 0, |_| 0);
        let passes: Vec<usize> = plan.steps(&draws).map(<[Draw]>::len).collect();
        assert_eq!(passes, [3, 1, 3, 1]);
        assert_eq!(passes.len(), 2 * plan.steps_per_epoch(10));
    }

    #[test]
    fn the_seed_decides() {
        let draws =
            |seed| Plan { seed, epochs: 2, batch: 3, accumulate: 1 }.draws(9, 5, 1, |_| 100);
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}
