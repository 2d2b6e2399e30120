//! The laws of the house (`ARCHITECTURE.md`): who may use whom, how large a room may be, and what no room may have.

use std::fs;
use std::path::{Path, PathBuf};

use sluicegate_testkit::process::repository;

/// The line: a crate may use any crate before it, never one after it.
const LINE: [&str; 23] = [
    "core",
    "proto",
    "text",
    "safetensors",
    "engine",
    "batch",
    "triton",
    "registry",
    "gateway",
    "state",
    "outbound",
    "monitor",
    "rollout",
    "traffic",
    "promotion",
    "codec",
    "landing",
    "extension",
    "openapi",
    "api",
    "admin",
    "config",
    "server",
];

/// What tests share: for tests alone, and it knows these two.
const TESTKIT: (&str, [&str; 2]) = ("testkit", ["core", "engine"]);

/// Who may name what runs models, and what speaks to the network.
const ENGINES: (&[&str], &[&str]) = (&["ort", "tract-onnx"], &["engine"]);
const CANDLE: (&[&str], &[&str]) = (&["candle-core", "candle-nn"], &["safetensors"]);
const WIRE: (&[&str], &[&str]) = (&["axum", "tonic", "tower", "tower-http", "hyper", "hyper-util"], &["api", "admin", "server"]);

/// Who may ask other servers: this crate, and the commands that ask a gateway.
const ASKING: (&[&str], &[&str]) = (&["ureq", "rustls"], &["state", "outbound", "server"]);

/// Who calls a runtime, or maps a file into memory.
const UNSAFE: [&str; 2] = ["crates/engine", "crates/safetensors"];

/// Most lines of a file, and most lines of code of a crate without its tests.
const FILE: usize = 500;
const CRATE: usize = 3_000;

/// A source file: where it is below the repository, and what is in it.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Whether it is neither a test nor a build script.
    fn is_product(&self) -> bool {
        let is_test = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
        self.path.iter().any(|part| part == "src") && !self.path.iter().any(is_test) && !self.path.starts_with("crates/testkit")
    }

    /// The lines of the product, by their numbers: no test file, and nothing from `#[cfg(test)] mod` to the file's end.
    fn lines(&self) -> Vec<(usize, &str)> {
        if !self.is_product() {
            return Vec::new();
        }
        let all: Vec<(usize, &str)> = self.text.lines().enumerate().map(|(i, line)| (i + 1, line)).collect();
        let is_cfg = |line: &str| line.starts_with("#[cfg(") && line.contains("test");
        let tests = all.windows(2).position(|two| is_cfg(two[0].1) && two[1].1.starts_with("mod tests {"));
        all[..tests.unwrap_or(all.len())].to_vec()
    }

    /// The same without comments and documentation.
    fn code(&self) -> Vec<(usize, &str)> {
        let code = |line: &str| line.split("//").next().is_some_and(|code| !code.trim().is_empty());
        self.lines().into_iter().filter(|(_, line)| code(line)).collect()
    }
}

fn walk(directory: &Path, ends: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if path.is_dir() && !hidden && !path.ends_with("target") {
            walk(&path, ends, found);
        } else if path.to_string_lossy().ends_with(ends) {
            found.push(path);
        }
    }
}

/// Every Rust file below these folders of the repository.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| walk(&repository().join(folder), ".rs", &mut paths));
    paths.sort();
    assert!(!paths.is_empty(), "no sources in {folders:?}");
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source is text");
        Source { path: path.strip_prefix(repository()).map(Path::to_owned).unwrap_or(path), text }
    };
    paths.into_iter().map(source).collect()
}

fn crates() -> Vec<String> {
    let names = fs::read_dir(repository().join("crates")).expect("the crates").flatten();
    names.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The dependencies of a package: the table's name, that of the dependency, and what is said of it.
fn dependencies(manifest: &Path) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(repository().join(manifest)).expect("a manifest");
    let (mut table, mut found) = (String::new(), Vec::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']').to_owned();
        } else if let Some((name, said)) = line.split_once('=').filter(|_| table.ends_with("dependencies")) {
            let (name, rest) = name.trim().split_once('.').unwrap_or((name.trim(), ""));
            found.push((table.clone(), name.trim_matches('"').to_owned(), format!("{rest} = {}", said.trim())));
        }
    }
    found
}

fn manifest(package: &str) -> PathBuf {
    Path::new("crates").join(package).join("Cargo.toml")
}

/// Fails with every broken law, and says none where there is none.
fn hold(law: &str, broken: impl IntoIterator<Item = String>) {
    let broken: Vec<String> = broken.into_iter().collect();
    assert!(broken.is_empty(), "{law}; broken {} times:\n{}", broken.len(), broken.join("\n"));
}

/// Product lines of these crates for which `is_wrong` holds.
fn lines_where(is_wrong: impl Fn(&Source, &str) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources(&["crates"]) {
        for (number, line) in source.code().into_iter().filter(|(_, line)| is_wrong(&source, line)) {
            broken.push(format!("{}:{number}: {}", source.path.display(), line.trim()));
        }
    }
    broken
}

#[test]
fn a_crate_uses_only_crates_to_its_left() {
    let mut broken = Vec::new();
    for name in crates() {
        let place = LINE.iter().position(|known| *known == name);
        if place.is_none() && name != TESTKIT.0 {
            broken.push(format!("crates/{name} has no place on the line"));
        }
        for (table, used, _) in dependencies(&manifest(&name)) {
            let Some(used) = used.strip_prefix("sluicegate-") else { continue };
            let fine = match place {
                None => TESTKIT.1.contains(&used),
                Some(_) if used == TESTKIT.0 => table == "dev-dependencies",
                Some(place) => LINE[..place].contains(&used),
            };
            if !fine {
                broken.push(format!("{name} uses {used} in [{table}]"));
            }
        }
    }
    hold(&format!("{}; {} is for tests", LINE.join(" <- "), TESTKIT.0), broken);
}

