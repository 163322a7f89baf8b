//! Protected text, as the window asks about it.

use std::sync::Arc;

use crate::detect::Shingles;
use crate::window::{Copies, Look};

/// The shingles of a policy, which a reply must not copy.
#[derive(Debug)]
pub(super) struct Protected(pub(super) Arc<Shingles>);

impl Copies for Protected {
    fn look(&self, text: &str, finished: bool) -> Look {
        let (copy, hold) = self.0.growing(text, finished);
        Look { copy, hold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ReplyEvent;
    use crate::window::Window;

    /// What is held, and looked at again with every piece, is not longer than a copy.
    #[test]
    fn each_byte_of_a_reply_is_looked_at_a_bounded_number_of_times() {
        let book = "It was a night without a moon and nobody saw who closed the iron gate.";
        let shingles = Arc::new(Shingles::new(&[book.to_owned()], 8, 5).unwrap());
        let scanned = |sentences: usize| {
            let mut window =
                Window::new(Vec::new()).watching(vec![Arc::new(Protected(Arc::clone(&shingles)))]);
            let reply = "It was a night without a moon and nobody came. ".repeat(sentences);
            for piece in reply.as_bytes().chunks(4) {
                let text = String::from_utf8(piece.to_vec()).unwrap();
                window.push(ReplyEvent::Text { choice: 0, text, logprobs: Vec::new() });
            }
            window.scanned() as f64 / reply.len() as f64
        };
        let (short, long) = (scanned(20), scanned(2_000));
        assert!(long < 1.05 * short && long < 20.0, "{short} {long}");
    }
}
