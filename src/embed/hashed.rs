//! Hashed n-grams: vectors without a model.

use super::{EmbedError, Encoder};
use crate::text::normalise;

/// Length of a vector where nobody chooses.
const DIM: usize = 4096;

/// Length of a vector for classifiers: two features of a few thousand short texts seldom meet.
pub const WIDE_DIM: usize = 1 << 16;

/// Longest vector.
pub const MAX_DIM: usize = 1 << 20;

/// Changes whenever the same text would give another vector.
pub const VERSION: u32 = 1;

const CHAR_GRAMS: std::ops::RangeInclusive<usize> = 3..=5;

/// Words, pairs of words, and 3- to 5-grams of the characters of each word (with a mark at either
/// end), signed hashing into buckets (Weinberger et al., arXiv:0902.2206), square root of the count,
/// norm 1. Reads the normalised text, so disguises of letters make no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    dim: usize,
}

impl Default for Hashed {
    fn default() -> Self {
        Self { dim: DIM }
    }
}

impl Hashed {
    /// The encoder with this many buckets, 1 to [`MAX_DIM`]; `None` for any other number.
    #[must_use]
    pub fn new(dim: usize) -> Option<Self> {
        (1..=MAX_DIM).contains(&dim).then_some(Self { dim })
    }

    /// The non-zero elements in ascending order of index.
    #[must_use]
    pub fn encode_sparse(&self, text: &str) -> Vec<(u32, f32)> {
        let mut hashes = hashes(&normalise(text).text);
        hashes.sort_unstable();
        let mut buckets: Vec<(u32, f32)> = hashes
            .chunk_by(|a, b| a == b)
            .map(|it| {
                let sign = if it[0] >> 63 == 0 { 1.0 } else { -1.0 };
                ((it[0] % self.dim as u64) as u32, sign * (it.len() as f32).sqrt())
            })
            .collect();
        buckets.sort_by_key(|it| it.0);
        buckets.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        buckets.retain(|it| it.1 != 0.0);
        let norm = buckets.iter().map(|it| it.1 * it.1).sum::<f32>().sqrt();
        for bucket in &mut buckets {
            bucket.1 /= norm;
        }
        buckets
    }
}

impl Encoder for Hashed {
    fn dim(&self) -> usize {
        self.dim
    }

    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, EmbedError> {
        let mut out = vec![0.0; texts.len() * self.dim];
        for (row, text) in out.chunks_mut(self.dim).zip(texts) {
            for (index, value) in self.encode_sparse(text) {
                row[index as usize] = value;
            }
        }
        Ok(out)
    }

    /// A window takes microseconds.
    fn most_windows(&self) -> usize {
        100_000
    }

    fn identity(&self) -> String {
        format!("hashed-{VERSION}-{}", self.dim)
    }
}

/// One hash per occurrence of a feature.
fn hashes(text: &str) -> Vec<u64> {
    let mut out = Vec::with_capacity(text.len() * 4);
    let mut padded: Vec<char> = Vec::new();
    let mut previous = None;
    for word in text.split(|it: char| !it.is_alphanumeric()).filter(|it| !it.is_empty()) {
        let hash = Fnv::new(b'w').text(word);
        out.push(hash.finish());
        if let Some(previous) = previous.replace(word) {
            out.push(Fnv::new(b'b').text(previous).char(' ').text(word).finish());
        }
        padded.clear();
        padded.push('<');
        padded.extend(word.chars());
        padded.push('>');
        for start in 0..padded.len() {
            let mut hash = Fnv::new(b'c');
            for (i, c) in padded[start..].iter().take(*CHAR_GRAMS.end()).enumerate() {
                hash = hash.char(*c);
                if CHAR_GRAMS.contains(&(i + 1)) {
                    out.push(hash.finish());
                }
            }
        }
    }
    out
}

/// FNV-1a over code points, mixed at the end because its low bits alone are weak.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    fn new(kind: u8) -> Self {
        Self(0xCBF2_9CE4_8422_2325).step(u64::from(kind))
    }

    fn step(self, value: u64) -> Self {
        Self((self.0 ^ value).wrapping_mul(0x0000_0100_0000_01B3))
    }

    fn char(self, c: char) -> Self {
        self.step(u64::from(u32::from(c)))
    }

    fn text(self, text: &str) -> Self {
        text.chars().fold(self, Self::char)
    }

    fn finish(self) -> u64 {
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A classifier on disk is tied to these hashes: when they change, so must [`VERSION`].
    #[test]
    fn hashes_never_change() {
        // FNV-1a of "wa" as its authors define it; the finished value is from Python.
        let mut fnv = 0xCBF2_9CE4_8422_2325u64;
        for byte in *b"wa" {
            fnv = (fnv ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        assert_eq!(Fnv::new(b'w').text("a").0, fnv);
        assert_eq!(Fnv::new(b'w').text("a").finish(), 0x42E7_8891_7D42_D3E2);
    }

    #[test]
    fn vectors_have_norm_one_and_ignore_disguises() {
        let plain = Hashed::default().encode_sparse("Who wrote The River? Basil wrote it.");
        let norm: f32 = plain.iter().map(|it| it.1 * it.1).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
        assert!(plain.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(
            plain,
            Hashed::default().encode_sparse("who  wrote thе river? Ba\u{200B}sil wrote it")
        );
        assert!(Hashed::default().encode_sparse(" ?! ").is_empty());
    }

    #[test]
    fn dense_and_sparse_agree() {
        let dense = Hashed::default().encode(&["a river", ""]).unwrap();
        let sparse = Hashed::default().encode_sparse("a river");
        assert_eq!(dense.iter().filter(|it| **it != 0.0).count(), sparse.len());
        assert!(sparse.iter().all(|it| dense[it.0 as usize] == it.1));
    }

    /// 4,096 divides 65,536, so that a bucket of the long vector has its place in the short one.
    #[test]
    fn more_buckets_only_part_what_fell_together() {
        let text = "Who wrote The River that runs through Bergen, and when was it published? Tell me what \
                    the critics said about its ending, whether it was ever translated, which prizes it \
                    won in Norway, and where the author lived while she was writing the last chapters.";
        let (short, long) = (Hashed::default(), Hashed::new(WIDE_DIM).unwrap());
        let (few, many) = (short.encode_sparse(text), long.encode_sparse(text));
        assert!(many.len() > few.len(), "{} {}", many.len(), few.len());
        let places: Vec<u32> = many.iter().map(|it| it.0 % DIM as u32).collect();
        assert!(few.iter().all(|it| places.contains(&it.0)));
        assert!(many.iter().all(|it| (it.0 as usize) < WIDE_DIM));
        assert!(Hashed::new(0).is_none() && Hashed::new(MAX_DIM + 1).is_none());
    }
}
