//! Models are loaded and unloaded by hand, where the operator allows it: what serves is never taken away by a load, and what
//! was changed holds until the declaration changes.

use std::thread;

use serde_json::{Value, json};
use sluicegate_testkit::client::{Request, Response};
use sluicegate_testkit::folder::{Folder, version_digest};
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, wait_for, write_config};
use sluicegate_tests::{infer, infer_path, numbers, slow, slow_request, slow_rows};

const CONTROL: &str = "protocols: { control: true }";

/// A registry at which nobody looks by itself.
const NEVER: &str =
    "protocols: { control: true }\nregistries: { local: { type: directory, path: models, poll: 1h, settle: 100ms } }";

/// A version of `m` that adds its own number.
fn add(version: u64) -> Vec<u8> {
    onnx::add_constant(version as f32, 2)
}

fn start(versions: &[u64], config: &str) -> (Folder, Gateway) {
    let folder = Folder::default();
    versions.iter().for_each(|&version| folder.publish("m", version, &add(version)));
    let gateway = Gateway::start(&folder, config);
    (folder, gateway)
}

fn post(gateway: &Gateway, path: &str, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    gateway.client().request(&Request::post(path, body)).expect("an answer")
}

/// Asks for a load or an unload; the status and the error.
fn call(gateway: &Gateway, path: &str, parameters: Value) -> (u16, String) {
    let body = if parameters.is_null() { parameters } else { json!({ "parameters": parameters }) };
    let response = post(gateway, &format!("/v2/repository/models/{path}"), &body);
    (response.status, response.json()["error"].as_str().unwrap_or_default().to_owned())
}

fn done(gateway: &Gateway, path: &str, parameters: Value) {
    assert_eq!(call(gateway, path, parameters), (200, String::new()), "{path}");
}

fn refused(gateway: &Gateway, path: &str, parameters: Value, status: u16, words: &str) {
    let said = parameters.to_string();
    let (got, error) = call(gateway, path, parameters);
    assert!(got == status && error.contains(words), "{path} {said}: {got} {error}");
}

fn ask(gateway: &Gateway, path: &str) -> Response {
    gateway.client().request(&Request::post(path, infer(&[1, 2], &[0.0, 0.0]).to_string())).expect("an answer")
}

/// The version that answers who names none; 0 where none does.
fn answers(gateway: &Gateway) -> u64 {
    let answer = ask(gateway, &infer_path("m"));
    if answer.status == 200 { numbers(&answer.json())[0] as u64 } else { 0 }
}

/// The status of a request to one version.
fn asked(gateway: &Gateway, version: u64) -> u16 {
    ask(gateway, &format!("/v2/models/m/versions/{version}/infer")).status
}

/// The index as `name/version state`.
fn index(gateway: &Gateway, body: &Value) -> Vec<String> {
    let response = post(gateway, "/v2/repository/index", body);
    assert_eq!(response.status, 200, "{}", response.text());
    let line = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        assert!(one["reason"].is_string(), "{one}");
        format!("{}/{} {}", text("name"), text("version"), text("state"))
    };
    response.json().as_array().expect("a list").iter().map(line).collect()
}

#[test]
fn nothing_is_loaded_or_unloaded_until_the_operator_allows_it() {
    let (_folder, gateway) = start(&[1], "");
    let response = post(&gateway, "/v2/repository/index", &Value::Null);
    assert_eq!((response.status, response.json()["code"].as_str()), (403, Some("forbidden")));
    for path in ["m/load", "m/unload", "nobody/load", "m/versions/1/unload"] {
        refused(&gateway, path, Value::Null, 403, "protocols.control");
    }
    let response = post(&gateway, "/v2/logging", &json!({ "log_info": false }));
    assert_eq!((response.status, response.json()["code"].as_str()), (403, Some("forbidden")));
    assert_eq!(gateway.client().get("/v2/logging").expect("an answer").json()["log_info"], true);
    let extensions = gateway.client().get("/v2").expect("an answer").json()["extensions"].to_string();
    assert!(!extensions.contains("model_repository") && extensions.contains("statistics"), "{extensions}");
    assert_eq!(answers(&gateway), 1);
}

