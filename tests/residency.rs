//! More models than fit: those on demand are loaded by a request, once however many ask, and leave when others need the room and
//! nobody uses them.

use std::thread;

use serde_json::{Value, json};
use sluicegate_testkit::client::{Request, Response};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, wait_for};
use sluicegate_tests::grpc::{Caller, request, runtime};
use sluicegate_tests::{infer, infer_path, numbers, slow, slow_request, slow_rows};

const MIB: usize = 1 << 20;

/// Publishes a model that adds a number, with a file beside it that takes so much memory as far as anybody counts.
fn publish(folder: &Folder, model: &str, addend: u8, mebibytes: usize) {
    let ballast = vec![addend; mebibytes * MIB];
    folder.write(model, 1, &[("model.onnx", &onnx::add_constant(f32::from(addend), 2)), ("ballast.bin", &ballast)]);
}

/// A configuration of models on demand.
fn on_demand(models: &[&str], memory: &str) -> String {
    let each = |model: &&str| format!("  - {{ name: {model}, residency: on_demand }}\n");
    format!("memory: {memory}\nmodels:\n{}", models.iter().map(each).collect::<String>())
}

fn ask(gateway: &Gateway, model: &str) -> Response {
    let request = Request::post(&infer_path(model), infer(&[1, 2], &[0.0, 0.0]).to_string());
    gateway.client().request(&request).expect("an answer")
}

/// What a model adds.
fn adds(gateway: &Gateway, model: &str) -> f32 {
    let answer = ask(gateway, model);
    assert_eq!(answer.status, 200, "{}", answer.text());
    numbers(&answer.json())[0]
}

fn refusal(answer: &Response, words: &str) {
    assert!(answer.status == 503 && answer.text().contains(words), "{} {}", answer.status, answer.text());
}

/// Times that a model was loaded.
fn loads(gateway: &Gateway, model: &str) -> f64 {
    gateway.metric("sluicegate_loads_total", &[("model", model), ("outcome", "live")])
}

fn rests(gateway: &Gateway, model: &str) -> f64 {
    gateway.metric("sluicegate_rests_total", &[("model", model)])
}

fn footprint(gateway: &Gateway, model: &str) -> f64 {
    gateway.metric("sluicegate_footprint_bytes", &[("model", model)])
}

#[test]
fn a_model_on_demand_is_loaded_by_a_request_and_once_however_many_ask() {
    let folder = Folder::default();
    publish(&folder, "m", 1, 1);
    let gateway = Gateway::start(&folder, &on_demand(&["m"], "{}"));
    assert_eq!((loads(&gateway, "m"), footprint(&gateway, "m")), (0.0, 0.0), "nobody has asked");
    let mut client = gateway.client();
    assert_eq!(client.get("/v2/models/m/ready").expect("an answer").status, 200, "it would answer");
    let status = gateway.status();
    assert_eq!((&status["models"][0]["residency"], &status["models"][0]["ready"]), (&json!("on_demand"), &json!(true)));
    thread::scope(|scope| {
        let asking: Vec<_> = (0..32).map(|_| scope.spawn(|| adds(&gateway, "m"))).collect();
        asking.into_iter().for_each(|one| assert_eq!(one.join().expect("an answer"), 1.0));
    });
    assert_eq!(loads(&gateway, "m"), 1.0);
    assert_eq!(gateway.metric("sluicegate_wakes_total", &[("model", "m"), ("outcome", "live")]), 1.0);
    assert!(footprint(&gateway, "m") >= MIB as f64, "no less than its files");
}

#[test]
fn who_asks_what_a_model_takes_demands_it_too() {
    let folder = Folder::default();
    ["http", "grpc", "detail"].iter().zip(1..).for_each(|(model, addend)| publish(&folder, model, addend, 1));
    let gateway = Gateway::start(&folder, &on_demand(&["http", "grpc", "detail"], "{}"));
    let mut client = gateway.client();
    let metadata = client.get("/v2/models/http").expect("an answer").json();
    assert_eq!(metadata["inputs"][0]["name"], "x", "{metadata}");
    let detail = client.get("/models/detail").expect("an answer").json();
    assert_eq!(detail["inputs"][0]["name"], "x", "{detail}");
    let answer = runtime().block_on(async { Caller::new(gateway.grpc()).infer(request("grpc", &[1, 2], &[0.0; 2])).await });
    assert_eq!(sluicegate_tests::grpc::numbers(answer.expect("an answer").get_ref()), [2.0, 2.0]);
}

#[test]
fn models_that_do_not_fit_together_take_turns_and_no_request_is_lost() {
    let folder = Folder::default();
    let models = ["a", "b", "c"];
    models.iter().zip(1..).for_each(|(model, addend)| publish(&folder, model, addend, 8));
    let gateway = Gateway::start(&folder, &on_demand(&models, "{ budget: 12MiB }"));
    for _ in 0..3 {
        models.iter().zip([1.0, 2.0, 3.0]).for_each(|(model, addend)| assert_eq!(adds(&gateway, model), addend));
    }
    models.iter().for_each(|model| assert_eq!(loads(&gateway, model), 3.0, "{model}"));
    let taken: f64 = models.iter().map(|model| footprint(&gateway, model)).filter(|bytes| *bytes > 0.0).count() as f64;
    assert_eq!(taken, 1.0, "one fits");
    thread::scope(|scope| {
        for (model, addend) in models.iter().zip([1.0, 2.0, 3.0]) {
            let gateway = &gateway;
            scope.spawn(move || (0..5).for_each(|_| assert_eq!(adds(gateway, model), addend)));
        }
    });
}

