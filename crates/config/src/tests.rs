//! Every rule of a configuration: places, suggestions, precedence, bounds, and that all errors are listed.

use std::fs;

use proptest::prelude::*;
use sluicegate_core::VersionRef;
use sluicegate_engine::{Device, EngineChoice};

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn parse_with(text: &str, pairs: &[(&str, &str)], overrides: &Overrides) -> Result<Config, Vec<String>> {
    let file = Some((Path::new("sluicegate.yaml"), text.as_bytes()));
    Config::parse(file, &env(pairs), overrides).map_err(|errors| lines(&errors))
}

fn lines(errors: &[ConfigError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// The text, and a registry, without which no configuration is whole.
fn parse(text: &str) -> Result<Config, Vec<String>> {
    parse_with(
        text,
        &[("SLUICEGATE__REGISTRIES__LOCAL__PATH", "models"), ("SLUICEGATE__REGISTRIES__LOCAL__TYPE", "directory")],
        &Overrides::default(),
    )
}

fn errors(text: &str) -> Vec<String> {
    parse(text).expect_err(text)
}

const WHOLE: &str = r#"
http: { address: 127.0.0.1:9080, root_path: /ml, max_body: 32MiB, cors: { allow_origins: ["https://a.example"] } }
ops: { address: "[::1]:9082" }
log: { format: json, level: "info,sluicegate_registry=debug" }
limits: { in_flight: 100 }
shutdown: { grace: 5s, not_ready: 1s }
engine: { onnxruntime: lib/libonnxruntime.so, default: tract }
registries:
  local: { type: directory, path: ./models, poll: 250ms }
batching: { max_rows: 32, max_delay: 2ms }
models:
  - name: fraud
    version: 3
    also: [1, "2"]
    aliases: { stable: 2, canary: "3" }
    engine: onnxruntime
    device: cuda:0
    batching: { max_rows: 8, max_tokens: 512 }
    text: { max_length: 128, truncate: false }
  - { name: digits, registry: local, version: latest, also: all, cache: { size: 64MiB } }
"#;

#[test]
fn a_whole_file_is_read() {
    let config = parse_with(WHOLE, &[], &Overrides::default()).expect("a good file");
    assert_eq!(config.http.address.to_string(), "127.0.0.1:9080");
    assert_eq!(config.http.max_body.bytes(), 32 << 20);
    assert_eq!(config.http.keep_alive, Duration::from_secs(75), "what is not said is the default");
    assert_eq!(config.engine.default, EngineChoice::Tract);
    assert_eq!(config.registries["local"].poll, Duration::from_millis(250));
    assert_eq!(config.registries["local"].settle, Duration::from_secs(1));
    let models = config.models.as_deref().expect("models");
    assert_eq!(models[0].version, Version::Is(VersionRef::Number(3)));
    assert_eq!(models[0].also, Also::These(vec![VersionRef::Number(1), VersionRef::Number(2)]));
    let aliases: Vec<_> = models[0].aliases.iter().map(|(alias, Pinned(version))| (&**alias, version.clone())).collect();
    assert_eq!(aliases, [("canary", VersionRef::Number(3)), ("stable", VersionRef::Number(2))]);
    assert_eq!(models[0].device, Device::Cuda(sluicegate_engine::Gpus::FIRST));
    assert_eq!(models[1].also, Also::All);
    assert_eq!(models.iter().map(|model| Some(model.cache.as_ref()?.size.bytes())).collect::<Vec<_>>(), [None, Some(64 << 20)]);
    let batching = models[0].batching.over(&config.batching);
    assert_eq!((batching.max_rows.get(), batching.max_delay), (8, Duration::from_millis(2)));
    assert_eq!((batching.max_tokens.get(), config.batching.max_tokens.get()), (512, 8192));
    let Text { tokenize, max_length, truncate } = &models[0].text;
    assert_eq!((*tokenize, max_length.map(Count::get), *truncate), (true, Some(128), false));
    assert_eq!(models[1].text, Text::default());
}

#[test]
fn a_rollout_is_read_and_known_by_all_that_is_declared() {
    let text = "state: { path: state.db }\nwebhooks: [ { url: \"https://h.example/x\", secret: \"file:/run/k\", events: [rollout.promoted] } ]\n\
                models:\n  - name: fraud\n    version: \"2\"\n    rollout:\n      strategy: canary\n      candidate: \"3\"\n      sticky: { header: X-User-Id }\n      \
                steps: [ { weight: 5%, hold: 10m }, { weight: 25%, hold: 30m, pause: true }, { weight: 100% } ]\n      \
                analysis: [ { metric: error_rate, max: 1% }, { metric: latency_p99, max_increase: 20% } ]\n      on_failure: rollback\n";
    let config = parse(text).expect("a good file");
    let plan = |config: &Config| config.models.as_deref().expect("models")[0].plan().expect("a plan");
    let spec = plan(&config);
    assert_eq!((spec.stable, spec.candidate, spec.stages().len(), spec.alpha), (2, 3, 3, 0.01));
    assert_eq!((spec.rules[0].max, spec.rules[1].max_increase, spec.steps[1].hold_ms), (Some(0.01), Some(0.2), 1_800_000));
    let sticky = config.models.as_deref().and_then(|models| models[0].rollout.as_ref()?.sticky());
    assert_eq!(sticky, Some(sluicegate_core::split::Sticky::Header("x-user-id".to_owned())));
    let again = parse(&serde_json::to_string(&config).expect("JSON")).expect("what is written is read back");
    assert_eq!(plan(&again).digest(), spec.digest());
    let other = parse(&text.replace("5%,", "6%,")).expect("another one");
    assert_ne!(plan(&other).digest(), spec.digest());
    for (from, to, told) in [
        ("version: \"2\"", "version: latest", "models[0].version: expected a number beside a rollout"),
        ("candidate: \"3\"", "candidate: 2", "models[0].rollout.candidate: expected another version than the stable one"),
        ("on_failure: rollback", "on_failure: promote", "models[0].rollout.on_failure: expected rollback or hold"),
        ("{ header: X-User-Id }", "{ header: \"a b\" }", "models[0].rollout.sticky.header: `a b` is no name of a header"),
        ("max: 1%", "max: lots", "models[0].rollout.analysis[0].max: expected a percentage, a duration or a number"),
        ("file:/run/k", "hunter2", "webhooks[0].secret: expected a file with the secret"),
        ("rollout.promoted", "rollout.promted", "webhooks[0].events[0]: no event is named `rollout.promted`"),
        ("{ path: state.db }", "{ path: a, postgres: \"file:b\" }", "state: expected `path` or `postgres`, got both"),
    ] {
        let errors = errors(&text.replace(from, to)).join("\n");
        assert!(errors.contains(told) && !errors.contains("hunter2"), "{to}: {errors}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let config = parse_with(WHOLE, &[], &Overrides::default()).expect("a good file");
    let text = serde_json::to_string(&config).expect("JSON, which is YAML");
    let again = Config::parse(Some((Path::new("x.json"), text.as_bytes())), &[], &Overrides::default());
    assert_eq!(again, Ok(config));
}

#[test]
fn an_unknown_key_has_its_line_and_column_and_a_suggestion() {
    assert_eq!(errors("batching:\n  max_row: 8\n"), ["sluicegate.yaml:2:3: unknown key `max_row`; did you mean `max_rows`?"]);
    assert_eq!(errors("ops: { port: 1 }"), ["sluicegate.yaml:1:8: unknown key `port`; the keys here are address"]);
    assert_eq!(errors("modles: []"), ["sluicegate.yaml:1:1: unknown key `modles`; did you mean `models`?"]);
    assert_eq!(
        errors("models:\n  - name: fraud\n    batching: { max_rows: 1, delay: 1ms }\n")[0].split(';').next(),
        Some("sluicegate.yaml:3:30: unknown key `delay`")
    );
}

#[test]
fn every_error_is_listed_in_the_order_of_the_file() {
    let text = "http: { address: \":8080\", keep_alive: 0s }\nlog: { format: yaml }\nbatching: { max_rows: 0, instances: many, threads: 300 }\n\
                shutdown: 3\nmodels:\n  - version: 1\n  - name: a/b\n  - { name: ok, version: stable, allow_signature_change: 1, extra: 1 }\n";
    assert_eq!(
        errors(text),
        [
            "sluicegate.yaml:1:18: http.address: expected an address, IP:PORT, as 127.0.0.1:8080 or [::]:8080, got `:8080`; for every interface write 0.0.0.0:8080",
            "sluicegate.yaml:1:39: http.keep_alive: expected 1s to 1h, got 0s",
            "sluicegate.yaml:2:16: log.format: expected auto or human or json, got `yaml`",
            "sluicegate.yaml:3:23: batching.max_rows: expected a whole number from 1 to 65536, got `0`",
            "sluicegate.yaml:3:37: batching.instances: expected a whole number from 1 to 64, or `auto`, got `many`",
            "sluicegate.yaml:3:52: batching.threads: expected a whole number from 1 to 256, got `300`",
            "sluicegate.yaml:4:11: shutdown: expected keys and values, got `3`",
            "sluicegate.yaml:6:5: models[0]: the key `name` is missing",
            "sluicegate.yaml:7:11: models[1].name: `a/b` is no model name: a model name is 1 to 63 letters, digits, `.`, `_` or `-` and does not begin with a dot",
            "sluicegate.yaml:8:26: models[2].version: expected latest, a number, sha256:… or an alias as @stable, got `stable`",
            "sluicegate.yaml:8:58: models[2].allow_signature_change: expected true or false, got `1`",
            "sluicegate.yaml:8:61: unknown key `extra`; the keys here are name, registry, version, also, aliases, engine, device, residency, batching, text, cache, allow_signature_change, rollout",
        ]
    );
}

#[test]
fn an_alias_is_a_word_for_a_version_that_is_served() {
    let of = |keys: &str| parse(&format!("models: [ {{ name: fraud, {keys} }} ]"));
    for good in [
        "also: all, aliases: { stable: 1, old.one: 2 }",
        "version: 3, aliases: { stable: 3 }",
        "aliases: {}",
        "version: 1, rollout: { strategy: blue_green, candidate: 2 }, aliases: { next: 2 }",
    ] {
        assert!(of(good).is_ok(), "{good}");
    }
    for (bad, why) in [
        (
            "also: [1], aliases: { stable: 2 }",
            "expected a version that is served, by `version`, by `also` or as the candidate of a rollout, got 2",
        ),
        (
            "aliases: { stable: 2 }",
            "expected a version that is served, by `version`, by `also` or as the candidate of a rollout, got 2",
        ),
        ("also: all, aliases: { '7': 2 }", "`7` is no alias: an alias is 1 to 63 letters"),
        ("also: all, aliases: { '@x': 2 }", "`@x` is no alias: an alias is 1 to 63 letters"),
        ("also: all, aliases: { a/b: 2 }", "`a/b` is no alias: an alias is 1 to 63 letters"),
        ("also: all, aliases: { stable: '@canary' }", "expected a number or sha256:…, got `@canary`"),
    ] {
        let errors = of(bad).expect_err(bad);
        assert!(errors[0].contains("aliases") && errors[0].contains(why), "{errors:?}");
    }
}

#[test]
fn values_that_yaml_takes_for_something_else_get_a_hint() {
    assert_eq!(
        errors("models: [ { name: yes } ]"),
        ["sluicegate.yaml:1:19: models[0].name: expected text, got `true`: put it in quotes"]
    );
    assert_eq!(
        errors("models: [ { name: m, version: 1.5 } ]"),
        ["sluicegate.yaml:1:31: models[0].version: expected text, got a number with a point: put it in quotes"]
    );
    assert_eq!(
        errors("shutdown: { grace: 25 }"),
        ["sluicegate.yaml:1:20: shutdown.grace: expected a duration, a whole number with a unit, as 250ms, 10s or 5m, got `25`"]
    );
    assert_eq!(
        errors("http: { max_body: -1 }"),
        ["sluicegate.yaml:1:19: http.max_body: expected a size, a whole number with a unit, as 512KiB or 64MiB, got `-1`"]
    );
    assert_eq!(
        errors("limits: { in_flight: }"),
        ["sluicegate.yaml:1:20: limits.in_flight: expected a whole number from 1 to 1000000, got nothing"]
    );
    assert_eq!(errors("- a"), ["sluicegate.yaml:1:1: expected keys and values"]);
}

#[test]
fn parts_must_fit_together() {
    let text = "ops: { address: 127.0.0.1:8080 }\nbatching: { queue_rows: 8 }\nmodels:\n  - { name: a, registry: locl, batching: { queue_rows: 9 } }\n  - name: a\n    version: \"@champion\"\n    also: [\"2\", \"@old\"]\n";
    assert_eq!(
        errors(text),
        [
            "sluicegate.yaml:1:17: ops.address: expected another address than http.address, got 127.0.0.1:8080 for both",
            "sluicegate.yaml:2:25: batching.queue_rows: expected at least max_rows, which is 64, got 8",
            "sluicegate.yaml:4:26: models[0].registry: no registry is called `locl`; did you mean `local`?",
            "sluicegate.yaml:4:56: models[0].batching.queue_rows: expected at least max_rows, which is 64, got 9",
            "sluicegate.yaml:5:11: models[1].name: `a` is listed twice",
            "sluicegate.yaml:6:14: models[1].version: `@champion` is an alias, and the registry `local` is a directory, which has none: give a number or sha256:…",
            "sluicegate.yaml:7:17: models[1].also[1]: `@old` is an alias, and the registry `local` is a directory, which has none: give a number or sha256:…",
        ]
    );
    assert_eq!(parse_with("", &[], &Overrides::default()).expect_err("no registry").len(), 1);
    assert_eq!(
        errors("models:\n"),
        ["sluicegate.yaml:1:7: models: expected a list, got nothing: leave the key out to serve every model, or write []"]
    );
}

#[test]
fn bounds_of_values() {
    for (text, key) in [
        ("http: { max_body: 1B }", "http.max_body"),
        ("http: { header_timeout: 2h }", "http.header_timeout"),
        ("http: { max_connections: 0 }", "http.max_connections"),
        ("http: { root_path: ml }", "http.root_path"),
        ("http: { root_path: /ml/ }", "http.root_path"),
        ("http: { cors: { allow_origins: [a.example] } }", "http.cors.allow_origins[0]"),
        ("log: { level: \"a=b=c\" }", "log.level"),
        ("shutdown: { grace: 2h }", "shutdown.grace"),
        ("registries: { x: { type: directory, path: x, poll: 0s } }", "registries.x.poll"),
        ("registries: { x: { type: s3, path: x } }", "registries.x.type"),
        ("registries: { x: { type: directory } }", "registries.x"),
        ("batching: { max_delay: 2s }", "batching.max_delay"),
        ("models: [ { name: m, cache: { size: 64KiB } } ]", "models[0].cache.size"),
        ("models: [ { name: m, cache: 64MiB } ]", "models[0].cache"),
        ("batching: { queue_timeout: 0s }", "batching.queue_timeout"),
        ("batching: { execution: fast }", "batching.execution"),
        ("batching: { max_tokens: 0 }", "batching.max_tokens"),
        ("models: [ { name: m, text: { max_length: 0 } } ]", "models[0].text.max_length"),
        ("models: [ { name: m, text: { truncate: left } } ]", "models[0].text.truncate"),
        ("models: [ { name: m, batching: { queue_timeout: 0s } } ]", "models[0].batching.queue_timeout"),
        ("models: [ { name: m, device: gpu } ]", "models[0].device"),
        ("models: [ { name: m, also: 3 } ]", "models[0].also"),
        ("models: [ { name: m, also: [x] } ]", "models[0].also[0]"),
        ("engine: { default: torch }", "engine.default"),
    ] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(&format!(": {key}: ")), "{errors:?}");
        assert!(errors[0].starts_with("sluicegate.yaml:1:"), "{errors:?}");
    }
}

#[test]
fn a_file_that_is_no_yaml_has_one_error_with_its_place() {
    for text in ["http: { address", "a: 1\n b: 2\n", "http: {}\nhttp: {}\n", "\tx: 1", "x: *nowhere", "a: 1\n---\nb: 2\n"] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("sluicegate.yaml:") && !errors[0].contains('\n'), "{text:?}: {errors:?}");
    }
    let errors = Config::parse(Some((Path::new("c"), b"a\n\xff")), &[], &Overrides::default()).expect_err("no UTF-8");
    assert_eq!(lines(&errors), ["c:2: is not UTF-8"]);
}

