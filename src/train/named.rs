//! A decoder's tensors under the names that training gives them.

use candle_core::{DType, Result, Tensor};

use crate::engine::decoder::{Block, Decoder};

/// Every tensor of a decoder with its name (`embedding`, `0.qkv`, `norm`, ..) in a fixed order, to
/// be replaced in place. The names are those of [`Trainable::vars`](super::trainable::Trainable).
pub fn tensors_mut(decoder: &mut Decoder) -> Vec<(String, &mut Tensor)> {
    let Decoder { embedding, blocks, norm, head, .. } = decoder;
    let mut out = vec![("embedding".to_owned(), embedding)];
    for (layer, block) in blocks.iter_mut().enumerate() {
        let Block { attention_norm, qkv, output, feed_forward_norm, gate_up, down } = block;
        for (name, tensor) in [
            ("attention_norm", attention_norm),
            ("qkv", qkv),
            ("output", output),
            ("feed_forward_norm", feed_forward_norm),
            ("gate_up", gate_up),
            ("down", down),
        ] {
            out.push((format!("{layer}.{name}"), tensor));
        }
    }
    out.push(("norm".to_owned(), norm));
    out.extend(head.as_mut().map(|it| ("head".to_owned(), it)));
    out
}

/// The same weights without gradients: nothing of a graph that they came from is kept.
#[must_use]
pub fn detached(mut decoder: Decoder) -> Decoder {
    for (_, tensor) in tensors_mut(&mut decoder) {
        *tensor = tensor.detach();
    }
    decoder
}

/// The same weights rounded to `dtype`, differentiable with respect to what they were; but for an embedding
/// table that is not the head as well, whose rows are rounded when they are looked up.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn rounded(mut decoder: Decoder, dtype: DType) -> Result<Decoder> {
    let tied = decoder.head.is_none();
    for (name, tensor) in tensors_mut(&mut decoder) {
        if tied || name != "embedding" {
            *tensor = tensor.to_dtype(dtype)?;
        }
    }
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model_config::ModelConfig;
    use crate::train::initial;
    use crate::train::trainable::{Trainable, tests::tiny_config};

    #[test]
    fn names_and_order_are_those_of_a_trainable_model() {
        for tied_head in [true, false] {
            let config = ModelConfig { tied_head, ..tiny_config() };
            let mut decoder = initial::decoder(&config, 1).unwrap();
            let trainable = Trainable::from_decoder(&decoder).unwrap();
            let named = tensors_mut(&mut decoder);
            assert_eq!(named.len(), trainable.vars.len());
            for ((name, tensor), (other, var)) in named.iter().zip(&trainable.vars) {
                assert_eq!(name, other);
                assert_eq!(tensor.dims(), var.dims());
            }
        }
    }
}
