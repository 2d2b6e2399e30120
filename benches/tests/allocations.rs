//! How many allocations a request of one tabular row makes, from its bytes on a socket to those of its answer. They may not grow.
//!
//! Everything is as it is served: listener, routes, registry, ONNX Runtime. The client is in the same process and allocates
//! nothing. `SLUICEGATE_PROFILE=1` writes who allocated to `target/allocations-<route>.json`, for DHAT's viewer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sluicegate_api::http::body::Bounds;
use sluicegate_api::http::hot::Routes;
use sluicegate_api::http::openapi::Cache;
use sluicegate_api::http::{Api, Shared};
use sluicegate_engine::{Engines, Search};
use sluicegate_gateway::Gateway;
use sluicegate_gateway::split::Splits;
use sluicegate_registry::Registry;
use sluicegate_server::app;
use sluicegate_server::config::{Config, Overrides};
use sluicegate_server::listen::{Listener, Settings, Shutdown, Threads};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// The most allocations of one request on each route: a reallocation counts as one, those of ONNX Runtime itself do not.
/// Where a change makes fewer, lower them; where it must make more, raise them in the same commit, which says why. `README.md`
/// has them too.
const BOUNDS: [(&str, u64); 3] = [("typed", 22), ("v2-json", 22), ("v2-binary", 26)];

const MODEL: &str = "breast-cancer";

/// Requests before the count, for buffers that are made once, and requests that are counted.
const WARM_UP: usize = 200;
const COUNTED: usize = 100;

/// The most that either side sends at once.
const ROOM: usize = 16 * 1024;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[expect(clippy::disallowed_methods, reason = "a test's switches; the product reads no environment here")]
fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "1")
}

/// The registry of the samples, with the model live; `None` without ONNX Runtime.
fn registry() -> Option<Registry> {
    let overrides = Overrides { models: Some(repository().join("models")), ..Overrides::default() };
    let mut config = Config::load(None, &[], &overrides).expect("a good configuration");
    // Nobody looks while we count.
    config.registries.values_mut().for_each(|registry| registry.poll = sluicegate_server::config::Duration::from_secs(3600));
    config.models = Some(vec![sluicegate_server::config::Model::new(MODEL.parse().expect("a name"))]);
    let search = Search { fetched: repository().join(".onnxruntime"), ..Search::default() };
    let engines = Engines::find(&search).expect("engines");
    if engines.onnxruntime().is_none() {
        assert!(!is_set("SLUICEGATE_REQUIRE_ONNXRUNTIME"), "SLUICEGATE_REQUIRE_ONNXRUNTIME=1, and: {}", engines.describe());
        eprintln!("skipped: {}", engines.describe());
        return None;
    }
    let registry = Registry::start(app::roots(&config), app::declared(&config), app::memory(&config), Arc::new(engines))
        .expect("a registry");
    while !registry.is_ready() {
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(registry)
}

/// Serves on a thread of its own, to the end of the process.
fn serve(registry: &Registry) -> SocketAddr {
    let api = Api::new(Shared {
        gateway: Gateway::new(registry, 16, Splits::default()),
        status: registry.status.clone(),
        ready: Box::new(|| true),
        config_state: Box::new(|| Value::Null),
        control: registry.control(),
        log_level: Box::new(|_| Ok("info".into())),
        body: Bounds { size: 1 << 20, time: Duration::from_secs(30) },
        message: 1 << 20,
        protocols: Default::default(),
        version: "0",
        root_path: String::new(),
        openapi: Cache::default(),
    });
    let (sender, address) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let settings = Settings::from(&Config::default().http);
            let listener = Listener::bind("http", ([127, 0, 0, 1], 0).into(), settings).expect("a free port");
            sender.send(listener.local_addr()).expect("the test waits for it");
            listener.serve(Routes::new(api), Arc::new(Threads::here()), Shutdown::new(Duration::ZERO)).await
        })
    });
    address.recv().expect("an address")
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// The sample's own example, as each route takes it.
fn requests(registry: &Registry) -> [Vec<u8>; 3] {
    let table = registry.published.load();
    let live = table.find(MODEL, None).expect("it is live");
    let input = &live.signature.inputs()[0];
    let example = json!(live.signature.example());
    let record: Map<String, Value> =
        input.features.iter().map(|feature| (feature.name.to_string(), example[&*feature.name].clone())).collect();
    let numbers: Vec<f32> = record.values().filter_map(Value::as_f64).map(|number| number as f32).collect();
    assert_eq!(numbers.len(), input.features.len(), "the example has every feature");
    let tensor = |more: Value| {
        let mut tensor = json!({ "name": &*input.name, "shape": [1, numbers.len()], "datatype": "FP32" });
        if let (Some(tensor), Value::Object(more)) = (tensor.as_object_mut(), more) {
            tensor.extend(more);
        }
        json!({ "inputs": [tensor], "parameters": { "binary_data_output": tensor["data"].is_null() } })
    };
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let head = tensor(json!({ "parameters": { "binary_data_size": bytes.len() } })).to_string();
    let length = format!("inference-header-content-length: {}\r\n", head.len());
    let infer = format!("/v2/models/{MODEL}/infer");
    [
        post(&format!("/models/{MODEL}/predict"), "", Value::Object(record).to_string().as_bytes()),
        post(&infer, "", tensor(json!({ "data": numbers })).to_string().as_bytes()),
        post(&infer, &length, &[head.as_bytes(), &bytes].concat()),
    ]
}

