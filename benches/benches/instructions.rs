//! Instructions of the parts that every request passes, by valgrind: the same on a busy machine as on an idle one.
//!
//! `cargo bench -p sluicegate-benches --bench instructions` compares with `benches/instructions.md`; with `-- --write`, it
//! writes that page. Each case runs in a process of its own under callgrind, which counts what [`measured`] calls.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use sluicegate_batch::policy::{DEFAULT_LEVEL, Entry, Key, Waiting};
use sluicegate_batch::stack::{self, Scratch};
use sluicegate_batch::{Limits, Padding};
use sluicegate_benches as row;
use sluicegate_codec::record::{self, Form, encode};
use sluicegate_codec::{binary, json};
use sluicegate_core::{Shape, Tensor};

/// Calls before the count, for buffers that are made once, and calls that are counted.
const WARM_UP: usize = 10;
const COUNTED: usize = 100;

/// Rows of a batch that is joined and cut.
const ROWS: usize = 32;

type Case = (&'static str, fn());

const CASES: [Case; 10] = [
    ("decode/typed", || {
        let (signature, body) = (row::signature(), row::typed());
        count(|| record::read(&signature, &body).expect("a good row"));
    }),
    ("decode/v2-json", || {
        let body = row::v2();
        count(|| json::read(&body, None).expect("a good row"));
    }),
    ("decode/v2-binary", || {
        let (head, body) = row::binary();
        let head = head.to_string();
        count(|| {
            let (head, raw) = binary::split(Some(&head), body.clone()).expect("a good body");
            json::read(&head, raw).expect("a good row")
        });
    }),
    ("encode/typed", || {
        let (signature, response) = (row::signature(), row::response());
        count(|| encode::write(&signature, &response, Form::One));
    }),
    ("encode/v2-json", || {
        let response = row::response();
        count(|| json::write(&response, "1", &json::Outputs::default()).expect("has a JSON form"));
    }),
    ("encode/v2-binary", || {
        let response = row::response();
        count(|| json::write(&response, "1", &json::Outputs::new(true)).expect("writes"));
    }),
    ("policy/1-row", || policy(1)),
    ("policy/64-rows", || policy(64)),
    ("stack/join-32-rows", || {
        let (parts, mut scratch) = (rows(), Scratch::default());
        let views: Vec<&[Tensor]> = parts.iter().map(Vec::as_slice).collect();
        count(|| stack::join(&views, &Padding::default(), &mut scratch).expect("same shapes"));
    }),
    ("stack/cut-32-rows", || {
        let joined: Vec<Tensor> = rows().concat();
        let whole = joined[0].shape().with_rows(ROWS);
        let numbers = joined.iter().flat_map(|row| row.values::<f32>().expect("FP32").to_vec()).collect();
        let outputs = [Tensor::from_vec(whole, numbers).expect("fits")];
        count(|| stack::cut(&outputs, &[1; ROWS]).expect("rows are kept"));
    }),
];

fn rows() -> Vec<Vec<Tensor>> {
    let shape = Shape::new(&[1, row::COLUMNS]);
    let one = |number: usize| Tensor::from_vec(shape.clone(), vec![number as f32; row::COLUMNS]).expect("fits");
    (0..ROWS).map(|number| vec![one(number)]).collect()
}

/// So many rows come, and leave as one batch.
fn policy(rows: usize) {
    let limits = Limits { max_rows: 64, max_delay: Duration::ZERO, queue_rows: 4096 };
    let mut queue = Waiting::default();
    let arrived = Instant::now();
    let deadline = arrived + Duration::from_secs(60);
    count(|| {
        for _ in 0..rows {
            let key = Key::from_slice(&[0, 2, row::COLUMNS]);
            queue.push(Entry { rows: 1, key, arrived, deadline, level: DEFAULT_LEVEL, payload: () });
        }
        queue.next(arrived, &limits, &[], |_| false, drop)
    });
}

fn count<T>(mut call: impl FnMut() -> T) {
    for _ in 0..WARM_UP {
        black_box(call());
    }
    for _ in 0..COUNTED {
        measured(&mut call);
    }
}

/// What callgrind knows by its name.
#[inline(never)]
fn measured<T>(call: &mut impl FnMut() -> T) {
    black_box(call());
}

/// Runs one case under callgrind; the instructions of one call.
fn instructions(case: &str) -> Option<u64> {
    let itself = std::env::current_exe().ok()?;
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .args(["--toggle-collect=*instructions*measured*", "--"])
        .arg(itself)
        .args(["--case", case])
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let total = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<u64>().ok());
    if total.is_none_or(|total| total == 0) {
        eprintln!("{case}: callgrind counted nothing\n{said}");
    }
    Some(total? / COUNTED as u64)
}

/// The count that the page has for a case.
fn recorded(page: &str, case: &str) -> Option<u64> {
    let line = page.lines().find(|line| line.starts_with(&format!("| {case} |")))?;
    line.split('|').nth(2)?.trim().replace(',', "").parse().ok()
}

/// `12345` as `12,345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// The first line that a command prints.
fn first_line(command: &str, args: &[&str]) -> String {
    let out = Command::new(command).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

#[expect(clippy::print_stdout, reason = "a measurement prints")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(place) = args.iter().position(|arg| arg == "--case") {
        let case = CASES.iter().find(|(name, _)| args.get(place + 1).is_some_and(|asked| asked == name));
        case.map_or_else(|| eprintln!("no such case"), |(_, run)| run());
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions: skipped, valgrind is missing: apt-get install valgrind");
        return ExitCode::SUCCESS;
    }
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.md");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let mut page = format!(
        "<!-- Written by benches/instructions.rs: `make instructions WRITE=1`. -->\n# Instructions\n\n\
         What one tabular row of {} numbers takes in the parts that every request passes, counted by callgrind: the same on a busy\n\
         machine as on an idle one. Measured on {}, commit {}, {}, {}.\n\n| part | instructions |\n|---|---|\n",
        row::COLUMNS,
        first_line("date", &["+%Y-%m-%d"]),
        first_line("git", &["describe", "--always", "--dirty=+", "--abbrev=9", "--match", "nothing"]),
        first_line("rustc", &["--version"]),
        first_line("valgrind", &["--version"]),
    );
    for (case, _) in CASES {
        let Some(now) = instructions(case) else { return ExitCode::FAILURE };
        let change = recorded(&before, case).map_or_else(String::new, |before| {
            format!("{:+.1} % of {}", (now as f64 / before.max(1) as f64 - 1.0) * 100.0, grouped(before))
        });
        println!("{case:20} {:>10}  {change}", grouped(now));
        let _ = writeln!(page, "| {case} | {} |", grouped(now));
    }
    if args.iter().any(|arg| arg == "--write") {
        return match std::fs::write(&path, page) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                ExitCode::FAILURE
            }
        };
    }
    ExitCode::SUCCESS
}
