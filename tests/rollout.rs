//! A candidate takes traffic as it was declared, callers do not notice a bad one, and it goes by itself; whatever becomes of the process.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};
use sluicegate_testkit::client::{Client, Request};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{self, Gateway, wait_for, write_config};
use sluicegate_tests::rollout::{command, kept, kinds, rollout, said, two_versions, view, wait_for_phase, wait_for_share, x};
use sluicegate_tests::{SLOW_WIDTH, infer, infer_path, slow};

#[test]
fn a_good_candidate_goes_through_every_step_and_becomes_what_answers() {
    let folder = two_versions();
    let keys = "strategy: canary, steps: [ { weight: 20%, hold: 300ms }, { weight: 60%, hold: 300ms }, { weight: 100%, hold: 300ms } ], \
                analysis: [ { metric: error_rate, max: 20%, min_samples: 20 }, { metric: latency_p50, max: 10s, min_samples: 20 } ]";
    let gateway = Gateway::start(&folder, &(kept(&folder) + &rollout(keys)));
    let mut client = gateway.client();
    let promoted = wait_for("it is promoted", || {
        (0..50).for_each(|_| drop(said(&client.request(&x()).expect("an answer"))));
        Some(view(&gateway)).filter(|view| view["phase"] == "promoted")
    });
    assert_eq!((&promoted["answers"], &promoted["share"], &promoted["differs"]), (&json!("2"), &json!("100%"), &json!(true)));
    assert_eq!(kinds(&gateway), ["rollout.started", "rollout.step", "rollout.step", "rollout.promoted"]);
    wait_for("version 2 is the one that answers", || (gateway.model("m")["default_version"] == "2").then_some(()));
    assert_eq!(said(&client.request(&x()).expect("an answer")).1, 2.0);
    // What was decided can be decided again from what was kept of it.
    let events = folder.path().join("events.json");
    std::fs::write(&events, client.get("/models/m/events").expect("an answer").body).expect("written");
    let replayed = process::run(process::command(["report", "replay", &events.display().to_string()]));
    assert!(replayed.status.success(), "{replayed:?}");
    assert_eq!(replayed.out.lines().filter(|line| line.contains(": the same: ")).count(), 4, "{}", replayed.out);
    let config = folder.path().join("sluicegate.yaml").display().to_string();
    let ops = format!("http://{}", gateway.ops());
    let patch = process::run(process::command(["status", "--ops", &ops, "--patch", &config]));
    assert!(patch.out.contains("-    version: 1") && patch.out.contains("+    version: \"2\""), "{patch:?}");
    assert!(process::run(process::command(["status", "--wait", "--ops", &ops])).status.success());
}

