//! The wiring of a running gateway: registry, gateway, routes, addresses, and the order of start and end.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use metrics::counter;
use parking_lot::Mutex;
use serde::Serialize;
use sluicegate_admin::rollout;
use sluicegate_api::grpc::Grpc;
use sluicegate_api::http::body::Bounds;
use sluicegate_api::http::hot::Routes;
use sluicegate_api::http::openapi::Cache;
use sluicegate_api::http::{Api, Protocols, Shared};
use sluicegate_batch::{Execution, Limits};
use sluicegate_core::metric::Form;
use sluicegate_core::{Code, Error, Result, VersionRef, metric};
use sluicegate_engine::open::Search;
use sluicegate_engine::{Budget, Engines, Options, TextOptions};
use sluicegate_gateway::Gateway;
use sluicegate_gateway::Splits;
use sluicegate_registry::reconcile::Root;
use sluicegate_registry::spec::{Key, Memory, Priorities, Residency, Run, Said};
use sluicegate_registry::{Also, Declared, Registry, Spec, Want};
use sluicegate_traffic::Traffic;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::config::{self, Config, Watched};
use crate::listen::{Drained, Listener, Settings, Shutdown, Threads};
use crate::moving::{self, Standing};
use crate::signal::Signals;
use crate::telemetry::log::Levels;
use crate::telemetry::metrics::{Metrics, openmetrics};
use crate::telemetry::process::{COMMIT, VERSION};
use crate::telemetry::traces::{self, Exporter};

/// How often the configuration file is looked at.
const WATCH: std::time::Duration = std::time::Duration::from_secs(1);

/// A started gateway: its addresses are open.
pub struct App {
    config: Config,
    http: Listener,
    grpc: Listener,
    threads: Arc<Threads>,
    ops: Listener,
    api: Api,
    calls: Grpc,
    registry: Arc<Registry>,
    traffic: Arc<Traffic>,
    going: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    signals: Signals,
    engines: String,
    exporter: Option<Exporter>,
}

/// What became of the last change of the configuration file.
#[derive(Clone, Default, Serialize)]
struct Reload {
    state: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    /// Sections that changed and are read at the start alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    needs_restart: Vec<&'static str>,
}

/// A runtime of so many threads. One is enough for all that is no request: signals, the `ops` address, new connections.
///
/// # Errors
/// [`Code::Io`] where the machine gives no threads.
pub fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().thread_name("control").build();
    built.map_err(|error| Error::new(Code::Io, format!("the runtime cannot be started: {error}")))
}

/// The engines of this machine.
///
/// # Errors
/// [`Code::NoEngine`] where the library asked for cannot be used.
pub fn engines(config: &Config) -> Result<Engines> {
    Engines::find(&Search { explicit: config.engine.onnxruntime.clone(), ..Search::default() })
}

/// The registries.
pub fn roots(config: &Config) -> Vec<Root> {
    let root = |(name, registry): (&String, &config::Registry)| Root {
        name: name.clone(),
        path: registry.path.clone(),
        poll: registry.poll.get(),
        settle: registry.settle.get(),
    };
    config.registries.iter().map(root).collect()
}

/// The memory that models may take.
pub fn memory(config: &Config) -> Memory {
    let config::Memory { budget, gpu_budget, wait } = &config.memory;
    let [host, gpu] = [budget, gpu_budget].map(|budget| budget.and_then(|budget| NonZeroU64::new(budget.bytes())));
    Memory { budget: Budget { host, gpu }, wait: wait.get() }
}

