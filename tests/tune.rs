//! `tune` tries settings on this machine, says which is best for a bound on p99, and what it says can be configured.

use serde_json::Value;
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Ended, command, run, write_config};

fn tune(folder: &Folder, args: &[&str]) -> Ended {
    let models = folder.models();
    let models = models.to_str().expect("test paths are text");
    let quick = ["--models", models, "--seconds", "0.1", "--callers", "8"];
    run(command(["tune"].iter().chain(&quick).chain(args)))
}

/// Two versions of `add`, and another model.
fn registry() -> Folder {
    let folder = Folder::default();
    folder.publish("add", 1, &onnx::add_constant(1.0, 4));
    folder.publish("add", 2, &onnx::add_constant(2.0, 4));
    folder.publish("other", 1, &onnx::add_constant(1.0, 4));
    folder
}

fn json(ended: &Ended, code: i32) -> Value {
    assert_eq!(ended.status.code(), Some(code), "{} {:#?}", ended.out, ended.log);
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {}", ended.out))
}

#[test]
fn the_best_setting_is_one_of_the_table_and_check_accepts_it_as_configuration() {
    let folder = registry();
    let ended = tune(&folder, &["add", "--max-rows", "1,8", "--instances", "1", "--threads", "1", "--output", "json"]);
    let report = json(&ended, 0);
    assert_eq!((report["model"].as_str(), report["version"].as_u64()), (Some("add"), Some(2)), "the newest version");
    let settings = report["settings"].as_array().expect("the table");
    let tried: Vec<_> = settings.iter().map(|one| one["max_rows"].as_u64()).collect();
    assert_eq!(tried, [Some(1), Some(8)]);
    for one in settings {
        let figure = |name: &str| one[name].as_f64().unwrap_or_else(|| panic!("no {name} in {one}"));
        assert!(figure("rows_per_second") > 0.0 && figure("p99_microseconds") >= figure("p50_microseconds"), "{one}");
        assert!((1.0..=figure("max_rows")).contains(&figure("rows_per_run")), "{one}");
        assert!(one["execution"] == "inline" || one["execution"] == "threads", "{one}");
    }
    assert!(settings.contains(&report["best"]), "{report}");
    assert_eq!(ended.log.len(), 2, "a line for each setting: {:#?}", ended.log);
    assert!(ended.log[0].starts_with("1/2 max_rows=1 instances=1 threads=1: "), "{:#?}", ended.log);

    write_config(&folder, report["config"].as_str().expect("lines of configuration"));
    let file = folder.path().join("sluicegate.yaml");
    let checked = run(command(["check", "--config", file.to_str().expect("test paths are text")]));
    assert_eq!(checked.status.code(), Some(0), "{} {:#?}", checked.out, checked.log);
    assert!(checked.out.contains("1 versions load and answer, 0 errors"), "{}", checked.out);
}

#[test]
fn the_default_grid_keeps_to_the_machine_and_begins_with_what_is_configured() {
    let folder = registry();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    write_config(&folder, "models: [ { name: add, version: '1', batching: { max_rows: 4 } } ]");
    let file = folder.path().join("sluicegate.yaml");
    let args = ["tune", "add", "--seconds", "0.05", "--callers", "4", "--output", "json", "--config"];
    let ended = run(command(args.into_iter().chain([file.to_str().expect("test paths are text")])));
    let report = json(&ended, 0);
    assert_eq!(report["version"], 1, "the declared version");
    let settings = report["settings"].as_array().expect("the table");
    let of = |one: &Value, name: &str| one[name].as_u64().unwrap_or_default();
    let all: Vec<_> = settings.iter().map(|one| (of(one, "max_rows"), of(one, "instances"), of(one, "threads"))).collect();
    assert_eq!(all[0], (4, cores, 1), "as many instances as the machine has cores for");
    assert_eq!(of(&report["configured"], "max_rows"), 4, "{report}");
    assert!(all.iter().all(|(_, instances, threads)| instances * threads <= cores), "{all:?}");
    assert_eq!(all.iter().filter(|(_, instances, threads)| instances * threads == 1).count(), 3, "{all:?}");
}

#[test]
fn a_bound_that_nothing_keeps_is_a_no_that_says_what_came_nearest() {
    let folder = registry();
    let one = ["add@1", "--p99", "1ns", "--max-rows", "4", "--instances", "1", "--threads", "1"];
    let text = tune(&folder, &one);
    assert_eq!(text.status.code(), Some(1), "{} {:#?}", text.out, text.log);
    for words in ["add@1", "no setting keeps p99 within 1 ns; the nearest is max_rows=4 instances=1 threads=1 with "] {
        assert!(text.out.contains(words), "`{words}` is missing in: {}", text.out);
    }
    let report = json(&tune(&folder, &[&one[..], &["--output", "json"]].concat()), 1);
    assert_eq!((&report["within"], &report["best"], &report["nearest"]["max_rows"]), (&false.into(), &Value::Null, &4.into()));
    let markdown = tune(&folder, &[&one[..], &["--output", "markdown"]].concat());
    assert!(markdown.out.contains("| max_rows | instances | threads |"), "{}", markdown.out);
}

#[test]
fn what_is_not_there_or_cannot_be_tried_is_wrong_usage() {
    let folder = registry();
    for (args, words) in [
        (&["ad"][..], &["no model is called `ad`", "add, other"][..]),
        (&["add@3"], &["no version 3", "1, 2"]),
        (&["add@1", "--version", "2"], &["add@1", "--version 2"]),
        (&["add", "--rows", "1000"], &["8 callers of 1000 rows", "4096", "batching.queue_rows"]),
        (&["add", "--instances", "64", "--threads", "256"], &["instances x threads", "cores"]),
        (&["add", "--max-rows", "1,0"], &["from 1 to 65536"]),
    ] {
        let ended = tune(&folder, args);
        assert_eq!(ended.status.code(), Some(2), "{args:?}: {} {:#?}", ended.out, ended.log);
        let log = ended.log.join("\n");
        words.iter().for_each(|word| assert!(log.contains(word), "{args:?}: `{word}` is missing in: {log}"));
    }
}

#[test]
fn a_model_that_does_not_load_could_not_be_tuned() {
    let folder = registry();
    folder.publish("add", 3, &onnx::unknown_operator());
    let ended = tune(&folder, &["add"]);
    assert_eq!(ended.status.code(), Some(3), "{} {:#?}", ended.out, ended.log);
    assert!(ended.log.join("\n").contains("Frobnicate"), "{:#?}", ended.log);
}
