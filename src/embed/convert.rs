//! A BERT encoder's safetensors as an ONNX model, so that one pair of published files gives the same
//! `model.onnx` wherever it was fetched from.
//!
//! Inputs `input_ids`, `attention_mask` and `token_type_ids`, output `last_hidden_state`
//! `[batch, tokens, hidden]`. Only the few messages of `onnx.proto` that this takes are written.

use std::collections::HashSet;
use std::fmt;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::EmbedError;

/// The first operator set with `Gelu`.
const OPSET: u64 = 20;
const IR_VERSION: u64 = 9;
/// `TensorProto.DataType`.
const FLOAT: u64 = 1;
const INT8: u64 = 3;
const INT64: u64 = 7;

/// The largest quantised weight. Seven bits, because AVX2 adds two products of 8-bit numbers in 16 bits
/// and saturates: 2 * 255 * 63 still fits.
const MOST_INT8: f32 = 63.0;

/// How the matrices of an encoder are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As published.
    #[default]
    F32,
    /// Seven bits with one scale per output, and inputs in eight bits with one scale per call
    /// (dynamic quantisation): faster, smaller, and a little different.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

/// The keys of a BERT's `config.json` that the graph depends on.
#[derive(Debug, Clone, Deserialize)]
struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    layer_norm_eps: f32,
    hidden_act: String,
}

fn wrong(file: &str, message: impl Into<String>) -> EmbedError {
    EmbedError::Content { path: file.into(), key: "(whole file)", message: message.into() }
}

/// The ONNX model of a BERT encoder's `config.json` and `model.safetensors`. Embeddings and norms are
/// kept in f32 at any precision.
///
/// # Errors
///
/// [`EmbedError::Content`] for what is not a BERT encoder in f32 with exact GELU.
pub fn bert_to_onnx(
    config: &[u8],
    weights: &[u8],
    precision: Precision,
) -> Result<Vec<u8>, EmbedError> {
    let config: Config =
        serde_json::from_slice(config).map_err(|it| wrong("config.json", it.to_string()))?;
    let heads = config.num_attention_heads;
    if config.hidden_act != "gelu" || heads == 0 || !config.hidden_size.is_multiple_of(heads) {
        return Err(wrong("config.json", "is not that of a BERT encoder with exact GELU"));
    }
    let weights = SafeTensors::deserialize(weights)
        .map_err(|it| wrong("model.safetensors", it.to_string()))?;
    let (body, quantised) = (Message::default(), HashSet::new());
    let mut graph = Graph { config, weights, precision, body, quantised };
    graph.build()?;
    let mut opset = Message::default();
    opset.number(2, OPSET);
    let mut model = Message::default();
    model.number(1, IR_VERSION);
    model.text(2, env!("CARGO_PKG_NAME"));
    model.message(7, &graph.body);
    model.message(8, &opset);
    Ok(model.0)
}

/// A `GraphProto` that grows node by node; a node is named after its output.
struct Graph<'a> {
    config: Config,
    weights: SafeTensors<'a>,
    precision: Precision,
    body: Message,
    /// Values that exist in eight bits too.
    quantised: HashSet<String>,
}

