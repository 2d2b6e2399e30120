//! A swap is not noticed: no request fails, no answer is of another version than it says, and no memory is left behind.
//!
//! `SLUICEGATE_TEST_SWAPS=1000` makes it a longer proof.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};
use sluicegate_core::{DType, Dim};
use sluicegate_testkit::client::{Client, Request, Response};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx::{Attr, Model, rows};
use sluicegate_testkit::process::{Gateway, wait_for};
use sluicegate_tests::{SLOW_WIDTH, ask, infer, infer_path, numbers, raw, slow, slow_request, slow_rows};

/// Numbers in each model's table: 1 MiB, so that versions that are not freed are most of the memory after a hundred swaps.
const TABLE: usize = 1 << 18;

/// How many times the version changes.
fn swaps() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long to test is told to the test, not to the product")]
    let asked = std::env::var("SLUICEGATE_TEST_SWAPS");
    asked.ok().and_then(|asked| asked.parse().ok()).unwrap_or(100).max(20)
}

/// `y = x + version` on rows of two columns, where the version is looked up in a large table.
fn versioned(version: u64) -> Vec<u8> {
    let dims = [rows(), Dim::Fixed(2)];
    Model::new(17)
        .input("x", DType::Fp32, &dims)
        .output("y", DType::Fp32, &dims)
        .constant("table", DType::Fp32, &[TABLE], &(version as f32).to_le_bytes().repeat(TABLE))
        .constant("zero", DType::Fp32, &[], &0f32.to_le_bytes())
        .node("Mul", &["x", "zero"], &["nothing"], &[])
        .node("Cast", &["nothing"], &["index"], &[Attr::Int("to", 7)])
        .node("Gather", &["table", "index"], &["addend"], &[])
        .node("Add", &["x", "addend"], &["y"], &[])
        .build()
}

/// What an answer says: its numbers, and the version in its body, if any.
type Said = (Vec<f32>, Option<String>);

/// A way to ask: the request for these numbers, and how its answer is read.
struct Way {
    request: fn(&[f32]) -> Request,
    read: fn(&Response) -> Option<Said>,
}

fn version_in(body: &Value) -> Option<String> {
    body["model_version"].as_str().map(str::to_owned)
}

const WAYS: [Way; 4] = [
    Way {
        request: |sent| {
            let records: Vec<Value> = sent.chunks(2).map(|row| json!({ "x": row })).collect();
            Request::post("/models/m/predict", json!(records).to_string())
        },
        read: |response| {
            let body = response.json();
            let rows = body.as_array()?.iter().flat_map(|row| row["y"].as_array().cloned().unwrap_or_default());
            Some((rows.filter_map(|number| Some(number.as_f64()? as f32)).collect(), None))
        },
    },
    Way {
        request: |sent| Request::post(&infer_path("m"), infer(&[sent.len() / 2, 2], sent).to_string()),
        read: |response| Some((numbers(&response.json()), version_in(&response.json()))),
    },
    Way {
        request: |sent| {
            let size = json!({ "binary_data_size": 4 * sent.len() });
            let input = json!({ "name": "x", "datatype": "FP32", "shape": [sent.len() / 2, 2], "parameters": size });
            let head = json!({ "parameters": { "binary_data_output": true }, "inputs": [input] });
            Request::binary(&infer_path("m"), &head, &raw(sent))
        },
        read: |response| {
            let (head, bytes) = response.binary()?;
            let number = |bytes: &[u8]| bytes.try_into().map(f32::from_le_bytes).ok();
            Some((bytes.chunks(4).map_while(number).collect(), version_in(&head)))
        },
    },
    // One row and no more, as most applications ask.
    Way {
        request: |sent| Request::post(&infer_path("m"), infer(&[1, 2], &sent[..2]).to_string()),
        read: |response| Some((numbers(&response.json()), version_in(&response.json()))),
    },
];

impl Way {
    /// Asks once: the version that answered, or what was wrong.
    fn ask(&self, client: &mut Client, turn: u64) -> Result<u64, String> {
        let sent: Vec<f32> = (0..2 * (1 + turn % 3)).map(|i| (turn % 1000) as f32 + i as f32).collect();
        let response = client.request(&(self.request)(&sent)).map_err(|error| format!("a dropped request: {error}"))?;
        if response.status != 200 {
            return Err(format!("a failed request: {} {}", response.status, response.text()));
        }
        let named = response.header("x-model-version").unwrap_or_default().to_owned();
        let version: u64 = named.parse().map_err(|_| format!("no version: {:?}", response.headers))?;
        let (got, told) = (self.read)(&response).ok_or_else(|| format!("an odd answer: {}", response.text()))?;
        let expected: Vec<f32> = sent.iter().map(|number| number + version as f32).take(got.len().max(2)).collect();
        if got != expected || told.is_some_and(|told| told != named) {
            return Err(format!("numbers of another version than {version}: sent {sent:?}, got {}", response.text()));
        }
        Ok(version)
    }
}

