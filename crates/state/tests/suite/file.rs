//! What is not a file of ours is refused, with a sentence that says what to change, and left as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sluicegate_core::{Code, Error};
use sluicegate_state::{Incarnation, Place, Store};

use crate::{next, open};

fn refused(path: &Path) -> Error {
    let error = Store::open(&Place::Sqlite(path.to_owned()), Incarnation::new("a").expect("a name")).expect_err("refused");
    let said = error.message();
    assert!(said.starts_with("state.path: ") && said.contains(&*path.to_string_lossy()), "{said}");
    error
}

#[test]
fn a_file_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state.db");
    let mut store = open(&Place::Sqlite(path), "a");
    store.advance("fraud", None, next("{}"), &[]).expect("written");
    let files: Vec<_> = fs::read_dir(directory.path()).expect("files").flatten().collect();
    assert!(files.len() >= 2, "the file and its log");
    for file in files {
        assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[test]
fn a_place_where_no_file_can_be_is_the_operators_error() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("file"), "").expect("a file");
    for path in ["missing/state.db", "file/state.db", "."] {
        let error = refused(&directory.path().join(path));
        assert_eq!(error.code(), Code::BadConfig, "{error}");
        assert!(error.message().contains("directory that is there"), "{error}");
    }
    assert_eq!(fs::read_dir(directory.path()).expect("files").count(), 1, "nothing was made");
}

#[test]
fn a_directory_that_is_not_writable_is_the_operators_error() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).expect("permissions");
    if fs::write(directory.path().join("probe"), "").is_ok() {
        eprintln!("skipped: whoever runs this may write everywhere");
        return;
    }
    let error = refused(&directory.path().join("state.db"));
    assert_eq!(error.code(), Code::BadConfig, "{error}");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notes.txt");
    let text = "not a database\n".repeat(1000);
    fs::write(&path, &text).expect("a file");
    let error = refused(&path);
    assert_eq!(error.code(), Code::Io);
    assert!(error.message().contains("move it away"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("a file"), text);
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("other.db");
    let other = rusqlite::Connection::open(&path).expect("a database");
    other.execute_batch("CREATE TABLE things (name TEXT); INSERT INTO things VALUES ('theirs')").expect("a table");
    drop(other);
    let before = fs::read(&path).expect("a file");
    let error = refused(&path);
    assert_eq!(error.code(), Code::BadConfig);
    assert!(error.message().contains("another program"), "{error}");
    assert_eq!(fs::read(&path).expect("a file"), before);
}

#[test]
fn a_damaged_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state.db");
    let mut store = open(&Place::Sqlite(path.clone()), "a");
    for number in 0..50 {
        store.advance(&number.to_string(), None, next(&"x".repeat(5_000)), &[]).expect("written");
    }
    drop(store); // the log goes into the file
    let whole = fs::read(&path).expect("a file");
    let mut refusals = 0;
    // A page that is overwritten, wherever it is, and a file that ends too early.
    for page in (1..whole.len() / 4096).step_by(7) {
        let mut damaged = whole.clone();
        damaged[page * 4096..][..4096].fill(0xA5);
        fs::write(&path, &damaged).expect("a file");
        if let Err(error) = Store::open(&Place::Sqlite(path.clone()), Incarnation::new("a").expect("a name")) {
            assert!(error.code() == Code::Io && error.message().contains("not a whole SQLite database"), "{error}");
            assert_eq!(fs::read(&path).expect("a file"), damaged, "page {page}");
            refusals += 1;
        }
    }
    // In a page that only continues a long document there is nothing that SQLite could check.
    assert!(refusals > 0, "no damage was seen");
    fs::write(&path, &whole[..whole.len() / 2]).expect("a file");
    assert_eq!(refused(&path).code(), Code::Io);
    fs::write(&path, &whole).expect("a file");
    assert_eq!(open(&Place::Sqlite(path), "a").load_all().expect("rows").len(), 50);
}
