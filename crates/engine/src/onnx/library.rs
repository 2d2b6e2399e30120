//! The shared library: where it is looked for, and the one environment that it has in a process.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::LoadDynamicError;
use ort::environment::Environment;
use ort::logging::LogLevel;
use parking_lot::Mutex;
use sluicegate_core::{Code, Error, Result};

use super::spawner::Spawner;
use super::{cuda, division};
use crate::Search;
use crate::sentence::sentence;

const SYSTEM_FOLDERS: [&str; 5] =
    ["/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];

/// ONNX Runtime, loaded.
pub(crate) struct Library {
    pub(crate) environment: Environment,
    pub(crate) version: String,
    pub(crate) path: PathBuf,
    /// Makes the threads of its pools; where there is none, whoever loads a model does.
    pub(crate) spawner: Option<Spawner>,
    cuda: Mutex<Option<Result<(), String>>>,
}

impl Library {
    /// Whether `auto` may try CUDA, or why not; `None` where the library was built without it, which is nothing to tell of.
    pub(super) fn cuda_for_auto(&self) -> Option<Result<(), String>> {
        self.cuda.lock().clone()
    }

    /// Remembers that no device can be used, so that not every load looks for one.
    pub(super) fn without_cuda(&self, why: &str) {
        *self.cuda.lock() = Some(Err(why.to_owned()));
    }
}

/// A process has one ONNX Runtime: what was loaded first stays, for `ort` allows no second environment.
static LOADED: Mutex<Option<Arc<Library>>> = Mutex::new(None);

/// Looks for the library. `Ok(Err(_))` says why none was found where none was asked for.
pub(crate) fn find(search: &Search) -> Result<Result<Arc<Library>, String>> {
    let mut loaded = LOADED.lock();
    let asked = [(&search.explicit, "--onnxruntime"), (&search.environment, "ORT_DYLIB_PATH")];
    let asked = asked.iter().find_map(|(path, by)| path.as_deref().map(|path| (path, *by)));
    let asked = asked.map(|(path, by)| located(path, by).map(|path| (path, by))).transpose()?;
    if let Some(library) = &*loaded {
        return match asked {
            Some((path, by)) if path != library.path => {
                Err(missing(by, format!("{} is asked for, and {} is already loaded", path.display(), library.path.display())))
            }
            _ => Ok(Ok(library.clone())),
        };
    }
    if let Some((path, by)) = asked {
        let library = load(&path).map_err(|why| missing(by, why))?;
        return Ok(Ok(loaded.insert(library).clone()));
    }
    let mut passed_over = Vec::new();
    for path in places(&search.fetched) {
        match load(&path) {
            Ok(library) => return Ok(Ok(loaded.insert(library).clone())),
            Err(why) => passed_over.push(why),
        }
    }
    if let Ok(library) = load(Path::new(PLAIN_NAME)) {
        return Ok(Ok(loaded.insert(library).clone()));
    }
    Ok(Err(if passed_over.is_empty() {
        format!("no {PLAIN_NAME} in {}, beside the program or where the system keeps libraries", search.fetched.display())
    } else {
        passed_over.join("; ")
    }))
}

#[cfg(target_os = "macos")]
const PLAIN_NAME: &str = "libonnxruntime.dylib";
#[cfg(windows)]
const PLAIN_NAME: &str = "onnxruntime.dll";
#[cfg(not(any(windows, target_os = "macos")))]
const PLAIN_NAME: &str = "libonnxruntime.so";

fn missing(by: &str, why: impl std::fmt::Display) -> Error {
    Error::new(Code::NoEngine, format!("ONNX Runtime as {by} asks for it cannot be used: {why}"))
}

/// The file itself, behind whatever links; or the newest library of a folder.
fn located(path: &Path, by: &str) -> Result<PathBuf> {
    let file = if path.is_dir() { in_folder(path).into_iter().next() } else { Some(path.to_owned()) };
    let Some(file) = file else { return Err(missing(by, format!("there is no {PLAIN_NAME} in {}", path.display()))) };
    file.canonicalize().map_err(|error| missing(by, format!("{}: {error}", path.display())))
}

/// The libraries in the places that are looked in unasked, most wanted first.
fn places(fetched: &Path) -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent);
    let folders = [Some(fetched.to_owned()), beside.map(Path::to_owned), beside.map(|folder| folder.join("../lib"))];
    let folders = folders.into_iter().flatten().chain(SYSTEM_FOLDERS.iter().map(PathBuf::from));
    folders.flat_map(|folder| in_folder(&folder)).filter_map(|path| path.canonicalize().ok()).collect()
}

