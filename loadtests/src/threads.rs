//! Where a process spends its time: what its threads ran and waited for a core, by their names, as Linux counts it.

use std::collections::BTreeMap;
use std::fs;

/// Seconds of the threads of one name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// On a core.
    pub ran: f64,
    /// Ready to run, without a core.
    pub waited: f64,
    /// Times on a core.
    pub turns: f64,
    /// The priority: 0 is the normal one, higher ones go after it.
    pub nice: i64,
}

/// What every thread of a process has spent up to now, by thread id.
#[derive(Clone, Debug, Default)]
pub struct Threads(BTreeMap<u64, (String, Spent)>);

impl Threads {
    /// Looks at them.
    pub fn of(process: u32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let thread = |entry: fs::DirEntry| {
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
            let id = entry.file_name().to_string_lossy().parse().ok()?;
            let schedule: Vec<f64> = read("schedstat")?.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let stat = read("stat")?;
            let nice = stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()?;
            let &[ran, waited, turns] = &schedule[..] else { return None };
            let spent = Spent { ran: ran / 1e9, waited: waited / 1e9, turns, nice };
            Some((id, (read("comm")?.trim().to_owned(), spent)))
        };
        Self(tasks.filter_map(thread).collect())
    }

    /// What was spent since `before`, by name. What threads spent that have ended meanwhile is not known.
    pub fn since(&self, before: &Self) -> BTreeMap<String, Spent> {
        let mut all: BTreeMap<String, Spent> = BTreeMap::new();
        for (id, (name, now)) in &self.0 {
            let then = before.0.get(id).filter(|(former, _)| former == name).map(|(_, spent)| *spent).unwrap_or_default();
            let sum = all.entry(name.clone()).or_default();
            sum.ran += now.ran - then.ran;
            sum.waited += now.waited - then.waited;
            sum.turns += now.turns - then.turns;
            sum.nice = sum.nice.max(now.nice);
        }
        all
    }
}