#[test]
fn a_candidate_that_fails_costs_its_callers_nothing_and_goes_by_itself() {
    let folder = Folder::default();
    folder.publish("m", 1, &onnx::big(1));
    // It fails for an index above 2, which its signature allows.
    folder.publish("m", 2, &onnx::fails_on_some());
    let keys = "strategy: canary, steps: [ { weight: 50%, hold: 10m } ], analysis: [ { metric: error_rate, max_increase: 0% } ]";
    let gateway = Gateway::start(&folder, &(kept(&folder) + &rollout(keys)));
    wait_for_share(&gateway, "50%");
    let mut client = gateway.client();
    let ask =
        |index: u64| json!({ "inputs": [{ "name": "index", "datatype": "INT64", "shape": [1], "data": [index] }] }).to_string();
    let (mut asked, mut fallen) = (0u64, 0);
    let back = wait_for("it is rolled back", || {
        for _ in 0..20 {
            asked += 1;
            // Three of a hundred are such as the candidate fails.
            let index = if asked % 100 < 3 { 7 } else { 1 };
            let response = client.request(&Request::post(&infer_path("m"), ask(index))).expect("an answer");
            assert_eq!(response.status, 200, "no caller sees it: {}", response.text());
            if response.header("x-model-fallback") == Some("candidate") {
                assert_eq!(response.header("x-model-variant"), Some("stable"));
                fallen += 1;
            }
        }
        Some(view(&gateway)).filter(|view| view["phase"] == "rolled_back")
    });
    assert!(fallen > 0, "stable answered for it");
    let reason = back["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("error_rate: the candidate failed ") && reason.contains("evidence that it is worse"), "{reason}");
    let after = client.request(&Request::post(&infer_path("m"), ask(7))).expect("an answer");
    assert_eq!(
        (after.status, after.header("x-model-version"), after.header("x-model-variant")),
        (200, Some("1"), Some("stable"))
    );
    assert_eq!(kinds(&gateway), ["rollout.started", "rollout.rolled_back"]);
    let failed = gateway.metric("sluicegate_variant_requests_total", &[("variant", "candidate"), ("outcome", "failed")]);
    let counted = gateway.metric("sluicegate_fallbacks_total", &[("model", "m")]);
    assert_eq!((failed, counted), (f64::from(fallen), f64::from(fallen)));
    assert_eq!(command(&gateway, "promote").status, 409, "what was decided holds until something else is declared");
}

#[test]
fn a_candidate_that_is_slower_goes_by_itself() {
    let folder = Folder::default();
    folder.publish("m", 1, &onnx::slow(SLOW_WIDTH, 2));
    folder.publish("m", 2, &slow());
    let keys =
        "strategy: canary, steps: [ { weight: 50%, hold: 10m } ], analysis: [ { metric: latency_p50, max_increase: 100% } ]";
    let gateway = Gateway::start(&folder, &rollout(keys));
    wait_for_share(&gateway, "50%");
    let mut client = gateway.client();
    let request = Request::post(&infer_path("m"), infer(&[1, SLOW_WIDTH], &[0.0; SLOW_WIDTH]).to_string());
    let back = wait_for("it is rolled back", || {
        (0..10).for_each(|_| assert_eq!(client.request(&request).expect("an answer").status, 200));
        Some(view(&gateway)).filter(|view| view["phase"] == "rolled_back")
    });
    assert!(back["reason"].as_str().is_some_and(|reason| reason.starts_with("latency_p50: the candidate's p50 is ")), "{back}");
}

#[test]
fn a_candidate_without_room_or_in_time_costs_its_callers_no_answer() {
    let folder = Folder::default();
    folder.publish("m", 1, &onnx::slow(SLOW_WIDTH, 2));
    folder.publish("m", 2, &slow());
    // The candidate has 100 ms, and takes longer for so many rows.
    let batching = "    batching: { queue_timeout: 20s, max_rows: 1, instances: 1 }\n";
    let keys = "strategy: canary, steps: [ { weight: 100%, pause: true } ], fallback_after: 0.5%";
    let gateway = Gateway::start(&folder, &(rollout(keys) + batching));
    wait_for_share(&gateway, "100%");
    let rows = 3_000;
    let request = Request::post(&infer_path("m"), infer(&[rows, SLOW_WIDTH], &vec![0.0; rows * SLOW_WIDTH]).to_string());
    let response = gateway.client().request(&request).expect("an answer");
    let facts = (response.status, response.header("x-model-variant"), response.header("x-model-fallback"));
    assert_eq!(facts, (200, Some("stable"), Some("candidate")));
}

#[test]
fn a_shadow_answers_nobody_and_shows_where_it_disagrees() {
    let folder = two_versions();
    let keys = "strategy: shadow, shadow: { share: 100%, tolerance: 1% }, analysis: [ { metric: disagreement, max: 1% } ]";
    let gateway = Gateway::start(&folder, &rollout(keys));
    wait_for("copies are made", || (view(&gateway)["mirrored"] == "100%").then_some(()));
    let mut client = gateway.client();
    wait_for_phase_while(&gateway, "rolled_back", || {
        let (variant, added) = said(&client.request(&x()).expect("an answer"));
        assert!(variant != "candidate" && added == 1.0, "{variant} added {added}");
    });
    // What callers sent is for operators alone.
    assert_eq!(client.get("/models/m/shadow").expect("an answer").status, 404);
    let shadow = Client::new(gateway.ops()).get("/models/m/shadow").expect("an answer").json();
    assert_eq!(shadow["outputs"][0]["agreement"], 0.0, "{shadow}");
    let worst = &shadow["worst"][0];
    assert_eq!(
        (&worst["inputs"]["x"], &worst["stable"]["y"], &worst["candidate"]["y"]),
        (&json!([0.0, 0.0]), &json!([1.0, 1.0]), &json!([2.0, 2.0]))
    );
    let reason = view(&gateway)["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.starts_with("disagreement: the shadow disagreed on "), "{reason}");
    let requests = gateway.metric("sluicegate_requests_total", &[("model", "m"), ("version", "2")]);
    assert_eq!(requests, 0.0, "nobody asked it");
}

#[test]
#[cfg(target_os = "linux")]
fn a_shadow_of_a_model_with_threads_runs_on_its_own_thread_after_those_that_serve() {
    let folder = Folder::default();
    folder.publish("m", 1, &onnx::slow(SLOW_WIDTH, 2));
    folder.publish("m", 2, &onnx::slow(SLOW_WIDTH, 3));
    let keys = "strategy: shadow, shadow: { share: 100% }";
    let gateway = Gateway::start(&folder, &(rollout(keys) + "    batching: { execution: threads }\n"));
    wait_for("copies are made", || (view(&gateway)["mirrored"] == "100%").then_some(()));
    let (mut client, mut operator) = (gateway.client(), Client::new(gateway.ops()));
    let request = Request::post(&infer_path("m"), infer(&[1, SLOW_WIDTH], &[0.0; SLOW_WIDTH]).to_string());
    wait_for("the candidate has answered copies", || {
        assert_eq!(client.request(&request).expect("an answer").status, 200);
        let shadow = operator.get("/models/m/shadow").expect("an answer").json();
        shadow["requests"].as_u64().filter(|&requests| requests > 2)
    });
    // A thread's name and its nice value, which is the 17th word behind the name (proc(5)).
    let thread = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        Some((name.to_owned(), rest.split_whitespace().nth(16)?.parse::<i32>().ok()?))
    };
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).expect("procfs").flatten();
    let threads: HashMap<String, i32> = tasks.filter_map(thread).collect();
    let serves = threads.get("m@1").expect("stable has a thread");
    assert!(threads.get("shadow").is_some_and(|shadow| shadow > serves), "{threads:?}");
    assert!(!threads.contains_key("m@2"), "nobody asked the candidate: {threads:?}");
}