/// The libraries in a folder, newest first.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| name(path).starts_with(PLAIN_NAME))
        .collect();
    found.sort_by_key(|path| Reverse(version_in_name(path)));
    found
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// `[1, 31, 1]` of `libonnxruntime.so.1.31.1`; empty where the name has no version.
fn version_in_name(path: &Path) -> Vec<u32> {
    let version = name(path).strip_prefix(PLAIN_NAME).unwrap_or_default();
    version.split('.').skip(1).map_while(|part| part.parse().ok()).collect()
}

fn load(path: &Path) -> Result<Arc<Library>, String> {
    let builder = ort::init_from(path).map_err(|error| match error {
        LoadDynamicError::BadVersion { version_str, path } => {
            format!("{} is ONNX Runtime {version_str}, at least 1.{} is needed", path.display(), ort::MINOR_VERSION)
        }
        LoadDynamicError::MissingApi { path } => format!("{} is not ONNX Runtime", path.display()),
        other => sentence(&other.to_string()),
    })?;
    // What fails comes back as an error too, and callers can make runs fail: so nothing here is louder than debug.
    let log = |level: LogLevel, _: &str, _: &str, _: &str, message: &str| match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", "{message}"),
        _ => tracing::debug!(target: "onnxruntime", "{message}"),
    };
    let environment = builder
        .with_name("sluicegate")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| sentence(error.message()))?;
    environment.set_log_level(LogLevel::Warning);
    let named = version_in_name(path);
    let version = match &*named {
        [_, _, ..] => named.iter().map(u32::to_string).collect::<Vec<_>>().join("."),
        _ => ort::util::probe(path).map_or_else(|| "1".to_owned(), |minor| format!("1.{minor}")),
    };
    division::wrap_around();
    let cuda = Mutex::new(cuda::is_built_in().then_some(Ok(())));
    Ok(Arc::new(Library { environment, version, path: path.to_owned(), spawner: Spawner::start().ok(), cuda }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_library_of_a_folder_comes_first_and_providers_are_not_taken_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in
            ["libonnxruntime.so", "libonnxruntime.so.1.9.0", "libonnxruntime.so.1.31.1", "libonnxruntime_providers_cuda.so"]
        {
            std::fs::write(folder.path().join(name), b"").expect("a file");
        }
        let found = in_folder(folder.path());
        let names: Vec<_> = found.iter().map(|path| name(path)).collect();
        assert_eq!(names, ["libonnxruntime.so.1.31.1", "libonnxruntime.so.1.9.0", "libonnxruntime.so"]);
    }

    #[test]
    fn a_library_that_was_asked_for_and_is_not_there_is_an_error_naming_flag_and_path() {
        let search = Search { explicit: Some("/nowhere/libonnxruntime.so".into()), ..Search::default() };
        let error = find(&search).map(|_| ()).expect_err("not there");
        assert_eq!(error.code(), Code::NoEngine);
        assert!(error.message().contains("--onnxruntime") && error.message().contains("/nowhere/libonnxruntime.so"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error_of_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("libonnxruntime.so.1.31.1");
        std::fs::write(&path, b"not a library").expect("a file");
        let why = load(&path).map(|_| ()).expect_err("no library");
        assert!(!why.contains('\n') && why.contains("libonnxruntime.so.1.31.1"), "{why}");
    }
}
