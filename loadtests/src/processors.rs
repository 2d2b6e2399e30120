//! Which processors a program has: what is measured, and what measures it, apart.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors of this thread.
///
/// # Panics
/// Where the system does not say.
pub fn all() -> Vec<usize> {
    let mine = sched_getaffinity(None).expect("a thread knows its processors");
    (0..CpuSet::MAX_CPU).filter(|&processor| mine.is_set(processor)).collect()
}

/// Does something on some of the processors of this thread. Programs that are started meanwhile stay on them.
///
/// # Panics
/// Where they are none of this thread's.
pub fn on<T>(processors: &[usize], work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).expect("a thread knows its processors");
    let mut some = CpuSet::new();
    processors.iter().for_each(|&processor| some.set(processor));
    sched_setaffinity(None, &some).expect("they are this thread's");
    let done = work();
    sched_setaffinity(None, &before).expect("they were this thread's");
    done
}
