//! What traces cost: one tabular row over HTTP by a gateway that tells none, one that tells 1 % and one that tells all, in one run; and by
//! one gateway whose callers have 1 % of their requests traced for one moment, and none for the next.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::net::RecvFlags;
use rustix::time::{ClockId, clock_gettime};
use sluicegate_loadtests::processors::{self, on};
use sluicegate_loadtests::{Asked, Figure, in_phases, in_turn, machine, publish, table};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::process::{Gateway, repository};

const ROUNDS: usize = 12;
/// Turns of a tenth of a second that each has in a round.
const TURNS: usize = 12;
/// Turns before those, of which nothing is kept.
const WARM: usize = 5;
const CONNECTIONS: usize = 16;
/// Where wrk has a processor of its own: so many that the gateway has always more to do.
const MORE: usize = 64;
const MODEL: &str = "breast-cancer";

/// What is measured: a name, and the part of requests that is traced. The first two are alike, to show what chance does.
const CASES: [(&str, Option<&str>); 5] =
    [("no receiver named", None), ("the same once more", None), ("none", Some("0")), ("1 %", Some("0.01")), ("100 %", Some("1"))];

/// What a caller says of a request that is to be traced, and of others.
const SAID: &str = r"
local traced, untraced
local function sampled(flag)
  wrk.headers['traceparent'] = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0' .. flag
  return wrk.format()
end
function prepare() traced, untraced = sampled(1), sampled(0) end
function make(phase, asked) return (phase == 2 and asked % 100 < PART) and traced or untraced end
";
/// How many of a hundred are traced in every other phase (none, to show what chance does), how long phases are, and how many pairs of them there
/// are in a round. The long ones show what a phase of traces leaves for the next one to pay.
const WITHIN: [(u32, Duration, u32); 4] = [
    (0, Duration::from_millis(50), 40),
    (1, Duration::from_millis(50), 40),
    (0, Duration::from_secs(1), 4),
    (1, Duration::from_secs(1), 4),
];

fn main() {
    let received = Arc::<Received>::default();
    let endpoint = format!("http://{}", receive(&received));
    let models = repository().join("models");
    let config = format!("registries: {{ local: {{ type: directory, path: '{}' }} }}", models.display());
    let mut rates: [Figure; CASES.len()] = Default::default();
    let mut ratios: [Figure; CASES.len()] = Default::default();
    let (mut within, mut apart): ([Figure; WITHIN.len()], [Figure; WITHIN.len()]) = Default::default();
    let mut told = [(0.0, 0.0); CASES.len()];
    let mut errors = 0;
    for _ in 0..ROUNDS {
        // Anew in each round: two processes of the same program differ by some percent for as long as they live. In an order by chance too:
        // the one that is started first answers some percent more than those after it, whatever they do.
        let mut order: Vec<usize> = (0..CASES.len()).collect();
        fastrand::shuffle(&mut order);
        let mut gateways: Vec<_> = order.iter().map(|&case| (case, start(CASES[case].1, &endpoint, &config))).collect();
        gateways.sort_by_key(|(case, _)| *case);
        let gateways: Vec<_> = gateways.into_iter().map(|(_, started)| started).collect();
        let body = gateways[0].0.client().get(&format!("/models/{MODEL}")).expect("an answer").json()["example"].to_string();
        let post = |case: usize| Asked::post(format!("http://{}/models/{MODEL}/predict", gateways[case].0.http()), &body);
        let mut measure = |asked: &[Asked], turns| {
            let loads = in_turn(asked, CONNECTIONS, turns, gateways[0].1.path());
            errors += loads.iter().map(|load| load.errors).sum::<u64>();
            loads.iter().map(|load| load.rate).collect::<Vec<_>>()
        };
        // The first message waits until the machine's certificates are read, which is long beside the turns.
        let _ = measure(&[0, 1, 2, 3, 4].map(post), WARM);
        let found = measure(&[0, 1, 2, 3].map(post), TURNS);
        add(&found, f64::midpoint(found[0], found[1]), 0..4, &mut rates, &mut ratios);
        // Apart, because what one leaves to be sent runs on into the next one's turn.
        let found = measure(&[0, 4].map(post), TURNS);
        add(&found, found[0], [0, 4].into_iter(), &mut rates, &mut ratios);
        errors += ask_in_phases(&post(3), CONNECTIONS, gateways[0].1.path(), &mut within);
        for (told, (gateway, _)) in told.iter_mut().zip(&gateways) {
            let spans = |outcome| gateway.metric("sluicegate_trace_spans_total", &[("outcome", outcome)]);
            *told = (told.0 + spans("sent"), told.1 + spans("dropped"));
        }
        drop(gateways);
        if let [rest @ .., last] = &processors::all()[..]
            && !rest.is_empty()
        {
            // The receiver is beside wrk, as one that is elsewhere would be.
            let endpoint = on(&[*last], || format!("http://{}", receive(&received)));
            let (gateway, scratch) = on(rest, || start(Some("0"), &endpoint, &config));
            let asked = Asked::post(format!("http://{}/models/{MODEL}/predict", gateway.http()), &body);
            errors += on(&[*last], || {
                let warm = in_phases(&asked, &SAID.replace("PART", "1"), WITHIN[0].1, 10, MORE, scratch.path()).1;
                warm + ask_in_phases(&asked, MORE, scratch.path(), &mut apart)
            });
        }
    }
    let row = |case: usize| {
        let spans = format!("{:.0} / {:.0}", told[case].0, told[case].1);
        vec![CASES[case].0.to_owned(), rates[case].quartiles(0), ratios[case].quartiles(1), ratios[case].mean(1), spans]
    };
    let within: Vec<_> = WITHIN
        .iter()
        .zip(within.iter().zip(&apart))
        .map(|((part, phase, _), (shared, apart))| vec![format!("{part} %"), format!("{phase:?}"), shared.mean(2), apart.mean(2)])
        .collect();
    let sum = |count: &AtomicU64| count.load(Relaxed) as f64;
    let messages = sum(&received.messages);
    let (kib, micros) = (sum(&received.bytes) / messages / 1024.0, sum(&received.nanoseconds) / messages / 1e3);
    let page = format!(
        "# What traces cost\n\n{}. wrk on the same machine, {CONNECTIONS} connections, {ROUNDS} rounds with new gateways, in each {TURNS} turns of a tenth of a second for each; medians \
         with the quartiles, those of the ratios too, which are to the mean of those of the same round that name no receiver. `{MODEL}`: 30 named numbers as JSON, \
         gradient boosting. The receiver of traces is in the process of the measurement, at the lowest priority, and has the system throw away what it gets: one that reads it is elsewhere.\n\n{}\n\
         Two gateways of one kind differ by some percent for as long as they live, which is more than 1 % of traces costs. So the same with one gateway and one wrk, which has \
         a part of its requests traced, by what it says in `traceparent`, for a phase, and none for the next one; answers a second in percent of those in the phases between, means with their standard \
         errors. Once on all processors together, and once with wrk and the receiver on one and the gateway on the rest, {MORE} connections: what traces take of the gateway.\n\n{}\n\
         Errors: {errors}. The receiver was sent {messages:.0} messages of {kib:.0} KiB each, and took {micros:.0} microseconds of a processor for each. Dropped are spans for which the queue of 2,048 had no room: a thread that gets no processor sends none.\n",
        machine(),
        table(
            &["traced", "answers/s", "% of those without", "mean", "spans sent / dropped"],
            &(0..CASES.len()).map(row).collect::<Vec<_>>()
        ),
        table(&["traced in every other phase", "of", "all together", "apart"], &within),
    );
    publish("traces", &page);
}

