//! The thread that owns the model: admits, plans, runs a step, hands out the results.

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::decoder::Decoder;
use super::error::EngineError;
use super::kv_cache::{Chunk, KvCache};
use super::offset::{self, Part};
use super::ops::{on_pool, values_of};
use super::scheduler::{Pending, plan};
use super::sequence::{Prompt, Sequence, Task};
use super::tokenizer::Tokenizer;

/// A prompt and what to do with it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) prompt: Prompt,
    pub(crate) task: Task,
}

/// A row of a step whose logits are needed.
#[derive(Debug, Clone, Copy)]
struct Needed {
    slot: usize,
    position: usize,
    /// Its place among the step's rows.
    row: u32,
}

/// A row of a step that is read after so many blocks.
#[derive(Debug, Clone, Copy)]
struct Reading {
    slot: usize,
    /// Its place among the step's rows.
    row: usize,
    layer: usize,
}

fn number(row: usize) -> u32 {
    u32::try_from(row).expect("a step has fewer than 2^32 rows")
}

/// State of the worker thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) decoder: Decoder,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) cache: KvCache,
    pub(crate) slots: Vec<Option<Sequence>>,
    /// Most rows of one step.
    pub(crate) step_rows: usize,
}

impl Worker {
    /// Runs until all senders are gone and all sequences are complete.
    pub(crate) fn run(mut self, mut jobs: Receiver<Vec<Job>>) {
        let mut waiting: VecDeque<Job> = VecDeque::new();
        let mut open = true;
        loop {
            self.drop_cancelled();
            while open && waiting.len() < self.slots.len() {
                match jobs.try_recv() {
                    Ok(more) => waiting.extend(more),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => open = false,
                }
            }
            for slot in self.slots.iter_mut().filter(|it| it.is_none()) {
                let Some(job) = waiting.pop_front() else { break };
                let capacity = self.cache.capacity();
                *slot = Some(Sequence::new(&self.tokenizer, job.prompt, job.task, capacity));
            }
            if self.slots.iter().all(Option::is_none) {
                match jobs.blocking_recv() {
                    Some(more) => waiting.extend(more),
                    None => return,
                }
                continue;
            }
            self.step();
        }
    }