#[test]
fn the_one_that_was_used_longest_ago_leaves_first() {
    let folder = Folder::default();
    let models = ["a", "b", "c"];
    models.iter().zip(1..).for_each(|(model, addend)| publish(&folder, model, addend, 32));
    let gateway = Gateway::start(&folder, &on_demand(&models, "{ budget: 84MiB }"));
    for model in ["a", "b"] {
        adds(&gateway, model);
    }
    let seen = || gateway.metric("sluicegate_registry_scans_total", &[]);
    let before = seen();
    wait_for("a look at who was used", || (seen() > before + 1.0).then_some(()));
    adds(&gateway, "a");
    adds(&gateway, "c");
    assert_eq!((rests(&gateway, "a"), rests(&gateway, "b"), rests(&gateway, "c")), (0.0, 1.0, 0.0));
}

#[test]
fn a_model_with_a_request_in_flight_never_leaves() {
    let folder = Folder::default();
    folder.write("slow", 1, &[("model.onnx", &slow()), ("ballast.bin", &vec![1; 8 * MIB])]);
    publish(&folder, "b", 2, 8);
    let batching = "batching: { max_rows: 1, queue_rows: 1000000, queue_timeout: 60s, execution: threads, instances: 1 }\n";
    let memory = on_demand(&["slow", "b"], "{ budget: 12MiB, wait: 300ms }");
    let gateway = Gateway::start(&folder, &format!("{batching}{memory}"));
    wake_slow(&gateway);
    let rows = slow_rows(&gateway, "slow", 2.0);
    let rested = (0..3).find_map(|again| kept(&gateway, rows << again));
    let rested = rested.expect("each request was done before the other was refused");
    wait_for("room for the other", || (ask(&gateway, "b").status == 200).then_some(()));
    assert_eq!(rests(&gateway, "slow"), rested + 1.0);
}

/// Asks until it answers: loading it may take longer than a request waits.
fn wake_slow(gateway: &Gateway) {
    wait_for("a live model", || {
        (gateway.client().request(&slow_request("slow", 1)).expect("an answer").status == 200).then_some(())
    });
}

/// How often the slow model had left, where a request of so many rows was still in flight when the other model had been refused. It is
/// too short where the machine was busier when a row was measured.
fn kept(gateway: &Gateway, rows: usize) -> Option<f64> {
    wake_slow(gateway);
    let batches = || gateway.metric("sluicegate_batch_rows_count", &[("model", "slow")]);
    let (before, rested) = (batches(), rests(gateway, "slow"));
    thread::scope(|scope| {
        let busy = scope.spawn(|| gateway.client().request(&slow_request("slow", rows)).expect("an answer").status);
        wait_for("its first rows to be done", || (batches() > before).then_some(()));
        let (answer, rests) = (ask(gateway, "b"), rests(gateway, "slow"));
        let kept = !busy.is_finished();
        if kept {
            refusal(&answer, "memory.wait");
            assert_eq!(rests, rested);
        }
        assert_eq!(busy.join().expect("an answer"), 200);
        kept.then_some(rested)
    })
}

#[test]
fn what_cannot_be_loaded_says_why_to_those_who_wait() {
    let folder = Folder::default();
    folder.write("broken", 1, &[("model.onnx", &onnx::unknown_operator())]);
    publish(&folder, "huge", 1, 0);
    let ballast = folder.models().join("huge/1/ballast.bin");
    // A hole, which takes no room on the disk.
    std::fs::File::options().write(true).open(ballast).and_then(|file| file.set_len(2 << 30)).expect("a file");
    publish(&folder, "good", 2, 1);
    publish(&folder, "far", 1, 0);
    let ballast = folder.models().join("far/1/ballast.bin");
    std::fs::File::options().write(true).open(ballast).and_then(|file| file.set_len(600 << 20)).expect("a file");
    let far = r#"  - { name: far, residency: on_demand, device: "cuda:1", batching: { instances: 2 } }"#;
    let memory = on_demand(&["broken", "huge"], "{ budget: 1GiB, gpu_budget: 1000MiB }");
    let config = format!("{memory}{far}\n  - {{ name: good }}\n");
    let gateway = Gateway::start(&folder, &config);
    refusal(&ask(&gateway, "broken"), "Frobnicate");
    refusal(&ask(&gateway, "broken"), "Frobnicate");
    refusal(&ask(&gateway, "huge"), "memory.budget");
    // Each of its instances would have a copy of the weights.
    refusal(&ask(&gateway, "far"), "bytes for cuda:1, and memory.gpu_budget is 1048576000");
    assert_eq!(adds(&gateway, "good"), 2.0, "what is pinned is there whatever the budget");
    let on = |device: &str| gateway.metric("sluicegate_footprint_bytes", &[("model", "good"), ("device", device)]);
    assert!(on("cpu") >= MIB as f64 && on("cuda:1") == 0.0);
    assert!(gateway.metric("sluicegate_wakes_total", &[("model", "broken"), ("outcome", "failed")]) >= 2.0);
    folder.remove("broken", 1);
    publish(&folder, "broken", 7, 1);
    let answers = || numbers_of(&ask(&gateway, "broken"));
    wait_for("its new files", || (answers() == Some(7.0)).then_some(()));
}

fn numbers_of(answer: &Response) -> Option<f32> {
    let json: Value = (answer.status == 200).then(|| answer.json())?;
    numbers(&json).first().copied()
}
