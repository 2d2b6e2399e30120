//! Replicas that share a PostgreSQL move one rollout together, whoever of them is killed or cut off, and whatever becomes of the database.

#[expect(dead_code, reason = "the suite of `state` uses more of it")]
#[path = "../crates/state/tests/suite/cluster.rs"]
mod cluster;

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use parking_lot::Mutex;
use serde_json::{Value, json};
use sluicegate_testkit::client::{Client, Request};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx;
use sluicegate_testkit::process::{Gateway, wait_for};
use sluicegate_tests::{infer, infer_path, numbers};

use cluster::Cluster;

/// Two versions of `m`, and a configuration whose state is in a database of its own.
fn setting(cluster: &Cluster, keys: &str) -> (Folder, String) {
    setting_at(&cluster.url(&cluster.database()), keys)
}

fn setting_at(url: &str, keys: &str) -> (Folder, String) {
    let folder = Folder::default();
    for version in [1, 2] {
        folder.publish("m", version, &onnx::add_constant(version as f32, 2));
    }
    let file = folder.path().join("url");
    fs::write(&file, url).expect("written");
    let config = format!(
        "state: {{ postgres: \"file:{}\" }}\nmodels:\n  - name: m\n    version: 1\n    rollout: {{ candidate: 2, {keys} }}\n",
        file.display()
    );
    (folder, config)
}

/// A way to a server's socket that can be cut.
struct Way {
    is_cut: AtomicBool,
    open: Mutex<Vec<UnixStream>>,
}