#[test]
fn the_rows_of_one_request_count_once_for_drift() {
    let folder = two_versions();
    let keys = "strategy: canary, steps: [ { weight: 50%, hold: 10m } ], analysis: [ { metric: drift, max: \"100\" } ]";
    let gateway = Gateway::start(&folder, &rollout(keys));
    wait_for_share(&gateway, "50%");
    let (mut client, rows) = (gateway.client(), Request::post(&infer_path("m"), infer(&[32, 2], &[0.0; 64]).to_string()));
    (0..40).for_each(|_| drop(said(&client.request(&rows).expect("an answer"))));
    let view = wait_for("all are counted", || {
        let view = view(&gateway);
        let answered = |variant: &str| view["numbers"][variant]["answered"].as_u64();
        (answered("stable")? + answered("candidate")? == 40).then_some(view)
    });
    let drift = &view["verdicts"][0];
    assert_eq!((&drift["metric"], &drift["samples"]), (&json!("drift"), &view["numbers"]["candidate"]["answered"]), "{view}");
}

fn wait_for_phase_while(gateway: &Gateway, phase: &str, mut each: impl FnMut()) {
    wait_for(&format!("the rollout is {phase}"), || {
        (0..20).for_each(|_| each());
        Some(()).filter(|()| view(gateway)["phase"] == phase)
    });
}