#[test]
fn an_unloaded_model_is_not_ready_until_it_is_loaded_again() {
    let (_folder, gateway) = start(&[1, 2], &format!("{CONTROL}\nmodels: [ {{ name: m, also: all }} ]"));
    let extensions = gateway.client().get("/v2").expect("an answer").json()["extensions"].to_string();
    assert!(extensions.contains("model_repository(unload_dependents)"), "{extensions}");
    done(&gateway, "m/unload", json!({ "unload_dependents": true }));
    let refusal = ask(&gateway, &infer_path("m"));
    assert!(refusal.status == 503 && refusal.text().contains("unloaded by hand"), "{}", refusal.text());
    assert_eq!((asked(&gateway, 1), asked(&gateway, 2)), (503, 503));
    for version in [1, 2] {
        gateway.wait_for_state("m", version, "gone");
    }
    assert_eq!(index(&gateway, &Value::Null), ["m/1 UNAVAILABLE", "m/2 UNAVAILABLE"]);
    assert_eq!(index(&gateway, &json!({ "ready": true })), Vec::<String>::new());
    assert_eq!(gateway.model("m")["held"], "by hand: unloaded");
    done(&gateway, "m/load", Value::Null);
    assert_eq!((answers(&gateway), asked(&gateway, 1)), (2, 200));
    assert_eq!(index(&gateway, &json!({ "ready": true })), ["m/1 READY", "m/2 READY"]);
    assert_eq!(gateway.model("m")["held"], Value::Null);
    // Unloaded twice and loaded twice is the same as once.
    done(&gateway, "m/unload", Value::Null);
    done(&gateway, "m/unload", Value::Null);
    done(&gateway, "m/load", Value::Null);
    done(&gateway, "m/load", Value::Null);
    assert_eq!(answers(&gateway), 2);
}

#[test]
fn requests_in_flight_of_an_unloaded_model_are_answered() {
    let folder = Folder::default();
    folder.publish("slow", 1, &slow());
    let gateway = Gateway::start(
        &folder,
        &format!("{CONTROL}\nmodels: [ {{ name: slow, batching: {{ max_rows: 1, execution: threads }} }} ]"),
    );
    let rows = slow_rows(&gateway, "slow", 2.0);
    let mut client = gateway.client();
    let waiting = thread::spawn(move || client.request(&slow_request("slow", rows)).expect("an answer").status);
    wait_for("a request in flight", || (gateway.metric("sluicegate_queue_rows", &[("model", "slow")]) > 0.0).then_some(()));
    done(&gateway, "slow/unload", Value::Null);
    assert_eq!(gateway.version("slow", 1).0, "draining");
    assert_eq!(waiting.join().expect("no panic"), 200);
    gateway.wait_for_state("slow", 1, "gone");
}

#[test]
fn a_load_waits_until_the_newest_version_is_live_or_has_failed() {
    let (folder, gateway) = start(&[1], NEVER);
    folder.publish("m", 2, &add(2));
    done(&gateway, "m/load", Value::Null);
    assert_eq!(answers(&gateway), 2, "at once, with nobody looking");
    // Without digests it is loaded when it has come to rest, and the load waits for that.
    folder.write("m", 3, &[("model.onnx", &add(3))]);
    done(&gateway, "m/load", Value::Null);
    assert_eq!(answers(&gateway), 3);
    folder.publish("m", 4, &onnx::unknown_operator());
    refused(&gateway, "m/load", Value::Null, 400, "version 4 failed");
    refused(&gateway, "m/load", json!({ "version": 4 }), 400, "Frobnicate");
    assert_eq!(answers(&gateway), 3, "what serves goes on");
    // Repaired, it is tried again.
    folder.remove("m", 4);
    folder.publish("m", 4, &add(4));
    done(&gateway, "m/load", Value::Null);
    assert_eq!(answers(&gateway), 4);
    for (path, words) in [
        ("nobody/load", "nobody"),
        ("no%20name/load", "no name"),
        ("m/versions/9/load", "no version 9"),
        ("nobody/unload", "nobody"),
    ] {
        refused(&gateway, path, Value::Null, 404, words);
    }
}

#[test]
fn loads_of_one_model_at_the_same_time_are_one_load() {
    let (folder, gateway) = start(&[1], NEVER);
    folder.publish("m", 2, &add(2));
    thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| call(&gateway, "m/load", Value::Null).0)).collect();
        calls.into_iter().for_each(|call| assert_eq!(call.join().expect("no panic"), 200));
    });
    assert_eq!(answers(&gateway), 2);
    assert_eq!(gateway.metric("sluicegate_loads_total", &[("model", "m")]), 2.0, "one for each version");
}

