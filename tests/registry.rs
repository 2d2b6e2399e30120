//! Versions come and go: what is complete and better serves, what is broken is told and touches nothing.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use sluicegate_testkit::client::Request;
use sluicegate_testkit::folder::{Folder, digest, version_digest};
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, wait_for, write_config};
use sluicegate_tests::{infer, infer_once, infer_path, numbers};

/// A version of `m` that adds its own number.
fn add(version: u64) -> Vec<u8> {
    onnx::add_constant(version as f32, 2)
}

/// A folder with these versions of `m`.
fn folder(versions: &[u64]) -> Folder {
    let folder = Folder::default();
    versions.iter().for_each(|&version| folder.publish("m", version, &add(version)));
    folder
}

/// The version that answers who names none, by its numbers.
fn answers(gateway: &Gateway) -> u64 {
    let answer = infer_once(gateway, "m", &[1, 2], &[0.0, 0.0]);
    let number = numbers(&answer)[0] as u64;
    assert_eq!(answer["model_version"], number.to_string(), "the version says who it is");
    number
}

/// The status of a request to one version.
fn asked(gateway: &Gateway, version: u64) -> u16 {
    let path = format!("/v2/models/m/versions/{version}/infer");
    let response = gateway.client().request(&Request::post(&path, infer(&[1, 2], &[0.0, 0.0]).to_string())).expect("an answer");
    if response.status == 200 {
        assert_eq!(numbers(&response.json()), [version as f32; 2], "the version that was asked for");
    }
    response.status
}

fn wait_for_default(gateway: &Gateway, version: u64) {
    let version = version.to_string();
    wait_for(&format!("version {version} answers"), || (gateway.model("m")["default_version"] == version).then_some(()));
}

/// Waits until the registry has been looked at this many times more.
fn wait_for_looks(gateway: &Gateway, outcome: &str, count: f64) {
    let looks = || gateway.metric("sluicegate_registry_scans_total", &[("outcome", outcome)]);
    let before = looks();
    wait_for("further looks at the registry", || (looks() >= before + count).then_some(()));
}

#[test]
fn a_new_version_goes_live_and_the_old_one_is_freed() {
    let folder = folder(&[1]);
    let gateway = Gateway::start(&folder, "");
    assert_eq!(answers(&gateway), 1);
    folder.publish("m", 2, &add(2));
    wait_for_default(&gateway, 2);
    assert_eq!(answers(&gateway), 2);
    gateway.wait_for_state("m", 1, "gone");
    assert_eq!(gateway.version("m", 2).0, "live");
    let metric = |name: &str, labels: &[(&str, &str)]| gateway.metric(name, labels);
    assert_eq!(metric("sluicegate_versions_freed_total", &[("model", "m")]), 1.0);
    assert_eq!(metric("sluicegate_swaps_total", &[("model", "m")]), 1.0);
    assert_eq!(metric("sluicegate_loads_total", &[("model", "m"), ("outcome", "live")]), 2.0);
    assert_eq!(metric("sluicegate_live_version", &[("version", "1")]), 0.0);
    assert_eq!(metric("sluicegate_live_version", &[("version", "2")]), 1.0);
    assert_eq!(asked(&gateway, 1), 404, "who asks for the old one is told that it has gone");
}

#[test]
fn a_version_is_known_by_the_digest_of_its_files() {
    let folder = Folder::default();
    let files: [(&str, &[u8]); 2] = [("model.onnx", &add(1)), ("model.yaml", b"description: adds one\n")];
    folder.write("m", 1, &files);
    let gateway = Gateway::start(&folder, "");
    let response = gateway.client().post_json(&infer_path("m"), &infer(&[1, 2], &[0.0, 0.0])).expect("an answer");
    assert_eq!(response.header("x-model-digest"), Some(version_digest(&files).as_str()));
}

