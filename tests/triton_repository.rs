//! A repository that was made for Triton serves as it is: what its configurations say is honoured, or named.

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use sluicegate_core::{DType, Dim};
use sluicegate_testkit::client::Request;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx::{self, Attr, Model, rows};
use sluicegate_testkit::process::{Gateway, command, run, wait_for, write_config};
use sluicegate_tests::{ask, infer, infer_once, infer_path, numbers, pair};

/// Writes a file of a repository, in one step.
fn write(folder: &Folder, path: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.models().join(path);
    let directory = path.parent().expect("a file is in a directory");
    fs::create_dir_all(directory).expect("a directory");
    let hidden = directory.join(".part");
    fs::write(&hidden, bytes).and_then(|()| fs::rename(&hidden, &path)).expect("a file");
}

/// A model as Triton has it: a configuration, and a version without a manifest.
fn model(folder: &Folder, name: &str, config: &str, onnx: &[u8]) {
    write(folder, &format!("{name}/config.pbtxt"), config);
    write(folder, &format!("{name}/1/model.onnx"), onnx);
}

fn get(gateway: &Gateway, path: &str) -> Value {
    ask(&mut gateway.client(), &Request::new("GET", path)).json()
}

fn metadata(gateway: &Gateway, model: &str) -> Value {
    get(gateway, &format!("/v2/models/{model}"))
}

const ROWS_OF_TWO: &str = r#"
    backend: "onnxruntime" max_batch_size: 8
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
"#;

#[test]
fn preferred_sizes_delay_and_instances_are_those_of_the_configuration() {
    let folder = Folder::default();
    let batching = r#"
        dynamic_batching { preferred_batch_size: [ 3 ] max_queue_delay_microseconds: 20000000 }
        instance_group [ { count: 1 kind: KIND_CPU } ]
    "#;
    model(&folder, "add", &format!("{ROWS_OF_TWO} {batching}"), &onnx::add_constant(1.0, 2));
    let gateway = Gateway::start(&folder, "batching: { max_rows: 64, queue_timeout: 120s, instances: 2 }");
    let told = get(&gateway, "/models/add/batching");
    let said = ["max_rows", "preferred_rows", "max_delay_us", "instances"].map(|key| told[key].clone());
    assert_eq!(said, [json!(8), json!([3]), json!(20_000_000), json!(1)]);
    // Nobody has them wait for longer than half of two minutes: three rows leave because they are three.
    let barrier = Barrier::new(3);
    thread::scope(|scope| {
        for row in [1.0, 2.0, 3.0] {
            let (gateway, barrier) = (&gateway, &barrier);
            scope.spawn(move || {
                barrier.wait();
                assert_eq!(numbers(&infer_once(gateway, "add", &[1, 2], &[row, row])), [row + 1.0; 2]);
            });
        }
    });
    let batches = get(&gateway, "/models/add/batching")["batches"].clone();
    assert_eq!((&batches[0]["rows"], &batches[0]["left"]), (&json!(3), &json!("preferred")), "{batches}");
    assert_eq!(metadata(&gateway, "add")["platform"], "onnxruntime_onnx");
}

#[test]
fn what_the_models_own_entry_says_wins_over_its_configuration() {
    let folder = Folder::default();
    let batching = "dynamic_batching { max_queue_delay_microseconds: 1000 } response_cache { enable: true }";
    model(&folder, "add", &format!("{ROWS_OF_TWO} {batching}"), &onnx::add_constant(1.0, 2));
    let gateway = Gateway::start(
        &folder,
        "batching: { max_rows: 32, max_delay: 5ms }\nmodels: [ { name: add, batching: { max_rows: 4 }, cache: { size: 2MiB } } ]",
    );
    let told = get(&gateway, "/models/add/batching");
    assert_eq!((&told["max_rows"], &told["max_delay_us"]), (&json!(4), &json!(1000)));
    assert_eq!(get(&gateway, "/models/add")["cache_size_bytes"], 2 << 20);
}

