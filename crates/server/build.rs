//! Tells the program which commit and which compiler made it.
#![allow(clippy::disallowed_methods, reason = "a build script is told everything by the environment")]

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SLUICEGATE_COMMIT");
    // a build without the repository, as in a container, is told its commit by this variable
    let told = std::env::var("SLUICEGATE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(commit).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=SLUICEGATE_COMMIT={commit}");

    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(&rustc, &["--version"]).unwrap_or_default();
    let version = version.split_whitespace().nth(1).unwrap_or("unknown");
    println!("cargo::rustc-env=SLUICEGATE_RUSTC={version}");
}

/// The commit of the working tree; and the script runs again when another one is checked out or made.
fn commit() -> Option<String> {
    let git = OsString::from("git");
    let log = output(&git, &["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    output(&git, &["rev-parse", "--short=12", "HEAD"])
}

/// What a command prints, where it succeeds.
fn output(program: &OsString, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
