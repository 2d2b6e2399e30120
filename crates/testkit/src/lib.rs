//! What tests of several crates share. Nothing of it is in the product.
//!
//! [`onnx`] writes models by hand at run time, [`folder`] lays them out as a registry, [`process`] starts the real binary over
//! them, and [`client`] speaks to it, also in ways that no good client would.

pub mod client;
pub mod encoder;
pub mod folder;
pub mod onnx;
pub mod process;
pub mod safetensors;
