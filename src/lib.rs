#![doc = include_str!("ARCHITECTURE.md")]

pub mod seed;
pub mod types;

pub mod engine;

pub mod data;
pub mod lab;
pub mod train;
