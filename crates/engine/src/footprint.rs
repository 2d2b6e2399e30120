//! Memory that versions take, of the process and of each GPU, and what they may take together.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Sum;
use std::num::NonZeroU64;

use crate::{Device, Options, memory_taken_on, resident_memory};

/// A memory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The process's.
    Host,
    /// A CUDA device's.
    Gpu(u32),
}

impl Place {
    /// The setting that bounds what is taken of it.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Host => "memory.budget",
            Self::Gpu(_) => "memory.gpu_budget",
        }
    }

    /// Bytes that are taken of it now, the process's by this process and a GPU's by whoever uses it; `None` where nobody tells.
    pub fn taken(self) -> Option<u64> {
        match self {
            Self::Host => resident_memory(),
            Self::Gpu(gpu) => memory_taken_on(gpu),
        }
    }
}

/// As `device` has it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("cpu"),
            Self::Gpu(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Bytes that are taken of each memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Footprint(BTreeMap<Place, u64>);

impl Footprint {
    /// What a version takes at least, whose files have so many bytes: those once in the process, and once for each of its instances on a GPU.
    pub fn of_files(files: u64, device: Device, options: &Options) -> Self {
        let mut footprint = Self(BTreeMap::from([(Place::Host, files)]));
        if let Device::Cuda(gpus) = device {
            options.on(gpus).for_each(|gpu| *footprint.0.entry(Place::Gpu(gpu)).or_default() += files);
        }
        footprint
    }

    /// Bytes of one memory.
    pub fn on(&self, place: Place) -> u64 {
        self.0.get(&place).copied().unwrap_or_default()
    }

    /// Those that anything is taken of.
    pub fn places(&self) -> impl Iterator<Item = (Place, u64)> + '_ {
        self.0.iter().map(|(place, bytes)| (*place, *bytes))
    }

    /// No less than so many bytes of a memory, where any are taken of it.
    pub fn raise(&mut self, place: Place, bytes: u64) {
        if let Some(taken) = self.0.get_mut(&place) {
            *taken = bytes.max(*taken);
        }
    }

    /// No more of any memory than there is for all versions.
    pub fn within(mut self, budget: Budget) -> Self {
        for (place, bytes) in &mut self.0 {
            *bytes = budget.of(*place).map_or(*bytes, |budget| budget.min(*bytes));
        }
        self
    }
}

impl<'a> Sum<&'a Footprint> for Footprint {
    fn sum<I: Iterator<Item = &'a Footprint>>(all: I) -> Self {
        let mut sum = Self::default();
        all.flat_map(Self::places).for_each(|(place, bytes)| *sum.0.entry(place).or_default() += bytes);
        sum
    }
}

/// Bytes that versions may take together; `None` where nobody counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Of the process.
    pub host: Option<NonZeroU64>,
    /// Of each GPU.
    pub gpu: Option<NonZeroU64>,
}

impl Budget {
    /// That of one memory.
    pub fn of(&self, place: Place) -> Option<u64> {
        match place {
            Place::Host => self.host,
            Place::Gpu(_) => self.gpu,
        }
        .map(NonZeroU64::get)
    }

    /// Whether a memory has room for so many bytes beside what is taken of it.
    pub fn has_room(&self, place: Place, taken: u64, bytes: u64) -> bool {
        self.of(place).is_none_or(|budget| taken.saturating_add(bytes) <= budget)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn on(device: &str, files: u64, instances: usize) -> Footprint {
        let instances = NonZeroUsize::new(instances).expect("some");
        let options = Options { instances, auto_instances: false, ..Options::default() };
        Footprint::of_files(files, device.parse().expect("a device"), &options)
    }

    #[test]
    fn a_copy_of_the_weights_is_reckoned_for_each_instance_on_a_gpu_and_one_for_the_process() {
        assert_eq!(on("cpu", 7, 4).places().collect::<Vec<_>>(), [(Place::Host, 7)]);
        let two = on("cuda:0,2", 7, 3);
        assert_eq!(two.places().collect::<Vec<_>>(), [(Place::Host, 7), (Place::Gpu(0), 14), (Place::Gpu(2), 7)]);
        assert_eq!(on("auto", 7, 3).places().count(), 1, "where it goes is known when it is there");
    }

    #[test]
    fn each_memory_has_room_of_its_own() {
        let budget = Budget { host: NonZeroU64::new(100), gpu: NonZeroU64::new(50) };
        let taken = [on("cuda:0", 30, 1), on("cpu", 20, 1)].iter().sum::<Footprint>();
        assert_eq!((taken.on(Place::Host), taken.on(Place::Gpu(0)), taken.on(Place::Gpu(1))), (50, 30, 0));
        let has_room = |place, bytes| budget.has_room(place, taken.on(place), bytes);
        assert!(has_room(Place::Gpu(0), 20) && !has_room(Place::Gpu(0), 21), "the other device's room is no use");
        assert!(has_room(Place::Gpu(1), 50) && !has_room(Place::Gpu(1), 51));
        assert!(has_room(Place::Host, 50) && !has_room(Place::Host, 51));
        assert_eq!(on("cuda:1", 70, 1).within(budget), on("cuda:1", 50, 1).clone_with(Place::Host, 70));
        assert!(Budget::default().has_room(Place::Host, u64::MAX, u64::MAX), "nobody counts");
    }

    #[test]
    fn what_was_measured_raises_what_is_taken_and_takes_nothing_elsewhere() {
        let mut footprint = on("cuda:1", 10, 1);
        for (place, bytes) in [(Place::Host, 5), (Place::Gpu(1), 30), (Place::Gpu(0), 99)] {
            footprint.raise(place, bytes);
        }
        assert_eq!(footprint.places().collect::<Vec<_>>(), [(Place::Host, 10), (Place::Gpu(1), 30)]);
    }

    impl Footprint {
        fn clone_with(mut self, place: Place, bytes: u64) -> Self {
            self.0.insert(place, bytes);
            self
        }
    }
}
