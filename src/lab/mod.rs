//! A fictitious world whose every fact is known: training text for the lab models and the files
//! and questions that measure what a model has forgotten.
//!
//! All of it is a function of one seed. A name means something only as a *combination* of two
//! words, every word also occurs in one-off names, and a set of combinations is never trained, so
//! that "a name the model has never seen" exists ([`World::unseen_names`]). Text carries no leading
//! space: whoever encodes a segment puts one in front, so that a name at its start is made of the
//! same tokens as one further on.

mod corpus;
mod drills;
mod options;
mod phrasings;
mod pools;
mod rows;
mod world;

pub use corpus::{Corpus, Example, Kind, Stage, Text};
pub use phrasings::{SYSTEM_HELD_OUT, SYSTEM_TRAINED};
pub use rows::{
    EvalItem, EvalKind, TofuRow, choice_items, completion_items, foreign_items, in_context_items,
    letter_items, question_items, real_author_rows, refusal_items, rows, world_fact_items,
    world_fact_rows, write,
};
pub use world::{ATTRIBUTES, Author, Fact, Format, REFUSAL, World, WorldFact, attribute_key};
