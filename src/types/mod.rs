//! Plain data that crosses every layer: no I/O, no async, no serde.

mod chat;
mod corruption;
mod evidence;
mod json;
mod offset;
mod reply;
mod tools;

pub use chat::{Input, Message, Request, Role, Sampling};
pub use corruption::{Corruption, CorruptionFunction, Entity, InputSpan, Place};
pub use evidence::{Evidence, View};
pub use json::{Json, JsonReader, JsonWriter, QUOTE, shares};
pub use offset::{Offset, OffsetPair};
pub use reply::{Finish, ReplyEvent, Scored, TokenLogprob, ToolCallPiece, Usage};
pub use tools::{
    Callee, MOST_NAME_CHARS, TextMut, Tool, ToolCall, ToolChoice, ToolResult, Tools, function_name,
};
