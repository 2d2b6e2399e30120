//! tract: ONNX in pure Rust, where the ONNX Runtime library is not found.
