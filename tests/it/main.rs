//! One binary of integration tests.

mod engine;
mod guarded;
mod http;
mod onnx;
mod reference;
mod serve;
mod tidy;
mod upstream;
