//! The device and dtype to run on. The only file that asks for CUDA.

use candle_core::{DType, Device};

/// The first GPU when this build has CUDA and one is usable, else the CPU; and the dtype for it.
/// The reason is logged.
#[must_use]
pub fn best() -> (Device, DType) {
    #[cfg(feature = "cuda")]
    match Device::new_cuda(0) {
        Ok(device) => {
            tracing::info!("running on GPU 0 in bf16");
            return (device, DType::BF16);
        }
        Err(error) => tracing::warn!(%error, "no usable GPU, running on the CPU"),
    }
    // bf16 is ten times slower than f32 on CPUs without AMX.
    (Device::Cpu, DType::F32)
}