#[test]
fn versions_are_loaded_and_unloaded_beside_the_default() {
    let (_folder, gateway) = start(&[1, 2, 3], CONTROL);
    assert_eq!((answers(&gateway), asked(&gateway, 1)), (3, 404));
    done(&gateway, "m/versions/1/load", Value::Null);
    let model = add(2);
    let manifest = format!("\nfiles: {{ model.onnx: '{}' }}\n", sluicegate_testkit::folder::digest(&model));
    let digest = version_digest(&[("model.onnx", &model), ("model.yaml", manifest.as_bytes())]);
    done(&gateway, "m/load", json!({ "digest": digest.as_str() }));
    assert_eq!((answers(&gateway), asked(&gateway, 1), asked(&gateway, 2)), (3, 200, 200));
    assert_eq!(gateway.model("m")["held"], "by hand: loaded version 1, 2");

    done(&gateway, "m/unload", json!({ "version": "3" }));
    assert_eq!((answers(&gateway), asked(&gateway, 3)), (2, 404), "the newest other one answers");
    done(&gateway, "m/versions/2/unload", Value::Null);
    assert_eq!((answers(&gateway), asked(&gateway, 2)), (1, 404));
    done(&gateway, "m/unload", json!({ "version": 1 }));
    assert_eq!((answers(&gateway), ask(&gateway, &infer_path("m")).status), (0, 503));
    // The first one that is loaded is the default.
    done(&gateway, "m/load", json!({ "version": 2 }));
    assert_eq!(answers(&gateway), 2);
    done(&gateway, "m/load", Value::Null);
    assert_eq!(answers(&gateway), 3);

    refused(&gateway, "m/versions/1/load", json!({ "version": 2 }), 400, "two versions");
    refused(&gateway, "m/versions/champion/load", Value::Null, 404, "champion");
    refused(&gateway, "m/load", json!({ "version": 1, "digest": digest.as_str() }), 404, "1 with the digest");
    refused(&gateway, "m/load", json!({ "digest": "sha256:12" }), 400, "`digest`");
}

#[test]
fn a_dry_run_reports_and_publishes_nothing() {
    let (folder, gateway) = start(&[1], NEVER);
    folder.publish("m", 2, &add(2));
    folder.publish("m", 3, &onnx::unknown_operator());
    let report = post(&gateway, "/v2/repository/models/m/load", &json!({ "parameters": { "version": 2, "dry_run": true } }));
    assert_eq!(report.status, 200, "{}", report.text());
    let report = report.json();
    assert_eq!((&report["name"], &report["version"], &report["device"]), (&json!("m"), &json!("2"), &json!("cpu")));
    assert!(report["one_row_microseconds"].as_f64().is_some_and(|cost| cost > 0.0), "{report}");
    refused(&gateway, "m/load", json!({ "dry_run": true }), 400, "Frobnicate");
    folder.publish("m", 4, &onnx::add_constant(4.0, 3));
    refused(&gateway, "m/load", json!({ "dry_run": true }), 400, "it would break its callers");
    assert_eq!((answers(&gateway), gateway.version("m", 2).0), (1, String::new()));
    assert_eq!(gateway.metric("sluicegate_live_version", &[("model", "m")]), 1.0);
    assert_eq!(gateway.model("m")["held"], Value::Null);
}

#[test]
fn a_configuration_that_comes_with_a_load_is_honoured_or_refused_by_name() {
    let (_folder, gateway) = start(&[1, 2], CONTROL);
    let config = || gateway.client().get("/v2/models/m/config").expect("an answer").json();
    let before = config();
    assert_ne!(before["max_batch_size"], 4);
    let said = json!({
        "max_batch_size": 4,
        "dynamic_batching": { "max_queue_delay_microseconds": 700 },
        "instance_group": [{ "count": 3 }],
        "version_policy": { "latest": { "num_versions": 2 } },
    });
    done(&gateway, "m/load", json!({ "config": said.to_string() }));
    let now = config();
    assert_eq!((&now["max_batch_size"], &now["instance_group"][0]["count"]), (&json!(4), &json!(3)));
    assert_eq!(now["dynamic_batching"]["max_queue_delay_microseconds"], 700);
    assert_eq!((answers(&gateway), asked(&gateway, 1)), (2, 200));
    assert_eq!(gateway.model("m")["held"], "by hand: loaded with a configuration");
    // What the gateway says itself can be said back.
    done(&gateway, "m/load", json!({ "config": now.to_string() }));
    for (parameters, status, words) in [
        (json!({ "config": "{\"optimization\":{\"priority\":1}}" }), 501, "`optimization`"),
        (json!({ "config": "{}", "file:1/model.onnx": "AAAA" }), 501, "file:1/model.onnx"),
        (json!({ "config": "{\"version_policy\":{\"specific\":{\"versions\":[9]}}}" }), 404, "no version 9"),
        (json!({ "config": "{" }), 400, "parameters.config"),
        (json!({ "config": {} }), 400, "`config`"),
        (json!({ "config": "{}", "version": 1 }), 400, "version_policy"),
        (json!({ "max_batch_size": 4 }), 400, "`max_batch_size` means nothing"),
        (json!({ "dry_run": "yes" }), 400, "`dry_run`"),
        (json!([1]), 400, "`parameters`"),
    ] {
        refused(&gateway, "m/load", parameters, status, words);
    }
    for path in ["/v2/repository/local/models/m/load", "/v2/repository/local/models/m/unload"] {
        assert_eq!(post(&gateway, path, &Value::Null).status, 501);
    }
    done(&gateway, "m/load", Value::Null);
    assert_eq!(config(), before, "as it is declared");
}