impl Graph<'_> {
    fn build(&mut self) -> Result<(), EmbedError> {
        let hidden = self.config.hidden_size;
        self.body.text(2, "bert");
        for name in ["input_ids", "attention_mask", "token_type_ids"] {
            let value = value_info(name, INT64, &[Dim::Named("batch"), Dim::Named("tokens")]);
            self.body.message(11, &value);
        }
        let shape = [Dim::Named("batch"), Dim::Named("tokens"), Dim::Is(hidden)];
        self.body.message(12, &value_info("last_hidden_state", FLOAT, &shape));

        self.numbers("zero", &[0]);
        self.numbers("mask_axes", &[1, 2]);
        self.numbers("split_heads", &[0, 0, self.config.num_attention_heads as i64, -1]);
        self.numbers("join_heads", &[0, 0, hidden as i64]);
        let per_head = (hidden / self.config.num_attention_heads) as f32;
        self.scalar("scale", per_head.sqrt().recip());
        self.scalar("one", 1.0);
        self.scalar("far_below", -1e9);

        // 0 where a token counts and far below where it is padding, `[batch, 1, 1, tokens]`.
        self.node("Cast", &["attention_mask"], "kept", &[("to", Attribute::Int(FLOAT as i64))]);
        self.node("Sub", &["one", "kept"], "padded", &[]);
        self.node("Mul", &["padded", "far_below"], "flat_mask", &[]);
        self.node("Unsqueeze", &["flat_mask", "mask_axes"], "mask", &[]);

        for table in ["word", "position", "token_type"] {
            self.weight(&format!("embeddings.{table}_embeddings.weight"))?;
        }
        let table = |it: &str| format!("embeddings.{it}_embeddings.weight");
        self.node("Gather", &[&table("word"), "input_ids"], "words", &[]);
        self.node("Gather", &[&table("token_type"), "token_type_ids"], "types", &[]);
        let second = [("start", Attribute::Int(1)), ("end", Attribute::Int(2))];
        self.node("Shape", &["input_ids"], "tokens", &second);
        self.node("Slice", &[&table("position"), "zero", "tokens", "zero"], "positions", &[]);
        self.node("Add", &["words", "types"], "typed", &[]);
        self.node("Add", &["typed", "positions"], "placed", &[]);
        let last = self.config.num_hidden_layers;
        let named = |layer: usize| {
            if layer == last { "last_hidden_state".to_owned() } else { format!("hidden.{layer}") }
        };
        self.norm("embeddings.LayerNorm", "placed", &named(0))?;
        for layer in 0..last {
            self.layer(layer, &named(layer), &named(layer + 1))?;
        }
        Ok(())
    }

    fn layer(&mut self, layer: usize, input: &str, output: &str) -> Result<(), EmbedError> {
        let weight = |part: &str| format!("encoder.layer.{layer}.{part}");
        let value = |it: &str| format!("layer.{layer}.{it}");
        // Queries and values `[batch, head, tokens, dim]`; keys with the last two exchanged.
        for (part, order) in
            [("query", [0i64, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])]
        {
            let (flat, split) = (value(&format!("{part}.flat")), value(&format!("{part}.split")));
            self.dense(&weight(&format!("attention.self.{part}")), input, &flat)?;
            self.node("Reshape", &[&flat, "split_heads"], &split, &[]);
            let order = [("perm", Attribute::Ints(&order))];
            self.node("Transpose", &[&split], &value(part), &order);
        }
        let last = [("axis", Attribute::Int(-1))];
        self.node("MatMul", &[&value("query"), &value("key")], &value("products"), &[]);
        self.node("Mul", &[&value("products"), "scale"], &value("scaled"), &[]);
        self.node("Add", &[&value("scaled"), "mask"], &value("masked"), &[]);
        self.node("Softmax", &[&value("masked")], &value("shares"), &last);
        self.node("MatMul", &[&value("shares"), &value("value")], &value("heads"), &[]);
        let back = [("perm", Attribute::Ints(&[0, 2, 1, 3]))];
        self.node("Transpose", &[&value("heads")], &value("tokens"), &back);
        self.node("Reshape", &[&value("tokens"), "join_heads"], &value("joined"), &[]);
        self.dense(&weight("attention.output.dense"), &value("joined"), &value("attended"))?;
        self.node("Add", &[&value("attended"), input], &value("attention.sum"), &[]);
        let attention = value("attention");
        self.norm(&weight("attention.output.LayerNorm"), &value("attention.sum"), &attention)?;

        self.dense(&weight("intermediate.dense"), &attention, &value("wide"))?;
        self.node("Gelu", &[&value("wide")], &value("active"), &[]);
        self.dense(&weight("output.dense"), &value("active"), &value("narrow"))?;
        self.node("Add", &[&value("narrow"), &attention], &value("sum"), &[]);
        self.norm(&weight("output.LayerNorm"), &value("sum"), output)
    }

    /// `input` times the transposed weight, plus the bias.
    fn dense(&mut self, name: &str, input: &str, output: &str) -> Result<(), EmbedError> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let (shape, bytes) = self.tensor(&weight)?;
        let [rows, columns] = shape[..] else {
            return Err(wrong("model.safetensors", format!("`{weight}` is not a matrix")));
        };
        let product = format!("{output}.product");
        match self.precision {
            Precision::F32 => {
                let transposed = transpose::<4>(bytes, rows, columns);
                self.body.message(5, &tensor(&weight, FLOAT, &[columns, rows], &transposed));
                self.node("MatMul", &[input, &weight], &product, &[]);
            }
            Precision::Int8 => {
                let (steps, quantised) = quantise(bytes, columns);
                let transposed = transpose::<1>(&quantised, rows, columns);
                self.body.message(5, &tensor(&weight, INT8, &[columns, rows], &transposed));
                let scale = format!("{name}.scale");
                self.body.message(5, &tensor(&scale, FLOAT, &[rows], &steps));
                self.integer_product(input, &weight, &scale, &product);
            }
        }
        self.weight(&bias)?;
        self.node("Add", &[&product, &bias], output, &[]);
        Ok(())
    }

    /// The same product over eight-bit numbers. In this order of operators ONNX Runtime fuses them.
    fn integer_product(&mut self, input: &str, weight: &str, scale: &str, product: &str) {
        let [eight, step, zero] = ["eight", "step", "zero"].map(|it| format!("{input}.{it}"));
        if self.quantised.insert(input.to_owned()) {
            let outputs = [eight.as_str(), &step, &zero];
            self.node_with("DynamicQuantizeLinear", &[input], &outputs, &[]);
        }
        let [whole, float, steps] = ["whole", "float", "steps"].map(|it| format!("{product}.{it}"));
        self.node("MatMulInteger", &[&eight, weight, &zero], &whole, &[]);
        self.node("Cast", &[&whole], &float, &[("to", Attribute::Int(FLOAT as i64))]);
        self.node("Mul", &[&step, scale], &steps, &[]);
        self.node("Mul", &[&float, &steps], product, &[]);
    }

    fn norm(&mut self, name: &str, input: &str, output: &str) -> Result<(), EmbedError> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        self.weight(&weight)?;
        self.weight(&bias)?;
        let epsilon = Attribute::Float(self.config.layer_norm_eps);
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", epsilon)];
        self.node("LayerNormalization", &[input, &weight, &bias], output, &attributes);
        Ok(())
    }

    fn tensor(&self, name: &str) -> Result<(Vec<usize>, &[u8]), EmbedError> {
        let wrong = |message: String| wrong("model.safetensors", message);
        let found = self.weights.tensor(name).map_err(|it| wrong(format!("`{name}`: {it}")))?;
        if found.dtype() != Dtype::F32 {
            return Err(wrong(format!("`{name}` is {:?}, not F32", found.dtype())));
        }
        Ok((found.shape().to_vec(), found.data()))
    }

    fn weight(&mut self, name: &str) -> Result<(), EmbedError> {
        let (shape, bytes) = self.tensor(name)?;
        let written = tensor(name, FLOAT, &shape, bytes);
        self.body.message(5, &written);
        Ok(())
    }

    fn numbers(&mut self, name: &str, values: &[i64]) {
        let bytes: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        self.body.message(5, &tensor(name, INT64, &[values.len()], &bytes));
    }

    fn scalar(&mut self, name: &str, value: f32) {
        self.body.message(5, &tensor(name, FLOAT, &[], &value.to_le_bytes()));
    }

    fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, Attribute<'_>)],
    ) {
        self.node_with(operator, inputs, &[output], attributes);
    }

    /// A node of several outputs, named after the first.
    fn node_with(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) {
        let mut node = Message::default();
        for input in inputs {
            node.text(1, input);
        }
        for output in outputs {
            node.text(2, output);
        }
        node.text(3, outputs[0]);
        node.text(4, operator);
        for (name, attribute) in attributes {
            node.message(5, &attribute.message(name));
        }
        self.body.message(1, &node);
    }
}

