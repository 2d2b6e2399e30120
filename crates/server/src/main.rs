//! The `sluicegate` binary: reads the command line, runs the command, ends with its exit code.

use std::process::ExitCode;

/// Keeps its speed with many threads, and gives memory back to the system after a version is freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sluicegate_server::command::run()
}
