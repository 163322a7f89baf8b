//! The thread that owns the model: admits, plans, runs a step, hands out the results.

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::decoder::Decoder;
use super::error::EngineError;
use super::kv_cache::{Chunk, KvCache};
use super::ops::values_of;
use super::scheduler::{Pending, plan};
use super::sequence::{Prompt, Sequence, Task};
use super::tokenizer::Tokenizer;

/// A prompt and what to do with it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) prompt: Prompt,
    pub(crate) task: Task,
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
        if let Err(error) = self.forward(&chunks) {
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
        let cache = &mut self.cache;
        let hidden = self.decoder.blocks(rows, |layer, qkv| cache.attend(layer, qkv, chunks))?;
        let mut needed: Vec<(usize, usize, u32)> = Vec::new();
        for chunk in chunks {
            let sequence = self.slots[chunk.slot].as_mut().expect("a planned slot is taken");
            sequence.cached = chunk.position + chunk.rows;
            let rows = (0..chunk.rows).filter(|it| sequence.needs(chunk.position + it));
            needed.extend(rows.map(|it| {
                let row = u32::try_from(chunk.row + it).expect("a step has fewer than 2^32 rows");
                (chunk.slot, chunk.position + it, row)
            }));
        }
        if needed.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = needed.iter().map(|it| it.2).collect();
        let hidden = hidden.index_select(&Tensor::new(rows, self.decoder.device())?, 0)?;
        let logits = self.decoder.logits(&hidden)?.to_dtype(DType::F32)?;
        let logits = logits.to_device(&candle_core::Device::Cpu)?;
        let mut logits = values_of(&logits)?;
        let vocab = self.decoder.config.vocab_size;
        for ((slot, position, _), logits) in needed.into_iter().zip(logits.chunks_mut(vocab)) {
            let Some(sequence) = &mut self.slots[slot] else { continue };
            match sequence.take(&self.tokenizer, position, logits) {
                Ok(false) => {}
                Ok(true) => self.slots[slot] = None,
                Err(error) => {
                    let sequence = self.slots[slot].take().expect("it was there above");
                    sequence.fail(error);
                }
            }
        }
        Ok(())
    }

    /// Embeddings of the step's rows with the corrupted ones laid over.
    fn embed(&self, chunks: &[Chunk]) -> Result<Tensor, EngineError> {
        let sequence =
            |chunk: &Chunk| self.slots[chunk.slot].as_ref().expect("a planned slot is taken");
        let ids: Vec<u32> = chunks
            .iter()
            .flat_map(|it| {
                sequence(it).prompt.ids[it.position..it.position + it.rows].iter().copied()
            })
            .collect();
        let device = self.decoder.device();
        let mut rows = self.decoder.embed(&Tensor::new(ids, device)?)?;
        for chunk in chunks {
            let overlay = &sequence(chunk).prompt.overlay;
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
