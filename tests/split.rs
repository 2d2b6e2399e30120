//! Requests are drawn as the shares say, by key where there is one, and the answer says who gave it.
//!
//! `SLUICEGATE_TEST_SPLIT=100000` draws so many.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use sluicegate_testkit::client::Request;
use sluicegate_testkit::process::{Gateway, wait_for};
use sluicegate_tests::grpc::{Caller, runtime};
use sluicegate_tests::rollout::{command, rollout, said, two_versions, wait_for_phase, wait_for_share, x};
use sluicegate_tests::{infer, infer_path};
use tonic::Request as Call;

fn draws() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long to test is told to the test, not to the product")]
    let asked = std::env::var("SLUICEGATE_TEST_SPLIT");
    asked.ok().and_then(|asked| asked.parse().ok()).unwrap_or(12_000)
}

#[test]
fn the_candidate_gets_its_share_over_http_and_grpc_alike() {
    let folder = two_versions();
    let gateway = Gateway::start(&folder, &rollout("strategy: canary, steps: [ { weight: 5%, pause: true } ]"));
    wait_for_share(&gateway, "5%");
    let half = draws() / 2;
    let mut client = gateway.client();
    let by_http =
        (0..half).filter(|_| said(&client.request(&x()).expect("an answer")) == ("candidate".to_owned(), 2.0)).count() as u64;
    let by_grpc: u64 = runtime().block_on(async {
        let caller = Caller::new(gateway.grpc());
        let mut count = 0;
        for _ in 0..half {
            let answer = caller.infer(sluicegate_tests::grpc::request("m", &[1, 2], &[0.0; 2])).await.expect("an answer");
            let variant = answer.metadata().get("x-model-variant").expect("its variant").to_str().expect("text").to_owned();
            let version = answer.into_inner().model_version;
            assert_eq!(variant == "candidate", version == "2", "{variant} {version}");
            count += u64::from(variant == "candidate");
        }
        count
    });
    // The 99.9 % interval of a binomial count, by its normal approximation.
    for (count, of) in [(by_http, half), (by_grpc, half), (by_http + by_grpc, 2 * half)] {
        let (mean, deviation) = (0.05 * of as f64, (0.05 * 0.95 * of as f64).sqrt());
        assert!((count as f64 - mean).abs() < 3.29 * deviation + 1.0, "{count} of {of}");
    }
    let split = gateway.metric("sluicegate_variant_requests_total", &[("model", "m"), ("outcome", "ok")]);
    wait_for("every request is counted for its variant", || {
        let now = gateway.metric("sluicegate_variant_requests_total", &[("model", "m"), ("outcome", "ok")]);
        (now == (2 * half) as f64).then_some(())
    });
    assert!(split <= (2 * half) as f64);
}

#[test]
fn a_user_who_got_the_candidate_keeps_it_as_its_share_grows_on_every_replica_and_transport() {
    let folder = two_versions();
    let keys =
        "strategy: canary, sticky: { header: x-user-id }, steps: [ { weight: 20%, pause: true }, { weight: 60%, pause: true } ]";
    let gateways = [Gateway::start(&folder, &rollout(keys)), Gateway::start(&folder, &rollout(keys))];
    let users: Vec<String> = (0..300).map(|user| format!("user-{user}")).collect();
    let chosen = |gateway: &Gateway| -> HashSet<String> {
        let mut client = gateway.client();
        let is_candidate = |user: &&String| {
            let twice: Vec<String> =
                (0..2).map(|_| said(&client.request(&x().header("x-user-id", user)).expect("an answer")).0).collect();
            assert_eq!(twice[0], twice[1], "{user} stays where it is");
            twice[0] == "candidate"
        };
        users.iter().filter(is_candidate).cloned().collect()
    };
    gateways.iter().for_each(|gateway| wait_for_share(gateway, "20%"));
    let few = chosen(&gateways[0]);
    assert_eq!(few, chosen(&gateways[1]), "the same on every replica");
    assert!((30..=95).contains(&few.len()), "{} of 300", few.len());
    let by_grpc: HashSet<String> = runtime().block_on(async {
        let caller = Caller::new(gateways[0].grpc());
        let mut chosen = HashSet::new();
        for user in &users {
            let mut call = Call::new(sluicegate_tests::grpc::request("m", &[1, 2], &[0.0; 2]));
            call.metadata_mut().insert("x-user-id", user.parse().expect("a value"));
            let answer: tonic::Response<sluicegate_proto::inference::ModelInferResponse> =
                caller.call(sluicegate_tests::grpc::INFER, call).await.expect("an answer");
            if answer.metadata().get("x-model-variant").is_some_and(|variant| variant == "candidate") {
                chosen.insert(user.clone());
            }
        }
        chosen
    });
    assert_eq!(few, by_grpc, "the same over gRPC");
    wait_for_phase(&gateways[0], "paused");
    assert_eq!(command(&gateways[0], "resume").status, 200);
    wait_for_share(&gateways[0], "60%");
    let many = chosen(&gateways[0]);
    assert!(few.is_subset(&many) && many.len() > few.len(), "{} and {}", few.len(), many.len());
}