#[test]
fn blue_and_green_switch_when_a_person_says_so_and_back() {
    let folder = two_versions();
    let gateway = Gateway::start(&folder, &rollout("strategy: blue_green, allow_override: true"));
    wait_for_phase(&gateway, "paused");
    let mut client = gateway.client();
    assert_eq!(said(&client.request(&x()).expect("an answer")).1, 1.0);
    let smoke = client.request(&x().header("x-sluicegate-variant", "candidate")).expect("an answer");
    assert_eq!(said(&smoke), ("candidate".to_owned(), 2.0));
    let named = |alias: &str| {
        let path = format!("/v2/models/m/versions/{alias}/infer");
        gateway.client().request(&Request::post(&path, infer(&[1, 2], &[0.0, 0.0]).to_string())).expect("an answer")
    };
    assert_eq!((said(&named("candidate")).1, said(&named("stable")).1), (2.0, 1.0), "each by its name");
    let ops = format!("http://{}", gateway.ops());
    let promoted = process::run(process::command(["promote", "m", "--ops", &ops, "--by", "ada"]));
    assert!(promoted.status.success() && promoted.out.contains("promoted"), "{promoted:?}");
    assert_eq!(said(&client.request(&x()).expect("an answer")).1, 2.0, "from the answer of the command on");
    wait_for("the candidate is called stable", || {
        (named("candidate").status == 404 && said(&named("stable")).1 == 2.0).then_some(())
    });
    assert_eq!(command(&gateway, "rollback").status, 200);
    assert_eq!(said(&client.request(&x()).expect("an answer")).1, 1.0, "likewise");
    let refused = process::run(process::command(["resume", "m", "--ops", &ops]));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}

#[test]
fn a_killed_process_goes_on_at_its_step_with_what_it_had_counted() {
    let folder = two_versions();
    let keys = "strategy: canary, steps: [ { weight: 20%, hold: 200ms }, { weight: 50%, pause: true } ], analysis: [ { metric: error_rate, max: 50%, min_samples: 10 } ]";
    let config = kept(&folder) + &rollout(keys);
    let mut counted = 0;
    for life in 0..4 {
        let gateway = Gateway::start(&folder, &config);
        let mut client = gateway.client();
        wait_for_phase_while(&gateway, "paused", || drop(said(&client.request(&x()).expect("an answer"))));
        let answered = |view: &Value| view["numbers"]["candidate"]["answered"].as_u64().unwrap_or(0);
        let now = wait_for("what was counted is there again", || Some(view(&gateway)).filter(|view| answered(view) >= counted));
        assert_eq!((&now["stage"], now["revision"].as_u64()), (&json!(1), Some(3)), "life {life}: {now}");
        wait_for("more is counted", || {
            said(&client.request(&x()).expect("an answer"));
            (answered(&view(&gateway)) > counted).then_some(())
        });
        counted = answered(&view(&gateway));
        // It is kept once a second.
        thread::sleep(std::time::Duration::from_millis(2_500));
        assert_eq!(kinds(&gateway), ["rollout.started", "rollout.step", "rollout.paused"], "each once");
        gateway.signal("KILL");
        let _ = gateway.ended();
    }
}

#[test]
fn a_rollback_takes_milliseconds_and_loses_no_request() {
    let folder = two_versions();
    let gateway = Gateway::start(&folder, &rollout("strategy: canary, steps: [ { weight: 50%, pause: true } ]"));
    wait_for_share(&gateway, "50%");
    let (over, answers, late) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let back = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !over.load(Ordering::Relaxed) {
                    let was_back = back.load(Ordering::SeqCst);
                    let (variant, _) = said(&client.request(&x()).expect("an answer"));
                    answers.fetch_add(1, Ordering::Relaxed);
                    late.fetch_add(u64::from(was_back && variant == "candidate"), Ordering::Relaxed);
                }
            });
        }
        wait_for("there is traffic", || (answers.load(Ordering::Relaxed) > 500).then_some(()));
        assert_eq!(command(&gateway, "rollback").status, 200);
        // Whoever asks after the answer of the command is not drawn to the candidate any more.
        back.store(true, Ordering::SeqCst);
        let before = answers.load(Ordering::Relaxed);
        wait_for("there is more", || (answers.load(Ordering::Relaxed) > before + 500).then_some(()));
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(late.load(Ordering::Relaxed), 0, "requests to the candidate after the rollback");
}

