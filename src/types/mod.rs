//! Plain data that crosses every layer: no I/O, no async, no serde.

mod chat;
mod corruption;
mod evidence;
mod offset;
mod reply;

pub use chat::{Input, Message, Request, Role, Sampling};
pub use corruption::{Corruption, CorruptionFunction, Entity, InputSpan, Place};
pub use evidence::{Evidence, View};
pub use offset::{Offset, OffsetPair};
pub use reply::{Finish, ReplyEvent, Scored, TokenLogprob, Usage};
