//! The tables, and how those of an older program become those of this one.

use sluicegate_core::{Code, Error, Result};

use crate::database::{Access, Database, Given, Statements};

/// The step to each version. One that was released is never changed: what is to change is a further one, and that is such that programs
/// of the version before may go on with the session that they have, for replicas are replaced one after the other.
const MIGRATIONS: [&str; 1] = [include_str!("schema/1.sql")];

/// The version that this program reads and writes.
const VERSION: i64 = MIGRATIONS.len() as i64;

/// Brings the tables to this program's version, where they are not there yet. A role that may not create tables does for a database that
/// is already there.
pub(crate) fn migrate(database: &mut impl Database) -> Result<()> {
    let mut found = 0;
    database.transaction(Access::Read, &mut |statements| {
        found = version(statements)?;
        Ok(())
    })?;
    if found == VERSION {
        return Ok(());
    }
    database.transaction(Access::Write, &mut |statements| {
        statements.lock_schema()?;
        // Another replica may have been faster.
        let found = usize::try_from(version(statements)?).unwrap_or_default();
        for step in &MIGRATIONS[found..] {
            statements.script(step)?;
        }
        statements.execute("DELETE FROM sluicegate_schema", &[])?;
        statements.execute("INSERT INTO sluicegate_schema (version) VALUES ($1)", &[Given::Int(VERSION)])?;
        Ok(())
    })
}

/// The version that is there, 0 where there is none; an error where this program does not know it.
fn version(statements: &mut dyn Statements) -> Result<i64> {
    if !statements.has_schema()? {
        return Ok(0);
    }
    let mut rows = statements.query("SELECT version FROM sluicegate_schema", &[])?;
    let version = rows.pop().map_or(Ok(0), |mut row| row.int())?;
    match version {
        0..=VERSION => Ok(version),
        _ => Err(Error::new(
            Code::BadConfig,
            format!(
                "state: the tables have version {version}, and this program knows versions up to {VERSION}; a newer one has \
                 changed them: run that one, or give this one a place of its own"
            ),
        )),
    }
}
