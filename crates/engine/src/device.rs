//! Where a model runs: the device that is asked for, and the one that it got.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sluicegate_core::{Code, Error};

/// The device that configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The best that is there.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// CUDA devices by their numbers. Instances take turns over them.
    Cuda(Gpus),
}

/// Numbers of CUDA devices, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gpus(u64);

impl Gpus {
    /// How many numbers there are, from 0.
    pub const MOST: u32 = u64::BITS;

    /// The first device alone.
    pub const FIRST: Self = Self(1);

    /// Of these numbers; `None` where there are none, or one is [`Gpus::MOST`] or more.
    pub fn new(numbers: impl IntoIterator<Item = u32>) -> Option<Self> {
        let bits = numbers.into_iter().try_fold(0, |bits, number| Some(bits | 1_u64.checked_shl(number)?))?;
        (bits != 0).then_some(Self(bits))
    }

    /// The numbers, lowest first.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..Self::MOST).filter(move |number| self.0 >> number & 1 == 1)
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The one of this instance.
    pub fn of_instance(self, place: usize) -> u32 {
        self.numbers().nth(place % self.count()).unwrap_or_default()
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let cuda = |numbers: &str| {
            let numbers: Result<Vec<u32>, _> = numbers.split(',').map(str::parse).collect();
            numbers.ok().and_then(Gpus::new).map(Self::Cuda)
        };
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            _ => text.strip_prefix("cuda:").and_then(cuda),
        }
        .ok_or_else(|| Error::new(Code::BadConfig, format!("`{text}` is no device: expected cpu, cuda:0, cuda:0,1 or auto")))
    }
}

impl TryFrom<String> for Device {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(gpus) => {
                let numbers: Vec<String> = gpus.numbers().map(|number| number.to_string()).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written_and_instances_take_turns_over_them() {
        let written = |text: &str| text.parse::<Device>().expect("a device").to_string();
        for text in ["auto", "cpu", "cuda:0", "cuda:1,3", "cuda:63"] {
            assert_eq!(written(text), text);
        }
        assert_eq!(written("cuda:3,1,3"), "cuda:1,3");
        for text in ["", "gpu", "cuda", "cuda:", "cuda:64", "cuda:-1", "cuda:0,", "cuda:all", "cuda:4294967296"] {
            let error = text.parse::<Device>().expect_err("no device");
            assert!(error.code() == Code::BadConfig && error.message().contains("expected cpu, cuda:0"), "{text}: {error}");
        }
        let gpus = Gpus::new([5, 2]).expect("two");
        let turns: Vec<u32> = (0..5).map(|place| gpus.of_instance(place)).collect();
        assert_eq!((gpus.count(), &*turns), (2, &[2, 5, 2, 5, 2][..]));
    }
}