#[test]
fn what_is_declared_wrongly_is_refused_with_its_place_and_what_runs_goes_on() {
    let folder = two_versions();
    let good = rollout("strategy: canary, steps: [ { weight: 50%, pause: true } ]");
    let gateway = Gateway::start(&folder, &good);
    let before = wait_for_phase(&gateway, "paused");
    for (keys, words) in [
        ("strategy: canary, steps: [ { weight: 120% } ]", "models[0].rollout.steps[0].weight: expected a share from 0% to 100%"),
        ("strategy: canary", "models[0].rollout.steps: expected the steps of a canary"),
        (
            "strategy: canary, steps: [ { weight: 50% }, { weight: 5% } ]",
            "models[0].rollout.steps[1].weight: expected more than the step before it has",
        ),
        (
            "strategy: canary, steps: [ { weight: 5% } ], analysis: [ { metric: eror_rate, max: 1% } ]",
            "models[0].rollout.analysis[0].metric: expected error_rate",
        ),
        (
            "strategy: canary, steps: [ { weight: 5% } ], sticky: { header: a, cookie: b }",
            "models[0].rollout.sticky: expected one of",
        ),
        ("strategy: cannary", "models[0].rollout.strategy: expected canary"),
        ("strategy: shadow", "models[0].rollout.shadow: expected which share is copied"),
    ] {
        write_config(&folder, &rollout(keys));
        let reload = wait_for(&format!("`{keys}` is refused"), || {
            let config = gateway.status()["config"].clone();
            (config["state"] == "refused" && config["errors"].to_string().contains(words)).then_some(config)
        });
        assert!(reload["errors"][0].as_str().is_some_and(|error| error.contains("sluicegate.yaml:")), "{reload}");
    }
    let same = rollout("strategy: canary, steps: [ { weight: 5% } ]").replace("candidate: 2", "candidate: 1");
    write_config(&folder, &same);
    wait_for("a candidate that is stable is refused", || {
        gateway.status()["config"]["errors"].to_string().contains("expected another version than the stable one").then_some(())
    });
    let after = view(&gateway);
    assert_eq!(
        (&after["digest"], &after["revision"], &after["share"]),
        (&before["digest"], &before["revision"], &before["share"])
    );
    // Another declaration is another rollout, and an unknown version waits.
    write_config(&folder, &good.replace("candidate: 2", "candidate: 9"));
    wait_for("it waits for version 9", || {
        let view = view(&gateway);
        (view["candidate"] == "9" && view["ready"] == false && view["share"] == "0%").then_some(())
    });
    assert_eq!(said(&gateway.client().request(&x()).expect("an answer")).1, 1.0);
}

/// One POST, its headers by lower-case name, answered with 204.
fn receive(listener: &TcpListener) -> (HashMap<String, String>, Value) {
    let (stream, _) = listener.accept().expect("somebody calls");
    let mut reader = BufReader::new(stream);
    let mut headers = HashMap::new();
    let mut line = String::new();
    while reader.read_line(&mut line).expect("a line") > 2 {
        if let Some((name, value)) = line.trim_end().split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        line.clear();
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).expect("a length");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").expect("an answer");
    (headers, serde_json::from_slice(&body).expect("JSON"))
}

#[test]
fn who_is_to_be_told_is_told_of_each_decision() {
    let folder = two_versions();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    std::fs::write(folder.path().join("secret"), "a-secret-of-at-least-twenty-four-bytes\n").expect("written");
    let secret = folder.path().join("secret").display().to_string();
    let webhooks = format!(
        "webhooks: [ {{ url: \"{url}\", secret: \"file:{secret}\", events: [rollout.started, rollout.rolled_back] }} ]\n"
    );
    let config = webhooks + &rollout("strategy: canary, steps: [ { weight: 50%, pause: true } ]");
    let gateway = Gateway::start(&folder, &config);
    let (headers, started) = receive(&listener);
    assert_eq!(headers.get("content-type").map(String::as_str), Some("application/cloudevents+json"));
    assert!(headers.contains_key("webhook-signature") && headers.contains_key("webhook-id"), "{headers:?}");
    assert_eq!((&started["type"], &started["subject"]), (&json!("io.sluicegate.rollout.started"), &json!("m")));
    wait_for_share(&gateway, "50%");
    assert_eq!(command(&gateway, "rollback").status, 200);
    let (_, back) = receive(&listener);
    assert_eq!((&back["type"], &back["data"]["reason"]), (&json!("io.sluicegate.rollout.rolled_back"), &json!("by ada: tested")));
}
