//! One binary of integration tests.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::let_underscore_must_use,
    clippy::needless_pass_by_value,
    reason = "a test says what is wrong by panicking"
)]

mod compare;
mod contract;
mod engine;
mod guarded;
mod hits;
mod http;
mod hub;
mod judge;
mod lengths;
mod offset;
mod onnx;
mod parity;
mod probe;
mod reference;
mod reload;
mod serve;
mod target;
mod tidy;
mod tls;
mod tools;
mod upstream;
mod values;