proptest! {
    #[test]
    fn no_text_panics(text in "(models|http|name|also|[a-z:,#&*!|<>\"' 0-9\\n\\[\\]{}-]){0,60}", word in "[A-Z_0-9]{0,12}") {
        let name = format!("{ENV_PREFIX}{word}");
        let _ = parse_with(&text, &[(&name, &text)], &Overrides::default());
    }
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        text.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    assert_eq!(errors(&text).len(), 1);
}

#[test]
fn an_anchor_has_a_value_and_a_section_may_be_empty() {
    let config = parse("http:\nbatching: &b { max_rows: 4 }\nmodels: [ { name: m, batching: *b } ]").expect("good");
    assert_eq!(config.models.expect("models")[0].batching.max_rows.map(Count::get), Some(4));
    assert!(parse("").is_ok());
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let text = "http: { address: 127.0.0.1:1 }\nbatching: { max_rows: 2, instances: 2 }";
    let pairs = [("SLUICEGATE__HTTP__ADDRESS", "127.0.0.1:3"), ("SLUICEGATE__BATCHING__MAX_ROWS", "3")];
    let overrides = Overrides { http: Some("127.0.0.1:4".into()), models: Some("m".into()), ..Overrides::default() };
    let config = parse_with(text, &pairs, &overrides).expect("good");
    assert_eq!(config.http.address.to_string(), "127.0.0.1:4");
    assert_eq!(config.batching.max_rows.get(), 3);
    assert_eq!(config.batching.instances, Auto(Count::new(2)));
    assert_eq!(config.batching.threads.get(), 1);
    assert_eq!(config.registries[LOCAL], Registry::directory("m"));
    assert_eq!(config.models, None, "every model of the directory");
}

