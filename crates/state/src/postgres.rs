//! The state in a database that several replicas share.
//!
//! One session, driven by a runtime on the calling thread. Each call has one deadline, whatever the network does, and each transaction
//! bounds of its own in the server, so that a replica that is cut off in the middle of one holds no row for longer than they say.
//! After any error the session is given up, and the next call opens a new one. Nothing is prepared or set for the session, so that a
//! pooler that hands sessions from transaction to transaction may stand between.

mod tls;
mod url;

use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use sluicegate_core::{Code, Error, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row};

use crate::database::{Access, Columns, Database, Given, Statements, Value, Work};
use crate::place::Secret;
use crate::schema;

/// Longest that the first call takes, which may wait for another replica that makes the tables.
const OPEN: Duration = Duration::from_secs(10);

/// Longest that any other call takes, a new session included: traffic is not looked at meanwhile.
const CALL: Duration = Duration::from_secs(2);

/// Longest that one of several hosts is waited for, so that the next one is tried in time.
const CONNECT: Duration = Duration::from_secs(1);

/// The bounds in the server are no longer than [`CALL`]: what this side has given up is over there, too, soon after.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '1500ms'; SET LOCAL lock_timeout = '1500ms'; \
                     SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// What those who change the schema wait for: "sluicegate" in ASCII, cut to eight bytes.
const SCHEMA_LOCK: i64 = i64::from_be_bytes(*b"sluicega");

pub(crate) struct Postgres {
    url: Secret,
    runtime: Runtime,
    session: Option<Session>,
}

/// A session, and the task that reads and writes its socket while a call runs.
struct Session {
    client: Client,
    socket: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.socket.abort();
    }
}

impl Postgres {
    /// Opens a session and brings the tables up to date.
    pub(crate) fn open(url: Secret) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime =
            runtime.map_err(|error| Error::new(Code::Io, format!("state.postgres: no runtime for the session: {error}")))?;
        let mut postgres = Self { url, runtime, session: None };
        postgres.session = Some(postgres.renew(Instant::now() + OPEN)?);
        Ok(postgres)
    }

    fn connect(&self, deadline: Instant) -> Result<Session> {
        let settings = url::parse(&self.url.read()?)?;
        let mut config = settings.config;
        if config.get_application_name().is_none() {
            config.application_name("sluicegate");
        }
        config.connect_timeout(*config.get_connect_timeout().unwrap_or(&CONNECT));
        let tls = settings.over_tls.then(|| tls::connector(settings.root.as_deref())).transpose()?;
        let (client, socket) = wait(&self.runtime, deadline, "the session could not be opened", async {
            match tls {
                Some(tls) => open(&config, tls).await,
                None => open(&config, NoTls).await,
            }
        })?;
        Ok(Session { client, socket: self.runtime.spawn(socket) })
    }

    /// A transaction is begun.
    fn begin(&self, session: &Session, deadline: Instant) -> Result<()> {
        wait(&self.runtime, deadline, "no transaction could be begun", session.client.batch_execute(BEGIN))
    }

    /// A session over tables that this program knows: the database may have been upgraded, or replaced, since the last one.
    fn renew(&self, deadline: Instant) -> Result<Session> {
        let mut fresh = Fresh { postgres: self, session: self.connect(deadline)?, deadline };
        schema::migrate(&mut fresh)?;
        Ok(fresh.session)
    }

    /// The work and its commit.
    fn finish(&self, session: &Session, deadline: Instant, work: Work<'_>) -> Result<()> {
        work(&mut Open { client: &session.client, runtime: &self.runtime, deadline })?;
        let commit = session.client.batch_execute("COMMIT");
        wait(&self.runtime, deadline, "it is unknown whether the transaction was committed", commit)
    }
}

impl Database for Postgres {
    fn transaction(&mut self, _: Access, work: Work<'_>) -> Result<()> {
        let deadline = Instant::now() + CALL;
        // An old session may have been lost while nobody looked; nothing was done yet, so a new one is opened.
        let session = match self.session.take().filter(|session| self.begin(session, deadline).is_ok()) {
            Some(session) => session,
            None => {
                let session = self.renew(deadline)?;
                self.begin(&session, deadline)?;
                session
            }
        };
        self.finish(&session, deadline, work)?;
        self.session = Some(session); // only now: one that failed is given up
        Ok(())
    }
}

