#![doc = include_str!("ARCHITECTURE.md")]

pub mod seed;
pub mod stats;
pub mod types;

pub mod config;
pub mod policy;
pub mod telemetry;

pub mod embed;
pub mod engine;
pub mod text;

pub mod backend;
pub mod detect;
pub mod treat;
pub mod window;

pub mod service;

pub mod http;

pub mod data;
pub mod eval;
pub mod lab;
pub mod train;
