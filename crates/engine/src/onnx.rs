//! ONNX Runtime, through its shared library.