#[test]
fn a_key_is_found_in_a_cookie_a_field_and_a_parameter() {
    type Keyed = (&'static str, fn(&str) -> Request);
    let keyed: [Keyed; 3] = [
        ("cookie: uid", |user| x().header("cookie", &format!("a=b; uid={user}"))),
        ("field: user", |user| Request::post("/models/m/predict", json!({ "x": [0.0, 0.0], "user": user }).to_string())),
        ("parameter: user", |user| {
            let mut body = infer(&[1, 2], &[0.0, 0.0]);
            body["parameters"] = json!({ "user": user });
            Request::post(&infer_path("m"), body.to_string())
        }),
    ];
    for (sticky, request) in keyed {
        let folder = two_versions();
        let keys = format!("strategy: canary, sticky: {{ {sticky} }}, steps: [ {{ weight: 50%, pause: true }} ]");
        let gateway = Gateway::start(&folder, &rollout(&keys));
        wait_for_share(&gateway, "50%");
        let mut client = gateway.client();
        let mut variants: HashMap<String, HashSet<String>> = HashMap::new();
        for round in 0..120 {
            let user = format!("user-{}", round % 30);
            let response = client.request(&request(&user)).expect("an answer");
            // A field that the model does not have is no error of the split.
            assert!(response.status == 200 || sticky.starts_with("field"), "{sticky}: {}", response.text());
            variants.entry(user).or_default().insert(response.header("x-model-variant").unwrap_or("none").to_owned());
        }
        assert!(variants.values().all(|seen| seen.len() == 1), "{sticky}: {variants:?}");
        let all: HashSet<String> = variants.into_values().flatten().collect();
        assert_eq!(all, HashSet::from(["stable".to_owned(), "candidate".to_owned()]), "{sticky}");
    }
}

#[test]
fn who_may_choose_a_variant_does_so_over_grpc_too() {
    let folder = two_versions();
    let gateway = Gateway::start(&folder, &rollout("strategy: blue_green, allow_override: true"));
    wait_for_phase(&gateway, "paused");
    let answered = |chosen: Option<&str>| {
        let mut call = Call::new(sluicegate_tests::grpc::request("m", &[1, 2], &[0.0; 2]));
        if let Some(chosen) = chosen {
            call.metadata_mut().insert("x-sluicegate-variant", chosen.parse().expect("a value"));
        }
        let answer: Result<tonic::Response<sluicegate_proto::inference::ModelInferResponse>, tonic::Status> =
            runtime().block_on(async { Caller::new(gateway.grpc()).call(sluicegate_tests::grpc::INFER, call).await });
        answer.map(|answer| answer.into_inner().model_version)
    };
    assert_eq!(answered(None).expect("an answer"), "1");
    assert_eq!(answered(Some("candidate")).expect("an answer"), "2");
    assert_eq!(answered(Some("stable")).expect("an answer"), "1");
    assert_eq!(answered(Some("other")).expect_err("there is none").code(), tonic::Code::InvalidArgument);
}

#[test]
fn who_may_not_choose_a_variant_is_told() {
    let folder = two_versions();
    let gateway = Gateway::start(&folder, &rollout("strategy: blue_green"));
    wait_for_phase(&gateway, "paused");
    let refused = gateway.client().request(&x().header("x-sluicegate-variant", "candidate")).expect("an answer");
    assert!(refused.status == 403 && refused.text().contains("allow_override"), "{} {}", refused.status, refused.text());
    // Versions that are named are not a matter of the split.
    let named = Request::post("/models/m@2/predict", json!({ "x": [0.0, 0.0] }).to_string());
    let response = gateway.client().request(&named).expect("an answer");
    assert_eq!((response.status, response.header("x-model-version"), response.header("x-model-variant")), (200, Some("2"), None));
}
