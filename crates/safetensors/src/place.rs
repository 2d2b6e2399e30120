//! Where a model is computed: on the processor, or on a CUDA device with a stream of its own.

use candle_core::{DType, Device};
use sluicegate_core::{Code, Error, Result};

/// Where a model's weights lie and its rows are computed.
#[derive(Clone, Debug)]
pub struct Place(Device);

impl Place {
    /// Whether this build has CUDA at all.
    pub const HAS_CUDA: bool = cfg!(feature = "cuda");

    /// The processor.
    pub fn processor() -> Self {
        Self(Device::Cpu)
    }

    /// The CUDA device of that number. Each call opens a stream of its own, which what is computed at one place shares.
    ///
    /// # Errors
    /// [`Code::NoEngine`], with what is missing: the build, a library, the device.
    pub fn cuda(number: u32) -> Result<Self> {
        let unusable = |why: String| Error::new(Code::NoEngine, format!("cuda:{number} was asked for and cannot be used: {why}"));
        stream(number).map(Self).map_err(unusable)
    }

    pub(crate) fn device(&self) -> &Device {
        &self.0
    }

    /// In which numbers weights of these types are computed. The processor has no fast way with fewer bits; a device has.
    pub(crate) fn numbers(&self, mut stored: impl Iterator<Item = DType>) -> DType {
        let Some(first @ (DType::F16 | DType::BF16)) = stored.next() else { return DType::F32 };
        if self.0.is_cpu() || stored.any(|other| other != first) { DType::F32 } else { first }
    }
}

#[cfg(not(feature = "cuda"))]
fn stream(_: u32) -> std::result::Result<Device, String> {
    Err("this build of candle runs on the processor alone; `make cuda` makes one that does not".to_owned())
}

/// The libraries are opened at run time, and their absence is a panic of the one who opens them: so they are looked for first.
#[cfg(feature = "cuda")]
#[allow(unsafe_code, reason = "to look for a library is to open it")]
fn stream(number: u32) -> std::result::Result<Device, String> {
    use candle_core::cuda_backend::cudarc;

    // SAFETY: these are NVIDIA's own libraries, and what they do when they are opened is what they do in every program.
    let there = unsafe {
        [
            ("libcuda.so, which is the driver's", cudarc::driver::sys::is_culib_present()),
            ("libcublas.so", cudarc::cublas::sys::is_culib_present()),
            ("libcurand.so", cudarc::curand::sys::is_culib_present()),
        ]
    };
    let missing: Vec<&str> = there.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let hint = "LD_LIBRARY_PATH has to name the folders of CUDA and of the driver";
        return Err(format!("cannot open {}; {hint}", missing.join(", ")));
    }
    let said = |error: cudarc::driver::DriverError| error.to_string();
    cudarc::driver::result::init().map_err(said)?;
    let count = cudarc::driver::result::device::get_count().map_err(said)?;
    if i64::from(number) >= i64::from(count) {
        return Err(format!("there are {count} devices, numbered from 0"));
    }
    Device::new_cuda_with_stream(number as usize).map_err(|error| crate::said(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_computes_in_32_bits_whatever_is_stored() {
        let of = |stored: &[DType]| Place::processor().numbers(stored.iter().copied());
        assert_eq!([of(&[]), of(&[DType::F16, DType::F16]), of(&[DType::F32, DType::F16])], [DType::F32; 3]);
    }
}
