//! What one may type: the commands, their flags, and their exit codes.

mod check;
mod operate;
mod patch;
mod report;
mod serve;
mod tune;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Config, ConfigError, Overrides, Watched};
use crate::telemetry::process::VERSION;

/// All is well.
pub const WELL: u8 = 0;
/// The check said no.
pub const NO: u8 = 1;
/// Wrong usage, configuration or addresses.
pub const USAGE: u8 = 2;
/// It could not run.
pub const COULD_NOT: u8 = 3;

/// A model serving gateway: versions swapped without a lost request, batches in the hot path, typed routes.
#[derive(Parser)]
#[command(name = "sluicegate", version = VERSION, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the models of a registry until SIGTERM.
    Serve(Source),
    /// Read the configuration, load every declared model, and print every error with its place. Exits with 1 where there is one.
    Check {
        #[command(flatten)]
        source: Source,
        /// The form of the report.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Try max_rows, instances and threads on this machine; print the table and the best setting. Exits with 1 where none
    /// keeps the p99 asked for.
    Tune(tune::Tune),
    /// Tell what a running gateway serves, and how far its rollouts came.
    Status(operate::Status),
    /// Look at decisions that were made.
    Report(report::Report),
    /// Let the candidate of a model's rollout answer from now on.
    Promote(operate::Move),
    /// Take a model's candidate out, at once. It holds until the declared rollout changes.
    Rollback(operate::Move),
    /// Hold a model's rollout where it is.
    Pause(operate::Move),
    /// Let a held rollout go on; where it waits for a person at a step, to the next one.
    Resume(operate::Move),
}

/// Where the configuration is, and what is laid over it.
#[derive(Args, Clone)]
struct Source {
    /// The configuration file. Without it and without --models, `sluicegate.yaml` in the working directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve the newest version of every model in this directory.
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// The address for applications, such as 0.0.0.0:8080.
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// The address for gRPC, such as 0.0.0.0:8081.
    #[arg(long, value_name = "ADDR")]
    grpc: Option<String>,
    /// The address for operators, such as 0.0.0.0:8082.
    #[arg(long, value_name = "ADDR")]
    ops: Option<String>,
    /// The ONNX Runtime library, or the folder that it is in.
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl Source {
    const DEFAULT: &str = "sluicegate.yaml";

    fn watch(&self) -> Result<(Config, Watched), Vec<ConfigError>> {
        let default = || (self.models.is_none()).then(|| PathBuf::from(Self::DEFAULT)).filter(|path| path.is_file());
        let path = self.config.clone().or_else(default);
        if path.is_none() && self.models.is_none() {
            let message = format!("nothing to serve: give --models DIR or --config FILE, or write {}", Self::DEFAULT);
            return Err(vec![ConfigError::new("command line", message)]);
        }
        let overrides = Overrides {
            http: self.http.clone(),
            grpc: self.grpc.clone(),
            ops: self.ops.clone(),
            models: self.models.clone(),
            onnxruntime: self.onnxruntime.clone(),
        };
        Watched::start(path, config::environment(), overrides)
    }
}

/// Runs what was typed.
pub fn run() -> ExitCode {
    // clap ends the process with 2 where the usage is wrong, and with 0 after --help.
    let code = match Cli::parse().command {
        Command::Serve(source) => serve::run(&source),
        Command::Check { source, output } => check::run(&source, output),
        Command::Tune(asked) => tune::run(&asked),
        Command::Status(asked) => operate::status(&asked),
        Command::Report(report) => report::run(&report),
        Command::Promote(asked) => operate::go("promote", &asked),
        Command::Rollback(asked) => operate::go("rollback", &asked),
        Command::Pause(asked) => operate::go("pause", &asked),
        Command::Resume(asked) => operate::go("resume", &asked),
    };
    ExitCode::from(code)
}

/// A line for people, on standard error.
#[expect(clippy::print_stderr, reason = "the log may not be there yet")]
fn complain(line: impl std::fmt::Display) {
    eprintln!("error: {line}");
}

/// A line of a command's own result, on standard output.
#[expect(clippy::print_stdout, reason = "commands print")]
fn say(line: impl std::fmt::Display) {
    println!("{line}");
}
