//! What tests of several crates share. Nothing of it is in the product.
//!
//! [`onnx`] writes models by hand at run time.

pub mod onnx;