#[test]
fn a_broken_version_is_told_with_its_reason_and_touches_nothing() {
    let folder = folder(&[1]);
    folder.publish("table", 1, &onnx::fails_on_some());
    let gateway = Gateway::start(&folder, "");
    let good = add(2);
    let wrong = format!("files: {{ model.onnx: 'sha256:{}' }}", "0".repeat(64));
    let missing = format!("files: {{ model.onnx: '{0}', weights.bin: '{0}' }}", digest(&good));
    folder.write("m", 2, &[("model.onnx", &good[..good.len() / 2])]);
    folder.write("m", 3, &[("model.onnx", &good), ("model.yaml", wrong.as_bytes())]);
    folder.write("m", 4, &[("model.onnx", &good), ("model.yaml", missing.as_bytes())]);
    folder.write("m", 5, &[("model.onnx", &onnx::unknown_operator())]);
    folder.write("m", 6, &[("model.onnx", &onnx::add_constant(6.0, 3))]);
    folder.write("m", 7, &[("model.yaml", b"description: nothing else\n")]);
    folder.write("m", 8, &[("model.onnx", &good), ("model.yaml", b"description: x\nsignature:\n  imputs: []\n")]);
    folder.write("m", 9, &[("model.onnx", &good), ("model.yaml", b"signature: { inputs: [ { name: z } ] }\n")]);
    folder.write("m", 10, &[("model.onnx", b"")]);
    // Its middle is a place that the table has not.
    let range = b"signature: { inputs: [ { name: index, min: 5, max: 9 } ] }\n";
    folder.write("table", 2, &[("model.onnx", &onnx::fails_on_some()), ("model.yaml", range)]);
    for (model, version, words) in [
        ("m", 2, ""),
        ("m", 3, "model.onnx has the digest sha256:"),
        ("m", 4, "weights.bin is missing"),
        ("m", 5, "Frobnicate"),
        ("m", 6, "it would break its callers: input `x`"),
        ("m", 7, "there is no model.onnx"),
        ("m", 8, "model.yaml:3:3: "),
        ("m", 9, "input `z`, which the model does not have"),
        ("m", 10, ""),
        ("table", 2, "warm-up with 1 rows"),
    ] {
        let reason = gateway.wait_for_state(model, version, "failed");
        assert!(!reason.is_empty() && reason.contains(words), "{model}/{version}: {reason}");
        assert_eq!(answers(&gateway), 1, "what is live goes on");
    }
    assert_eq!(gateway.version("table", 1).0, "live");
    assert_eq!(gateway.metric("sluicegate_loads_total", &[("outcome", "failed")]), 10.0, "each is tried and counted once");
    wait_for_looks(&gateway, "ok", 5.0);
    assert_eq!(gateway.metric("sluicegate_loads_total", &[("outcome", "failed")]), 10.0, "and not again while it stays as it is");
    assert!(gateway.is_ready());
}

#[test]
fn a_failed_version_is_tried_again_when_it_is_repaired() {
    let folder = folder(&[1]);
    let gateway = Gateway::start(&folder, "");
    let good = add(2);
    folder.write("m", 2, &[("model.onnx", &good[..good.len() / 2])]);
    gateway.wait_for_state("m", 2, "failed");
    folder.write("m", 2, &[("model.onnx", &good)]);
    wait_for_default(&gateway, 2);
    assert_eq!(answers(&gateway), 2);
}

