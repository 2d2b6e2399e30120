//! Answers a request with what the version answered to the same one before, where its model has a cache.
//!
//! The cache belongs to the version: a swap empties it, and models share no lock. What was asked is known by a SHA-256, so
//! that inputs, which may be large and private, are not kept, and no caller can make two requests that pass for one.

use std::time::Instant;

use sha2::{Digest, Sha256};
use sluicegate_core::request::Reuse;
use sluicegate_core::response::Cached;
use sluicegate_core::trace::CACHE;
use sluicegate_core::{Data, Response, Result, Tensor};
use sluicegate_registry::cache::Key;

use crate::dispatch;
use crate::route::Routed;
use crate::validate::Checked;

/// The largest inputs that are looked up, in bytes: more would hold up a serving thread for longer than a cheap model.
const LARGEST: usize = 4 << 20;

/// Looks for an answer; where there is none, runs the request and keeps its answer.
///
/// # Errors
/// Those of [`dispatch::run`], which are not kept.
pub async fn run(routed: &Routed, checked: Checked) -> Result<Response> {
    let live = routed.live();
    let Some(cache) = live.cache.as_ref().filter(|_| fits(&checked)) else { return dispatch::run(routed, checked).await };
    let looking = Instant::now();
    let key = key(&checked.inputs, &checked.wanted);
    // Asked for anew, it is not looked for, and so neither hit nor miss.
    if checked.reuse == Reuse::Allowed
        && let Some(outputs) = cache.get(&key, looking)
    {
        if let Some(trace) = routed.trace() {
            trace.say(CACHE, Cached::Hit.name());
        }
        return Ok(dispatch::respond(live, checked.id, outputs.to_vec(), Some(Cached::Hit)));
    }
    let response = dispatch::run(routed, checked).await?;
    cache.put(key, &response.outputs);
    Ok(Response { cached: Some(Cached::Miss), ..response })
}

/// Whether a request is one to look up: not kept out by its caller, with something in it, and not too much.
fn fits(checked: &Checked) -> bool {
    checked.reuse != Reuse::Never && checked.rows > 0 && checked.inputs.iter().map(Tensor::payload).sum::<usize>() <= LARGEST
}

/// What is asked. Every number of unknown size and count has its length before it, so that no two requests read the same.
fn key(inputs: &[Tensor], wanted: &[usize]) -> Key {
    let mut hash = Sha256::new();
    numbers(&mut hash, wanted);
    hash.update((inputs.len() as u64).to_le_bytes());
    for input in inputs {
        hash.update([input.dtype() as u8]);
        numbers(&mut hash, input.shape().sizes());
        match input.data() {
            // As many as type and shape say.
            Data::Fixed(bytes) => hash.update(bytes),
            Data::Text(elements) => {
                for text in elements {
                    hash.update((text.len() as u64).to_le_bytes());
                    hash.update(text);
                }
            }
        }
    }
    hash.finalize().into()
}

fn numbers(hash: &mut Sha256, numbers: &[usize]) {
    hash.update((numbers.len() as u64).to_le_bytes());
    numbers.iter().for_each(|&number| hash.update((number as u64).to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use sluicegate_core::{DType, Shape};

    use super::*;

    /// Few values and small sizes, so that near misses are likely: [1, 2] and [2, 1], "a" + "b" and "ab" + "".
    fn any_tensor() -> impl Strategy<Value = Tensor> {
        let shape = || prop::collection::vec(0..3usize, 0..4).prop_map(|sizes| Shape::new(&sizes));
        let count = |shape: &Shape| shape.elements().expect("small");
        let fixed = (shape(), prop::sample::select(vec![DType::Uint8, DType::Int8, DType::Int16])).prop_flat_map(
            move |(shape, dtype)| {
                let bytes = count(&shape) * dtype.size().expect("fixed");
                let elements = prop::collection::vec(0..2u8, bytes);
                elements.prop_map(move |bytes| Tensor::fixed(dtype, shape.clone(), bytes.into()).expect("fits"))
            },
        );
        let text = shape().prop_flat_map(move |shape| {
            let elements = prop::collection::vec("[ab]{0,2}", count(&shape));
            elements
                .prop_map(move |texts| Tensor::text(shape.clone(), texts.into_iter().map(Bytes::from).collect()).expect("fits"))
        });
        prop_oneof![fixed, text]
    }

    fn any_request() -> impl Strategy<Value = (Vec<Tensor>, Vec<usize>)> {
        (prop::collection::vec(any_tensor(), 0..3), prop::collection::vec(0..2usize, 0..3))
    }

    /// The same elements at an odd place of a larger body.
    fn moved(tensor: &Tensor) -> Tensor {
        let inside = |bytes: &Bytes| Bytes::from([&[9u8][..], bytes, &[9]].concat()).slice(1..=bytes.len());
        match tensor.data() {
            Data::Fixed(bytes) => Tensor::fixed(tensor.dtype(), tensor.shape().clone(), inside(bytes)).expect("fits"),
            Data::Text(elements) => Tensor::text(tensor.shape().clone(), elements.iter().map(inside).collect()).expect("fits"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn keys_are_equal_where_requests_are_and_nowhere_else(one in any_request(), other in any_request()) {
            let same: Vec<Tensor> = one.0.iter().map(moved).collect();
            prop_assert_eq!(key(&one.0, &one.1), key(&same, &one.1));
            prop_assert_eq!(key(&one.0, &one.1) == key(&other.0, &other.1), one == other);
        }

        #[test]
        fn one_changed_element_is_another_request(one in any_tensor(), place in any::<prop::sample::Index>()) {
            let changed = match one.data() {
                Data::Fixed(bytes) if !bytes.is_empty() => {
                    let mut bytes = bytes.to_vec();
                    let place = place.index(bytes.len());
                    bytes[place] ^= 1;
                    Tensor::fixed(one.dtype(), one.shape().clone(), bytes.into())
                }
                Data::Text(elements) if !elements.is_empty() => {
                    let mut elements = elements.clone();
                    let place = place.index(elements.len());
                    elements[place] = Bytes::from([&elements[place][..], b"c"].concat());
                    Tensor::text(one.shape().clone(), elements)
                }
                _ => return Ok(()),
            };
            prop_assert_ne!(key(&[one], &[]), key(&[changed.expect("fits")], &[]));
        }
    }

    #[test]
    fn where_one_text_ends_is_a_part_of_the_key() {
        let texts = |texts: [&'static str; 2]| {
            let elements = texts.map(|text| Bytes::from_static(text.as_bytes())).to_vec();
            key(&[Tensor::text(Shape::new(&[2]), elements).expect("fits")], &[0])
        };
        assert_ne!(texts(["ab", "c"]), texts(["a", "bc"]));
        assert_ne!(texts(["", "abc"]), texts(["abc", ""]));
    }
}