#[test]
fn a_variable_reaches_every_key_and_a_wrong_one_is_named() {
    let text = "registries: { my-store: { type: directory, path: x } }\nmodels: [ { name: a, registry: my-store } ]";
    let good = [
        ("SLUICEGATE__REGISTRIES__MY_STORE__PATH", "y"),
        ("SLUICEGATE__MODELS__0__VERSION", "7"),
        ("SLUICEGATE__MODELS__0__ALSO__0", "6"),
        ("SLUICEGATE__MODELS__0__ALLOW_SIGNATURE_CHANGE", "true"),
        ("SLUICEGATE__MODELS__1__NAME", "8"),
        ("SLUICEGATE__MODELS__1__REGISTRY", "my-store"),
        ("SLUICEGATE__LOG__FORMAT", "human"),
        ("SLUICEGATE_SERVICE_HOST", "10.0.0.1"),
        ("HOME", "/root"),
    ];
    let config = parse_with(text, &good, &Overrides::default()).expect("good");
    let models = config.models.expect("models");
    assert_eq!(config.registries["my-store"].path, Path::new("y"));
    assert_eq!(models[0].version, Version::Is(VersionRef::Number(7)));
    assert_eq!(models[0].also, Also::These(vec![VersionRef::Number(6)]));
    assert!(models[0].allow_signature_change);
    assert_eq!(models[1].name.as_str(), "8");

    for (name, value, message) in [
        ("SLUICEGATE__BATCHING__MAX_ROW", "8", "unknown key `max_row`; did you mean `max_rows`?"),
        ("SLUICEGATE__BATCHING__MAX_ROWS", "x", "batching.max_rows: expected a whole number from 1 to 65536, got `x`"),
        ("SLUICEGATE__BATCHING", "x", "batching: expected keys and values, got text"),
        ("SLUICEGATE__MODELS__2__NAME", "b", "the list ends before that: its next element has the number 1, got 2"),
        ("SLUICEGATE__MODELS__X__NAME", "b", "expected the number of a list's element, got `X`"),
        ("SLUICEGATE__LOG__LEVEL__X", "b", "log.level: expected text, got keys and values"),
        ("SLUICEGATE__LOG____X", "b", "two underscores stand between two keys, as in SLUICEGATE__BATCHING__MAX_ROWS"),
        ("SLUICEGATE__", "b", "two underscores stand between two keys, as in SLUICEGATE__BATCHING__MAX_ROWS"),
    ] {
        let errors = parse_with(text, &[(name, value)], &Overrides::default()).expect_err(name);
        assert_eq!(errors, [format!("{name}: {message}")]);
    }
    let flag = Overrides { ops: Some("8082".into()), ..Overrides::default() };
    let errors = parse_with(text, &[], &flag).expect_err("no address");
    assert!(errors[0].starts_with("--ops: ops.address: expected an address"), "{errors:?}");
}