/// Asks once; the length of the answer, which is read into `room`.
fn ask(connection: &mut TcpStream, request: &[u8], room: &mut [u8; ROOM]) -> usize {
    connection.write_all(request).expect("it is sent");
    let mut read = 0;
    loop {
        match connection.read(&mut room[read..]).expect("an answer") {
            0 => panic!("closed after {}", String::from_utf8_lossy(&room[..read])),
            more => read += more,
        }
        if whole(&room[..read]) == Some(read) {
            return read;
        }
    }
}

/// How long an answer is, once its head is there.
fn whole(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let name = b"\r\ncontent-length: ";
    let from = answer[..head].windows(name.len()).position(|word| word == name)? + name.len();
    let digits = answer[from..head].iter().take_while(|byte| byte.is_ascii_digit());
    Some(head + digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))
}

#[test]
fn a_request_allocates_no_more_than_it_did() {
    let page = std::fs::read_to_string(repository().join("benches/README.md")).expect("a page");
    for (route, bound) in BOUNDS {
        let row = format!("| {route} | {bound} |");
        assert!(page.contains(&row), "benches/README.md has another number than BOUNDS: expected `{row}`");
    }
    let Some(registry) = registry() else { return };
    let (address, mut room) = (serve(&registry), [0; ROOM]);
    let mut grown = Vec::new();
    for ((route, bound), request) in BOUNDS.into_iter().zip(requests(&registry)) {
        let mut connection = TcpStream::connect(address).expect("it is served");
        for _ in 0..WARM_UP {
            let read = ask(&mut connection, &request, &mut room);
            assert!(room.starts_with(b"HTTP/1.1 200 "), "{route}: {}", String::from_utf8_lossy(&room[..read]));
        }
        let profile = repository().join(format!("target/allocations-{route}.json"));
        let profiler = dhat::Profiler::builder().file_name(profile).trim_backtraces(Some(60));
        let profiler = if is_set("SLUICEGATE_PROFILE") { profiler.build() } else { profiler.testing().build() };
        for _ in 0..COUNTED {
            ask(&mut connection, &request, &mut room);
        }
        let stats = dhat::HeapStats::get();
        drop(profiler);
        let each = |count: u64| count as f64 / COUNTED as f64;
        let (count, bytes) = (each(stats.total_blocks), each(stats.total_bytes));
        println!("{route}: {count} allocations a request of at most {bound}, {bytes:.0} bytes");
        // What comes once in many requests, such as a timer's, is not theirs.
        if count.floor() > bound as f64 {
            grown.push(format!("{route}: allocations a request grew from {bound} to {count}"));
        }
    }
    let advice = "find out why (SLUICEGATE_PROFILE=1), or raise the bound in BOUNDS and say why in the commit";
    assert!(grown.is_empty(), "{}: {advice}", grown.join("; "));
}
