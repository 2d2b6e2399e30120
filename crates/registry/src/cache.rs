//! The answers that a version has given, kept within a bound for those who ask the same again. They are freed with the version.

use std::sync::Arc;
use std::time::Instant;

use quick_cache::sync::Cache as Map;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use sluicegate_core::meter::VersionMeter;
use sluicegate_core::response::Output;
use sluicegate_core::{Data, Tensor};

/// What was asked: the SHA-256 of the wanted outputs and the inputs, with their shapes.
pub type Key = [u8; 32];

/// Locks of one cache; each guards its part of the room.
const SHARDS: usize = 8;

/// The largest answer that is kept, as a part of the room, so that one answer does not drive out all others.
const LARGEST: u64 = 16;

/// What an answer takes beside its outputs: its key, its place in the map, and the traces of answers that were dropped.
const ENTRY: usize = 256;

/// What an output takes beside its elements: itself, and what counts the holders of its memory.
const OUTPUT: usize = size_of::<Output>() + 32;

/// How large an answer is guessed to be, for the number of traces that are kept.
const GUESS: u64 = 512;

/// A version's answers by what was asked.
pub struct Cache {
    answers: Map<Key, Answer, Weigh, DefaultHashBuilder, Watch>,
    size: u64,
    meter: Arc<VersionMeter>,
}

#[derive(Clone)]
struct Answer {
    outputs: Arc<[Output]>,
    weight: u64,
}

#[derive(Clone)]
struct Weigh;

/// Counts what leaves.
#[derive(Clone)]
struct Watch(Arc<VersionMeter>);

impl Cache {
    /// Room for answers of so many bytes.
    pub fn new(size: u64, meter: Arc<VersionMeter>) -> Self {
        let items = usize::try_from(size / GUESS).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(items)
            // A multiple of the shards, whose parts are rounded up.
            .weight_capacity(size - size % SHARDS as u64)
            .build()
            .expect("capacities are set");
        meter.cache.open(size);
        let answers = Map::with_options(options, Weigh, DefaultHashBuilder::default(), Watch(meter.clone()));
        Self { answers, size, meter }
    }

    /// The bound of what it keeps, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The answer to what was asked. Counts a hit or a miss of the look that began then.
    pub fn get(&self, key: &Key, began: Instant) -> Option<Arc<[Output]>> {
        let found = self.answers.get(key).map(|answer| answer.outputs);
        if found.is_some() {
            self.meter.cache.hit(began.elapsed());
        } else {
            self.meter.cache.miss(began.elapsed());
        }
        found
    }

    /// Keeps an answer in memory of its own, so that it does not keep a whole batch's alive. One that is too large is not kept.
    pub fn put(&self, key: Key, outputs: &[Output]) {
        let weight = weigh(outputs);
        if weight > self.size / LARGEST {
            return;
        }
        let own = |output: &Output| Output { tensor: output.tensor.detached(), ..output.clone() };
        self.answers.insert(key, Answer { outputs: outputs.iter().map(own).collect(), weight });
        // After the room was made for it, so that the gauge is never above the bound.
        self.meter.cache.took(weight);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.meter.cache.close();
    }
}

fn weigh(outputs: &[Output]) -> u64 {
    let tensor = |tensor: &Tensor| {
        let elements = match tensor.data() {
            Data::Fixed(bytes) => bytes.len(),
            Data::Text(elements) => elements.iter().map(|text| text.len() + size_of_val(text)).sum(),
        };
        size_of_val(tensor.shape().sizes()) + elements
    };
    let outputs: usize = outputs.iter().map(|output| OUTPUT + tensor(&output.tensor)).sum();
    (ENTRY + outputs) as u64
}

impl Weighter<Key, Answer> for Weigh {
    fn weight(&self, _: &Key, answer: &Answer) -> u64 {
        answer.weight
    }
}

impl Lifecycle<Key, Answer> for Watch {
    /// What is dropped when the lock is free again.
    type RequestState = Vec<Answer>;

    /// Not called for an answer that another one to the same request takes the place of.
    fn before_evict(&self, _: &mut Vec<Answer>, _: &Key, _: &mut Answer) {
        self.0.cache.evicted();
    }

    fn on_evict(&self, left: &mut Vec<Answer>, _: Key, answer: Answer) {
        self.0.cache.gave(answer.weight);
        left.push(answer);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluicegate_core::{Digest, Shape};

    use super::*;

    fn cache(size: u64) -> Cache {
        let model = "m".parse().expect("a name");
        Cache::new(size, Arc::new(VersionMeter::new(&model, 1, &Digest::sha256(&[0; 32]), "tract", false)))
    }

    fn outputs(bytes: usize) -> Vec<Output> {
        let tensor = Tensor::from_vec(Shape::new(&[bytes]), vec![7u8; bytes]).expect("fits");
        vec![Output { name: "y".into(), place: 0, tensor }]
    }

    fn key(number: u64) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn the_bound_holds_whatever_comes_and_the_gauge_is_what_is_kept() {
        let (size, mut kept) = (1 << 20, 0);
        let cache = cache(size);
        for number in 0..20_000u64 {
            // Sizes from nothing to beyond the largest; every tenth comes again.
            let bytes = (number * 7919 % 70_000) as usize;
            cache.put(key(number - number % 10), &outputs(bytes));
            let bytes = cache.meter.cache.bytes();
            assert!(bytes <= size && bytes == cache.answers.weight(), "{bytes} of {size}");
            kept = kept.max(bytes);
        }
        assert!(kept > size / 2, "no more than {kept} of {size} was used");
    }

    #[test]
    fn what_is_kept_is_what_was_given_and_too_much_is_not() {
        let cache = cache(1 << 20);
        let text = Tensor::text(Shape::new(&[2]), vec![Bytes::from_static(b"ab"), Bytes::new()]).expect("fits");
        let given: Vec<Output> = outputs(5).into_iter().chain([Output { name: "t".into(), place: 1, tensor: text }]).collect();
        cache.put(key(1), &given);
        cache.put(key(2), &outputs(1 << 16));
        let kept = cache.get(&key(1), Instant::now()).expect("kept");
        assert!(kept.iter().zip(&given).all(|(kept, given)| kept.tensor == given.tensor && kept.name == given.name));
        assert!(cache.get(&key(2), Instant::now()).is_none());
    }

    #[test]
    fn a_small_part_of_a_large_batch_does_not_keep_the_batch() {
        let cache = cache(1 << 20);
        let batch = Bytes::from(vec![1u8; 1 << 20]);
        let tensor = Tensor::fixed(sluicegate_core::DType::Uint8, Shape::new(&[4]), batch.slice(..4)).expect("fits");
        cache.put(key(1), &[Output { name: "y".into(), place: 0, tensor }]);
        assert!(batch.is_unique(), "the cache has a view into the batch");
    }

    #[test]
    fn nothing_is_counted_as_kept_once_the_version_is_gone() {
        let cache = cache(1 << 20);
        let meter = cache.meter.clone();
        cache.put(key(1), &outputs(1000));
        assert!(meter.cache.bytes() > 1000);
        drop(cache);
        assert_eq!(meter.cache.bytes(), 0);
    }
}