/// A new session, of which it is not known yet whether the tables are there.
struct Fresh<'a> {
    postgres: &'a Postgres,
    session: Session,
    deadline: Instant,
}

impl Database for Fresh<'_> {
    fn transaction(&mut self, _: Access, work: Work<'_>) -> Result<()> {
        self.postgres.begin(&self.session, self.deadline)?;
        self.postgres.finish(&self.session, self.deadline, work)
    }
}

/// What reads and writes a session's socket.
type Socket = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn open<T>(config: &Config, tls: T) -> Result<(Client, Socket), tokio_postgres::Error>
where
    T: MakeTlsConnect<tokio_postgres::Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    // What ends it is told to whoever waits for an answer.
    Ok((client, Box::pin(async { drop(connection.await) })))
}

/// A transaction that is open.
struct Open<'a> {
    client: &'a Client,
    runtime: &'a Runtime,
    deadline: Instant,
}

impl Open<'_> {
    fn wait<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        wait(self.runtime, self.deadline, "a statement failed", work)
    }
}

impl Statements for Open<'_> {
    fn execute(&mut self, sql: &str, given: &[Given<'_>]) -> Result<u64> {
        self.wait(self.client.execute_typed(sql, &typed(given)))
    }

    fn query(&mut self, sql: &str, given: &[Given<'_>]) -> Result<Vec<Columns>> {
        let rows = self.wait(self.client.query_typed(sql, &typed(given)))?;
        rows.iter().map(|row| columns(row).map_err(|error| failed("a row cannot be read", &error))).collect()
    }

    fn script(&mut self, sql: &str) -> Result<()> {
        self.wait(self.client.batch_execute(sql))
    }

    fn has_schema(&mut self) -> Result<bool> {
        let found = self.query("SELECT count(*) FROM pg_class WHERE oid = to_regclass('sluicegate_schema')", &[])?;
        Ok(found.into_iter().next().map_or(Ok(0), |mut row| row.int())? > 0)
    }

    fn lock_schema(&mut self) -> Result<()> {
        self.query("SELECT 1::bigint FROM pg_advisory_xact_lock($1)", &[Given::Int(SCHEMA_LOCK)]).map(drop)
    }
}

fn typed<'a>(given: &'a [Given<'a>]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    let typed = |given: &'a Given<'a>| match given {
        Given::Int(value) => (value as &(dyn ToSql + Sync), Type::INT8),
        Given::Text(text) => (text as &(dyn ToSql + Sync), Type::TEXT),
    };
    given.iter().map(typed).collect()
}

fn columns(row: &Row) -> Result<Columns, tokio_postgres::Error> {
    let value = |at: usize| match *row.columns()[at].type_() {
        Type::INT8 => row.try_get(at).map(Value::Int),
        _ => row.try_get(at).map(Value::Text),
    };
    (0..row.len()).map(value).collect::<Result<_, _>>().map(Columns::new)
}

/// Runs it to its end or to the deadline; the session's socket is driven meanwhile.
fn wait<T>(
    runtime: &Runtime,
    deadline: Instant,
    what: &str,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match runtime.block_on(async { timeout_at(deadline, work).await }) {
        Ok(done) => done.map_err(|error| failed(what, &error)),
        Err(_) => Err(Error::new(Code::Io, format!("state.postgres: {what}: the database did not answer in time"))),
    }
}

/// What the server or the network said. Neither knows the password; the URL, which has it, is in no message.
fn failed(what: &str, error: &tokio_postgres::Error) -> Error {
    let mut code = Code::Io;
    let said = match error.as_db_error() {
        Some(said) => {
            // Of these classes a person has to mend something: who may come in, which databases there are, what a role may do.
            if ["28", "3D", "42"].iter().any(|class| said.code().code().starts_with(class)) {
                code = Code::BadConfig;
            }
            format!("{} ({})", said.message(), said.code().code())
        }
        None => {
            let mut said = error.to_string();
            let mut next = error.source();
            while let Some(cause) = next {
                said = format!("{said}: {cause}");
                next = cause.source();
            }
            said
        }
    };
    Error::new(code, format!("state.postgres: {what}: {said}"))
}