    fn drop_cancelled(&mut self) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(Sequence::cancelled) {
                *slot = None;
            }
        }
    }

    /// One step; a failure ends the sequences that took part in it and no others.
    fn step(&mut self) {
        let pending: Vec<Pending> = (0..self.slots.len())
            .filter_map(|slot| {
                let sequence = self.slots[slot].as_ref()?;
                let rows = sequence.prompt.ids.len() - sequence.cached;
                Some(Pending { slot, position: sequence.cached, rows })
            })
            .collect();
        let chunks = plan(&pending, self.step_rows);
        // Not on an accelerator: each thread has a stream of its own there, and steps must stay in order.
        let done = match self.decoder.device().is_cpu() {
            true => on_pool(|| self.forward(&chunks)),
            false => self.forward(&chunks),
        };
        if let Err(error) = done {
            tracing::error!(%error, "engine step failed");
            for chunk in &chunks {
                if let Some(sequence) = self.slots[chunk.slot].take() {
                    sequence.fail(EngineError::Stopped);
                }
            }
        }
    }

    fn forward(&mut self, chunks: &[Chunk]) -> Result<(), EngineError> {
        let rows = self.embed(chunks)?;
        let needed = self.needed(chunks);
        let mut chosen: Vec<u32> = needed.iter().map(|it| it.row).collect();
        let mut reading = self.reading(chunks);
        // After the last block there are the chosen rows only.
        for it in reading.iter_mut().filter(|it| it.layer == self.decoder.blocks.len()) {
            chosen.push(number(it.row));
            it.row = chosen.len() - 1;
        }
        let mut read: Vec<(usize, Vec<f32>)> = Vec::new();
        let cache = &mut self.cache;
        let hidden = self.decoder.blocks_watched(
            rows,
            &chosen,
            |layer, qkv| cache.attend(layer, qkv, chunks),
            |layer, rows| {
                for it in reading.iter().filter(|it| it.layer == layer) {
                    let row = rows.narrow(0, it.row, 1)?.flatten_all()?.to_dtype(DType::F32)?;
                    read.push((it.slot, values_of(&row.to_device(&Device::Cpu)?)?));
                }
                Ok(())
            },
        )?;
        let mut logits = self.decoder.host_logits(&hidden.narrow(0, 0, needed.len())?)?;
        let vocab = self.decoder.config.vocab_size;
        offset::add(&self.parts(chunks, &needed), vocab, &mut logits)?;
        for chunk in chunks {
            let sequence = self.slots[chunk.slot].as_mut().expect("a planned slot is taken");
            sequence.cached = chunk.position + chunk.rows;
        }
        for (it, logits) in needed.into_iter().zip(logits.chunks_mut(vocab)) {
            let Some(sequence) = &mut self.slots[it.slot] else { continue };
            match sequence.take(&self.tokenizer, it.position, logits) {
                Ok(false) => {}
                Ok(true) => self.slots[it.slot] = None,
                Err(error) => {
                    let sequence = self.slots[it.slot].take().expect("it was there above");
                    sequence.fail(error);
                }
            }
        }
        for (slot, row) in read {
            if let Some(sequence) = self.slots[slot].take() {
                sequence.answer(row);
            }
        }
        Ok(())
    }

    /// The rows of a step that somebody wants to read.
    fn reading(&self, chunks: &[Chunk]) -> Vec<Reading> {
        let last = |chunk: &Chunk| {
            let layer = self.planned(chunk).reads(chunk.position + chunk.rows - 1)?;
            Some(Reading { slot: chunk.slot, row: chunk.row + chunk.rows - 1, layer })
        };
        chunks.iter().filter_map(last).collect()
    }

    fn planned(&self, chunk: &Chunk) -> &Sequence {
        self.slots[chunk.slot].as_ref().expect("a planned slot is taken")
    }

    /// The rows of a step whose logits are needed.
    fn needed(&self, chunks: &[Chunk]) -> Vec<Needed> {
        let rows = chunks.iter().flat_map(|chunk| {
            let sequence = self.planned(chunk);
            let rows = (0..chunk.rows).filter(move |it| sequence.needs(chunk.position + it));
            rows.map(move |it| Needed {
                slot: chunk.slot,
                position: chunk.position + it,
                row: number(chunk.row + it),
            })
        });
        rows.collect()
    }

    /// What the sequences with an offset run besides.
    fn parts(&self, chunks: &[Chunk], needed: &[Needed]) -> Vec<Part<'_>> {
        let parts = chunks.iter().filter_map(|chunk| {
            let prompt = &self.planned(chunk).prompt;
            let own = needed.iter().enumerate().filter(|it| it.1.slot == chunk.slot);
            Some(Part {
                shift: prompt.shift.as_ref()?,
                chunk: *chunk,
                ids: &prompt.ids[chunk.position..chunk.position + chunk.rows],
                needed: own.map(|(at, it)| (it.position - chunk.position, at)).collect(),
            })
        });
        parts.collect()
    }

    /// Embeddings of the step's rows with the corrupted ones laid over.
    fn embed(&self, chunks: &[Chunk]) -> Result<Tensor, EngineError> {
        let ids: Vec<u32> = chunks
            .iter()
            .flat_map(|it| {
                self.planned(it).prompt.ids[it.position..it.position + it.rows].iter().copied()
            })
            .collect();
        let device = self.decoder.device();
        let mut rows = self.decoder.embed(&Tensor::new(ids, device)?)?;
        for chunk in chunks {
            let overlay = &self.planned(chunk).prompt.overlay;
            for row in (0..chunk.rows).filter(|_| !overlay.is_empty()) {
                if let Some(values) = overlay.get(&(chunk.position + row)) {
                    let values = Tensor::from_slice(values, (1, values.len()), device)?;
                    rows.slice_set(&values.to_dtype(rows.dtype())?, 0, chunk.row + row)?;
                }
            }
        }
        rows = rows.contiguous()?;
        Ok(rows)
    }
}
