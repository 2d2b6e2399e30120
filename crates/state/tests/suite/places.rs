//! The places that the suite runs on.

use std::cell::Cell;
use std::path::PathBuf;

use sluicegate_state::{Place, Secret};
use tempfile::TempDir;

use crate::cluster::Cluster;

/// A place that is empty at the beginning, and a way to it behind the store's back.
pub(crate) struct Kept {
    pub(crate) place: Place,
    within: Within,
    made: Cell<u32>,
}

enum Within {
    Directory(TempDir),
    Cluster(&'static Cluster, String),
}

/// Runs the test on each database, anew from an empty place.
pub(crate) fn each(test: impl Fn(&Kept)) {
    test(&Kept::sqlite());
    if let Some(cluster) = Cluster::shared() {
        test(&Kept::postgres(cluster));
    }
}

impl Kept {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place::Sqlite(directory.path().join("state.db"));
        Self { place, within: Within::Directory(directory), made: Cell::new(0) }
    }

    pub(crate) fn postgres(cluster: &'static Cluster) -> Self {
        let database = cluster.database();
        let place = Place::Postgres(Secret::Text(cluster.url(&database)));
        Self { place, within: Within::Cluster(cluster, database), made: Cell::new(0) }
    }

    /// The place as a line of text.
    pub(crate) fn line(&self) -> String {
        match &self.place {
            Place::Sqlite(path) => path.display().to_string(),
            Place::Postgres(Secret::Text(url)) => url.clone(),
            Place::Postgres(Secret::File(path)) => panic!("{} is not passed on", path.display()),
        }
    }

    /// The place that a line names.
    pub(crate) fn of(line: &str) -> Place {
        match line.starts_with("postgres://") {
            true => Place::Postgres(Secret::Text(line.to_owned())),
            false => Place::Sqlite(PathBuf::from(line)),
        }
    }

    /// Further places of the same kind.
    pub(crate) fn fresh(&self, count: u32) -> Vec<Place> {
        (0..count).map(|_| self.another()).collect()
    }

    fn another(&self) -> Place {
        self.made.set(self.made.get() + 1);
        match &self.within {
            Within::Directory(directory) => Place::Sqlite(directory.path().join(format!("{}.db", self.made.get()))),
            Within::Cluster(cluster, _) => Place::Postgres(Secret::Text(cluster.url(&cluster.database()))),
        }
    }

    /// Runs a statement as somebody else would.
    pub(crate) fn run(&self, sql: &str) {
        match (&self.place, &self.within) {
            (Place::Sqlite(path), _) => {
                let other = rusqlite::Connection::open(path).expect("a database");
                other.execute_batch(sql).expect("a statement");
            }
            (_, Within::Cluster(cluster, database)) => drop(cluster.psql(database, sql)),
            _ => unreachable!("a place in PostgreSQL is in a cluster"),
        }
    }
}
