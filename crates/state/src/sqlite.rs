//! The state in one file, for one replica.
//!
//! Written ahead (`WAL`), so that readers and the writer do not wait for each other, and synchronously (`FULL`): with `NORMAL` a
//! power cut may take back the last transactions, and so undo an abort. That costs a flush a transaction, of which there are few.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, Transaction, TransactionBehavior, params_from_iter};
use sluicegate_core::{Code, Error, Result};

use crate::database::{Access, Columns, Database, Given, Statements, Value, Work};
use crate::schema;

/// How long it waits for another process that writes.
const BUSY: Duration = Duration::from_secs(5);

pub(crate) struct Sqlite {
    connection: Connection,
    path: PathBuf,
}

impl Sqlite {
    /// Opens the file, or makes it, readable for its owner alone. One that is not ours is left as it is.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let unusable = |error: &dyn Display| {
            let hint = "it names a file in a directory that is there and in which the gateway's user may write";
            Error::new(Code::BadConfig, format!("state.path: `{}` cannot be used: {error}; {hint}", path.display()))
        };
        let created = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        created.map_err(|error| unusable(&error))?;
        let opened = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        let mut sqlite = Self { connection: opened.map_err(|error| unusable(&error))?, path: path.to_owned() };
        sqlite.check()?;
        sqlite.write_ahead()?;
        schema::migrate(&mut sqlite)?;
        Ok(sqlite)
    }

    /// Whether the file is whole, and ours or empty; before anything is written to it.
    fn check(&mut self) -> Result<()> {
        let checked = self.connection.busy_timeout(BUSY).and_then(|()| {
            // What a file brings along is not run.
            self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            let tables = "SELECT count(*), coalesce(sum(name = 'sluicegate_schema'), 0) FROM sqlite_master";
            let (all, ours): (i64, i64) = self.connection.query_row(tables, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let whole: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            Ok((all > 0 && ours == 0, whole))
        });
        let path = self.path.display();
        match checked {
            Err(error) => Err(self.failed(&error)),
            Ok((true, _)) => {
                let message = format!("state.path: `{path}` is the database of another program; name a file of its own");
                Err(Error::new(Code::BadConfig, message))
            }
            Ok((_, whole)) if whole != "ok" => Err(self.damaged(&whole)),
            Ok(_) => Ok(()),
        }
    }

    /// Two processes that start at once may both want to change the journal's mode, for which SQLite does not wait.
    fn write_ahead(&mut self) -> Result<()> {
        let until = Instant::now() + BUSY;
        loop {
            match self.connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
                Ok(mode) if mode == "wal" => break,
                Ok(mode) => {
                    let what = format!("the file system allows no write-ahead log, only `{mode}`; put it on a local disk");
                    return Err(Error::new(Code::BadConfig, format!("state.path: `{}`: {what}", self.path.display())));
                }
                Err(error) if is_busy(&error) && Instant::now() < until => thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(self.failed(&error)),
            }
        }
        self.connection.execute_batch("PRAGMA synchronous = FULL").map_err(|error| self.failed(&error))
    }

    fn damaged(&self, what: &dyn Display) -> Error {
        let path = self.path.display();
        let hint = "it was left as it is; put a good copy in its place, or move it away to begin without the state of rollouts";
        Error::new(Code::Io, format!("state.path: `{path}` is not a whole SQLite database: {what}; {hint}"))
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        let hint = match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => return self.damaged(error),
            Some(ErrorCode::DiskFull) => "; the disk is full",
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another process writes to it and does not end",
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                "; the gateway's user must be allowed to write to it and to its directory"
            }
            _ => "",
        };
        Error::new(Code::Io, format!("state.path: `{}`: {error}{hint}", self.path.display()))
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

impl Database for Sqlite {
    fn transaction(&mut self, access: Access, work: Work<'_>) -> Result<()> {
        // Who is to write takes the lock at once: from a lock for reading it may not be had any more.
        let behavior = match access {
            Access::Read => TransactionBehavior::Deferred,
            Access::Write => TransactionBehavior::Immediate,
        };
        let mut run = || -> Result<(), Failed> {
            let transaction = self.connection.transaction_with_behavior(behavior)?;
            let mut open = Open { transaction: &transaction, failed: None };
            if let Err(error) = work(&mut open) {
                return Err(open.failed.map_or(Failed::Work(error), Failed::Sqlite));
            }
            Ok(transaction.commit()?)
        };
        run().map_err(|error| match error {
            Failed::Work(error) => error,
            Failed::Sqlite(error) => self.failed(&error),
        })
    }
}

/// Why a transaction was taken back.
enum Failed {
    Sqlite(rusqlite::Error),
    Work(Error),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// A transaction, and what SQLite said where a statement failed: the path is put to it outside.
struct Open<'a> {
    transaction: &'a Transaction<'a>,
    failed: Option<rusqlite::Error>,
}

impl Open<'_> {
    fn noted<T>(&mut self, result: rusqlite::Result<T>) -> Result<T> {
        result.map_err(|error| {
            let message = error.to_string();
            self.failed = Some(error);
            Error::new(Code::Io, message)
        })
    }
}

impl Statements for Open<'_> {
    fn execute(&mut self, sql: &str, given: &[Given<'_>]) -> Result<u64> {
        let run = || self.transaction.prepare(sql)?.execute(params_from_iter(given));
        let rows = run();
        self.noted(rows).map(|rows| rows as u64)
    }

    fn query(&mut self, sql: &str, given: &[Given<'_>]) -> Result<Vec<Columns>> {
        let run = || -> rusqlite::Result<Vec<Columns>> {
            let mut statement = self.transaction.prepare(sql)?;
            let width = statement.column_count();
            let rows = statement.query_map(params_from_iter(given), |row| {
                let values: rusqlite::Result<Vec<Value>> = (0..width).map(|at| value(row.get_ref(at)?)).collect();
                Ok(Columns::new(values?))
            })?;
            rows.collect()
        };
        let rows = run();
        self.noted(rows)
    }

    fn script(&mut self, sql: &str) -> Result<()> {
        let done = self.transaction.execute_batch(sql);
        self.noted(done)
    }

    fn has_schema(&mut self) -> Result<bool> {
        let found = self.query("SELECT count(*) FROM sqlite_master WHERE name = 'sluicegate_schema'", &[])?;
        Ok(found.into_iter().next().map_or(Ok(0), |mut row| row.int())? > 0)
    }

    fn lock_schema(&mut self) -> Result<()> {
        Ok(()) // a transaction that writes is alone
    }
}

fn value(value: ValueRef<'_>) -> rusqlite::Result<Value> {
    Ok(match value {
        ValueRef::Integer(value) => Value::Int(value),
        text => Value::Text(text.as_str()?.to_owned()),
    })
}

impl ToSql for Given<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Int(value) => ToSqlOutput::from(*value),
            Self::Text(text) => ToSqlOutput::from(*text),
        })
    }
}
