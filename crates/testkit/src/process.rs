//! The real binary, started on free ports over a directory of the test's own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde_json::Value;

use crate::client::{Client, Request};
use crate::folder::Folder;

/// How long anything may take that a test waits for. Generous: the machine may have other work.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks again and again until there is something, and gives up at the [`DEADLINE`].
///
/// # Panics
/// With `what` where it does not come.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for this: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The engine that this run of the tests is for, as `SLUICEGATE_TEST_ENGINE` says: `auto`, `onnxruntime` or `tract`.
pub fn engine() -> String {
    #[expect(clippy::disallowed_methods, reason = "which engine to test is told to the tests, not to the product")]
    let asked = std::env::var("SLUICEGATE_TEST_ENGINE");
    asked.unwrap_or_else(|_| "auto".to_owned())
}

/// The top of the repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("crates/testkit is two below it").to_owned()
}

/// The binary beside the running test; built where it is missing, older than its sources, or not of this test's features.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows where it is");
        let folder = test.parent().expect("a program is in a folder");
        // Tests are in target/<profile>/deps, measurements in target/<profile>.
        let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        let binary = profile.join("sluicegate");
        if !is_fresh(&binary) {
            let release = profile.ends_with("release").then_some("--release");
            let build = Command::new("cargo")
                .args(["build", "--package", "sluicegate-server", "--locked"])
                .args(cfg!(feature = "candle").then_some("--features=candle"))
                .args(release)
                .current_dir(repository())
                .status();
            assert!(build.expect("cargo runs").success(), "the binary that is tested does not build");
        }
        binary
    })
}

/// Whether no source that cargo lists for the binary was changed after it, and it has the engines that the test is for.
fn is_fresh(binary: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let (Some(built), Ok(list)) = (changed(binary), std::fs::read_to_string(binary.with_extension("d"))) else { return false };
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources);
    let sources: Vec<&Path> = sources.split_whitespace().map(Path::new).collect();
    let has = |engine| sources.iter().any(|source| source.ends_with(engine));
    has("engine/src/tract.rs")
        && has("engine/src/candle.rs") == cfg!(feature = "candle")
        && sources.into_iter().all(|source| changed(source).is_some_and(|time: SystemTime| time <= built))
}

/// A command of the binary, with nothing of the caller's environment that would configure it.
pub fn command<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(binary());
    command.args(args).current_dir(repository()).stdin(Stdio::null());
    let configures = |name: &OsStr| ["SLUICEGATE__", "OTEL_"].iter().any(|begin| name.to_string_lossy().starts_with(begin));
    for (name, _) in std::env::vars_os().filter(|(name, _)| configures(name)) {
        command.env_remove(name);
    }
    command.env("SLUICEGATE__ENGINE__DEFAULT", engine());
    command
}

/// How a process ended, and all that it said.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// The lines of its standard error.
    pub log: Vec<String>,
}

/// Runs a command to its end.
///
/// # Panics
/// Where it does not end by the [`DEADLINE`].
pub fn run(mut command: Command) -> Ended {
    Process::spawn(&mut command).ended()
}

/// A running process whose output is read as it comes.
#[derive(Debug)]
struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    out: Arc<Mutex<String>>,
}

