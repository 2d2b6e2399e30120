//! What the store asks of a database, so that each statement is written once for both.

use std::vec::IntoIter;

use sluicegate_core::{Code, Error, Result};

/// A parameter of a statement. Statements name them `$1`, `$2`, … in the order in which they first occur, as SQLite counts them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given<'a> {
    Int(i64),
    Text(&'a str),
}

/// A column of a row.
#[derive(Debug)]
pub(crate) enum Value {
    Int(i64),
    Text(String),
}

/// Whether a transaction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A transaction that is open.
pub(crate) trait Statements {
    /// How many rows it wrote.
    fn execute(&mut self, sql: &str, given: &[Given<'_>]) -> Result<u64>;
    /// The rows that it answers.
    fn query(&mut self, sql: &str, given: &[Given<'_>]) -> Result<Vec<Columns>>;
    /// Several statements, of the schema.
    fn script(&mut self, sql: &str) -> Result<()>;
    /// Whether the table of the schema's version is there.
    fn has_schema(&mut self) -> Result<bool>;
    /// Waits until no other process changes the schema, to the transaction's end.
    fn lock_schema(&mut self) -> Result<()>;
}

/// What holds the state: it opens transactions that are done whole or not at all.
pub(crate) trait Database: Send {
    /// Runs `work` in a transaction, commits it where the work succeeds, and takes it back where it fails.
    fn transaction(&mut self, access: Access, work: Work<'_>) -> Result<()>;
}

/// What is done in a transaction. It may be begun anew where the session turned out to be lost before anything was done.
pub(crate) type Work<'a> = &'a mut dyn FnMut(&mut dyn Statements) -> Result<()>;

/// The columns of a row, from left to right.
#[derive(Debug)]
pub(crate) struct Columns(IntoIter<Value>);

impl Columns {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    pub(crate) fn int(&mut self) -> Result<i64> {
        match self.0.next() {
            Some(Value::Int(value)) => Ok(value),
            other => Err(foreign("a number", other.as_ref())),
        }
    }

    /// A number that was written as such, and so is none below zero.
    pub(crate) fn count(&mut self) -> Result<u64> {
        let value = self.int()?;
        u64::try_from(value).map_err(|_| foreign("a number that is not below zero", Some(&Value::Int(value))))
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(text),
            other => Err(foreign("a text", other.as_ref())),
        }
    }
}

fn foreign(expected: &str, got: Option<&Value>) -> Error {
    let got = match got {
        None => "nothing",
        Some(Value::Int(value)) if *value < 0 => "a number below zero",
        Some(Value::Int(_)) => "a number",
        Some(Value::Text(_)) => "a text",
    };
    Error::new(Code::Io, format!("state: a column holds {got} where {expected} was written; something else changed the database"))
}
