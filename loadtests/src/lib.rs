//! What the measurements share: medians with their spread, wrk, and the page that a run leaves behind.

pub mod open;
pub mod processors;
pub mod threads;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Values of one figure over the rounds of a run.
#[derive(Clone, Debug, Default)]
pub struct Figure(Vec<f64>);

impl Figure {
    /// Adds the value of one round.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The values, in their order.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value at a quantile, by the nearest rank; 0 where there is none.
    pub fn quantile(&self, q: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list")]
        let rank = (q * self.0.len().saturating_sub(1) as f64).round() as usize;
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// `mean +- its standard error`.
    pub fn mean(&self, digits: usize) -> String {
        let count = self.0.len() as f64;
        let mean = self.0.iter().sum::<f64>() / count;
        let variance = self.0.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        format!("{mean:.digits$} +- {:.digits$}", (variance / count).sqrt())
    }

    /// `median (lower to upper quartile)`.
    pub fn quartiles(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$} to {:.digits$})", self.median(), self.quantile(0.25), self.quantile(0.75))
    }

    /// `median (smallest to largest)`.
    pub fn show(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$} to {:.digits$})", self.median(), self.quantile(0.0), self.quantile(1.0))
    }
}

impl From<Vec<f64>> for Figure {
    fn from(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

/// What wrk saw.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Answers a second.
    pub rate: f64,
    /// Answers.
    pub answers: u64,
    /// The median latency in microseconds.
    pub p50: f64,
    /// The 99th percentile in microseconds.
    pub p99: f64,
    /// Answers other than 2xx and 3xx, and connections that broke.
    pub errors: u64,
}

/// What a wrk asks: an address, and the script that makes its requests.
#[derive(Clone, Debug)]
pub struct Asked {
    url: String,
    script: String,
}

impl Asked {
    /// Posts of one body.
    pub fn post(url: String, body: &str) -> Self {
        let quoted = body.replace('\\', "\\\\").replace('\'', "\\'");
        let script = format!("wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\nwrk.body = '{quoted}'\n");
        Self { url, script }
    }

    /// The same with more of a script in Lua.
    fn with(mut self, script: &str) -> Self {
        self.script.push_str(script);
        self
    }

    /// What wrk saw, and all that it and its script said.
    fn run(&self, connections: usize, seconds: u64, scratch: &Path) -> (Load, String) {
        let ended = self.start(connections, seconds, scratch).wait_with_output().expect("wrk ends");
        let text = String::from_utf8_lossy(&ended.stdout).into_owned();
        (Load::read(&text), text)
    }

    fn start(&self, connections: usize, seconds: u64, scratch: &Path) -> Child {
        let script = scratch.join("wrk.lua");
        std::fs::write(&script, &self.script).expect("a scratch directory can be written");
        Command::new("wrk")
            .args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "--latency", "-s"])
            .arg(&script)
            .arg(&self.url)
            .stdout(Stdio::piped())
            .spawn()
            .expect("wrk is installed (apt-get install wrk)")
    }
}

/// A wrk that asks one thing for a phase, another one for the next phase, and tells of each which it was, how many requests were sent
/// and how long it took. It looks at the clock at every twentieth request.
const PHASES: &str = r"
local ffi = require('ffi')
ffi.cdef[[typedef struct { long seconds, nanoseconds; } moment; int clock_gettime(int, moment*);]]
local moment, asked, sent, phase, since = ffi.new('moment'), 0, 0, 1
local function now() ffi.C.clock_gettime(1, moment); return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9 end
function init() prepare(); since = now() end
function request()
  asked, sent = asked + 1, sent + 1
  if asked % 20 == 0 then
    local passed = now() - since
    if passed > PHASE then
      print('phase', phase, sent, passed)
      phase, sent, since = 3 - phase, 0, since + passed
    end
  end
  return make(phase, asked)
end
";

/// Two things that are asked by one wrk over the same connections, in turn: a process differs from another one, and a connection from
/// another one, by some percent for as long as they live.
///
/// The script in Lua has a function `prepare()` and a function `make(phase, asked)`, which returns the request of that number in phase 1 or 2.
/// There are so many pairs of phases. Returned are the rates of both, and how many errors there were.
///
/// # Panics
/// As [`wrk`] does.
pub fn in_phases(
    asked: &Asked,
    script: &str,
    phase: Duration,
    pairs: u32,
    connections: usize,
    scratch: &Path,
) -> ([f64; 2], u64) {
    // The first ones are those of connections that begin.
    const BEGIN: u32 = 1;
    let phases = PHASES.replace("PHASE", &phase.as_secs_f64().to_string());
    let seconds = (phase * 2 * (pairs + BEGIN)).as_secs() + 1;
    let (load, told) = asked.clone().with(&phases).with(script).run(connections, seconds, scratch);
    let mut sums = [(0.0, 0.0); 2];
    let lines = told.lines().filter(|line| line.starts_with("phase"));
    for line in lines.skip(2 * BEGIN as usize).take(2 * pairs as usize) {
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [phase, sent, seconds] = numbers[..] else { panic!("wrk said: {line}") };
        let sum = &mut sums[usize::from(phase > 1.0)];
        *sum = (sum.0 + sent, sum.1 + seconds);
    }
    (sums.map(|(sent, seconds)| sent / seconds), load.errors)
}

/// Posts a body again and again over so many connections.
///
/// # Panics
/// Where wrk is not installed or says something else than it always does.
pub fn wrk(url: &str, body: &str, connections: usize, seconds: u64, scratch: &Path) -> Load {
    Asked::post(url.to_owned(), body).run(connections, seconds, scratch).0
}