impl Way {
    /// Through a socket of the same name in another directory.
    fn new(directory: &Path, socket: &Path) -> Arc<Self> {
        let way = Arc::new(Self { is_cut: AtomicBool::new(false), open: Mutex::default() });
        let listener = UnixListener::bind(directory.join(socket.file_name().expect("a name"))).expect("a socket");
        let (shared, socket) = (way.clone(), socket.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok).filter(|_| !shared.is_cut.load(Ordering::SeqCst)) {
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                shared.open.lock().extend([&stream, &server].map(|end| end.try_clone().expect("cloned")));
                for (mut from, mut to) in [(stream.try_clone(), server.try_clone()), (Ok(server), Ok(stream))]
                    .map(|(from, to)| (from.expect("cloned"), to.expect("cloned")))
                {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        way
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.open.lock().drain(..).for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn ask(client: &mut Client) -> f32 {
    let request = Request::post(&infer_path("m"), infer(&[1, 2], &[0.0, 0.0]).to_string());
    let response = client.request(&request).expect("an answer");
    assert_eq!(response.status, 200, "{}", response.text());
    numbers(&response.json())[0]
}

fn view(gateway: &Gateway) -> Value {
    gateway.client().get("/models/m/rollout").expect("an answer").json()
}

fn command(gateway: &Gateway, command: &str) -> u16 {
    let path = format!("/models/m/rollout/{command}");
    Client::new(gateway.ops()).request(&Request::new("POST", &path)).expect("an answer").status
}

#[test]
fn no_step_is_skipped_or_done_twice_though_replicas_are_killed() {
    let Some(cluster) = Cluster::start() else { return };
    let shares: Vec<String> = (1..=12).map(|step| format!("{{ weight: {}%, hold: 400ms }}", step * 8)).collect();
    let keys = format!("strategy: canary, steps: [ {} ]", shares.join(", "));
    let (folder, config) = setting(&cluster, &keys);
    let mut replicas: Vec<Gateway> = (0..3).map(|_| Gateway::start(&folder, &config)).collect();
    // At each decision another one is killed, in the middle of whatever it does, and a new one comes.
    let (mut next, mut revision) = (0, 0);
    loop {
        let now = wait_for("somebody decides", || {
            let view = view(&replicas[(next + 1) % 3]);
            assert!(ask(&mut replicas[(next + 2) % 3].client()) > 0.0);
            (view["revision"].as_u64()? > revision).then_some(view)
        });
        if now["phase"] == "promoted" {
            break;
        }
        revision = now["revision"].as_u64().expect("a number");
        replicas[next].signal("KILL");
        replicas[next] = Gateway::start(&folder, &config);
        next = (next + 1) % 3;
    }
    for replica in &replicas {
        wait_for("every replica answers by it", || {
            (view(replica)["phase"] == "promoted" && ask(&mut replica.client()) == 2.0).then_some(())
        });
    }
    let events = replicas[0].client().get("/models/m/events").expect("an answer").json();
    let told: Vec<(String, u64)> = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| {
            let next = &event["record"]["decision"]["next"];
            (event["kind"].as_str().unwrap_or_default().to_owned(), next["stage"].as_u64().unwrap_or(99))
        })
        .collect();
    let mut expected = vec![("rollout.started".to_owned(), 0)];
    expected.extend((1..12).map(|stage| ("rollout.step".to_owned(), stage)));
    expected.push(("rollout.promoted".to_owned(), 11));
    assert_eq!(told, expected);
}

#[test]
fn without_the_database_serving_goes_on_and_may_only_become_safer() {
    let Some(cluster) = Cluster::start() else { return };
    let (folder, config) =
        setting(&cluster, "strategy: canary, steps: [ { weight: 50%, pause: true }, { weight: 90%, pause: true } ]");
    let replicas = [Gateway::start(&folder, &config), Gateway::start(&folder, &config)];
    for replica in &replicas {
        wait_for("each waits for a person", || (view(replica)["phase"] == "paused").then_some(()));
    }
    assert_eq!(command(&replicas[0], "resume"), 200);
    for replica in &replicas {
        wait_for("what one was told, both know", || {
            (view(replica)["share"] == "90%" && view(replica)["phase"] == "paused").then_some(())
        });
    }
    cluster.down("immediate");
    for replica in &replicas {
        wait_for("it notices", || view(replica)["cut_off"].is_string().then_some(()));
        let mut client = replica.client();
        let answers: Vec<f32> = (0..200).map(|_| ask(&mut client)).collect();
        assert!(answers.contains(&2.0), "the candidate keeps its share");
    }
    assert_eq!(command(&replicas[0], "promote"), 500, "nobody knows what others decide");
    assert_eq!(command(&replicas[0], "rollback"), 200);
    assert_eq!(view(&replicas[0])["phase"], "rolled_back");
    let mut client = replicas[0].client();
    assert!((0..200).all(|_| ask(&mut client) == 1.0), "one of them is back for itself");
    cluster.up();
    for replica in &replicas {
        wait_for("all are back", || {
            (view(replica)["phase"] == "rolled_back" && view(replica)["cut_off"].is_null()).then_some(())
        });
        assert_eq!(ask(&mut replica.client()), 1.0);
    }
    let events = replicas[1].client().get("/models/m/events").expect("an answer").json();
    let last = events["events"].as_array().and_then(|events| events.last()).cloned().unwrap_or_default();
    assert_eq!(last["kind"], json!("rollout.rolled_back"), "it is kept, once the database is there again");
    // Who starts now finds it so.
    let late = Gateway::start(&folder, &config);
    wait_for("one that comes later knows", || (view(&late)["phase"] == "rolled_back").then_some(()));
}

#[test]
fn one_that_is_cut_off_advances_nothing_and_what_it_took_back_is_never_undone() {
    let Some(cluster) = Cluster::start() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let way = Way::new(directory.path(), &cluster.socket());
    let keys = "strategy: canary, steps: [ { weight: 50%, pause: true }, { weight: 90%, pause: true } ]";
    let database = cluster.database();
    let [(near, config), (far, elsewhere)] =
        [cluster.url(&database), cluster.url_in(directory.path(), &database)].map(|url| setting_at(&url, keys));
    let (here, there) = (Gateway::start(&near, &config), Gateway::start(&far, &elsewhere));
    for replica in [&here, &there] {
        wait_for("each waits for a person", || (view(replica)["phase"] == "paused").then_some(()));
    }
    way.cut();
    wait_for("it notices", || view(&there)["cut_off"].is_string().then_some(()));
    assert_eq!((command(&here, "resume"), command(&there, "resume")), (200, 500));
    wait_for("the other one goes on", || (view(&here)["phase"] == "paused" && view(&here)["stage"] == 1).then_some(()));
    assert_eq!((&view(&here)["share"], &view(&there)["share"]), (&json!("90%"), &json!("50%")));
    assert_eq!(command(&there, "rollback"), 200);
    let mut client = there.client();
    assert!((0..100).all(|_| ask(&mut client) == 1.0), "it is back for itself");
    assert_eq!(view(&here)["share"], "90%", "nobody could tell the other one");
    way.mend();
    for replica in [&here, &there] {
        wait_for("all are back", || {
            (view(replica)["phase"] == "rolled_back" && view(replica)["cut_off"].is_null()).then_some(())
        });
        assert_eq!(ask(&mut replica.client()), 1.0);
    }
    let events = here.client().get("/models/m/events").expect("an answer").json();
    let kinds: Vec<_> = events["events"].as_array().into_iter().flatten().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, ["rollout.started", "rollout.paused", "rollout.step", "rollout.paused", "rollout.rolled_back"]);
}

#[test]
fn a_database_that_hangs_holds_up_no_rollback() {
    let Some(cluster) = Cluster::start() else { return };
    let limits = "limits: { error_rate: 20%, min_samples: 20 }";
    let keys = format!("strategy: canary, steps: [ {{ weight: 50%, pause: true }} ], {limits}");
    let (folder, config) = setting(&cluster, &keys);
    // It fails for an index above 2.
    folder.publish("bad", 1, &onnx::big(1));
    folder.publish("bad", 2, &onnx::fails_on_some());
    let also = format!("  - {{ name: bad, version: 1, rollout: {{ candidate: 2, {keys} }} }}\n");
    let gateway = Gateway::start(&folder, &(config + &also));
    let client = || Client::new(gateway.ops());
    let view = |model: &str| client().get(&format!("/models/{model}/rollout")).expect("an answer").json();
    for model in ["m", "bad"] {
        wait_for("it waits for a person", || (view(model)["phase"] == "paused").then_some(()));
    }
    cluster.signal("STOP");
    let request = json!({ "inputs": [{ "name": "index", "datatype": "INT64", "shape": [1], "data": [7] }] }).to_string();
    let mut caller = gateway.client();
    wait_for("a limit takes the candidate back", || {
        let response = caller.request(&Request::post(&infer_path("bad"), request.clone())).expect("an answer");
        assert_eq!(response.status, 200, "{}", response.text());
        (view("bad")["phase"] == "rolled_back").then_some(())
    });
    assert_eq!(view("m")["phase"], "paused");
    assert_eq!(command(&gateway, "rollback"), 200, "and so does a person");
    assert!((0..100).all(|_| ask(&mut caller) == 1.0));
    assert!(view("m")["cut_off"].is_string());
    cluster.signal("CONT");
    for model in ["m", "bad"] {
        wait_for("it is kept, once the database answers", || view(model)["cut_off"].is_null().then_some(()));
        let events = client().get(&format!("/models/{model}/events")).expect("an answer").json();
        let kinds: Vec<_> = events["events"].as_array().into_iter().flatten().map(|event| event["kind"].clone()).collect();
        assert_eq!(kinds, ["rollout.started", "rollout.paused", "rollout.rolled_back"]);
    }
}

#[test]
fn a_rollback_by_hand_takes_effect_before_the_database_is_asked() {
    let Some(cluster) = Cluster::start() else { return };
    let (folder, config) = setting(&cluster, "strategy: canary, steps: [ { weight: 100%, pause: true } ]");
    let gateway = Gateway::start(&folder, &config);
    wait_for("the candidate answers", || (view(&gateway)["share"] == "100%").then_some(()));
    let mut caller = gateway.client();
    assert_eq!(ask(&mut caller), 2.0);
    cluster.signal("STOP");
    thread::scope(|scope| {
        let told = scope.spawn(|| command(&gateway, "rollback"));
        wait_for("stable answers", || (0..20).all(|_| ask(&mut caller) == 1.0).then_some(()));
        assert!(!told.is_finished(), "it waits for the database, which is stopped");
        cluster.signal("CONT");
        assert_eq!(told.join().expect("it ends"), 200);
    });
    assert!((0..20).all(|_| ask(&mut caller) == 1.0));
    wait_for("it is kept", || (view(&gateway)["phase"] == "rolled_back" && view(&gateway)["cut_off"].is_null()).then_some(()));
}

#[test]
fn a_gateway_that_starts_without_its_database_serves_the_stable_version_and_goes_on_once_it_is_there() {
    let Some(cluster) = Cluster::start() else { return };
    let (folder, config) = setting(&cluster, "strategy: canary, steps: [ { weight: 100%, pause: true } ]");
    cluster.down("fast");
    let gateway = Gateway::start(&folder, &config);
    let mut client = gateway.client();
    assert!((0..50).all(|_| ask(&mut client) == 1.0));
    assert!(view(&gateway)["cut_off"].is_string());
    cluster.up();
    wait_for("it begins", || (view(&gateway)["share"] == "100%").then_some(()));
    assert_eq!(ask(&mut client), 2.0);
}