#[test]
fn without_batches_requests_stay_apart_and_dims_are_all_axes() {
    let folder = Folder::default();
    let config = r#"platform: "onnxruntime_onnx" input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]"#;
    model(&folder, "whole", config, &onnx::add_constant(1.0, 2));
    let gateway = Gateway::start(&folder, "");
    assert_eq!(get(&gateway, "/models/whole")["batched"], false);
    assert_eq!(numbers(&infer_once(&gateway, "whole", &[2, 2], &[1.0, 2.0, 3.0, 4.0])), [2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn version_policies_say_which_versions_serve() {
    let folder = Folder::default();
    for (name, policy) in
        [("all", "all { }"), ("two", "latest { num_versions: 2 }"), ("some", "specific { versions: [ 1, 3 ] }"), ("newest", "")]
    {
        let policy = if policy.is_empty() { String::new() } else { format!("version_policy {{ {policy} }}") };
        write(&folder, &format!("{name}/config.pbtxt"), format!("{ROWS_OF_TWO} {policy}"));
        for version in 1..=4u8 {
            write(&folder, &format!("{name}/{version}/model.onnx"), onnx::add_constant(f32::from(version), 2));
        }
    }
    let gateway = Gateway::start(&folder, "");
    for name in ["all", "two", "newest"] {
        gateway.wait_for_state(name, 4, "live");
    }
    gateway.wait_for_state("some", 3, "live");
    let versions = |name: &str| metadata(&gateway, name)["versions"].clone();
    let answers = |name: &str| infer_once(&gateway, name, &[1, 2], &[0.0, 0.0])["model_version"].clone();
    for (name, live, default) in [
        ("all", json!(["1", "2", "3", "4"]), "4"),
        ("two", json!(["3", "4"]), "4"),
        ("some", json!(["1", "3"]), "3"),
        ("newest", json!(["4"]), "4"),
    ] {
        wait_for(&format!("{live} of {name}"), || (versions(name) == live && answers(name) == default).then_some(()));
    }
    // A fifth one is the newest, and the third goes only then.
    write(&folder, "two/5/model.onnx", onnx::add_constant(5.0, 2));
    wait_for("the two newest of five", || (versions("two") == json!(["4", "5"]) && answers("two") == "5").then_some(()));
}

#[test]
fn labels_beside_the_configuration_name_the_classes_of_the_typed_route() {
    let folder = Folder::default();
    let config = r#"
        max_batch_size: 8 default_model_filename: "net.onnx"
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" } ]
    "#;
    write(&folder, "classes/config.pbtxt", config);
    write(&folder, "classes/labels.txt", "cat\ndog\nbird\n");
    write(&folder, "classes/1/net.onnx", onnx::add_constant(0.0, 3));
    let gateway = Gateway::start(&folder, "");
    let predict = || {
        let answer = gateway.client().post_json("/models/classes/predict", &json!({ "x": [0.5, 0.25, 0.0] })).expect("an answer");
        answer.json()
    };
    assert_eq!(predict(), json!({ "y": { "cat": 0.5, "dog": 0.25, "bird": 0.0 } }));
    write(&folder, "classes/labels.txt", "cat\nwolf\nbird\n");
    let reason = wait_for("other labels to be refused", || {
        let (_, reason) = gateway.version("classes", 1);
        reason.contains("labels").then_some(reason)
    });
    assert!(reason.contains("would break its callers"), "{reason}");
    assert_eq!(predict()["y"]["dog"], 0.25, "what is live goes on");
}

#[test]
fn a_sample_of_the_warm_up_that_fails_fails_the_version() {
    let folder = Folder::default();
    let config = |file: &str| {
        format!(
            r#"max_batch_size: 8 input [ {{ name: "index" data_type: TYPE_INT64 dims: [ ] }} ]
            model_warmup [ {{ name: "first" batch_size: 2 count: 3
              inputs {{ key: "index" value: {{ data_type: TYPE_INT64 input_data_file: "{file}" }} }} }} ]"#
        )
    };
    for (name, index) in [("good", 2i64), ("bad", 7)] {
        model(&folder, name, &config("index.bin"), &onnx::fails_on_some());
        write(&folder, &format!("{name}/warmup/index.bin"), index.to_le_bytes());
    }
    model(&folder, "missing", &config("none.bin"), &onnx::fails_on_some());
    let gateway = Gateway::start(&folder, "");
    gateway.wait_for_state("good", 1, "live");
    let reason = gateway.wait_for_state("bad", 1, "failed");
    assert!(reason.contains("model_warmup `first`"), "{reason}");
    let reason = gateway.wait_for_state("missing", 1, "failed");
    assert!(reason.contains("none.bin") && reason.contains("model_warmup `first`"), "{reason}");
}

#[test]
fn what_is_not_supported_is_named_and_what_only_tunes_is_remarked_upon() {
    let folder = Folder::default();
    let add = onnx::add_constant(1.0, 2);
    model(&folder, "tuned", &format!("{ROWS_OF_TWO} optimization {{ graph {{ level: 1 }} }}"), &add);
    model(&folder, "state", &format!("{ROWS_OF_TWO} sequence_batching {{ }}"), &add);
    model(&folder, "python", "backend: \"python\"", &add);
    model(&folder, "type", "input [ { name: \"x\" data_type: TYPE_INT8 dims: [ -1, 2 ] } ]", &add);
    folder.publish_with("named", 1, &add, "description: the manifest speaks");
    write(&folder, "named/config.pbtxt", "backend: \"python\"");
    let gateway = Gateway::start(&folder, "");
    for (name, words) in
        [("state", "sequence_batching"), ("python", "backend: `python`"), ("type", "as INT8, the model has it as FP32")]
    {
        let reason = gateway.wait_for_state(name, 1, "failed");
        assert!(reason.contains(words), "{reason}");
    }
    for (name, words) in [("tuned", "optimization has no effect"), ("named", "config.pbtxt has no effect")] {
        gateway.wait_for_state(name, 1, "live");
        let remarks = [
            get(&gateway, &format!("/models/{name}"))["remarks"].clone(),
            gateway.model(name)["versions"]["1"]["remarks"].clone(),
        ];
        assert!(remarks.iter().all(|all| all[0].as_str().is_some_and(|remark| remark.contains(words))), "{remarks:?}");
    }
    assert!(gateway.log().iter().any(|line| line.contains("optimization has no effect")), "{:#?}", gateway.log());
}

#[test]
fn a_broken_configuration_touches_nothing_that_is_live() {
    let folder = Folder::default();
    model(&folder, "add", ROWS_OF_TWO, &onnx::add_constant(1.0, 2));
    let gateway = Gateway::start(&folder, "");
    write(&folder, "add/config.pbtxt", "max_batch_size: 8\n  max_batch_sise: 8\n");
    let reason = wait_for("the fault to be told", || {
        let (state, reason) = gateway.version("add", 1);
        (state == "live" && reason.contains("config.pbtxt")).then_some(reason)
    });
    assert!(reason.contains("config.pbtxt:2:3: ") && reason.contains("max_batch_sise"), "{reason}");
    assert_eq!(numbers(&infer_once(&gateway, "add", &[1, 2], &[1.0, 2.0])), [2.0, 3.0]);
    // A good one is loaded beside it, and takes its place.
    write(&folder, "add/config.pbtxt", ROWS_OF_TWO.replace("max_batch_size: 8", "max_batch_size: 2"));
    wait_for("the new bound", || (get(&gateway, "/models/add/batching")["max_rows"] == 2).then_some(()));
}

/// `half_way = in + 1`; from there `left = half_way + 10`, beside it `right = 2 in`; and `out`, the sum of both sides.
const DIAMOND: &str = r#"
    platform: "ensemble" max_batch_size: 8
    input [ { name: "in" data_type: TYPE_FP32 dims: [ 2 ] } ]
    output [ { name: "out" data_type: TYPE_FP32 dims: [ 2 ] }, { name: "half_way" data_type: TYPE_FP32 dims: [ 2 ] } ]
    ensemble_scheduling { step [
      { model_name: "pair" model_version: -1
        input_map { key: "a" value: "left" } input_map { key: "b" value: "right" } output_map { key: "sum" value: "out" } },
      { model_name: "add" model_version: -1 input_map { key: "x" value: "half_way" } output_map { key: "y" value: "left" } },
      { model_name: "both" model_version: -1 input_map { key: "x" value: "in" }
        output_map { key: "more" value: "half_way" } output_map { key: "twice" value: "right" } }
    ] }
"#;

fn diamond() -> Folder {
    let folder = Folder::default();
    folder.publish("pair", 1, &pair());
    folder.publish("add", 1, &onnx::add_constant(10.0, 2));
    folder.publish("both", 1, &onnx::two_outputs(2));
    write(&folder, "diamond/config.pbtxt", DIAMOND);
    fs::create_dir_all(folder.models().join("diamond/1")).expect("a version without files");
    folder
}

fn ask_diamond(gateway: &Gateway, row: [f32; 2]) -> Value {
    let body = json!({ "inputs": [{ "name": "in", "datatype": "FP32", "shape": [1, 2], "data": row }] });
    ask(&mut gateway.client(), &Request::post(&infer_path("diamond"), body.to_string())).json()
}

#[test]
fn an_ensemble_is_served_like_any_other_model() {
    let folder = diamond();
    let gateway = Gateway::start(&folder, "");
    gateway.wait_for_state("diamond", 1, "live");
    let answer = ask_diamond(&gateway, [1.0, 2.0]);
    assert_eq!(numbers(&answer), [14.0, 17.0], "x + 1 + 10, and 2 x");
    assert_eq!((&answer["model_name"], &answer["outputs"][1]["data"]), (&json!("diamond"), &json!([2.0, 3.0])));
    let told = metadata(&gateway, "diamond");
    assert_eq!((&told["platform"], &told["inputs"][0]["shape"]), (&json!("ensemble"), &json!([-1, 2])));
    let predicted =
        gateway.client().post_json("/models/diamond/predict", &json!([{ "in": [1, 2] }, { "in": [0, 0] }])).expect("an answer");
    assert_eq!(predicted.json()[1], json!({ "out": [11.0, 11.0], "half_way": [1.0, 1.0] }));
    assert!(get(&gateway, "/openapi.json")["paths"]["/models/diamond/predict"].is_object());
    let steps = get(&gateway, "/models/diamond")["steps"].clone();
    assert_eq!(steps.as_array().map(Vec::len), Some(3), "{steps}");
    for (model, requests) in [("diamond", 2.0), ("pair", 2.0), ("add", 2.0), ("both", 2.0)] {
        let counted = gateway.metric("sluicegate_requests_total", &[("model", model)]);
        assert!((counted - requests).abs() < 0.5, "{model} was asked {counted} times");
    }
}

#[test]
fn only_the_steps_that_lead_to_what_is_wanted_are_taken() {
    let folder = diamond();
    let gateway = Gateway::start(&folder, "");
    gateway.wait_for_state("diamond", 1, "live");
    let body = json!({
        "inputs": [{ "name": "in", "datatype": "FP32", "shape": [1, 2], "data": [1, 2] }], "outputs": [{ "name": "half_way" }],
    });
    let answer = ask(&mut gateway.client(), &Request::post(&infer_path("diamond"), body.to_string())).json();
    assert_eq!(numbers(&answer), [2.0, 3.0]);
    assert!(gateway.metric("sluicegate_requests_total", &[("model", "pair")]) < 0.5);
    assert!(gateway.metric("sluicegate_requests_total", &[("model", "both")]) > 0.5);
}

#[test]
fn independent_steps_are_taken_at_the_same_time_and_share_a_run_of_their_model() {
    let folder = Folder::default();
    let batching = "dynamic_batching { preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 20000000 }";
    model(&folder, "add", &format!("{ROWS_OF_TWO} {batching} instance_group [ {{ count: 1 }} ]"), &onnx::add_constant(1.0, 2));
    folder.publish("pair", 1, &pair());
    let step = |from: &str, to: &str| {
        format!(r#"{{ model_name: "add" input_map {{ key: "x" value: "{from}" }} output_map {{ key: "y" value: "{to}" }} }}"#)
    };
    let join = r#"{ model_name: "pair" input_map { key: "a" value: "c" } input_map { key: "b" value: "d" } output_map { key: "sum" value: "e" } }"#;
    let ends = ["a", "b"].map(|name| format!("{{ name: \"{name}\" data_type: TYPE_FP32 dims: [ 2 ] }}")).join(", ");
    let config = format!(
        r#"platform: "ensemble" max_batch_size: 8 input [ {ends} ] output [ {{ name: "e" data_type: TYPE_FP32 dims: [ 2 ] }} ]
        ensemble_scheduling {{ step [ {}, {}, {join} ] }}"#,
        step("a", "c"),
        step("b", "d")
    );
    write(&folder, "sides/config.pbtxt", config);
    fs::create_dir_all(folder.models().join("sides/1")).expect("a version without files");
    let gateway = Gateway::start(&folder, "batching: { queue_timeout: 120s }");
    gateway.wait_for_state("sides", 1, "live");
    let side = |name: &str, data: [f32; 2]| json!({ "name": name, "datatype": "FP32", "shape": [1, 2], "data": data });
    let body = json!({ "inputs": [side("a", [1.0, 2.0]), side("b", [10.0, 20.0])] });
    let answer = ask(&mut gateway.client(), &Request::post(&infer_path("sides"), body.to_string())).json();
    assert_eq!(numbers(&answer), [13.0, 24.0]);
    // One after the other, each would have waited for company that does not come.
    let batches = get(&gateway, "/models/add/batching")["batches"].clone();
    assert_eq!((&batches[0]["rows"], &batches[0]["requests"], &batches[0]["left"]), (&json!(2), &json!(2), &json!("preferred")));
}

#[test]
fn an_ensemble_is_ready_as_long_as_its_models_are_there() {
    let folder = diamond();
    let models = |names: &[&str]| {
        let models: Vec<String> = names.iter().map(|name| format!("{{ name: {name} }}")).collect();
        format!("models: [ {} ]", models.join(", "))
    };
    let gateway = Gateway::start(&folder, &models(&["diamond", "add", "both", "pair"]));
    let ready = || gateway.client().get("/v2/models/diamond/ready").expect("an answer").status;
    assert_eq!(ready(), 200);
    write_config(&folder, &models(&["diamond", "add", "both"]));
    wait_for("a model to go", || (ready() == 503).then_some(()));
    let body = json!({ "inputs": [{ "name": "in", "datatype": "FP32", "shape": [1, 2], "data": [1, 2] }] });
    let refused = gateway.client().request(&Request::post(&infer_path("diamond"), body.to_string())).expect("an answer");
    assert!(refused.status == 503 && refused.text().contains("step 1 (`pair`)"), "{}", refused.text());
    write_config(&folder, &models(&["diamond", "add", "both", "pair"]));
    wait_for("the model to come back", || (ready() == 200).then_some(()));
    assert_eq!(numbers(&ask_diamond(&gateway, [1.0, 2.0])), [14.0, 17.0]);
}

#[test]
fn an_ensemble_follows_its_models_waits_for_them_and_names_the_step_that_fails() {
    let folder = diamond();
    fs::rename(folder.models().join("both"), folder.path().join("away")).expect("a model goes");
    let gateway = Gateway::start(&folder, "");
    let reason = gateway.wait_for_state("diamond", 1, "failed");
    assert!(reason.contains("step 3 (`both`)") && reason.contains("no model is called `both`"), "{reason}");
    fs::rename(folder.path().join("away"), folder.models().join("both")).expect("a model comes");
    gateway.wait_for_state("diamond", 1, "live");
    assert_eq!(numbers(&ask_diamond(&gateway, [0.0, 0.0])), [11.0, 11.0]);
    folder.publish("add", 2, &onnx::add_constant(20.0, 2));
    wait_for("the new version of a step", || (numbers(&ask_diamond(&gateway, [0.0, 0.0])) == [21.0, 21.0]).then_some(()));

    let fails = Folder::default();
    fails.publish("lookup", 1, &onnx::fails_on_some());
    write(
        &fails,
        "e/config.pbtxt",
        r#"platform: "ensemble" max_batch_size: 8
        input [ { name: "i" data_type: TYPE_INT64 dims: [ ] } ] output [ { name: "v" data_type: TYPE_FP32 dims: [ ] } ]
        ensemble_scheduling { step [ { model_name: "lookup" model_version: 1
          input_map { key: "index" value: "i" } output_map { key: "value" value: "v" } } ] }"#,
    );
    fs::create_dir_all(fails.models().join("e/1")).expect("a version without files");
    let gateway = Gateway::start(&fails, "");
    gateway.wait_for_state("e", 1, "live");
    let ask_one = |index: i64| {
        let body = json!({ "inputs": [{ "name": "i", "datatype": "INT64", "shape": [1], "data": [index] }] });
        gateway.client().request(&Request::post(&infer_path("e"), body.to_string())).expect("an answer")
    };
    assert_eq!(numbers(&ask_one(1).json()), [20.0]);
    let failed = ask_one(9);
    assert_eq!(failed.status, 500);
    let error = failed.json()["error"].clone();
    assert!(error.as_str().is_some_and(|error| error.starts_with("step 1 (`lookup@1`): ")), "{error}");
}

#[test]
fn an_ensemble_that_does_not_fit_its_models_fails_by_its_step() {
    let folder = diamond();
    let bad = |name: &str, from: &str, to: &str| {
        assert!(DIAMOND.contains(from), "{from}");
        write(&folder, &format!("{name}/config.pbtxt"), DIAMOND.replace(from, to));
        fs::create_dir_all(folder.models().join(name).join("1")).expect("a version without files");
    };
    bad("name", "key: \"more\"", "key: \"less\"");
    bad("type", "{ name: \"in\" data_type: TYPE_FP32", "{ name: \"in\" data_type: TYPE_FP64");
    bad("circle", "input_map { key: \"x\" value: \"in\" }", "input_map { key: \"x\" value: \"left\" }");
    bad("itself", "model_name: \"add\"", "model_name: \"itself\"");
    let gateway = Gateway::start(&folder, "");
    let told = [
        ("name", "step 3 (`both`): output_map: the model has no output `less`"),
        ("type", "tensor `in` is FP64 [-1, 2], expected FP32 [-1, 2]"),
        ("circle", "tensor `in`, from the inputs, is used by no step"),
        ("itself", "ask itself"),
    ];
    for (name, words) in told {
        let reason = gateway.wait_for_state(name, 1, "failed");
        assert!(reason.contains(words), "{reason}");
    }
    gateway.wait_for_state("diamond", 1, "live");
    let checked = check(&folder.models());
    for (_, words) in told {
        assert!(checked.contains(words), "{words}: {checked}");
    }
    assert!(checked.contains("4 versions load and answer, 4 errors"), "{checked}");
}

fn check(models: &Path) -> String {
    run(command(["check", "--models", models.to_str().expect("test paths are text")])).out
}

#[test]
fn check_tells_what_is_wrong_with_configurations_before_anybody_is_served() {
    let folder = Folder::default();
    let add = onnx::add_constant(1.0, 2);
    model(&folder, "good", &format!("{ROWS_OF_TWO} metric_tags {{ key: \"a\" value: \"b\" }}"), &add);
    model(&folder, "broken", "max_batch_size: many", &add);
    model(&folder, "state", "sequence_batching { }", &add);
    let out = check(&folder.models());
    for words in
        ["config.pbtxt:1:17", "sequence_batching is not supported", "warning", "metric_tags has no effect", "1 versions load"]
    {
        assert!(out.contains(words), "{words}: {out}");
    }
}

#[test]
fn timeouts_and_priorities_are_those_of_the_queue_policy() {
    let folder = Folder::default();
    let config = |policy: &str| format!("{ROWS_OF_TWO} dynamic_batching {{ {policy} }}");
    let any = [rows(), Dim::Fixed(2)];
    let same = Model::new(17).input("x", DType::Fp32, &any).output("y", DType::Fp32, &any);
    let same =
        same.node("Transpose", &["x"], &["t"], &[Attr::Ints("perm", &[0, 1])]).node("Identity", &["t"], &["y"], &[]).build();
    model(
        &folder,
        "queue",
        &config("priority_levels: 2 default_priority_level: 2 default_queue_policy { max_queue_size: 7 }"),
        &same,
    );
    let gateway = Gateway::start(&folder, "");
    assert_eq!(get(&gateway, "/models/queue/batching")["queue_rows"], 7);
    // The policy does not let a request shorten its time: one microsecond is not counted.
    let body = json!({ "parameters": { "timeout": 1, "priority": 9 }, "inputs": infer(&[1, 2], &[1.0, 2.0])["inputs"] });
    assert_eq!(numbers(&ask(&mut gateway.client(), &Request::post(&infer_path("queue"), body.to_string())).json()), [1.0, 2.0]);
}