#[test]
fn what_was_changed_by_hand_holds_until_the_declaration_changes() {
    let (folder, gateway) = start(&[1], &format!("{CONTROL}\nmodels: [ {{ name: m }} ]"));
    done(&gateway, "m/unload", Value::Null);
    let looks = || gateway.metric("sluicegate_registry_scans_total", &[]);
    let before = looks();
    wait_for("further looks", || (looks() >= before + 5.0).then_some(()));
    assert_eq!(answers(&gateway), 0);
    // What is said of another model is none of its business.
    folder.publish("other", 1, &add(1));
    write_config(&folder, &format!("{CONTROL}\nmodels: [ {{ name: m }}, {{ name: other }} ]"));
    gateway.wait_for_state("other", 1, "live");
    assert_eq!(answers(&gateway), 0);
    write_config(&folder, &format!("{CONTROL}\nmodels: [ {{ name: m, batching: {{ max_rows: 2 }} }}, {{ name: other }} ]"));
    wait_for("the model as it is declared", || (answers(&gateway) == 1).then_some(()));
    assert_eq!(gateway.model("m")["held"], Value::Null);
}

#[test]
fn a_model_that_nobody_declared_can_be_loaded() {
    let (folder, gateway) = start(&[1], &format!("{CONTROL}\nmodels: [ {{ name: m }} ]"));
    folder.publish("n", 1, &add(1));
    folder.publish("n", 2, &add(2));
    assert_eq!(ask(&gateway, &infer_path("n")).status, 404);
    done(&gateway, "n/versions/1/load", Value::Null);
    assert_eq!(numbers(&ask(&gateway, &infer_path("n")).json()), [1.0, 1.0]);
    done(&gateway, "n/load", Value::Null);
    assert_eq!(numbers(&ask(&gateway, &infer_path("n")).json()), [2.0, 2.0]);
    done(&gateway, "n/unload", Value::Null);
    assert_eq!(ask(&gateway, &infer_path("n")).status, 503);
    assert_eq!(gateway.model("n")["held"], "by hand: not declared; unloaded");
}

#[test]
fn what_is_logged_can_be_changed_while_it_runs() {
    let (_folder, gateway) = start(&[1], CONTROL);
    let debug = || gateway.log().iter().filter(|line| line.contains("\"DEBUG\"") && line.contains("request refused")).count();
    assert_eq!(ask(&gateway, &infer_path("nobody")).status, 404);
    assert_eq!(debug(), 0);
    let settings = post(&gateway, "/v2/logging", &json!({ "log_verbose_level": 1, "log_file": "" }));
    assert_eq!((settings.status, &settings.json()["log_verbose_level"]), (200, &json!(1)));
    assert_eq!(ask(&gateway, &infer_path("nobody")).status, 404);
    wait_for("a line of the debug level", || (debug() > 0).then_some(()));
    let settings = post(&gateway, "/v2/logging", &json!({ "log_info": false })).json();
    let all = json!({
        "log_file": "", "log_error": true, "log_warning": true, "log_info": false, "log_verbose_level": 0, "log_format": "default",
    });
    assert_eq!(settings, all);
    assert_eq!(gateway.client().get("/v2/logging").expect("an answer").json(), all);
    for (body, status, words) in [
        (json!({ "log_file": "x" }), 501, "log_file"),
        (json!({ "log_info": 1 }), 400, "log_info"),
        (json!({ "log_info": [1] }), 400, "log_info"),
        (json!([]), 400, "no JSON object"),
    ] {
        let response = post(&gateway, "/v2/logging", &body);
        assert!(response.status == status && response.text().contains(words), "{body}: {}", response.text());
    }
}