/// What is declared of models.
pub fn declared(config: &Config) -> Declared {
    let Some(models) = &config.models else {
        let any = config::ModelBatching::default().over(&config.batching);
        return Declared::Everything(run(config, &any, None, sluicegate_engine::Device::Auto, false));
    };
    let of_model = |model: &config::Model| {
        let run = run(config, &model.batching.over(&config.batching), model.engine, model.device, model.allow_signature_change);
        let config::Text { tokenize, max_length, truncate } = model.text.clone();
        let text = TextOptions { tokenize, max_length: max_length.map(config::Count::nonzero), truncate, ..run.options.text };
        let cache = model.cache.as_ref().and_then(|cache| NonZeroU64::new(cache.size.bytes()));
        Run { cache, said: said(model), options: Options { text, ..run.options }, ..run }
    };
    let spec = |model: &config::Model| Spec {
        name: model.name.clone(),
        registry: model.registry.clone(),
        version: match &model.version {
            config::Version::Is(VersionRef::Number(number)) => Want::Number(*number),
            config::Version::Is(VersionRef::Digest(digest)) => Want::Digest(digest.clone()),
            // A directory has no aliases; the configuration's own check says so.
            config::Version::Is(VersionRef::Alias(_)) | config::Version::Latest => Want::Latest,
        },
        also: match &model.also {
            config::Also::All => Also::All,
            config::Also::These(refs) => Also::Numbers(refs.iter().filter_map(number).collect()),
        },
        aliases: Arc::new(
            model.aliases.iter().map(|(alias, config::Pinned(version))| (alias.as_str().into(), version.clone())).collect(),
        ),
        residency: match model.residency {
            config::Residency::Pinned => Residency::Pinned,
            config::Residency::OnDemand => Residency::OnDemand,
        },
        run: of_model(model),
    };
    let any = config::ModelBatching::default().over(&config.batching);
    let other = run(config, &any, None, sluicegate_engine::Device::Auto, false);
    Declared::Models(models.iter().map(spec).collect(), other)
}

/// What a model's own entry says, and so no configuration beside the model.
fn said(model: &config::Model) -> Said {
    let own = &model.batching;
    let keys = [
        (Key::Device, model.device != sluicegate_engine::Device::Auto),
        (Key::MaxRows, own.max_rows.is_some()),
        (Key::MaxDelay, own.max_delay.is_some()),
        (Key::QueueRows, own.queue_rows.is_some()),
        (Key::QueueTimeout, own.queue_timeout.is_some()),
        (Key::Instances, own.instances.is_some()),
        (Key::Threads, own.threads.is_some()),
        (Key::Cache, model.cache.is_some()),
    ];
    Said::default().and(keys.into_iter().filter(|(_, is_said)| *is_said).map(|(key, _)| key))
}

fn number(version: &VersionRef) -> Option<u64> {
    match version {
        VersionRef::Number(number) => Some(*number),
        VersionRef::Alias(_) | VersionRef::Digest(_) => None,
    }
}

fn run(
    config: &Config,
    batching: &config::Batching,
    engine: Option<sluicegate_engine::EngineChoice>,
    device: sluicegate_engine::Device,
    allow_signature_change: bool,
) -> Run {
    let (instances, threads) = fit(batching, cores());
    if threads < batching.threads.nonzero() {
        let asked = batching.threads.get();
        tracing::warn!(asked, used = threads, %instances, cores = cores(), "batching.threads is more than the machine has cores for");
    }
    Run {
        options: Options {
            engine: engine.unwrap_or(config.engine.default),
            device,
            instances,
            auto_instances: batching.instances.0.is_none(),
            threads,
            text: TextOptions { max_tokens: batching.max_tokens.nonzero(), ..TextOptions::default() },
            ..Options::default()
        },
        limits: Limits {
            max_rows: batching.max_rows.get(),
            max_delay: batching.max_delay.get(),
            queue_rows: batching.queue_rows.get(),
        },
        preferred: Vec::new(),
        priorities: Priorities::default(),
        execution: match batching.execution {
            config::Execution::Auto => Execution::Auto,
            config::Execution::Inline => Execution::Inline,
            config::Execution::Threads => Execution::Threads,
        },
        timeout: batching.queue_timeout.get(),
        own_timeout: true,
        cache: None,
        allow_signature_change,
        said: Said::default(),
    }
}

/// How many threads this process may run at the same time.
fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Instances and threads that the machine has cores for: threads beyond those would only take turns.
fn fit(batching: &config::Batching, cores: NonZeroUsize) -> (NonZeroUsize, NonZeroUsize) {
    let at_least_one = |number: usize| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
    let threads = batching.threads.nonzero().min(cores);
    match batching.instances.0 {
        None => (at_least_one(cores.get() / threads), threads),
        Some(instances) => {
            let instances = instances.nonzero();
            (instances, threads.min(at_least_one(cores.get() / instances)))
        }
    }
}