/// What the callers saw.
struct Seen {
    answers: u64,
    wrong: Vec<String>,
}

/// Calls without pause, each way on a kept-alive connection of its own, while `work` goes on.
fn under_load(gateway: &Gateway, clients: usize, work: impl FnOnce()) -> Seen {
    let (done, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let call = |way: &Way| {
        let (mut client, mut wrong, mut last) = (gateway.client(), Vec::new(), 0);
        for turn in 0.. {
            if done.load(Ordering::Relaxed) || wrong.len() > 10 {
                break;
            }
            match way.ask(&mut client, turn) {
                Ok(version) if version < last => wrong.push(format!("version {version} answered after {last}")),
                Ok(version) => last = version,
                Err(why) => wrong.push(why),
            }
            answers.fetch_add(1, Ordering::Relaxed);
        }
        wrong
    };
    let wrong = thread::scope(|scope| {
        let callers: Vec<_> = WAYS.iter().cycle().take(clients).map(|way| scope.spawn(move || call(way))).collect();
        work();
        done.store(true, Ordering::Relaxed);
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller ends")).collect()
    });
    Seen { answers: answers.into_inner(), wrong }
}

/// Publishes a version and waits until it answers and its predecessor is freed, whose files go too.
fn swap(folder: &Folder, gateway: &Gateway, version: u64) {
    folder.publish("m", version, &versioned(version));
    let name = version.to_string();
    wait_for(&format!("version {name} answers"), || (gateway.model("m")["default_version"] == name).then_some(()));
    gateway.wait_for_state("m", version - 1, "gone");
    folder.remove("m", version - 1);
}

/// Most that resident memory may grow, in per cent.
const MOST_GROWTH: f64 = 5.0;

/// By how much memory has grown from the first tenth to the last, in per cent. Of medians: one sample may fall on a moment when two
/// versions are loaded.
fn growth(resident: &[u64]) -> f64 {
    let median = |of: &[u64]| {
        let mut of = of.to_vec();
        of.sort_unstable();
        of[of.len() / 2] as f64
    };
    let tenth = resident.len() / 10;
    (median(&resident[resident.len() - tenth..]) / median(&resident[..tenth]) - 1.0) * 100.0
}

#[test]
fn swaps_under_load_lose_nothing_mix_nothing_and_leave_nothing_behind() {
    let folder = Folder::default();
    folder.publish("m", 1, &versioned(1));
    let gateway = Gateway::start(&folder, "");
    let mut resident = Vec::new();
    let seen = under_load(&gateway, WAYS.len(), || {
        // The allocator wanders by a few per cent, and a leak goes on: a growth over the bound is looked at again after as many swaps.
        for round in 1..=2 {
            for version in (round - 1) * swaps() + 2..=round * swaps() + 1 {
                swap(&folder, &gateway, version);
                resident.push(gateway.resident());
            }
            if growth(&resident) < MOST_GROWTH {
                break;
            }
        }
    });
    let swaps = resident.len() as u64;
    assert!(seen.wrong.is_empty(), "{} of {} answers: {:#?}", seen.wrong.len(), seen.answers, seen.wrong);
    assert!(seen.answers > swaps, "the callers did not pause: {} answers", seen.answers);
    assert_eq!(gateway.metric("sluicegate_swaps_total", &[("model", "m")]), swaps as f64);
    assert_eq!(gateway.metric("sluicegate_versions_freed_total", &[("model", "m")]), swaps as f64);
    let grown = growth(&resident);
    let mib: Vec<u64> = resident.iter().map(|bytes| bytes >> 20).collect();
    println!("{} answers in {swaps} swaps; resident memory {grown:+.1} %: {mib:?}", seen.answers);
    assert!(grown < MOST_GROWTH, "resident memory has grown by {grown:.1} % from the first tenth to the last: {mib:?} MiB");
}

#[test]
fn requests_that_share_a_run_see_one_version() {
    let folder = Folder::default();
    folder.publish("m", 1, &versioned(1));
    let gateway = Gateway::start(&folder, "batching: { max_rows: 32, max_delay: 5ms, execution: threads, instances: 1 }");
    let seen = under_load(&gateway, 8, || (2..=10).for_each(|version| swap(&folder, &gateway, version)));
    assert!(seen.wrong.is_empty(), "{} of {} answers: {:#?}", seen.wrong.len(), seen.answers, seen.wrong);
    let runs = gateway.metric("sluicegate_batch_rows_count", &[("model", "m")]);
    assert!((seen.answers as f64) > runs, "{} requests shared {runs} runs", seen.answers);
}

#[test]
fn a_slow_request_keeps_its_version_to_its_end() {
    let folder = Folder::default();
    folder.publish("m", 1, &slow());
    let gateway = Gateway::start(
        &folder,
        "batching: { max_rows: 1, queue_rows: 1000000, queue_timeout: 60s, execution: threads, instances: 1 }",
    );
    // A row that was measured while the machine was busy may take a fraction of that later. A request that has ended before the
    // new version came shows nothing: then a longer one is asked for.
    let count = slow_rows(&gateway, "m", 4.0);
    let overtaken = (1..=3).any(|old| is_overtaken(&folder, &gateway, old, count << (old - 1)));
    assert!(overtaken, "no request was still in flight when the new version answered");
}

/// Whether a version answered while the one before it still worked on a request of so many rows, which has to be answered by that
/// one either way.
fn is_overtaken(folder: &Folder, gateway: &Gateway, old: u64, count: usize) -> bool {
    let (mut client, new) = (gateway.client(), old + 1);
    let (old_text, new_text) = (old.to_string(), new.to_string());
    let asked = thread::spawn(move || client.request(&slow_request("m", count)).expect("an answer"));
    // Its version is that which is there when all of it has come: from then on its rows wait.
    let waiting = || gateway.metric("sluicegate_queue_rows", &[("model", "m"), ("version", &old_text)]) > 0.0;
    wait_for("a request that waits for its version", || (waiting() || asked.is_finished()).then_some(()));
    folder.publish("m", new, &slow());
    wait_for("the new version answers", || (gateway.model("m")["default_version"] == *new_text).then_some(()));
    let left = |state: &String| ["draining", "gone"].contains(&state.as_str());
    let state = wait_for("the old version leaves", || Some(gateway.version("m", old).0).filter(left));
    let answer = ask(&mut gateway.client(), &slow_request("m", 1));
    assert_eq!(answer.header("x-model-version"), Some(&*new_text));
    // Once it is gone, what is left of its answer is on its way to the caller, and holds no version.
    let overtaken = state == "draining" && !asked.is_finished();
    let answer = asked.join().expect("it was answered");
    assert_eq!((answer.status, answer.header("x-model-version")), (200, Some(&*old_text)), "{}", answer.text());
    let (head, bytes) = answer.binary().expect("binary outputs");
    assert_eq!(head["model_version"], *old_text);
    let expected: Vec<f32> = (0..count).flat_map(|row| std::iter::repeat_n(row as f32, SLOW_WIDTH)).collect();
    assert!(bytes == raw(&expected), "the rows are in order");
    gateway.wait_for_state("m", old, "gone");
    overtaken
}

/// The same as [`versioned`] in safetensors.
#[cfg(feature = "candle")]
fn publish_net(folder: &Folder, version: u64) {
    let config = json!({
        "model_type": "feed_forward",
        "input": { "name": "x", "shape": [2] },
        "output": { "name": "y" },
        "layers": [{ "type": "linear", "name": "sum" }],
    });
    let tensors = [("sum.weight", &[2, 2][..], vec![1.0, 0.0, 0.0, 1.0]), ("sum.bias", &[2], vec![version as f32; 2])];
    folder.publish_net("m", version, &config, &tensors);
}

#[cfg(feature = "candle")]
#[test]
fn swaps_between_the_formats_lose_nothing_and_mix_nothing() {
    let folder = Folder::default();
    folder.publish("m", 1, &versioned(1));
    let gateway = Gateway::start(&folder, "");
    let seen = under_load(&gateway, WAYS.len(), || {
        for version in 2..=2 * swaps() + 1 {
            let publish: fn(&Folder, u64) =
                if version % 2 == 0 { publish_net } else { |folder, version| folder.publish("m", version, &versioned(version)) };
            publish(&folder, version);
            let name = version.to_string();
            wait_for(&format!("version {name} answers"), || (gateway.model("m")["default_version"] == name).then_some(()));
            gateway.wait_for_state("m", version - 1, "gone");
            folder.remove("m", version - 1);
        }
    });
    assert!(seen.wrong.is_empty(), "{} of {} answers: {:#?}", seen.wrong.len(), seen.answers, seen.wrong);
    assert_eq!(gateway.metric("sluicegate_swaps_total", &[("model", "m")]), 2.0 * swaps() as f64);
}
