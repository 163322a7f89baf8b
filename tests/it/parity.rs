//! The engine against transformers: logits and chat tokens that `tests/fixtures/parity/record.py`
//! recorded from the same files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use unlearn_proxy::engine::decoder::Decoder;
use unlearn_proxy::engine::kv_cache::{Chunk, KvCache};
use unlearn_proxy::engine::tokenizer::Tokenizer;
use unlearn_proxy::engine::weights;
use unlearn_proxy::types::{Message, Role};

const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    variants: BTreeMap<String, Vec<Sequence>>,
    lab: Vec<Chat>,
}

/// Ids and the logits of the last positions.
#[derive(Deserialize)]
struct Sequence {
    ids: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

/// A conversation, its ids and the first logits of its last position.
#[derive(Deserialize)]
struct Chat {
    messages: Vec<Turn>,
    ids: Vec<u32>,
    logits: Vec<f32>,
    argmax: usize,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: String,
}

impl Turn {
    fn message(&self) -> Message {
        let roles = [Role::System, Role::User, Role::Assistant];
        let role = roles.into_iter().find(|it| it.as_str() == self.role).unwrap();
        Message { role, content: self.content.clone() }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/parity").join(name)
}

fn expected() -> Expected {
    let text = std::fs::read_to_string(fixture("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn load(folder: &Path) -> Decoder {
    weights::load(folder, &Device::Cpu, DType::F32).unwrap()
}

fn embed(decoder: &Decoder, ids: &[u32]) -> Tensor {
    decoder.embed(&Tensor::new(ids, &Device::Cpu).unwrap()).unwrap()
}

fn logits(decoder: &Decoder, residual: &Tensor) -> Vec<Vec<f32>> {
    decoder.logits(residual).unwrap().to_vec2().unwrap()
}

fn assert_close(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= TOLERANCE, "{what}, entry {at}: {got}, expected {want}");
    }
}

/// Logits of the last row when the sequence enters the cache in chunks of `sizes` rows.
fn cached(decoder: &Decoder, ids: &[u32], sizes: &[usize]) -> Vec<f32> {
    let (config, device) = (&decoder.config, Device::Cpu);
    let mut cache = KvCache::new(config, &decoder.rope, 1, 64, &device, DType::F32).unwrap();
    let mut position = 0;
    let mut last = Vec::new();
    for &rows in sizes {
        let chunks = [Chunk { slot: 0, row: 0, rows, position }];
        let embedded = embed(decoder, &ids[position..position + rows]);
        let attend = |layer, qkv: &Tensor| cache.attend(layer, qkv, &chunks);
        let residual = decoder.blocks(embedded, &[rows as u32 - 1], attend).unwrap();
        last = logits(decoder, &residual).pop().unwrap();
        position += rows;
    }
    assert_eq!(position, ids.len());
    last
}

#[test]
fn packed_sequences_give_the_logits_of_transformers() {
    let expected = expected();
    assert_eq!(expected.variants.len(), 3);
    for (name, sequences) in &expected.variants {
        let decoder = load(&fixture(name));
        assert_eq!(decoder.head.is_none(), name == "tied", "{name}");
        let ids: Vec<u32> = sequences.iter().flat_map(|it| it.ids.clone()).collect();
        let starts = [0, 7, 57];
        let residual = decoder.forward(embed(&decoder, &ids), &starts).unwrap();
        let got = logits(&decoder, &residual);
        // Rows alone, out of order and twice, are the same rows.
        let chosen = [56, 0, 8, 8];
        let alone = decoder.forward_of(embed(&decoder, &ids), &starts, &chosen).unwrap();
        for (row, at) in logits(&decoder, &alone).iter().zip(chosen) {
            assert_close(row, &got[at as usize], &format!("{name}, row {at} alone"));
        }
        let none = decoder.forward_of(embed(&decoder, &ids), &starts, &[]).unwrap();
        assert!(decoder.host_logits(&none).unwrap().is_empty());
        for (sequence, end) in sequences.iter().zip(&starts[1..]) {
            let first = end - sequence.logits.len();
            for (row, want) in sequence.logits.iter().enumerate() {
                let at = first + row;
                assert_close(&got[at], want, &format!("{name}, packed row {at}"));
            }
        }
    }
}

#[test]
fn cached_sequences_give_the_logits_of_transformers() {
    for (name, sequences) in &expected().variants {
        let decoder = load(&fixture(name)).turned().unwrap();
        for (sequence, sizes) in sequences.iter().zip([&[3, 1, 3], &[31, 1, 18]]) {
            let got = cached(&decoder, &sequence.ids, sizes);
            let want = sequence.logits.last().unwrap();
            assert_close(&got, want, &format!("{name}, chunks of {sizes:?}"));
        }
    }
}

#[test]
fn lab_chats_give_the_ids_and_logits_of_transformers() {
    let folder = root().join("models/lab/full");
    let decoder = load(&folder);
    let tokenizer = Tokenizer::read(&folder, &decoder.config.end_tokens).unwrap();
    for chat in &expected().lab {
        let messages: Vec<Message> = chat.messages.iter().map(Turn::message).collect();
        let ids = tokenizer.encode_chat(&messages).unwrap().ids;
        assert_eq!(ids, chat.ids, "{messages:?}");
        let residual = decoder.forward(embed(&decoder, &ids), &[0, ids.len()]).unwrap();
        let last = residual.narrow(0, ids.len() - 1, 1).unwrap();
        let row = logits(&decoder, &last).pop().unwrap();
        assert_close(&row[..chat.logits.len()], &chat.logits, &format!("{messages:?}"));
        let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        assert_eq!(best, chat.argmax, "{messages:?}");
    }
}

/// What is saved loads as the same model, frequencies included.
#[test]
fn saving_keeps_the_model() {
    for variant in ["tied", "untied", "llama3"] {
        let decoder = weights::load(&fixture(variant), &Device::Cpu, DType::F32).unwrap();
        let dir = tempfile::tempdir().unwrap();
        weights::save(&decoder, dir.path(), DType::F32).unwrap();
        let again = weights::load(dir.path(), &Device::Cpu, DType::F32).unwrap();
        assert_eq!(again.config, decoder.config, "{variant}");
        let logits = |it: &Decoder| {
            let ids = Tensor::new(&[3u32, 9, 27, 5, 11], &Device::Cpu).unwrap();
            let hidden = it.forward(it.embed(&ids).unwrap(), &[0, 5]).unwrap();
            it.logits(&hidden).unwrap().to_vec2::<f32>().unwrap()
        };
        assert_eq!(logits(&again), logits(&decoder), "{variant}");
    }
}
