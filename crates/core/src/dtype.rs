//! Element types: those of the Open Inference Protocol, with their names and widths.

use std::fmt;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// The type of a tensor's elements, serialised under its protocol name (`FP32`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the variants are the protocol's own names")]
pub enum DType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl DType {
    /// Every element type, in the order of the protocol's table.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The type of that name on the wire, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes an element takes; `None` for [`DType::Bytes`], whose elements vary.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// Appends a number as an element, cut to what the type has; nothing for [`DType::Bytes`].
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is cut to what the type has")]
    pub fn push(self, number: f64, bytes: &mut Vec<u8>) {
        match self {
            Self::Bool => bytes.push(u8::from(number != 0.0)),
            Self::Uint8 => bytes.push(number as u8),
            Self::Uint16 => bytes.extend((number as u16).to_le_bytes()),
            Self::Uint32 => bytes.extend((number as u32).to_le_bytes()),
            Self::Uint64 => bytes.extend((number as u64).to_le_bytes()),
            Self::Int8 => bytes.extend((number as i8).to_le_bytes()),
            Self::Int16 => bytes.extend((number as i16).to_le_bytes()),
            Self::Int32 => bytes.extend((number as i32).to_le_bytes()),
            Self::Int64 => bytes.extend((number as i64).to_le_bytes()),
            Self::Fp16 => bytes.extend(f16::from_f64(number).to_le_bytes()),
            Self::Bf16 => bytes.extend(bf16::from_f64(number).to_le_bytes()),
            Self::Fp32 => bytes.extend((number as f32).to_le_bytes()),
            Self::Fp64 => bytes.extend(number.to_le_bytes()),
            Self::Bytes => {}
        }
    }

    /// Whether elements are floating-point numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Fp16 | Self::Bf16 | Self::Fp32 | Self::Fp64)
    }

    /// Whether elements are integers.
    pub fn is_integer(self) -> bool {
        !self.is_float() && !matches!(self, Self::Bool | Self::Bytes)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that stands for one fixed-width [`DType`]. BOOL travels as `u8`, see [`Bit`].
pub trait Element: bytemuck::Pod + Send + Sync + 'static {
    /// The element type that it stands for.
    const DTYPE: DType;
}

/// A BOOL element: one byte, 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Bit(pub u8);

macro_rules! elements {
    ($($type:ty => $dtype:ident),* $(,)?) => {$(
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}
elements! {
    Bit => Bool, u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64, i8 => Int8, i16 => Int16,
    i32 => Int32, i64 => Int64, f16 => Fp16, bf16 => Bf16, f32 => Fp32, f64 => Fp64,
}

/// Runs `$body` with `$type` bound to the Rust type of a fixed-width element type; `$bytes` for BYTES.
#[macro_export]
macro_rules! for_dtype {
    ($dtype:expr, $type:ident => $body:expr, BYTES => $bytes:expr) => {
        match $dtype {
            $crate::DType::Bool => {
                type $type = $crate::dtype::Bit;
                $body
            }
            $crate::DType::Uint8 => {
                type $type = u8;
                $body
            }
            $crate::DType::Uint16 => {
                type $type = u16;
                $body
            }
            $crate::DType::Uint32 => {
                type $type = u32;
                $body
            }
            $crate::DType::Uint64 => {
                type $type = u64;
                $body
            }
            $crate::DType::Int8 => {
                type $type = i8;
                $body
            }
            $crate::DType::Int16 => {
                type $type = i16;
                $body
            }
            $crate::DType::Int32 => {
                type $type = i32;
                $body
            }
            $crate::DType::Int64 => {
                type $type = i64;
                $body
            }
            $crate::DType::Fp16 => {
                type $type = ::half::f16;
                $body
            }
            $crate::DType::Bf16 => {
                type $type = ::half::bf16;
                $body
            }
            $crate::DType::Fp32 => {
                type $type = f32;
                $body
            }
            $crate::DType::Fp64 => {
                type $type = f64;
                $body
            }
            $crate::DType::Bytes => $bytes,
        }
    };
}