/// An attribute of a node.
#[derive(Debug, Clone, Copy)]
enum Attribute<'a> {
    Int(i64),
    Ints(&'a [i64]),
    Float(f32),
}

impl Attribute<'_> {
    /// An `AttributeProto`.
    fn message(&self, name: &str) -> Message {
        let mut out = Message::default();
        out.text(1, name);
        let kind = match self {
            Self::Float(value) => {
                out.float(2, *value);
                1
            }
            Self::Int(value) => {
                out.number(3, *value as u64);
                2
            }
            Self::Ints(values) => {
                values.iter().for_each(|it| out.number(8, *it as u64));
                7
            }
        };
        out.number(20, kind);
        out
    }
}

/// A dimension of an input or output.
#[derive(Debug, Clone, Copy)]
enum Dim<'a> {
    Named(&'a str),
    Is(usize),
}

/// A `ValueInfoProto`.
fn value_info(name: &str, kind: u64, shape: &[Dim<'_>]) -> Message {
    let mut dims = Message::default();
    for dim in shape {
        let mut out = Message::default();
        match dim {
            Dim::Is(size) => out.number(1, *size as u64),
            Dim::Named(name) => out.text(2, name),
        }
        dims.message(1, &out);
    }
    let mut tensor = Message::default();
    tensor.number(1, kind);
    tensor.message(2, &dims);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut out = Message::default();
    out.text(1, name);
    out.message(2, &kind);
    out
}

/// A `TensorProto`.
fn tensor(name: &str, kind: u64, shape: &[usize], bytes: &[u8]) -> Message {
    let mut out = Message::default();
    shape.iter().for_each(|it| out.number(1, *it as u64));
    out.number(2, kind);
    out.text(8, name);
    out.bytes(9, bytes);
    out
}

/// The rows of an f32 matrix in whole numbers of a step each: steps (f32) and numbers (i8), as bytes.
fn quantise(bytes: &[u8], columns: usize) -> (Vec<u8>, Vec<u8>) {
    let (values, _) = bytes.as_chunks::<4>();
    let values: Vec<f32> = values.iter().map(|it| f32::from_le_bytes(*it)).collect();
    let (mut steps, mut numbers) = (Vec::new(), Vec::with_capacity(values.len()));
    for row in values.chunks(columns) {
        let most = row.iter().fold(0f32, |most, it| most.max(it.abs()));
        let step = if most > 0.0 { most / MOST_INT8 } else { 1.0 };
        steps.extend(step.to_le_bytes());
        numbers.extend(row.iter().map(|it| (it / step).round() as i8 as u8));
    }
    (steps, numbers)
}

/// The bytes of a transposed matrix of `SIZE`-byte elements.
fn transpose<const SIZE: usize>(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            let at = SIZE * (row * columns + column);
            out.extend_from_slice(&bytes[at..at + SIZE]);
        }
    }
    out
}

