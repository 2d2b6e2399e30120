//! A receiver of webhooks that does what a script says: a listener of the standard library, so that it can also hang and close.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use sluicegate_core::metric;
use sluicegate_outbound::webhook::{Event, Hook, Hooks, Kind, Pace};

/// How long anything may take that a test waits for. Generous: the machine may have other work.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the receiver does with a request; it answers 200 when the script is at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// A status, with further lines of the head.
    Answer(u16, &'static str),
    /// Reads the request and says nothing.
    Hang,
    /// Reads the request and closes the connection.
    Close,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) path: String,
    /// By their names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }
}

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    pub(crate) fn start(script: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (got, script) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(VecDeque::from(script.to_vec()))));
        let all = Arc::clone(&got);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (got, script) = (Arc::clone(&all), Arc::clone(&script));
                thread::spawn(move || serve(stream, &got, &script));
            }
        });
        Self { address, got }
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().clone()
    }

    /// Waits until this many requests came, and gives them.
    pub(crate) fn wait(&self, count: usize) -> Vec<Got> {
        wait_for(&format!("{count} requests"), || self.got().len() >= count);
        self.got()
    }

    pub(crate) fn hook(&self) -> Hook {
        hook(&format!("http://{}/events?token=T0K3N", self.address))
    }
}

fn serve(stream: TcpStream, got: &Mutex<Vec<Got>>, script: &Mutex<VecDeque<Act>>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).is_err() || line.is_empty() {
        return;
    }
    let path = line.split(' ').nth(1).expect("a path").to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).expect("a head");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().expect("a length")];
    stream.read_exact(&mut body).expect("a body");
    let act = script.lock().pop_front().unwrap_or(Act::Answer(200, ""));
    got.lock().push(Got { path, headers, body });
    match act {
        Act::Answer(status, more) => {
            let _ = write!(stream.get_mut(), "HTTP/1.1 {status} Said\r\ncontent-length: 2\r\n{more}\r\nok");
        }
        Act::Hang => thread::park(),
        Act::Close => {}
    }
}

/// A hook that tries often and soon.
pub(crate) fn hook(url: &str) -> Hook {
    Hook {
        url: url.parse().expect("an address"),
        secret: None,
        events: Vec::new(),
        timeout: DEADLINE,
        max_attempts: 20.try_into().expect("not 0"),
        pace: Pace { first: Duration::from_millis(1), most: Duration::from_millis(20) },
    }
}

pub(crate) fn event(number: usize) -> Event {
    let data = serde_json::json!({"number": number, "why": "the error rate is at most 0.1 % with 95 %"});
    Event { id: format!("fraud-{number}"), kind: Kind::RolloutStep, model: "fraud".to_owned(), time_ms: 1_785_412_800_123, data }
}

/// Hooks, and what they count.
pub(crate) struct Started {
    pub(crate) hooks: Hooks,
    metrics: PrometheusHandle,
}

pub(crate) fn start(hooks: Vec<Hook>) -> Started {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    // The counters are looked up where the hooks are started, and count wherever they are.
    let hooks = metrics::with_local_recorder(&recorder, || Hooks::start(hooks, "/sluicegate")).expect("hooks start");
    Started { hooks, metrics }
}

impl Started {
    pub(crate) fn emit(&self, count: usize) {
        (0..count).for_each(|number| self.hooks.emit(&event(number)));
    }

    /// What is counted for a hook, by outcome; `retries` and `queue` with them. Nothing that is 0.
    pub(crate) fn counts(&self, hook: usize) -> BTreeMap<String, u64> {
        let text = self.metrics.render();
        let mut counts = BTreeMap::new();
        for line in text.lines().filter(|line| line.contains(&format!("hook=\"{hook}\""))) {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let name = match series.split_once("outcome=\"") {
                Some((_, outcome)) => outcome.split('"').next().expect("an outcome"),
                None if series.starts_with(metric::WEBHOOK_RETRIES) => "retries",
                None => "queue",
            };
            if value != "0" {
                counts.insert(name.to_owned(), value.parse().expect("a count"));
            }
        }
        counts
    }

    /// Waits until that is counted, and nothing else.
    pub(crate) fn wait_counts(&self, hook: usize, expected: &[(&str, u64)]) {
        let expected: BTreeMap<String, u64> = expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        wait_for(&format!("{expected:?}"), || self.counts(hook) == expected);
    }
}

pub(crate) fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