impl App {
    /// Starts everything: addresses first, so that a port in use is told before models are loaded.
    ///
    /// # Errors
    /// What is wrong with addresses, engines, registries; each a line that names the setting to change.
    pub fn start(config: Config, watched: Watched, levels: Levels) -> Result<Self> {
        let signals = Signals::install()?;
        let metrics = Arc::new(Metrics::install()?);
        let settings = Settings::from(&config.http);
        let (tracer, exporter) = traces::start(&config.otel, config.http.root_path.trim_end_matches('/'))?.unzip();
        let threads = Arc::new(Threads::start(cores().get())?);
        let http = Listener::bind("http", config.http.address.0, settings)?.traced(tracer.clone());
        let grpc = Listener::bind("grpc", config.grpc.address.0, settings)?.traced(tracer);
        let ops = Listener::bind("ops", config.ops.address.0, settings)?;
        let engines = engines(&config)?;
        let described = engines.describe();
        tracing::info!(version = VERSION, commit = COMMIT, engines = described, "sluicegate starts");
        let splits = Splits::default();
        let prepared = moving::prepare(&config, splits.clone())?;
        let standing = Standing::new(config.clone(), prepared.placements());
        let held = standing.lock().declared();
        let registry = Arc::new(Registry::start(roots(&config), held, memory(&config), Arc::new(engines))?);
        standing.lock().attach(&registry);
        let traffic = {
            let standing = standing.clone();
            Arc::new(prepared.start(registry.published.clone(), registry.status.clone(), move |placements| {
                standing.lock().place(placements);
            })?)
        };
        let going = Arc::new(AtomicBool::new(false));
        let reload = Arc::new(Mutex::new(Reload { state: "applied", ..Reload::default() }));
        watch(
            watched,
            config.clone(),
            Following { standing, traffic: Arc::downgrade(&traffic), levels: levels.clone() },
            reload.clone(),
        )?;
        let log_level = move |level: Option<&str>| {
            if let Some(level) = level {
                tracing::warn!(level, "log level changed by a caller");
                levels.set(level)?;
            }
            Ok(levels.now())
        };
        let ready = {
            let (registry, going) = (registry.clone(), going.clone());
            move || registry.is_ready() && !going.load(Ordering::Acquire)
        };
        let api = Api::new(Shared {
            gateway: Gateway::new(&registry, config.limits.in_flight.get(), splits),
            status: registry.status.clone(),
            ready: Box::new(ready),
            config_state: Box::new(move || serde_json::json!(*reload.lock())),
            control: registry.control(),
            log_level: Box::new(log_level),
            body: Bounds {
                size: usize::try_from(config.http.max_body.bytes()).unwrap_or(usize::MAX),
                time: config.http.body_timeout.get(),
            },
            message: usize::try_from(config.grpc.max_message.bytes()).unwrap_or(usize::MAX),
            protocols: protocols(&config.protocols),
            version: VERSION,
            root_path: config.http.root_path.trim_end_matches('/').to_owned(),
            openapi: Cache::default(),
        });
        let calls = Grpc::new(api.clone())?;
        Ok(Self {
            http,
            grpc,
            threads,
            ops,
            api,
            calls,
            registry,
            traffic,
            going,
            metrics,
            signals,
            engines: described,
            exporter,
            config,
        })
    }

    /// The lines that say where to look.
    pub fn welcome(&self) -> String {
        let base = format!("http://{}{}", self.http.local_addr(), self.config.http.root_path);
        format!(
            "sluicegate {VERSION} ({})\n  try it    {base}/docs\n  predict   {base}/models/<model>/predict\n  protocol  {base}/v2\n  grpc      {}\n  metrics   http://{}/metrics",
            self.engines,
            self.grpc.local_addr(),
            self.ops.local_addr()
        )
    }

