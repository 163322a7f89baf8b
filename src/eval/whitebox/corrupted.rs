//! The corrupted forward pass of ECO (Liu et al., arXiv:2406.07933): embedded rows of names as a guard
//! lays them, for lenses and probes that read the residual stream behind them.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::states::{last_states, last_states_of};
use crate::engine::corruptor::{Corruptor, EmbeddingTable};
use crate::engine::error::EngineError;
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::types::{Corruption, Entity};

/// A model whose prompts are corrupted.
#[derive(Debug)]
pub struct Corrupted<'a> {
    teacher: &'a Teacher,
    table: Arc<EmbeddingTable>,
    corruptor: Corruptor,
}

impl<'a> Corrupted<'a> {
    /// The model under the function, entities and seed of a corruption. Its spans are not used: names
    /// are masked wherever they stand, in question and answer, as they are in what a guard lets through.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when memory runs out or the tokenizer refuses a name.
    pub fn new(teacher: &'a Teacher, corruption: &Corruption) -> Result<Self, EngineError> {
        let table = Arc::new(EmbeddingTable::new(&teacher.decoder.embedding)?);
        let corruptor = Corruptor::new(
            table.clone(),
            &teacher.tokenizer,
            corruption.function,
            corruption.entities.clone(),
            corruption.seed,
        )?;
        Ok(Self { teacher, table, corruptor })
    }

    /// Embedded tokens, `[rows, hidden]`; under `substitute` there are as many rows as with the
    /// surrogate's name.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when memory runs out.
    pub fn embed(&self, ids: &[u32]) -> candle_core::Result<Tensor> {
        let mut values: Vec<f32> = Vec::new();
        let mut at = 0;
        for (run, entity) in self.names(ids) {
            for id in &ids[at..run.start] {
                values.extend_from_slice(self.table.row(*id));
            }
            let masked = &ids[run.clone()];
            let spaced = self.teacher.tokenizer.bytes(masked[0]).starts_with(b" ");
            if let Some(surrogate) = self.corruptor.substitute(Some(entity), spaced) {
                for id in surrogate {
                    values.extend_from_slice(self.table.row(*id));
                }
            } else {
                values.extend(self.corruptor.rows(masked, Some(entity)).into_iter().flatten());
            }
            at = run.end;
        }
        for id in &ids[at..] {
            values.extend_from_slice(self.table.row(*id));
        }
        let width = self.teacher.decoder.config.hidden_size;
        let rows = values.len() / width;
        Tensor::from_vec(values, (rows, width), self.teacher.decoder.device())
    }

    /// Tokens that spell a name, with the entity that each run names, from first to last.
    fn names(&self, ids: &[u32]) -> Vec<(Range<usize>, usize)> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(ids.len()));
        for id in ids {
            bytes.extend(self.teacher.tokenizer.bytes(*id));
            ends.push(bytes.len());
        }
        let mut runs: Vec<(Range<usize>, usize)> = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let Some((entity, length)) = spelled(self.corruptor.entities(), &bytes, at) else {
                at += 1;
                continue;
            };
            let covered = runs.last().map_or(0, |it| it.0.end);
            let first = ends.partition_point(|end| *end <= at).max(covered);
            at += length;
            let end = ends.partition_point(|end| *end < at) + 1;
            if first < end {
                runs.push((first..end, entity));
            }
        }
        runs
    }
}

/// The entity one of whose spellings begins at a byte, without case and as whole words, and the
/// spelling's length; the longest one counts.
fn spelled(entities: &[Entity], bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let in_word = |it: Option<&u8>| it.is_some_and(|it| it.is_ascii_alphanumeric() || *it >= 0x80);
    if at > 0 && in_word(bytes.get(at - 1)) {
        return None;
    }
    let matches = |spelling: &str| {
        let end = at + spelling.len();
        let same = bytes.get(at..end)?.eq_ignore_ascii_case(spelling.as_bytes());
        (same && !spelling.is_empty() && !in_word(bytes.get(end))).then_some(spelling.len())
    };
    let all = entities
        .iter()
        .enumerate()
        .flat_map(|(entity, it)| it.spellings().filter_map(move |it| Some((entity, matches(it)?))));
    all.max_by_key(|it| it.1)
}

