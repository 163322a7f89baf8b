//! One binary of integration tests.

mod guarded;
mod http;
mod reference;
mod upstream;
