//! Processes of their own: this test program again, which does what it is told, to be raced with and killed.

use std::io::{BufRead, BufReader, Write, stdin};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use sluicegate_state::{Incarnation, Next, Store};

use crate::places::Kept;
use crate::{event, key};

/// A child; it is killed when it is dropped.
pub(crate) struct Child {
    process: process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Starts a child on this place, with an order: `race` or `write`.
pub(crate) fn start(kept: &Kept, replica: &str, order: &str) -> Child {
    let mut process = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child::does_what_it_is_told", "--ignored", "--nocapture", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("a child");
    let (input, output) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
    let mut child = Child { process, input, output: BufReader::new(output) };
    child.tell(&kept.line());
    child.tell(replica);
    child.tell(order);
    child
}

impl Child {
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").and_then(|()| self.input.flush()).expect("a child that listens");
    }

    /// The next thing that it says; what the harness prints is passed over.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("a line") > 0 {
            if let Some((_, said)) = line.trim_end().split_once("child: ") {
                return said.to_owned();
            }
            line.clear();
        }
        panic!("the child is gone");
    }

    /// SIGKILL: it cannot do a thing about it.
    pub(crate) fn kill(mut self) {
        assert!(self.process.try_wait().expect("a process").is_none(), "the child has ended by itself");
        self.process.kill().expect("a process");
        self.process.wait().expect("its end");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have been waited for already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
#[ignore = "a process that other tests start, and kill"]
fn does_what_it_is_told() {
    let mut lines = stdin().lock().lines().map_while(Result::ok);
    let (Some(line), Some(replica), Some(order)) = (lines.next(), lines.next(), lines.next()) else { return };
    let mut store = Store::open(&Kept::of(&line), Incarnation::new(&*replica).expect("a name")).expect("a store");
    println!("child: ready");
    match &*order {
        "race" => lines.for_each(|round| println!("child: {}", race(&mut store, &replica, &round))),
        "write" => loop {
            write(&mut store).expect("written");
        },
        other => panic!("{other} is no order"),
    }
}

fn race(store: &mut Store, replica: &str, round: &str) -> String {
    let expected: u64 = round.parse().expect("a number");
    let happened = [event(format!("{round} {replica}"))];
    let next = Next { digest: "sha256:1", document: replica };
    match store.advance("fraud", (expected > 0).then_some(expected), next, &happened) {
        Ok(true) => "won".to_owned(),
        Ok(false) => "lost".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A change with two events, and evidence of two stages that say the same.
pub(crate) fn write(store: &mut Store) -> sluicegate_core::Result<()> {
    let expected = store.load("fraud")?.map(|row| row.revision);
    let revision = (expected.unwrap_or(0) + 1).to_string();
    let happened = ["a", "b"].map(|name| event(format!("{revision} {name}")));
    store.advance("fraud", expected, Next { digest: "sha256:1", document: &revision }, &happened)?;
    store.put_evidence(&[(key(0), revision.clone()), (key(1), revision)], 1)
}

/// Whether what is kept is what [`write`] may have left, wherever it was stopped. How often it had written.
pub(crate) fn judge(store: &mut Store, replica: &str) -> u64 {
    let row = store.load("fraud").expect("a row");
    let revision = row.as_ref().map_or(0, |row| row.revision);
    if let Some(row) = row {
        assert_eq!(row.document, row.revision.to_string(), "a row is written whole");
    }
    let events = store.events("fraud", None, usize::MAX).expect("events");
    let expected = revision.saturating_sub(sluicegate_state::EVENTS / 2) + 1..=revision;
    let expected: Vec<_> =
        expected.flat_map(|revision| ["a", "b"].map(|name| (format!("{revision} {name}"), Some(revision)))).collect();
    let found: Vec<_> = events.into_iter().map(|stored| (stored.event.id, stored.revision)).collect();
    assert_eq!(found, expected, "each change has its events, once");
    let evidence = [0, 1].map(|stage| {
        let all = store.evidence(&key(stage)).expect("evidence");
        all.into_iter().filter(|one| one.replica.as_str() == replica).map(|one| one.document).collect::<Vec<_>>()
    });
    assert_eq!(evidence[0], evidence[1], "what is written together is kept together");
    if let [counted] = &*evidence[0] {
        let counted: u64 = counted.parse().expect("a number");
        assert!(counted <= revision, "{counted} was counted, and {revision} is kept");
    }
    revision
}
