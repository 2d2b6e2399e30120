//! What types cannot say: bounds of times, and whether the parts of a configuration fit together.

use std::collections::HashSet;
use std::fmt;

use sluicegate_core::VersionRef;
use tracing_subscriber::EnvFilter;

use super::error::{ConfigError, suggest};
use super::models::{Also, Pinned, Version};
use super::sections::RegistryType;
use super::text::{Duration, Size};
use super::tree::{Step, Tree, Value};
use super::{Config, MAX_MODELS, Model};

/// Adds every rule that is broken. What other errors may have caused is not looked for once there are any.
pub(super) fn check(config: &Config, tree: &Tree, errors: &mut Vec<ConfigError>) {
    let clean = errors.is_empty();
    let mut checker = Checker { tree, errors };
    checker.values(config);
    if clean {
        checker.relations(config);
    }
}

struct Checker<'a> {
    tree: &'a Tree,
    errors: &'a mut Vec<ConfigError>,
}

macro_rules! path {
    ($($step:expr),*) => { &[$(Step::from($step)),*] };
}

impl Checker<'_> {
    fn refuse(&mut self, path: &[Step], message: impl fmt::Display) {
        self.errors.push(self.tree.error(path, message));
    }

    fn within<T: PartialOrd + fmt::Display + Copy>(&mut self, path: &[Step], got: T, least: T, most: T) {
        if got < least || got > most {
            self.refuse(path, format_args!("expected {least} to {most}, got {got}"));
        }
    }

    /// Rules about one value.
    fn values(&mut self, config: &Config) {
        let (millisecond, second) = (Duration::from_millis(1), Duration::from_secs(1));
        let hour = Duration::from_secs(3600);
        let http = &config.http;
        self.within(path!["http", "keep_alive"], http.keep_alive, second, hour);
        self.within(path!["http", "header_timeout"], http.header_timeout, Duration::from_millis(10), hour);
        self.within(path!["http", "max_body"], http.max_body, Size::from_mib(1), Size::from_mib(4096));
        self.within(path!["grpc", "max_message"], config.grpc.max_message, Size::from_mib(1), Size::from_mib(4095));
        let root = &http.root_path;
        if !root.is_empty() && (!root.starts_with('/') || root.ends_with('/') || root.contains(char::is_whitespace)) {
            let expected = "expected a path that begins with `/` and does not end with one, as `/ml`, or nothing";
            self.refuse(path!["http", "root_path"], format_args!("{expected}, got `{root}`"));
        }
        for (index, origin) in http.cors.iter().flat_map(|cors| &cors.allow_origins).enumerate() {
            if !is_origin(origin) {
                let expected = "expected an origin as `https://app.example.com`, or `*`";
                self.refuse(path!["http", "cors", "allow_origins", index], format_args!("{expected}, got `{origin}`"));
            }
        }
        if let Err(error) = EnvFilter::builder().parse(&config.log.level) {
            let expected = "expected error, warn, info, debug, trace or off, by module as `info,sluicegate_registry=debug`";
            self.refuse(path!["log", "level"], format_args!("{expected}, got `{}` ({error})", config.log.level));
        }
        self.within(path!["shutdown", "grace"], config.shutdown.grace, Duration::default(), hour);
        self.within(path!["shutdown", "not_ready"], config.shutdown.not_ready, Duration::default(), hour);
        for (name, registry) in &config.registries {
            self.within(path!["registries", &**name, "poll"], registry.poll, Duration::from_millis(10), hour);
            self.within(path!["registries", &**name, "settle"], registry.settle, Duration::default(), hour);
        }
        for (key, budget) in [("budget", config.memory.budget), ("gpu_budget", config.memory.gpu_budget)] {
            if let Some(budget) = budget {
                self.within(path!["memory", key], budget, Size::from_mib(1), Size::from_mib(1 << 24));
            }
        }
        self.within(path!["memory", "wait"], config.memory.wait, millisecond, hour);
        self.within(path!["batching", "max_delay"], config.batching.max_delay, Duration::default(), second);
        self.within(path!["batching", "queue_timeout"], config.batching.queue_timeout, millisecond, hour);
        for (index, model) in config.models.iter().flatten().enumerate() {
            if let Some(delay) = model.batching.max_delay {
                self.within(path!["models", index, "batching", "max_delay"], delay, Duration::default(), second);
            }
            if let Some(timeout) = model.batching.queue_timeout {
                self.within(path!["models", index, "batching", "queue_timeout"], timeout, millisecond, hour);
            }
            if let Some(cache) = &model.cache {
                self.within(path!["models", index, "cache", "size"], cache.size, Size::from_mib(1), Size::from_mib(1 << 20));
            }
        }
    }

    /// Rules about two values.
    fn relations(&mut self, config: &Config) {
        let (http, grpc, ops) = (config.http.address.0, config.grpc.address.0, config.ops.address.0);
        for (name, address, others) in [("grpc", grpc, &[("http", http)][..]), ("ops", ops, &[("http", http), ("grpc", grpc)])] {
            if let Some((other, _)) = others.iter().find(|(_, other)| *other == address && address.port() != 0) {
                let message = format_args!("expected another address than {other}.address, got {address} for both");
                self.refuse(path![name, "address"], message);
            }
        }
        if config.state.path.is_some() && config.state.postgres.is_some() {
            self.refuse(path!["state"], "expected `path` or `postgres`, got both");
        }
        for (index, hook) in config.webhooks.iter().enumerate() {
            let host = hook.url.strip_prefix("https://").or_else(|| hook.url.strip_prefix("http://"));
            if host.is_none_or(|host| host.is_empty() || host.starts_with('/') || host.contains(char::is_whitespace)) {
                self.refuse(path!["webhooks", index, "url"], "expected a URL as https://hooks.example.com/models");
            }
            for (position, event) in hook.events.iter().enumerate() {
                if let Err(error) = event.parse::<sluicegate_outbound::webhook::Kind>() {
                    self.refuse(path!["webhooks", index, "events", position], error.message());
                }
            }
        }
        if config.registries.is_empty() {
            let message = "at least one is needed: give a directory with --models DIR, or list registries in the file";
            self.refuse(path!["registries"], message);
        }
        let batching = &config.batching;
        if batching.queue_rows.get() < batching.max_rows.get() {
            let (rows, got) = (batching.max_rows, batching.queue_rows);
            self.refuse(path!["batching", "queue_rows"], format_args!("expected at least max_rows, which is {rows}, got {got}"));
        }
        if self.tree.find(&["models"]).is_some_and(|node| matches!(node.value, Value::Null)) {
            self.refuse(path!["models"], "expected a list, got nothing: leave the key out to serve every model, or write []");
        }
        let models = config.models.as_deref().unwrap_or_default();
        if models.len() > MAX_MODELS {
            return self.refuse(path!["models"], format_args!("expected at most {MAX_MODELS} models, got {}", models.len()));
        }
        let mut names = HashSet::new();
        for (index, model) in models.iter().enumerate() {
            if !names.insert(&model.name) {
                self.refuse(path!["models", index, "name"], format_args!("`{}` is listed twice", model.name));
            }
            self.model(config, index, model);
        }
    }

    fn model(&mut self, config: &Config, index: usize, model: &Model) {
        match config.registries.get(&model.registry) {
            None => {
                let names = config.registries.keys().map(String::as_str);
                let near = suggest(&model.registry, names);
                let message = format_args!("no registry is called `{}`{near}", model.registry);
                self.refuse(path!["models", index, "registry"], message);
            }
            Some(registry) => match registry.kind {
                RegistryType::Directory => self.no_aliases(index, model),
            },
        }
        self.aliases(index, model);
        for (way, message) in model.faults() {
            self.refuse(&[path!["models", index], &way[..]].concat(), message);
        }
        let batching = model.batching.over(&config.batching);
        if batching.queue_rows.get() < batching.max_rows.get() && model.batching != Default::default() {
            let (rows, got) = (batching.max_rows, batching.queue_rows);
            let message = format_args!("expected at least max_rows, which is {rows}, got {got}");
            self.refuse(path!["models", index, "batching", "queue_rows"], message);
        }
    }

    /// An alias is a word that is no number, for a version that is served.
    fn aliases(&mut self, index: usize, model: &Model) {
        for (alias, Pinned(version)) in &model.aliases {
            if alias.starts_with('@') || !matches!(alias.parse(), Ok(VersionRef::Alias(_))) {
                let expected = "an alias is 1 to 63 letters, digits, `.`, `_` or `-`, does not begin with a dot and is no number";
                self.refuse(path!["models", index, "aliases", &**alias], format_args!("`{alias}` is no alias: {expected}"));
            }
            let is_candidate = model.rollout.as_ref().is_some_and(|rollout| rollout.candidate.0 == *version);
            let is_served = match &model.also {
                Also::All => true,
                Also::These(versions) => versions.contains(version) || model.version == Version::Is(version.clone()),
            } || is_candidate;
            if !is_served {
                let expected = "expected a version that is served, by `version`, by `also` or as the candidate of a rollout";
                self.refuse(path!["models", index, "aliases", &**alias], format_args!("{expected}, got {version}"));
            }
        }
    }

    fn no_aliases(&mut self, index: usize, model: &Model) {
        let message = |alias: &VersionRef| {
            let registry = &model.registry;
            format!(
                "`{alias}` is an alias, and the registry `{registry}` is a directory, which has none: give a number or sha256:…"
            )
        };
        if let Version::Is(alias @ VersionRef::Alias(_)) = &model.version {
            self.refuse(path!["models", index, "version"], message(alias));
        }
        if let Also::These(versions) = &model.also {
            for (position, version) in versions.iter().enumerate() {
                if matches!(version, VersionRef::Alias(_)) {
                    self.refuse(path!["models", index, "also", position], message(version));
                }
            }
        }
    }
}

/// `*`, or a scheme, a host and perhaps a port.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    text == "*" || host.is_some_and(|host| !host.is_empty() && host.chars().all(plain))
}
