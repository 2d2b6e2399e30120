//! Looks for inputs that break what reads them: kept ones, and mutations of those. On the stable toolchain, without coverage.
//!
//! In reading order: [`targets`] (what is looked at, one table, and what has to hold of it), [`mutate`] (one input out of
//! others), [`drive`] (the loop: what had an outcome of its own is mutated further; what broke is made small), [`corpus`] (the
//! kept inputs, to which a broken one is added), [`report`] (the figures as a page). The program runs each target in a process
//! of its own, so that a stack that overflows is found like anything else.
//!
//! cargo-fuzz and bolero's engines with coverage need a nightly compiler or one that is told to be one. Here an outcome stands
//! in for coverage: the text of an error without its names and numbers says which check refused an input.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

pub mod corpus;
pub mod drive;
pub mod mutate;
pub mod report;
pub mod targets;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What has to hold, for every input of a target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder below `fuzz/corpus`.
    pub name: &'static str,
    /// Reads an input and checks what came of it.
    ///
    /// The outcome is a word that is the same for inputs that went the same way, or what did not hold.
    pub check: fn(&[u8], &mut Memory) -> Result<String, String>,
    /// Words of its language.
    pub words: &'static [&'static [&'static str]],
    /// Most bytes that reading may ask the allocator for: for each byte of an input, and beside.
    pub memory: (usize, usize),
}

/// Counts what the code under test asks the allocator for.
#[derive(Debug, Default)]
pub struct Memory {
    asked: usize,
}

impl Memory {
    /// Runs this and adds what it asks for. Memory that is given back counts all the same.
    pub fn of<T>(&mut self, read: impl FnOnce() -> T) -> T {
        let region = Region::new(ALLOCATOR);
        let read = read();
        self.asked += region.change().bytes_allocated;
        read
    }
}
