//! What the tests of rollouts share: two versions of a model, and how the gateway is asked about them.

use serde_json::Value;
use sluicegate_testkit::client::{Client, Request, Response};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, wait_for};

use crate::{infer, infer_path, numbers};

/// Version 1 of `m` adds 1, version 2 adds 2.
///
/// # Panics
/// Where the gateway does not answer so.
pub fn two_versions() -> Folder {
    let folder = Folder::default();
    for version in [1, 2] {
        folder.publish("m", version, &onnx::add_constant(version as f32, 2));
    }
    folder
}

/// A configuration of `m`, whose rollout has these keys.
///
/// # Panics
/// Where the gateway does not answer so.
pub fn rollout(keys: &str) -> String {
    format!("models:\n  - name: m\n    version: 1\n    rollout: {{ candidate: 2, {keys} }}\n")
}

/// A configuration of where the state is kept.
///
/// # Panics
/// Where the gateway does not answer so.
pub fn kept(folder: &Folder) -> String {
    format!("state: {{ path: {} }}\n", folder.path().join("state.db").display())
}

/// A request of nothing but zeros.
///
/// # Panics
/// Where the gateway does not answer so.
pub fn x() -> Request {
    Request::post(&infer_path("m"), infer(&[1, 2], &[0.0, 0.0]).to_string())
}

/// The variant that a response names, and what the version that answered added.
///
/// # Panics
/// Where the gateway does not answer so.
pub fn said(response: &Response) -> (String, f32) {
    assert_eq!(response.status, 200, "{}", response.text());
    (response.header("x-model-variant").unwrap_or("none").to_owned(), numbers(&response.json())[0])
}

/// What is told of the rollout.
///
/// # Panics
/// Where the gateway does not answer so.
pub fn view(gateway: &Gateway) -> Value {
    let response = gateway.client().get("/models/m/rollout").expect("an answer");
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Waits until the rollout is in this phase.
///
/// # Panics
/// Where the gateway does not answer so.
pub fn wait_for_phase(gateway: &Gateway, phase: &str) -> Value {
    wait_for(&format!("the rollout is {phase}"), || Some(view(gateway)).filter(|view| view["phase"] == phase))
}

/// Waits until both versions have their share.
///
/// # Panics
/// Where the gateway does not answer so.
pub fn wait_for_share(gateway: &Gateway, share: &str) {
    wait_for(&format!("the candidate has {share}"), || {
        let view = view(gateway);
        (view["share"] == share && view["ready"] == true).then_some(())
    });
}

/// Says something by hand.
///
/// # Panics
/// Where the gateway does not answer so.
pub fn command(gateway: &Gateway, command: &str) -> Response {
    let path = format!("/models/m/rollout/{command}?by=ada&reason=tested");
    Client::new(gateway.ops()).request(&Request::new("POST", &path)).expect("an answer")
}

/// What was decided.
///
/// # Panics
/// Where the gateway does not answer so.
pub fn kinds(gateway: &Gateway) -> Vec<String> {
    let events = gateway.client().get("/models/m/events").expect("an answer").json();
    events["events"].as_array().into_iter().flatten().map(|event| event["kind"].as_str().unwrap_or_default().to_owned()).collect()
}