#[test]
fn onnx_runtimes_own_variable_is_the_last_word_but_one() {
    let pairs = [
        ("SLUICEGATE__REGISTRIES__LOCAL__PATH", "m"),
        ("SLUICEGATE__REGISTRIES__LOCAL__TYPE", "directory"),
        (ENV_ONNXRUNTIME, "/a.so"),
    ];
    let library = |text| parse_with(text, &pairs, &Overrides::default()).expect("good").engine.onnxruntime;
    assert_eq!(library(""), Some("/a.so".into()));
    assert_eq!(library("engine: { onnxruntime: /b.so }"), Some("/b.so".into()));
}

#[test]
fn a_path_in_the_file_is_relative_to_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sluicegate.yaml");
    fs::write(&path, "registries: { local: { type: directory, path: models }, abs: { type: directory, path: /m } }\nengine: { onnxruntime: lib.so }")
        .expect("written");
    let config = Config::load(Some(&path), &[], &Overrides::default()).expect("good");
    assert_eq!(config.registries["local"].path, directory.path().join("models"));
    assert_eq!(config.registries["abs"].path, Path::new("/m"));
    assert_eq!(config.engine.onnxruntime, Some(directory.path().join("lib.so")));
    let flags = Overrides { models: Some("other".into()), ..Overrides::default() };
    let config = Config::load(Some(&path), &[], &flags).expect("good");
    assert_eq!(config.registries["local"].path, Path::new("other"), "that of a flag, to the working directory");
}