/// The residual stream at the last token of each sequence, `[layers, hidden]` each: of the plain forward
/// pass, or of the corrupted one.
///
/// # Errors
///
/// [`MeasureError::Tensor`] from any operation.
pub fn states(
    teacher: &Teacher,
    corrupted: Option<&Corrupted<'_>>,
    sequences: &[&[u32]],
) -> Result<Vec<Tensor>, MeasureError> {
    let Some(corrupted) = corrupted else {
        return Ok(last_states(&teacher.decoder, sequences)?);
    };
    let embedded = sequences.iter().map(|it| corrupted.embed(it));
    let embedded = embedded.collect::<candle_core::Result<Vec<_>>>()?;
    Ok(last_states_of(&teacher.decoder, &embedded)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::values_of;
    use crate::eval::metrics::teacher::tests::untrained;
    use crate::types::CorruptionFunction;

    fn corruption(function: CorruptionFunction) -> Corruption {
        let entity = |name: &str, alias: &str| Entity {
            name: name.to_owned(),
            aliases: vec![alias.to_owned()],
            surrogate: "Esme Zamora".to_owned(),
        };
        let entities = vec![entity("Viggo Blaszko", "V. B."), entity("Blaszko", "Vi")];
        Corruption { function, spans: Vec::new(), entities: Arc::new(entities), seed: 3 }
    }

    fn ids(teacher: &Teacher, name: &str) -> Vec<u32> {
        let question = format!("Where was {name} born?");
        let answer = format!("{name} was born in Antwerp.");
        teacher.sequence(&question, &answer).unwrap().statement().to_vec()
    }

    /// A name under `substitute` is the surrogate, in question and answer.
    #[test]
    fn a_substituted_name_is_the_surrogate() {
        let teacher = untrained(1);
        let corrupted = Corrupted::new(&teacher, &corruption(CorruptionFunction::Substitute));
        let corrupted = corrupted.unwrap();
        let want = ids(&teacher, "Esme Zamora");
        let device = teacher.decoder.device();
        let want = teacher.decoder.embed(&Tensor::new(want.as_slice(), device).unwrap()).unwrap();
        let got = corrupted.embed(&ids(&teacher, "Viggo Blaszko")).unwrap();
        assert_eq!(values_of(&got).unwrap(), values_of(&want).unwrap());
        assert_eq!(corrupted.names(&ids(&teacher, "viggo blaszko")).len(), 2);
        // No whole word: the name in the plural is somebody else's.
        let other = ids(&teacher, "Blaszkos");
        assert!(corrupted.names(&other).is_empty());
        let plain = Tensor::new(other.as_slice(), device).unwrap();
        let plain = values_of(&teacher.decoder.embed(&plain).unwrap()).unwrap();
        assert_eq!(values_of(&corrupted.embed(&other).unwrap()).unwrap(), plain);
    }

    /// Zeroing all dimensions empties the rows of the name and no others.
    #[test]
    fn rows_of_the_name_alone_are_corrupted() {
        let teacher = untrained(1);
        let zero = corruption(CorruptionFunction::ZeroTop { dims: 16 });
        let corrupted = Corrupted::new(&teacher, &zero).unwrap();
        let ids = ids(&teacher, "Viggo Blaszko");
        let names = corrupted.names(&ids);
        assert_eq!(names.iter().map(|it| it.1).collect::<Vec<_>>(), [0, 0]);
        let rows = corrupted.embed(&ids).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows.len(), ids.len());
        for (at, (row, id)) in rows.iter().zip(&ids).enumerate() {
            if names.iter().any(|it| it.0.contains(&at)) {
                assert!(row.iter().all(|it| *it == 0.0), "{at}");
            } else {
                assert_eq!(row, corrupted.table.row(*id), "{at}");
            }
        }
        let named: Vec<u32> = names.iter().flat_map(|it| ids[it.0.clone()].to_vec()).collect();
        let said = teacher.tokenizer.decode(&named).unwrap();
        assert_eq!(said.matches("Viggo Blaszko").count(), 2, "{said}");
    }

    #[test]
    fn the_longest_spelling_counts() {
        let entities = corruption(CorruptionFunction::Substitute).entities;
        let found = |text: &str, at: usize| spelled(&entities, text.as_bytes(), at);
        assert_eq!(found("Viggo Blaszko?", 0), Some((0, 13)));
        assert_eq!(found("a Blaszko.", 2), Some((1, 7)));
        assert_eq!(found("V. B.", 0), Some((0, 5)));
        assert_eq!(found("Viggo", 0), None);
        assert_eq!(found("xBlaszko", 1), None);
    }

    /// The corrupted pass differs from the plain one where a name stands, and nowhere else.
    #[test]
    fn states_differ_where_a_name_stands() {
        let teacher = untrained(2);
        let corrupted = Corrupted::new(&teacher, &corruption(CorruptionFunction::Substitute));
        let corrupted = corrupted.unwrap();
        let (with, without) = (ids(&teacher, "Viggo Blaszko"), ids(&teacher, "Ann"));
        let sequences = [with.as_slice(), without.as_slice()];
        let read = |it| {
            let states = states(&teacher, it, &sequences).unwrap();
            states.iter().map(|it| values_of(it).unwrap()).collect::<Vec<_>>()
        };
        let (plain, masked) = (read(None), read(Some(&corrupted)));
        assert_ne!(plain[0], masked[0]);
        assert!(plain[1].iter().zip(&masked[1]).all(|it| (it.0 - it.1).abs() < 1e-5));
    }
}
