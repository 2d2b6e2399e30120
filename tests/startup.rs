//! A wrong start gets one clear line that names what to change, and exit 2; `check` finds all that is wrong beforehand.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Ended, command, run, write_config};

fn serve(args: &[&str]) -> Command {
    let free = ["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--ops", "127.0.0.1:0"];
    command(free.iter().chain(args))
}

/// It ended with 2 and one line of complaint; that line.
fn complaint(command: Command) -> String {
    let ended = run(command);
    assert_eq!(ended.status.code(), Some(2), "{:#?}", ended.log);
    // What is logged before the fault is found, is JSON.
    let lines: Vec<&String> = ended.log.iter().filter(|line| !line.starts_with('{')).collect();
    let [line] = lines[..] else { panic!("one line was expected: {:#?}", ended.log) };
    assert!(ended.out.is_empty(), "it did not say that it serves: {}", ended.out);
    line.strip_prefix("error: ").unwrap_or_else(|| panic!("no error: {line}")).to_owned()
}

fn says(line: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(line.contains(word), "`{word}` is missing in: {line}"));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("test paths are text")
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    says(&complaint(serve(&["--models", "/nowhere/at/all"])), &["/nowhere/at/all", "No such file or directory"]);
}

#[test]
fn a_directory_without_models_is_told_how_one_looks() {
    let folder = Folder::default();
    let models = folder.models();
    says(&complaint(serve(&["--models", path(&models)])), &["no model found", path(&models), "<model>/<version>/model.onnx"]);
}

#[test]
fn a_port_in_use_names_the_flag_that_changes_it() {
    let folder = Folder::default();
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let models = folder.models();
    let flags = ["--http", "--grpc", "--ops"];
    for flag in flags {
        let addresses = flags.map(|each| [each, if each == flag { &address } else { "127.0.0.1:0" }]).concat();
        says(&complaint(command(["serve", "--models", path(&models)].into_iter().chain(addresses))), &[&address, "in use", flag]);
    }
}

#[test]
fn a_wrong_key_is_told_with_its_line_and_column() {
    let folder = Folder::default();
    let file = folder.path().join("sluicegate.yaml");
    write_config(&folder, "batching:\n  max_row: 8");
    says(&complaint(serve(&["--config", path(&file)])), &["sluicegate.yaml:3:3: ", "max_row", "did you mean `max_rows`?"]);
}

