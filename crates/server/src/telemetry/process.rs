//! The facts of this process, read from `/proc` when they are asked for, and of its build.

use std::fmt::Write;
use std::fs;

use sluicegate_core::metric::{self, Type};

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that was built, or `unknown`.
pub const COMMIT: &str = env!("SLUICEGATE_COMMIT");

/// The compiler that built it.
pub const RUSTC: &str = env!("SLUICEGATE_RUSTC");

/// Ticks a second in `/proc`: the kernel's USER_HZ, which is 100 on every platform that we build for.
const TICKS: f64 = 100.0;

/// What `/proc` says about this process. What it does not say is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Processor time used, of user and system.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// When it started, in seconds since 1970.
    pub start_seconds: Option<f64>,
}

impl Facts {
    /// Reads them now.
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).ok();
        let mut facts = Self::parse(
            &text("/proc/self/stat").unwrap_or_default(),
            &text("/proc/self/status").unwrap_or_default(),
            &text("/proc/stat").unwrap_or_default(),
        );
        // the directory that is being read is open too
        facts.open_fds = fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1));
        facts
    }

    fn parse(stat: &str, status: &str, system: &str) -> Self {
        // the second field is the program's name in parentheses, and may hold anything: begin behind it, with the third
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
        let line = |text: &str, key: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
        };
        let boot = line(system, "btime ");
        Self {
            resident_bytes: line(status, "VmRSS:").map(|kibibytes| kibibytes * 1024),
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS),
            open_fds: None,
            threads: line(status, "Threads:"),
            start_seconds: boot.zip(ticks(22)).map(|(boot, start)| boot as f64 + start / TICKS),
        }
    }
}

/// Adds the metrics of process and build to a page.
pub(super) fn render(page: &mut String) {
    let facts = Facts::read();
    let whole = |number: Option<u64>| number.map(|number| number as f64);
    for (name, value) in [
        (metric::PROCESS_MEMORY, whole(facts.resident_bytes)),
        (metric::PROCESS_CPU, facts.cpu_seconds),
        (metric::PROCESS_FDS, whole(facts.open_fds)),
        (metric::PROCESS_THREADS, whole(facts.threads)),
        (metric::PROCESS_START, facts.start_seconds),
    ] {
        if let Some(value) = value {
            head(page, name);
            let _ = writeln!(page, "{name} {value}");
        }
    }
    head(page, metric::BUILD);
    let labels = format_args!(r#"version="{VERSION}",commit="{COMMIT}",rustc="{RUSTC}""#);
    let _ = writeln!(page, "{}{{{labels}}} 1", metric::BUILD);
}

/// Says what a metric is, before its values.
pub(super) fn head(page: &mut String, name: &str) {
    if let Some(metric) = metric::ALL.iter().find(|metric| metric.name == name) {
        let kind = match metric.kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        let _ = writeln!(page, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_even_when_the_program_has_an_odd_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 7 0 1000 0 0 0";
        let facts = Facts::parse(stat, "VmRSS:\t  2048 kB\nThreads:\t7\n", "cpu 1 2\nbtime 1700000000\n");
        let expected = Facts {
            resident_bytes: Some(2048 * 1024),
            cpu_seconds: Some(2.0),
            open_fds: None,
            threads: Some(7),
            start_seconds: Some(1_700_000_010.0),
        };
        assert_eq!(facts, expected);
        assert_eq!(Facts::parse("", "", ""), Facts::default());
        assert_eq!(Facts::parse("1 (x", "VmRSS: many", "btime"), Facts::default());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_all_its_metrics() {
        let mut page = String::new();
        render(&mut page);
        for metric in metric::ALL.iter().filter(|metric| metric.name.contains("_process_") || metric.name == metric::BUILD) {
            let line = page.lines().find(|line| line.starts_with(metric.name)).expect(metric.name);
            let value: f64 = line.rsplit(' ').next().expect("a value").parse().expect("a number");
            assert!(value >= 0.0, "{line}");
            assert!(page.contains(&format!("# HELP {} {}", metric.name, metric.help)));
        }
    }
}
