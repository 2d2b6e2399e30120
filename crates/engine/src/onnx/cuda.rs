//! ONNX Runtime's provider for CUDA: how it is set, and what to say where it cannot be used.

use std::path::Path;

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch};
use sluicegate_core::{Code, Error};

use crate::sentence::sentence;

/// The provider for a device.
pub(super) fn provider(gpu: u32) -> ExecutionProviderDispatch {
    CUDA::default()
        .with_device_id(gpu.cast_signed())
        // TF32 keeps 10 bits of each factor: a model in FP32 would answer otherwise than on the processor.
        .with_tf32(false)
        // The runtime's own choice tries every algorithm at each new batch size, while callers wait.
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .build()
}

/// Whether this library was built with the provider. It may still find no device.
pub(super) fn is_built_in() -> bool {
    CUDA::is_available().unwrap_or(false)
}

/// Whether a load failed for the device, and not for the model.
pub(super) fn is_of_device(message: &str) -> bool {
    ["cudaSetDevice", "cudaGetDevice", "no CUDA-capable device", "invalid device ordinal", "driver version is insufficient"]
        .iter()
        .any(|sign| message.contains(sign))
}

/// The error where CUDA was asked for and is not to be had, with what helps where that is known.
pub(super) fn unusable(gpu: u32, why: &str, library: &Path) -> Error {
    let told = if why.contains("not enabled in this build") {
        format!("{} is ONNX Runtime without it; the package onnxruntime-gpu has CUDA and TensorRT", library.display())
    } else if let Some((_, missing)) = why.split_once("with error: ").filter(|_| why.contains("cannot open shared object file")) {
        format!(
            "{}; LD_LIBRARY_PATH has to name the folders of CUDA 13, cuDNN 9 and the driver, and of TensorRT 10 where that is asked for",
            sentence(missing)
        )
    } else {
        // Before it stands what was being read, after it the machine's name and the place in the runtime's source.
        let why = why.split_once("option \"device_id\": ").map_or(why, |(_, rest)| rest);
        sentence(why.split(" ; GPU=").next().unwrap_or(why).trim_start_matches("operator() "))
    };
    Error::new(Code::NoEngine, format!("cuda:{gpu} was asked for and cannot be used: {told}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(why: &str) -> String {
        unusable(0, why, Path::new("/lib/libonnxruntime.so")).message().to_owned()
    }

    #[test]
    fn what_is_missing_is_said_with_what_helps() {
        let asked = "cuda:0 was asked for and cannot be used: ";
        let plain = told("CUDA execution provider is not enabled in this build");
        assert_eq!(
            plain,
            format!(
                "{asked}/lib/libonnxruntime.so is ONNX Runtime without it; the package onnxruntime-gpu has CUDA and TensorRT"
            )
        );
        let unlinked = told(
            "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /lib/libonnxruntime_providers_cuda.so with error: \
             libcublasLt.so.13: cannot open shared object file: No such file or directory",
        );
        assert!(unlinked.starts_with(&format!("{asked}libcublasLt.so.13: cannot open")), "{unlinked}");
        assert!(unlinked.contains("LD_LIBRARY_PATH"), "{unlinked}");
    }

    #[test]
    fn a_device_that_is_not_there_is_told_from_a_model_that_does_not_load() {
        let absent = "CUDA failure 101: invalid device ordinal ; GPU=-1 ; hostname=h ; file=/onnxruntime_src/cuda_provider.cc ; \
                      line=42 ; expr=cudaSetDevice(info_.device_id); ";
        assert!(is_of_device(absent));
        assert!(told(absent).ends_with(": CUDA failure 101: invalid device ordinal"), "{}", told(absent));
        let counted = "[ONNXRuntimeError] : 1 : FAIL : Parse Failed to parse provider option \"device_id\": operator() Invalid device ID: 7, \
                       must be between 0 (inclusive) and 1 (exclusive)";
        assert!(told(counted).ends_with("used: Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive)"));
        assert!(!is_of_device("Graph output (y) does not exist in the graph."));
    }
}
