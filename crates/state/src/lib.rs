//! Where what a rollout has learnt survives a restart, and where replicas meet: SQLite for one of them, PostgreSQL for several.
//!
//! ```text
//! place     where it is kept; a secret is read when it is used
//! database  what the store asks of a database, so that each statement is written once
//! sqlite    one file
//! postgres  one session, opened anew when it was lost; postgres/url, postgres/tls
//! schema    migrations
//! store     rows, evidence and events
//! ```
//!
//! It keeps documents and knows nothing of what is in them. All calls block and are bounded in time; they belong to a thread of their
//! own, which is not one of an asynchronous runtime, and never to a request.
//!
//! **After an error it is unknown whether the call was done.** That is safe to find out: a row moves by compare-and-set, an event has
//! an id of its own, evidence is written whole. So whoever got an error loads the row and goes on from there.

mod database;
mod place;
mod postgres;
mod schema;
mod sqlite;
mod store;

pub use place::{Incarnation, Place, Secret};
pub use store::{DOCUMENT, EVENTS, Event, Evidence, EvidenceKey, Next, REPLICAS, Row, Store, StoredEvent, WORD};