impl Load {
    fn read(text: &str) -> Self {
        let after = |word: &str| text.lines().find_map(|line| line.trim().strip_prefix(word)).map(str::trim);
        let bad = after("Non-2xx or 3xx responses:").and_then(|count| count.parse().ok()).unwrap_or(0);
        let answers = text.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
        Self {
            rate: after("Requests/sec:").and_then(|rate| rate.parse().ok()).unwrap_or_else(|| panic!("wrk said: {text}")),
            answers: answers.unwrap_or_else(|| panic!("wrk said: {text}")),
            p50: after("50%").map_or(0.0, micros),
            p99: after("99%").map_or(0.0, micros),
            errors: bad + u64::from(text.contains("Socket errors")),
        }
    }
}

/// How long one of several loads runs before the next has its turn: long beside a request, and short beside what others take of a shared
/// machine, so that each load bears the same part of that.
const TURN: Duration = Duration::from_millis(100);

/// Asks each of some again and again in turn, a tenth of a second each time, in an order by chance. A wrk for each stands still while others
/// have theirs. Of what it returns, the rates are those of the turns, and times mean nothing.
///
/// # Panics
/// As [`wrk`] does.
pub fn in_turn(asked: &[Asked], connections: usize, turns: usize, scratch: &Path) -> Vec<Load> {
    const ENOUGH: u64 = 3_600;
    let tell = |child: &Child, signal| kill_process(Pid::from_child(child), signal).expect("wrk runs");
    let start = |asked: &Asked| {
        let child = asked.start(connections, ENOUGH, scratch);
        // It reads its script and connects.
        thread::sleep(TURN);
        tell(&child, Signal::STOP);
        (child, Duration::ZERO)
    };
    let mut order: Vec<usize> = (0..asked.len()).collect();
    // Who connects first is chance too.
    fastrand::shuffle(&mut order);
    let mut loads: Vec<_> = order.iter().map(|&place| (place, start(&asked[place]))).collect();
    loads.sort_by_key(|(place, _)| *place);
    let mut loads: Vec<_> = loads.into_iter().map(|(_, load)| load).collect();
    for _ in 0..turns {
        // By chance, so that nobody's turn is behind the same one more often than another's: what that left in caches, or to do, counts.
        fastrand::shuffle(&mut order);
        for &place in &order {
            let (child, ran) = &mut loads[place];
            let began = Instant::now();
            tell(child, Signal::CONT);
            thread::sleep(TURN);
            tell(child, Signal::STOP);
            *ran += began.elapsed();
        }
    }
    let end = |(mut child, ran): (Child, Duration)| {
        tell(&child, Signal::CONT);
        // Once for the thread that asks, and once for the one that sleeps meanwhile: who gets a signal is chance.
        while child.try_wait().expect("it is ours").is_none() {
            tell(&child, Signal::INT);
            thread::sleep(TURN / 10);
        }
        let load = Load::read(&String::from_utf8_lossy(&child.wait_with_output().expect("wrk ends").stdout));
        // Also what it did before its first turn.
        let rate = load.answers as f64 / (ran + TURN).as_secs_f64();
        Load { rate, ..load }
    };
    loads.into_iter().map(end).collect()
}

/// A child that ends with this process.
#[derive(Debug)]
pub struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program that is built beside this one, and waits for the address that it prints.
///
/// # Panics
/// Where it is not there, or tells none.
pub fn child(name: &str) -> (Ending, String) {
    let mut path = std::env::current_exe().expect("this program has a path");
    path.set_file_name(name);
    let mut child = Command::new(path).stdout(Stdio::piped()).spawn().expect("it is built beside this program");
    let mut address = String::new();
    let out = child.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut address).expect("it tells its address");
    (Ending(child), address.trim().to_owned())
}

/// Does both, the first one first in every other round: what drifts while a run lasts, is then on nobody's side.
pub fn both<T>(round: usize, first: impl FnOnce() -> T, second: impl FnOnce() -> T) -> (T, T) {
    if round.is_multiple_of(2) {
        let one = first();
        return (one, second());
    }
    let other = second();
    (first(), other)
}

/// wrk's `88.00us`, `1.20ms`, `2.00s` in microseconds.
fn micros(text: &str) -> f64 {
    let number = text.trim_end_matches(char::is_alphabetic);
    let scale = match &text[number.len()..] {
        "us" => 1.0,
        "ms" => 1e3,
        _ => 1e6,
    };
    number.parse::<f64>().unwrap_or_default() * scale
}

/// The machine and the commit, for the head of a page.
pub fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} x {}, commit {}", cores, model.trim_start_matches([' ', '\t', ':']), commit())
}

/// The commit, with a `+` where the tree has changes.
pub fn commit() -> String {
    let git = |args: &[&str]| {
        let out = Command::new("git").args(args).output();
        out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
    };
    let dirty = if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { "+" };
    format!("{}{dirty}", git(&["rev-parse", "--short=9", "HEAD"]))
}

/// Writes a page to `loadtests/results/<date>-<commit>-<name>.md` and says where.
///
/// # Panics
/// Where it cannot be written.
#[expect(clippy::print_stdout, reason = "a measurement prints")]
pub fn publish(name: &str, page: &str) {
    let date = Command::new("date").arg("+%F").output().map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let commit = commit().replace('+', "-changed");
    let file = format!("{}-{commit}-{name}.md", date.unwrap_or_default());
    let path: PathBuf = sluicegate_testkit::process::repository().join("loadtests/results").join(file);
    std::fs::write(&path, page).expect("loadtests/results can be written");
    println!("{page}\nwritten to loadtests/results/{}", path.file_name().unwrap_or_default().to_string_lossy());
}

/// A table in Markdown.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        // Writing to memory does not fail.
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}