#[test]
fn every_error_of_a_file_has_a_line_of_its_own() {
    let folder = Folder::default();
    let file = folder.path().join("sluicegate.yaml");
    write_config(&folder, "http: { max_body: many }\nlimits: { in_flight: 0 }\nnobody: 1");
    let ended = run(serve(&["--config", path(&file)]));
    assert_eq!(ended.status.code(), Some(2));
    assert_eq!(ended.log.len(), 3, "{:#?}", ended.log);
    for (line, (place, word)) in ended.log.iter().zip([(":2:19: ", "many"), (":3:22: ", "0"), (":4:1: ", "nobody")]) {
        says(line, &["error: ", place, word]);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    says(&complaint(serve(&["--config", "/nowhere/sluicegate.yaml"])), &["/nowhere/sluicegate.yaml"]);
}

#[test]
fn nothing_to_serve_is_told_what_to_give() {
    let folder = Folder::default();
    let mut nothing = serve(&[]);
    nothing.current_dir(folder.path());
    says(&complaint(nothing), &["--models", "--config"]);
}

#[test]
fn a_library_that_was_asked_for_must_be_there() {
    let folder = Folder::default();
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    let args = ["--models", path(&folder.models()), "--onnxruntime", "/nowhere/libonnxruntime.so"].map(str::to_owned);
    says(&complaint(serve(&args.each_ref().map(String::as_str))), &["/nowhere/libonnxruntime.so"]);
}

#[test]
fn wrong_usage_is_told_and_help_is_well() {
    let wrong = run(command(["serve", "--modells", "x"]));
    assert_eq!(wrong.status.code(), Some(2));
    says(&wrong.log.join("\n"), &["--modells", "--models"]);
    let help = run(command(["--help"]));
    assert_eq!(help.status.code(), Some(0));
    says(&help.out, &["serve", "check"]);
}

fn check(folder: &Folder, output: &str) -> Ended {
    run(command(["check", "--models", path(&folder.models()), "--output", output]))
}

/// One good model, and one with everything that a version can have wrong.
fn broken() -> (Folder, Vec<(u64, &'static str)>) {
    let folder = Folder::default();
    let good = onnx::add_constant(1.0, 2);
    folder.publish("good", 1, &good);
    folder.publish("bad", 1, &good);
    folder.write("bad", 2, &[("model.onnx", &good[..good.len() / 2])]);
    folder.publish("bad", 3, &onnx::unknown_operator());
    folder.write("bad", 4, &[("model.onnx", &good), ("model.yaml", b"description: x\nimputs: []\n")]);
    folder.write("bad", 5, &[("model.yaml", b"description: x\n")]);
    let digest = format!("files: {{ model.onnx: 'sha256:{}' }}", "0".repeat(64));
    folder.write("bad", 6, &[("model.onnx", &good), ("model.yaml", digest.as_bytes())]);
    let errors = vec![(2, "load_failed"), (3, "Frobnicate"), (4, "model.yaml:2:1"), (5, "no model.onnx"), (6, "digest")];
    (folder, errors)
}

#[test]
fn check_is_content_with_a_good_registry() {
    let folder = Folder::default();
    folder.publish("a", 1, &onnx::add_constant(1.0, 2));
    folder.publish("a", 2, &onnx::add_constant(2.0, 2));
    folder.publish("b", 1, &onnx::two_outputs(3));
    let ended = check(&folder, "text");
    assert_eq!(ended.status.code(), Some(0), "{} {:#?}", ended.out, ended.log);
    // A machine without the preferred engine is warned of, which is no error.
    let told: Vec<&str> = ended.out.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(told, ["3 versions load and answer, 0 errors"]);
}

#[test]
fn check_lists_every_error_with_its_place() {
    let (folder, errors) = broken();
    let ended = check(&folder, "text");
    assert_eq!(ended.status.code(), Some(1), "{} {:#?}", ended.out, ended.log);
    for (version, words) in &errors {
        let place = format!("error: {}: ", folder.version("bad", *version).display());
        let line = ended.out.lines().find(|line| line.starts_with(&place));
        says(line.unwrap_or_else(|| panic!("nothing of version {version}: {}", ended.out)), &[words]);
    }
    says(ended.out.lines().last().unwrap_or_default(), &["2 versions load and answer, 5 errors"]);
}

#[test]
fn check_gives_machines_what_it_gives_people() {
    let (folder, errors) = broken();
    let ended = check(&folder, "json");
    assert_eq!(ended.status.code(), Some(1), "{} {:#?}", ended.out, ended.log);
    let report: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(report["versions"], 2);
    let remarks = report["remarks"].as_array().cloned().unwrap_or_default();
    for (version, words) in errors {
        let place = folder.version("bad", version);
        let remark = remarks.iter().find(|remark| remark["place"] == path(&place) && remark["severity"] == "error");
        says(remark.and_then(|remark| remark["message"].as_str()).unwrap_or_default(), &[words]);
    }
}

#[test]
fn check_tells_a_signature_that_would_be_refused() {
    let folder = Folder::default();
    folder.publish("a", 1, &onnx::add_constant(1.0, 2));
    folder.publish("a", 2, &onnx::add_constant(1.0, 3));
    let ended = check(&folder, "text");
    says(&ended.out, &["a/2: would be refused at a swap from version 1", "2 versions load and answer, 0 errors"]);
}

#[test]
fn check_reads_the_configuration_too() {
    let folder = Folder::default();
    folder.publish("add", 1, &onnx::add_constant(1.0, 2));
    let file = folder.path().join("sluicegate.yaml");
    write_config(&folder, "models: [ { name: nobody }, { name: add, version: 7, also: [8] } ]");
    let ended = run(command(["check", "--config", path(&file)]));
    assert_eq!(ended.status.code(), Some(1));
    says(&ended.out, &["models.nobody: ", "no version of it", "models.add: ", "no version 7", "no version 8", "3 errors"]);
    write_config(&folder, "modells: []");
    let ended = run(command(["check", "--config", path(&file)]));
    assert_eq!(ended.status.code(), Some(1));
    says(&ended.out, &["sluicegate.yaml:2:1: ", "modells"]);
}
