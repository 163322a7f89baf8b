//! Texts as a classifier reads them, and heads fitted on what it reads.

use super::EncoderChoice;
use super::regression::{Problem, Sparse};
use crate::embed::{
    AnyEncoder, EmbedError, Encoder, EncoderSpec, HASHED_VERSION, Hashed, Head, Joined, Onnx,
    OnnxOptions, WIDE_DIM, WINDOW_OVERLAP, WINDOW_WORDS, most_suspicious,
};
use crate::text::windows;
use crate::train::hidden::HiddenEncoder;

/// Factor of the columns that are not n-grams: about what a rare n-gram's is, so that in a joined vector
/// meaning counts as much as words.
const DENSE_SCALE: f32 = 5.0;

/// An encoder, opened.
#[derive(Debug)]
pub(super) struct Reader {
    encoder: AnyEncoder,
    /// The encoder for the manifest.
    pub(super) spec: EncoderSpec,
    /// Length of a vector.
    width: usize,
    /// How many columns from the first on are n-grams.
    grams: usize,
}

/// What there is to read in a text: windows of it first, then its sentences.
#[derive(Debug)]
pub(super) struct Seen {
    parts: Vec<Sparse>,
    windows: usize,
}

impl Seen {
    /// What a classifier is trained on: the windows, any of which may be what makes a text one about the
    /// topic; and of another text its sentences too, none of which may be taken for it.
    pub(super) fn evidence(&self, about: bool) -> &[Sparse] {
        if about { &self.parts[..self.windows] } else { &self.parts }
    }

    /// The score of the most suspicious part, as it is served; 0 for a text without words.
    pub(super) fn score(&self, head: &Head) -> f32 {
        self.parts.iter().map(|it| head.score_sparse(it)).fold(0.0, f32::max)
    }
}

impl Reader {
    pub(super) fn open(choice: &EncoderChoice) -> Result<Self, EmbedError> {
        let (encoder, spec, grams) = match choice {
            EncoderChoice::Hashed => {
                let spec = EncoderSpec::Hashed { dim: WIDE_DIM, version: HASHED_VERSION };
                (AnyEncoder::Hashed(wide()), spec, WIDE_DIM)
            }
            EncoderChoice::Onnx(path, runtime) => {
                let onnx = Onnx::load(path, &options(runtime.as_ref()))?;
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                let spec = EncoderSpec::Onnx { path, sha256: onnx.identity() };
                (AnyEncoder::Onnx(onnx), spec, 0)
            }
            EncoderChoice::Joined(path, runtime) => {
                let onnx = Onnx::load(path, &options(runtime.as_ref()))?;
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                let (dim, version, sha256) = (WIDE_DIM, HASHED_VERSION, onnx.identity());
                let spec = EncoderSpec::Joined { dim, version, path, sha256 };
                (AnyEncoder::Joined(Joined::new(wide(), Box::new(onnx))), spec, WIDE_DIM)
            }
            EncoderChoice::Hidden(folder, layer) => {
                let encoder = HiddenEncoder::load(folder, *layer)?;
                let (layer, dim, weights_sha256) = (*layer, encoder.dim(), encoder.identity());
                let spec = EncoderSpec::Hidden { layer, dim, weights_sha256 };
                (AnyEncoder::Hidden(Box::new(encoder)), spec, 0)
            }
        };
        let width = encoder.as_encoder().dim();
        Ok(Self { encoder, spec, width, grams })
    }

    /// Whether upper case and marks make no difference to the encoder.
    pub(super) fn is_caseless(&self) -> bool {
        self.grams == self.width
    }

    pub(super) fn read(&self, text: &str) -> Result<Seen, EmbedError> {
        let mut parts = Vec::new();
        most_suspicious(text, |part| {
            parts.push(self.encoder.features(part)?);
            Ok(0.0)
        })?;
        let windows = windows(text, WINDOW_WORDS, WINDOW_OVERLAP).len().min(parts.len());
        Ok(Seen { parts, windows })
    }

    /// A head that tells the rows of the two sides apart; both sides weigh alike.
    ///
    /// Columns of n-grams are scaled by their rarity, `1 + ln((1 + rows) / (1 + rows with it))`, which
    /// lets rare words and names grow larger weights than common ones under the same penalty. The scale
    /// goes into the weights, so that whoever reads the head need not know of it.
    pub(super) fn fit(&self, rows: Vec<(&Sparse, bool)>, penalty: f64) -> Head {
        let mut occurs = vec![0usize; self.grams];
        for (row, _) in &rows {
            for (at, _) in row.iter() {
                if let Some(count) = occurs.get_mut(*at as usize) {
                    *count += 1;
                }
            }
        }
        let total = (1 + rows.len()) as f64;
        let rarity = |count: usize| (1.0 + (total / (1 + count) as f64).ln()) as f32;
        let mut scales: Vec<f32> = occurs.into_iter().map(rarity).collect();
        scales.resize(self.width, DENSE_SCALE);
        let mut found = Problem { rows, scales: &scales, penalty }.solve();
        let bias = found.pop().unwrap_or_default() as f32;
        let weights =
            found.iter().zip(&scales).map(|(it, scale)| (it * f64::from(*scale)) as f32).collect();
        Head { weights, bias }
    }
}

fn wide() -> Hashed {
    Hashed::new(WIDE_DIM).expect("the length is in range")
}

fn options(runtime: Option<&std::path::PathBuf>) -> OnnxOptions {
    OnnxOptions { runtime: runtime.cloned(), ..OnnxOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_read_in_windows_and_sentences() {
        let reader = Reader::open(&EncoderChoice::Hashed).unwrap();
        assert!(reader.is_caseless());
        let one = reader.read("Where was Basil Okafor born?").unwrap();
        assert_eq!((one.evidence(true).len(), one.evidence(false).len()), (1, 1));
        let two = reader.read("Where was Basil Okafor born? The weather is fine today.").unwrap();
        assert_eq!((two.evidence(true).len(), two.evidence(false).len()), (1, 3));
        assert_eq!(reader.read(" ?! ").unwrap().parts.iter().map(Vec::len).sum::<usize>(), 0);
    }

    /// A word of every row has the scale 1, one of a single row of three 1 + ln 2; the bias evens out.
    #[test]
    fn the_head_is_for_unscaled_vectors() {
        let reader = Reader::open(&EncoderChoice::Hashed).unwrap();
        let (about, other) = (vec![(0, 0.6), (1, 0.8)], vec![(0, 1.0)]);
        let head = reader.fit(vec![(&about, true), (&other, false), (&other, false)], 0.1);
        let scales = [1.0, 1.0 + 2f32.ln()];
        let mut scaled = scales.to_vec();
        scaled.resize(WIDE_DIM, 1.0);
        let rows = vec![(&about, true), (&other, false), (&other, false)];
        let want = Problem { rows, scales: &scaled, penalty: 0.1 }.solve();
        for at in 0..2 {
            assert!((head.weights[at] - want[at] as f32 * scales[at]).abs() < 1e-4, "{at}");
        }
        assert!(head.score_sparse(&about) > 0.5 && head.score_sparse(&other) < 0.5);
    }
}