/// Copies a model into a version's directory in small pieces; `look` is called before each of them.
fn copy_slowly(folder: &Folder, version: u64, bytes: &[u8], mut look: impl FnMut()) {
    let path = folder.version("m", version);
    fs::create_dir_all(&path).expect("a directory");
    let mut file = fs::File::create(path.join("model.onnx")).expect("a file");
    for piece in bytes.chunks(bytes.len().div_ceil(20)) {
        look();
        file.write_all(piece).expect("a piece is written");
        thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn a_version_without_digests_is_loaded_when_its_copy_has_come_to_rest() {
    let folder = folder(&[1]);
    let registries = "registries: { local: { type: directory, path: models, poll: 10ms, settle: 500ms } }";
    let gateway = Gateway::start(&folder, registries);
    copy_slowly(&folder, 2, &add(2), || {
        assert_ne!(gateway.version("m", 2).0, "live", "it is not complete");
        assert_eq!(answers(&gateway), 1);
    });
    wait_for_default(&gateway, 2);
}

#[test]
fn a_version_with_digests_is_loaded_when_they_match() {
    let folder = folder(&[1]);
    // It never settles: what goes live does so because its files are what its manifest says.
    let registries = "registries: { local: { type: directory, path: models, poll: 10ms, settle: 1h } }";
    let gateway = Gateway::start(&folder, registries);
    let manifest = format!("files: {{ model.onnx: '{}' }}", digest(&add(2)));
    folder.write("m", 2, &[("model.yaml", manifest.as_bytes())]);
    copy_slowly(&folder, 2, &add(2), || {
        assert_eq!(answers(&gateway), 1);
        let (state, _) = gateway.version("m", 2);
        assert!(!["live", "failed"].contains(&state.as_str()), "it is not complete, and not wrong: {state}");
    });
    wait_for_default(&gateway, 2);
    folder.write("m", 3, &[("model.yaml", manifest.as_bytes()), ("model.onnx", b"other bytes")]);
    let waits = || Some(gateway.version("m", 3)).filter(|(state, reason)| state == "found" && reason.contains("has the digest"));
    wait_for("a version that says what it waits for", waits);
    assert_eq!(answers(&gateway), 2);
}

#[test]
fn hidden_names_are_not_looked_at() {
    let folder = folder(&[1]);
    let models = folder.models();
    for hidden in [models.join("m/.2"), models.join(".hidden/1")] {
        fs::create_dir_all(&hidden).expect("a directory");
        fs::write(hidden.join("model.onnx"), add(2)).expect("a file");
    }
    let gateway = Gateway::start(&folder, "");
    wait_for_looks(&gateway, "ok", 10.0);
    let versions = gateway.model("m")["versions"].as_object().cloned().unwrap_or_default();
    assert_eq!(versions.keys().collect::<Vec<_>>(), ["1"]);
    assert_eq!(gateway.status()["models"].as_array().map(Vec::len), Some(1));
    fs::rename(models.join("m/.2"), models.join("m/2")).expect("it gets its name");
    wait_for_default(&gateway, 2);
}

#[test]
fn a_registry_that_is_away_or_empty_unloads_nothing() {
    let folder = folder(&[1]);
    let (models, away) = (folder.models(), folder.path().join("away"));
    let gateway = Gateway::start(&folder, "");
    let serves = || {
        assert_eq!(answers(&gateway), 1);
        assert!(gateway.is_ready());
        assert_eq!(gateway.version("m", 1).0, "live");
    };
    fs::rename(&models, &away).expect("the mount goes away");
    wait_for_looks(&gateway, "failed", 5.0);
    serves();
    fs::create_dir(&models).expect("an empty directory");
    wait_for_looks(&gateway, "failed", 5.0);
    serves();
    fs::create_dir(models.join("m")).expect("a model without versions");
    wait_for_looks(&gateway, "ok", 5.0);
    serves();
    fs::remove_dir_all(&models).and_then(|()| fs::rename(&away, &models)).expect("the mount comes back");
    folder.publish("m", 2, &add(2));
    wait_for_default(&gateway, 2);
}

#[test]
fn the_version_that_is_declared_answers_and_no_other_is_loaded() {
    let folder = folder(&[1, 2]);
    let gateway = Gateway::start(&folder, r#"models: [ { name: m, version: "1" } ]"#);
    folder.publish("m", 3, &add(3));
    wait_for_looks(&gateway, "ok", 10.0);
    assert_eq!(answers(&gateway), 1);
    assert_eq!((asked(&gateway, 1), asked(&gateway, 2), asked(&gateway, 3)), (200, 404, 404));
}

#[test]
fn versions_beside_the_default_answer_who_names_them() {
    let folder = folder(&[1, 2, 3]);
    let gateway = Gateway::start(&folder, "models: [ { name: m, also: all } ]");
    (1..=3).for_each(|version| drop(gateway.wait_for_state("m", version, "live")));
    assert_eq!(answers(&gateway), 3);
    (1..=3).for_each(|version| assert_eq!(asked(&gateway, version), 200));
    folder.publish("m", 4, &add(4));
    wait_for_default(&gateway, 4);
    (1..=4).for_each(|version| assert_eq!(asked(&gateway, version), 200));
}

#[test]
fn a_digest_picks_the_version_that_has_it() {
    let folder = Folder::default();
    let (one, two) = (add(1), add(2));
    folder.write("m", 1, &[("model.onnx", &one)]);
    folder.write("m", 2, &[("model.onnx", &two)]);
    let digest = version_digest(&[("model.onnx", &one)]);
    let gateway = Gateway::start(&folder, &format!("models: [ {{ name: m, version: '{digest}' }} ]"));
    assert_eq!(answers(&gateway), 1);
    assert_eq!(asked(&gateway, 2), 404);
}

#[test]
fn a_changed_configuration_is_applied_and_a_wrong_one_refused_whole() {
    let folder = folder(&[1, 2]);
    folder.publish("other", 1, &add(1));
    let pinned = |version: u64| format!("models: [ {{ name: m, version: {version} }} ]");
    let gateway = Gateway::start(&folder, &pinned(1));
    let config = || gateway.status()["config"].clone();
    let reloads = |outcome: &str| gateway.metric("sluicegate_config_reloads_total", &[("outcome", outcome)]);
    write_config(&folder, &pinned(2));
    wait_for_default(&gateway, 2);
    wait_for("an applied change", || (reloads("applied") == 1.0 && config()["state"] == "applied").then_some(()));
    gateway.wait_for_state("m", 1, "gone");
    // The first part of it would be fine.
    write_config(&folder, "models: [ { name: m, version: 1 }, { name: other, versoin: 1 } ]");
    wait_for("a refused change", || (reloads("refused") == 1.0 && config()["state"] == "refused").then_some(()));
    let errors = config()["errors"].as_array().cloned().unwrap_or_default();
    let error = errors.first().and_then(Value::as_str).unwrap_or_default();
    assert!(error.contains("sluicegate.yaml:2:51: ") && error.contains("versoin"), "{errors:?}");
    assert_eq!(answers(&gateway), 2, "what runs goes on");
    write_config(&folder, "models: [ { name: m, version: 1 }, { name: other } ]");
    wait_for_default(&gateway, 1);
    gateway.wait_for_state("other", 1, "live");
    assert_eq!(config()["state"], "applied");
    assert_eq!((reloads("applied"), reloads("refused")), (2.0, 1.0));
}

#[test]
fn it_is_ready_when_its_models_are() {
    let folder = Folder::default();
    folder.write("m", 1, &[("model.onnx", &add(1))]);
    let registries = "registries: { local: { type: directory, path: models, poll: 10ms, settle: 3s } }";
    let gateway = Gateway::begin(&folder, registries);
    assert!(!gateway.is_ready(), "its files have not come to rest");
    let early = gateway.client().post_json(&infer_path("m"), &infer(&[1, 2], &[0.0, 0.0])).expect("an answer");
    assert_eq!((early.status, early.json()["code"].as_str()), (503, Some("not_ready")), "{}", early.text());
    assert!(early.header("retry-after").is_some());
    let health = gateway.client().get("/v2/health/ready").expect("an answer");
    assert_eq!((health.status, health.json()["ready"].as_bool()), (503, Some(false)));
    assert_eq!(gateway.client().get("/v2/models/m/ready").expect("an answer").status, 503);
    assert_eq!(gateway.client().get("/v2/health/live").expect("an answer").status, 200);
    wait_for("a gateway that is ready", || gateway.is_ready().then_some(()));
    assert_eq!(answers(&gateway), 1);
    assert_eq!(gateway.client().get("/v2/models/m/ready").expect("an answer").status, 200);
}

#[test]
fn the_documents_are_those_of_the_versions_that_serve() {
    let folder = folder(&[1]);
    let gateway = Gateway::start(&folder, "");
    let document = |path: &str| {
        let response = gateway.client().get(path).expect("an answer");
        assert_eq!(response.status, 200, "{path}");
        let etag = response.header("etag").expect("an ETag").to_owned();
        (response.json()["paths"].clone(), etag)
    };
    for path in ["/openapi.json", "/models/m/openapi.json"] {
        assert!(document(path).0["/models/m@1/predict"].is_object(), "{path}");
    }
    let (_, before) = document("/openapi.json");
    assert_eq!(document("/openapi.json").1, before, "nothing has changed");
    folder.publish("m", 2, &add(2));
    wait_for_default(&gateway, 2);
    gateway.wait_for_state("m", 1, "gone");
    for path in ["/openapi.json", "/models/m/openapi.json"] {
        let (paths, after) = document(path);
        assert!(paths["/models/m@2/predict"].is_object() && paths["/models/m@1/predict"].is_null(), "{path}");
        assert!(paths["/models/m/predict"].is_object() && after != before, "{path}");
    }
}