/// A protobuf message in its wire format.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7F) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint((field << 3) | wire_type);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, value: &Self) {
        self.bytes(field, &value.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the protobuf encoding guide: `150` in field 1 and `testing` in field 2.
    #[test]
    fn writes_the_wire_format() {
        let mut message = Message::default();
        message.number(1, 150);
        message.text(2, "testing");
        assert_eq!(message.0, b"\x08\x96\x01\x12\x07testing");
        let mut outer = Message::default();
        outer.float(2, 1.0);
        outer.number(3, -1i64 as u64);
        assert_eq!(outer.0, b"\x15\0\0\x80\x3f\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }

    #[test]
    fn transposes_elements_not_bytes() {
        let bytes: Vec<u8> = [1u32, 2, 3, 4, 5, 6].iter().flat_map(|it| it.to_le_bytes()).collect();
        let want: Vec<u8> = [1u32, 4, 2, 5, 3, 6].iter().flat_map(|it| it.to_le_bytes()).collect();
        assert_eq!(transpose::<4>(&bytes, 2, 3), want);
        assert_eq!(transpose::<1>(&[1, 2, 3, 4, 5, 6], 2, 3), [1, 4, 2, 5, 3, 6]);
    }

    #[test]
    fn a_row_is_quantised_by_its_largest_number() {
        let bytes: Vec<u8> =
            [6.3f32, -3.1, 0.0, 0.0].iter().flat_map(|it| it.to_le_bytes()).collect();
        let (steps, numbers) = quantise(&bytes, 2);
        let steps: Vec<f32> =
            steps.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
        assert!((steps[0] - 0.1).abs() < 1e-6 && (steps[1] - 1.0).abs() < 1e-6, "{steps:?}");
        assert_eq!(numbers, [63, -31i8 as u8, 0, 0]);
    }

    #[test]
    fn says_which_tensor_is_missing() {
        let config = br#"{"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
            "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;
        // A header of length 2, `{}`, and no data.
        let error = bert_to_onnx(config, b"\x02\0\0\0\0\0\0\0{}", Precision::F32);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("embeddings.word_embeddings.weight"), "{error}");
        assert!(bert_to_onnx(b"{}", b"", Precision::F32).is_err());
    }
}