#[test]
fn a_missing_or_huge_file_is_one_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sluicegate.yaml");
    let load = || lines(&Config::load(Some(&path), &[], &Overrides::default()).expect_err("an error"));
    assert_eq!(load().len(), 1);
    assert!(load()[0].contains("sluicegate.yaml: cannot be read: "), "{:?}", load());
    fs::write(&path, vec![b'#'; MAX_FILE as usize + 1]).expect("written");
    assert!(load()[0].ends_with("sluicegate.yaml: is larger than 1 MiB"), "{:?}", load());
}

#[test]
fn there_are_at_most_ten_thousand_models() {
    let list = |count: usize| format!("models: [{}]", (0..count).map(|n| format!("{{name: m{n}}},")).collect::<String>());
    assert!(parse(&list(MAX_MODELS)).is_ok());
    assert_eq!(errors(&list(MAX_MODELS + 1)), ["sluicegate.yaml:1:9: models: expected at most 10000 models, got 10001"]);
}

#[test]
fn errors_without_end_are_cut() {
    let keys: String = (0..500).map(|n| format!("key{n}: 1\n")).collect();
    assert_eq!(errors(&keys).len(), 100);
}

#[test]
fn a_configmap_that_is_swapped_is_seen_once_and_a_bad_one_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |version: &str, text: &str| {
        fs::create_dir(directory.path().join(version)).expect("made");
        fs::write(directory.path().join(version).join("sluicegate.yaml"), text).expect("written");
    };
    let swap = |version: &str| {
        let (new, data) = (directory.path().join("..new"), directory.path().join("..data"));
        std::os::unix::fs::symlink(version, &new).expect("linked");
        fs::rename(new, data).expect("swapped");
    };
    let registry = "registries: { local: { type: directory, path: m } }\n";
    write("1", registry);
    write("2", &format!("{registry}batching: {{ max_rows: 8 }}"));
    write("3", "nonsense: 1");
    swap("1");
    let path = directory.path().join("sluicegate.yaml");
    std::os::unix::fs::symlink("..data/sluicegate.yaml", &path).expect("linked");

    let (config, mut watched) = Watched::start(Some(path), Vec::new(), Overrides::default()).expect("good");
    assert!(watched.changed().is_none());
    swap("2");
    assert!(watched.changed().is_none(), "it must hold still for one more look");
    let next = watched.changed().expect("a change").expect("a good one");
    assert_eq!(next.batching.max_rows.get(), 8);
    assert_eq!(config.changed_sections(&next), ["batching"]);
    assert!(watched.changed().is_none(), "told once");
    swap("3");
    assert!(watched.changed().is_none());
    assert!(watched.changed().expect("a change").is_err());
    assert!(watched.changed().is_none(), "told once");
    fs::remove_file(directory.path().join("..data")).expect("removed");
    assert!(watched.changed().is_none());
    assert!(watched.changed().expect("a change").is_err());
    swap("1");
    assert!(watched.changed().is_none());
    assert_eq!(watched.changed(), Some(Ok(config)));
}

#[test]
fn without_a_file_nothing_changes() {
    let flags = Overrides { models: Some("m".into()), ..Overrides::default() };
    let (_, mut watched) = Watched::start(None, Vec::new(), flags).expect("good");
    assert!(watched.changed().is_none());
}

#[test]
fn the_environment_is_ours_alone() {
    assert!(environment().iter().all(|(key, _)| key.starts_with(ENV_PREFIX) || key == ENV_ONNXRUNTIME));
}