impl Process {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (log, out) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(String::new())));
        let (stderr, lines) = (child.stderr.take().expect("piped"), log.clone());
        let (mut stdout, text) = (child.stdout.take().expect("piped"), out.clone());
        let follow = move || BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| lines.lock().push(line));
        let collect = move || {
            let mut all = String::new();
            let _ = stdout.read_to_string(&mut all);
            *text.lock() = all;
        };
        Self { child, log, out, readers: vec![std::thread::spawn(follow), std::thread::spawn(collect)] }
    }

    fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    fn ended(mut self) -> Ended {
        let status = wait_for("the end of the process", || self.has_ended());
        for reader in std::mem::take(&mut self.readers) {
            let _ = reader.join();
        }
        Ended { status, out: self.out.lock().clone(), log: self.log.lock().clone() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway that serves the models of a [`Folder`].
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    http: SocketAddr,
    grpc: SocketAddr,
    ops: SocketAddr,
}

impl Gateway {
    /// Starts it over a folder with this configuration, and waits until it is ready. Addresses are chosen by the system;
    /// where `config` has no `registries`, the folder's models are looked at every 20 ms and settle in 100 ms.
    ///
    /// # Panics
    /// With all that it said, where it does not become ready.
    pub fn start(folder: &Folder, config: &str) -> Self {
        Self::start_with(folder, config, &[])
    }

    /// The same with these variables in its environment.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with(folder: &Folder, config: &str, variables: &[(&str, &str)]) -> Self {
        let mut gateway = Self::begin_with(folder, config, variables);
        wait_for("a gateway that is ready", || {
            if let Some(status) = gateway.process.has_ended() {
                panic!("the gateway ended with {status}: {:#?}", gateway.log());
            }
            gateway.is_ready().then_some(())
        });
        gateway
    }

    /// The same without waiting for its models: only its addresses are open.
    ///
    /// # Panics
    /// With all that it said, where it ends at once.
    pub fn begin(folder: &Folder, config: &str) -> Self {
        Self::begin_with(folder, config, &[])
    }

    fn begin_with(folder: &Folder, config: &str, variables: &[(&str, &str)]) -> Self {
        write_config(folder, config);
        let file = folder.path().join("sluicegate.yaml");
        let args =
            ["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--config"].map(OsStr::new);
        let mut command = command(args.into_iter().chain([file.as_os_str()]));
        let mut process = Process::spawn(command.envs(variables.iter().copied()));
        let mut address = |name: &str| {
            wait_for("an open address", || {
                let found = process.log.lock().iter().find_map(|line| listening(line, name));
                if let (None, Some(status)) = (found, process.has_ended()) {
                    panic!("the gateway ended with {status}: {:#?}", process.log.lock());
                }
                found
            })
        };
        let (http, grpc, ops) = (address("http"), address("grpc"), address("ops"));
        Self { process, http, grpc, ops }
    }

    /// Its address for applications.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Its address for gRPC.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Its address for operators.
    pub fn ops(&self) -> SocketAddr {
        self.ops
    }

    /// A new client of the applications' address.
    pub fn client(&self) -> Client {
        Client::new(self.http)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// What it has logged up to now.
    pub fn log(&self) -> Vec<String> {
        self.process.log.lock().clone()
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.ask("/readyz").is_ok_and(|response| response.status == 200)
    }

    fn ask(&self, path: &str) -> std::io::Result<crate::client::Response> {
        Client::new(self.ops).request(&Request::new("GET", path).header("connection", "close"))
    }

    /// `/status`.
    pub fn status(&self) -> Value {
        self.ask("/status").expect("the ops address answers").json()
    }

    /// What `/status` says of one model; `null` where it does not know it.
    pub fn model(&self, name: &str) -> Value {
        let status = self.status();
        let models = status["models"].as_array().cloned().unwrap_or_default();
        models.into_iter().find(|model| model["name"] == name).unwrap_or_default()
    }

    /// What `/status` says of one version: its state, as `live`, and the reason for it.
    pub fn version(&self, model: &str, version: u64) -> (String, String) {
        let version = &self.model(model)["versions"][version.to_string()];
        let text = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("reason"))
    }

    /// Waits until a version is in this state; its reason.
    ///
    /// # Panics
    /// Where that does not happen.
    pub fn wait_for_state(&self, model: &str, version: u64, state: &str) -> String {
        wait_for(&format!("{model}/{version} {state}"), || {
            let (now, reason) = self.version(model, version);
            (now == state).then_some(reason)
        })
    }

    /// The sum of a metric's samples that have all of these labels; 0 where there are none.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let text = self.ask("/metrics").expect("the ops address answers").text();
        let samples = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && wanted.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Resident memory in bytes, as the system counts it.
    ///
    /// # Panics
    /// Where the process is gone.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.expect("the system counts its memory") * 1024
    }

    /// Sends it a signal: `TERM`, `INT`.
    ///
    /// # Panics
    /// Where that cannot be sent.
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status();
        assert!(kill.expect("kill runs").success(), "SIG{name} is sent");
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(self) -> Ended {
        self.signal("TERM");
        self.ended()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn ended(self) -> Ended {
        self.process.ended()
    }
}

/// Writes a folder's `sluicegate.yaml`, in one step, as [`Gateway::start`] has it.
///
/// # Panics
/// Where it cannot be written.
pub fn write_config(folder: &Folder, config: &str) {
    let own = config.lines().any(|line| line.starts_with("registries:"));
    let registries = "registries: { local: { type: directory, path: models, poll: 20ms, settle: 100ms } }\n";
    let text = format!("{}{config}\n", if own { "" } else { registries });
    let (hidden, file) = (folder.path().join(".sluicegate.yaml"), folder.path().join("sluicegate.yaml"));
    std::fs::write(&hidden, text).and_then(|()| std::fs::rename(&hidden, &file)).expect("a configuration is written");
}

fn listening(line: &str, name: &str) -> Option<SocketAddr> {
    let event: BTreeMap<String, Value> = serde_json::from_str(line).ok()?;
    let labels = event.get("labels").filter(|_| event.get("message").is_some_and(|message| message == "listening"))?;
    labels["address"].as_str().filter(|_| labels["listener"] == name)?.parse().ok()
}