    /// Serves until a signal, then: not ready, no new connections, what is in flight finishes within the grace.
    pub async fn serve(self) {
        let Self {
            config, http, grpc, threads, ops, api, calls, registry, traffic, going, metrics, mut signals, exporter, ..
        } = self;
        let shutdown = Shutdown::new(config.shutdown.grace.get());
        let render = {
            let (metrics, meters) = (metrics.clone(), registry.meters.clone());
            Arc::new(move |form| {
                let mut text = metrics.render();
                meters.render(&mut text, form);
                if form == Form::OpenMetrics { openmetrics(&text) } else { text }
            })
        };
        let upkeep = tokio::spawn(Metrics::upkeep(Metrics::clone(&metrics)));
        let mut routes = match &config.http.cors {
            Some(cors) => api.routes(rollout::routes(&traffic)).layer(cors_layer(cors)).into(),
            None => Routes::beside(api.clone(), rollout::routes(&traffic)),
        };
        if config.grpc.on_http {
            routes = routes.with_calls(calls.clone());
        }
        let served = tokio::spawn(http.serve(routes, threads.clone(), shutdown.clone()));
        let called = tokio::spawn(grpc.serve(Routes::calls(calls), threads, shutdown.clone()));
        // Operators watch the end of it too: their address closes last.
        let after = Shutdown::new(std::time::Duration::from_secs(1));
        let watched = tokio::spawn(ops.serve(
            sluicegate_admin::ops::routes(api.clone(), render, &traffic).into(),
            Arc::new(Threads::here()),
            after.clone(),
        ));

        let signal = signals.terminated().await;
        signals.exit_at_next();
        // Told once it is so: who reads the line may ask for readiness at once.
        going.store(true, Ordering::Release);
        tracing::info!(signal = signal.name(), grace = ?config.shutdown.grace.get(), "going: not ready, then no new connections");
        tokio::time::sleep(config.shutdown.not_ready.get()).await;
        shutdown.begin();
        match tokio::try_join!(served, called) {
            Ok((Drained { cut: 0 }, Drained { cut: 0 })) => tracing::info!("drained: every request was answered"),
            Ok((http, grpc)) => {
                let cut = http.cut + grpc.cut;
                tracing::warn!(cut, "connections cut: they did not finish within shutdown.grace");
            }
            Err(error) => tracing::error!(%error, "a listener failed"),
        }
        if let Some(exporter) = exporter {
            exporter.end().await;
        }
        after.begin();
        let _ = watched.await;
        upkeep.abort();
        // Ends the registry's thread; the versions are freed with the last handles.
        drop((api, traffic, registry));
    }
}

fn protocols(config: &config::Protocols) -> Protocols {
    let config::Protocols { control, v1, invocations, invocations_model, text, text_models } = config.clone();
    Protocols { control, v1, invocations, invocations_model, text, text_models }
}

fn cors_layer(cors: &config::Cors) -> CorsLayer {
    let origins = if cors.allow_origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(cors.allow_origins.iter().filter_map(|origin| origin.parse().ok()))
    };
    CorsLayer::new().allow_origin(origins).allow_methods(AllowMethods::any()).allow_headers(AllowHeaders::any())
}

/// What follows the configuration while the gateway runs.
struct Following {
    standing: Arc<Mutex<Standing>>,
    traffic: Weak<Traffic>,
    levels: Levels,
}

/// Follows the configuration file on a thread of its own: a valid change is applied, an invalid one refused whole.
fn watch(mut watched: Watched, mut config: Config, following: Following, reload: Arc<Mutex<Reload>>) -> Result<()> {
    let follow = move || loop {
        std::thread::sleep(WATCH);
        let Some(traffic) = following.traffic.upgrade() else { return };
        match watched.changed() {
            None => {}
            Some(Ok(next)) => {
                let needs_restart = following.apply(&traffic, &config, &next);
                counter!(metric::CONFIG_RELOADS, "outcome" => "applied").increment(1);
                tracing::info!(changed = ?config.changed_sections(&next), ?needs_restart, "configuration applied");
                *reload.lock() = Reload { state: "applied", errors: Vec::new(), needs_restart };
                config = next;
            }
            Some(Err(errors)) => {
                counter!(metric::CONFIG_RELOADS, "outcome" => "refused").increment(1);
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                tracing::error!(?errors, "configuration refused; what runs goes on");
                *reload.lock() = Reload { state: "refused", errors, needs_restart: Vec::new() };
            }
        }
    };
    let started = std::thread::Builder::new().name("config".into()).spawn(follow);
    started.map(drop).map_err(|error| Error::new(Code::Io, format!("no thread to watch the configuration: {error}")))
}

impl Following {
    /// Applies what can be applied; returns the changed sections that cannot.
    fn apply(&self, traffic: &Traffic, old: &Config, new: &Config) -> Vec<&'static str> {
        traffic.declare(moving::rollouts(new));
        self.standing.lock().configure(new.clone());
        if old.log.level != new.log.level
            && let Err(error) = self.levels.set(&new.log.level)
        {
            tracing::error!(%error, "log level stays as it was");
        }
        let live = ["models", "batching"];
        let only_level = old.log.format == new.log.format;
        old.changed_sections(new)
            .into_iter()
            .filter(|section| !(live.contains(section) || (*section == "log" && only_level)))
            .collect()
    }
}