/// Asks one gateway in all the phases of [`WITHIN`]. Returns how many errors there were.
fn ask_in_phases(asked: &Asked, connections: usize, scratch: &Path, within: &mut [Figure]) -> u64 {
    let mut errors = 0;
    for ((part, phase, pairs), figure) in WITHIN.into_iter().zip(within) {
        let script = SAID.replace("PART", &part.to_string());
        let ([quiet, traced], wrong) = in_phases(asked, &script, phase, pairs, connections, scratch);
        errors += wrong;
        figure.add(100.0 * traced / quiet);
    }
    errors
}

/// Adds a round's rates and what they are beside the quiet one, in percent, each at its place.
fn add(found: &[f64], quiet: f64, places: impl Iterator<Item = usize>, rates: &mut [Figure], ratios: &mut [Figure]) {
    for (place, rate) in places.zip(found) {
        rates[place].add(*rate);
        ratios[place].add(100.0 * rate / quiet);
    }
}

fn start(ratio: Option<&str>, endpoint: &str, config: &str) -> (Gateway, Folder) {
    let scratch = Folder::default();
    let sampler = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", ratio.unwrap_or_default()),
    ];
    let gateway = Gateway::start_with(&scratch, config, if ratio.is_some() { &sampler } else { &[] });
    (gateway, scratch)
}

/// What the receiver was sent, and the processor's time that it took.
#[derive(Default)]
struct Received {
    messages: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

/// A receiver that lets the system throw away what it is sent, at the lowest priority: one that reads it is elsewhere, and what it does
/// with spans is not for the gateway to pay. What is in the messages the tests look at.
fn receive(received: &Arc<Received>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let received = received.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, received) = (stream.expect("a connection"), received.clone());
            std::thread::spawn(move || {
                sluicegate_engine::lower_priority();
                // The least of all. For this thread alone, on Linux; where it fails, the figures are lower.
                let _ = rustix::process::setpriority_process(None, 19);
                take(stream, &received);
            });
        }
    });
    address
}

/// Most bytes that are read to find the end of a request's head: what is behind it is not to be copied.
const HEAD: usize = 1024;

/// Answers all that comes over a connection, until it ends.
fn take(mut stream: TcpStream, received: &Received) {
    let mut room = vec![0; 1 << 20];
    let mut before = 0;
    loop {
        let mut head = 0;
        let (ends, length): (usize, usize) = loop {
            match stream.read(&mut room[head..HEAD]) {
                Ok(0) | Err(_) => return,
                Ok(read) => head += read,
            }
            if let Some(end) = room[..head].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let fields = String::from_utf8_lossy(&room[..end]).to_ascii_lowercase();
                let length = fields.lines().find_map(|field| field.strip_prefix("content-length:")?.trim().parse().ok());
                break (end + 4, length.expect("a message has a length"));
            }
        };
        let mut rest = length - (head - ends);
        while rest > 0 {
            let most = rest.min(room.len());
            match rustix::net::recv(&stream, &mut room[..most], RecvFlags::TRUNC) {
                Ok((_, read)) if read > 0 => rest -= read,
                _ => return,
            }
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
        let now = clock_gettime(ClockId::ThreadCPUTime);
        let now = u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or(before);
        received.messages.fetch_add(1, Relaxed);
        received.bytes.fetch_add(length as u64, Relaxed);
        received.nanoseconds.fetch_add(now - std::mem::replace(&mut before, now), Relaxed);
    }
}
