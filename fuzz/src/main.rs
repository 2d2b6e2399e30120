//! `sluicegate-fuzz [TARGET ...]`: checks each target for some time, in a process of its own.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use clap::Parser;
use sluicegate_fuzz::drive::{Figures, Plan, drive};
use sluicegate_fuzz::targets::TARGETS;
use sluicegate_fuzz::{Target, corpus, report};

/// What a thread of the gateway has; what overflows it there has to do so here.
const STACK: usize = 2 << 20;

/// Looks for inputs that break what reads them.
#[derive(Parser)]
struct Options {
    /// Which targets; all of them where none is named.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Most inputs for each target.
    #[arg(long, default_value_t = u64::MAX)]
    cases: u64,
    /// The same seed makes the same inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write the figures, as Markdown.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Check the one target named in this process, and have each input in this file.
    #[arg(long, hide = true)]
    current: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "a measurement prints")]
fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::parse();
    let named = |target: &&Target| options.targets.is_empty() || options.targets.iter().any(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(named).collect();
    if targets.len() != options.targets.len() && !options.targets.is_empty() {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        return Err(format!("targets are {}, got {}", known.join(", "), options.targets.join(", ")).into());
    }
    if let (Some(current), [target]) = (&options.current, &targets[..]) {
        return here(target, &options, current.clone());
    }
    let mut all = Vec::new();
    for target in targets {
        match apart(target, &options)? {
            Some(figures) => all.push(figures),
            None => return Ok(ExitCode::FAILURE),
        }
    }
    let page = report::page(options.seed, &all);
    println!("{page}");
    if let Some(path) = &options.report {
        std::fs::write(path, page)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a target in another process. `None` where something broke, which has been told and kept.
#[expect(clippy::print_stdout, reason = "a measurement prints")]
fn apart(target: &Target, options: &Options) -> Result<Option<Figures>, Box<dyn Error>> {
    let current = std::env::temp_dir().join(format!("sluicegate-fuzz-{}-{}", std::process::id(), target.name));
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(target.name).arg("--current").arg(&current);
    for (name, value) in [("--seconds", options.seconds), ("--cases", options.cases), ("--seed", options.seed)] {
        command.arg(name).arg(value.to_string());
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let input = corpus::noted(&current);
    let _ = std::fs::remove_file(&current);
    match output.status.code() {
        Some(0) => Ok(Some(serde_json::from_slice(&output.stdout)?)),
        Some(_) => Ok(None),
        None => {
            let path = corpus::keep(target, &input?)?;
            println!("{}: the process dies ({}); kept as {}", target.name, output.status, path.display());
            Ok(None)
        }
    }
}

/// Checks a target here, on a stack like the gateway's.
#[expect(clippy::print_stdout, reason = "another process reads the figures")]
fn here(target: &'static Target, options: &Options, current: PathBuf) -> Result<ExitCode, Box<dyn Error>> {
    let seeds: Vec<Vec<u8>> = corpus::read(target)?.into_iter().map(|(_, input)| input).collect();
    let time = Duration::from_secs(options.seconds);
    let plan = Plan { seed: options.seed, cases: options.cases, time, current: Some(current) };
    let thread = thread::Builder::new().stack_size(STACK).spawn(move || drive(target, &seeds, &plan))?;
    match thread.join().map_err(|_| "the loop itself panicked")? {
        Ok(figures) => {
            println!("{}", serde_json::to_string(&figures)?);
            Ok(ExitCode::SUCCESS)
        }
        Err(broken) => {
            let path = corpus::keep(target, &broken.input)?;
            let start = String::from_utf8_lossy(&broken.input[..broken.input.len().min(400)]).into_owned();
            eprintln!("{}: {}\nkept as {}, {} bytes: {start}", target.name, broken.why, path.display(), broken.input.len());
            Ok(ExitCode::FAILURE)
        }
    }
}