#[test]
fn engines_and_wires_are_named_in_their_rooms_alone() {
    let mut broken = Vec::new();
    for name in crates() {
        for (table, used, _) in dependencies(&manifest(&name)) {
            for (words, rooms) in [ENGINES, CANDLE, WIRE, ASKING] {
                if words.contains(&used.as_str()) && !rooms.contains(&name.as_str()) {
                    broken.push(format!("{name} uses {used} in [{table}]; it belongs to {rooms:?}"));
                }
            }
        }
    }
    hold(
        "only engine and safetensors know runtimes, only api and server serve the network, only state, outbound and server ask it",
        broken,
    );
}

#[test]
fn versions_of_dependencies_are_in_one_place() {
    let packages = crates().into_iter().map(|name| manifest(&name));
    let mut broken = Vec::new();
    for manifest in packages.chain(["tests/Cargo.toml", "benches/Cargo.toml", "fuzz/Cargo.toml"].map(PathBuf::from)) {
        for (table, used, said) in dependencies(&manifest) {
            if !said.replace(' ', "").contains("workspace=true") {
                broken.push(format!("{}: [{table}] {used}: {said}", manifest.display()));
            }
        }
    }
    hold("every dependency's version is in the root Cargo.toml", broken);
}

#[test]
fn every_file_says_what_it_is_for() {
    let closed = |source: &&Source| !source.text.starts_with("//! ");
    let sources = sources(&["crates", "tests", "benches", "fuzz"]);
    hold("every file opens with `//!`", sources.iter().filter(closed).map(|source| source.path.display().to_string()));
}

#[test]
fn rooms_are_small() {
    let mut broken = Vec::new();
    for source in sources(&["crates", "tests", "benches", "fuzz"]) {
        let lines = source.text.lines().count();
        if lines >= FILE {
            broken.push(format!("{} has {lines} lines", source.path.display()));
        }
    }
    for name in crates() {
        let lines: usize = sources(&[&format!("crates/{name}/src")]).iter().map(|source| source.code().len()).sum();
        println!("{name}: {lines} lines of code without its tests");
        if lines >= CRATE {
            broken.push(format!("crates/{name} has {lines} lines of code without its tests"));
        }
    }
    hold(&format!("a file has less than {FILE} lines, a crate less than {CRATE} of code without its tests"), broken);
}

#[test]
fn modules_are_named_after_themselves() {
    let mut found = Vec::new();
    ["crates", "tests", "benches", "fuzz"].iter().for_each(|folder| walk(&repository().join(folder), "/mod.rs", &mut found));
    hold("foo.rs beside foo/, no mod.rs", found.iter().map(|path| path.display().to_string()));
}

#[test]
fn unsafe_code_is_where_runtimes_are_and_says_why_it_is_sound() {
    let is_unsafe =
        |line: &str| ["{", "fn ", "impl ", "extern ", "trait "].iter().any(|what| line.contains(&format!("unsafe {what}")));
    let outside = |source: &Source, line: &str| !UNSAFE.iter().any(|room| source.path.starts_with(room)) && is_unsafe(line);
    hold("unsafe is for what calls a runtime or maps a file", lines_where(outside));
    let mut broken = Vec::new();
    for source in sources(&UNSAFE) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_unsafe(line.split("//").next().unwrap_or_default())) {
            // Its own comment stands right before it, with attributes and further unsafe items of the same kind between.
            let near = &lines[at.saturating_sub(8)..at];
            if !near.iter().any(|before| before.trim_start().starts_with("// SAFETY: ")) {
                broken.push(format!("{}:{}: {}", source.path.display(), at + 1, line.trim()));
            }
        }
    }
    hold("every unsafe item has its SAFETY text before it", broken);
}

#[test]
fn every_queue_is_bounded() {
    let unbounded = |_: &Source, line: &str| line.contains("unbounded") || line.contains("mpsc::channel()");
    hold("a full queue is a normal answer", lines_where(unbounded));
}

#[test]
fn the_environment_is_read_in_one_place() {
    let reads = ["env::var", "env::vars", "env::set_var", "env::remove_var"];
    let elsewhere =
        |source: &Source, line: &str| !source.path.starts_with("crates/config") && reads.iter().any(|read| line.contains(read));
    hold("the environment is read in config alone", lines_where(elsewhere));
}

#[test]
fn every_metric_is_named_in_one_place() {
    let named = |source: &Source, line: &str| !source.path.ends_with("core/src/metric.rs") && line.contains("\"sluicegate_");
    hold("metrics are named in core/metric.rs", lines_where(named));
}

#[test]
fn nothing_is_unwrapped_on_the_way_of_a_request() {
    hold("no unwrap outside of tests", lines_where(|_, line| line.contains(".unwrap()") || line.contains(".unwrap_err()")));
}

#[test]
fn every_test_of_the_process_is_run() {
    let manifest = fs::read_to_string(repository().join("tests/Cargo.toml")).expect("a manifest");
    let files = fs::read_dir(repository().join("tests")).expect("the tests").flatten();
    let names = files.filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(".rs").map(str::to_owned));
    let missing = names.filter(|name| !manifest.contains(&format!("name = \"{name}\"\npath = \"{name}.rs\"")));
    hold("tests/Cargo.toml names each file of tests/", missing.map(|name| format!("tests/{name}.rs")));
}
