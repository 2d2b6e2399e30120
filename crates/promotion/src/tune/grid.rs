//! Which settings are tried, and in which order: a pure function of what is asked and what the machine has.

use std::fmt;

use serde::Serialize;
use sluicegate_registry::spec::Run;

/// One setting, under the names that configuration has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// `batching.max_rows`
    pub max_rows: usize,
    /// `batching.instances`
    pub instances: usize,
    /// `batching.threads`
    pub threads: usize,
}

/// The values that were asked for; where none were, the grid has its own.
#[derive(Clone, Debug, Default)]
pub struct Axes {
    /// Of `max_rows`.
    pub max_rows: Option<Vec<usize>>,
    /// Of `instances`.
    pub instances: Option<Vec<usize>>,
    /// Of `threads`.
    pub threads: Option<Vec<usize>>,
}

/// What bounds the grid.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Cores of the machine: no setting keeps more busy.
    pub cores: usize,
    /// Requests at once: more instances would idle.
    pub callers: usize,
    /// Rows at once: no run has more, so that larger `max_rows` are all the same.
    pub offered: usize,
    /// `batching.queue_rows`
    pub queue_rows: usize,
    /// Whether the model takes several rows in a run.
    pub batched: bool,
    /// Whether its engine uses more than one thread for a run.
    pub threaded: bool,
}

impl Setting {
    /// The one that is configured.
    pub fn of(run: &Run) -> Self {
        Self { max_rows: run.limits.max_rows, instances: run.options.instances.get(), threads: run.options.threads.get() }
    }

    /// Cores that it may keep busy.
    pub fn cores(&self) -> usize {
        self.instances.saturating_mul(self.threads)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max_rows={} instances={} threads={}", self.max_rows, self.instances, self.threads)
    }
}

/// The settings to try: the configured one first, so that the others have something to be compared with, then those that keep
/// fewer cores busy before those that keep more, and small batches before large ones.
pub fn settings(axes: &Axes, configured: Setting, bounds: &Bounds) -> Vec<Setting> {
    let max_rows = axes.max_rows.clone().unwrap_or_else(|| rows(configured.max_rows, bounds));
    let instances = axes.instances.clone().unwrap_or_else(|| {
        let most = bounds.cores.min(bounds.callers);
        steps(most).into_iter().chain([configured.instances]).collect()
    });
    let threads = axes.threads.clone().unwrap_or_else(|| {
        if bounds.threaded { steps(bounds.cores).into_iter().chain([configured.threads]).collect() } else { vec![1] }
    });
    let mut all = Vec::new();
    for &max_rows in &max_rows {
        for &instances in &instances {
            all.extend(threads.iter().map(|&threads| Setting { max_rows, instances, threads }));
        }
    }
    all.retain(|setting| {
        let some = setting.max_rows > 0 && setting.cores() > 0;
        some && setting.cores() <= bounds.cores && setting.max_rows <= bounds.queue_rows
    });
    all.sort_by_key(|setting| (*setting != configured, setting.cores(), setting.instances, setting.max_rows));
    all.dedup();
    all
}

/// Values for `max_rows`: up to what is offered at once, of which the configured value may be one.
fn rows(configured: usize, bounds: &Bounds) -> Vec<usize> {
    if !bounds.batched {
        return vec![configured];
    }
    let mut rows = steps(bounds.offered.min(bounds.queue_rows));
    if configured >= bounds.offered {
        // It stands for all that are no bound to what is offered.
        rows.retain(|&rows| rows < bounds.offered);
    }
    rows.push(configured);
    rows
}

/// 1 to `most`, doubled, or quadrupled where that would be many; `most` itself is the last one.
fn steps(most: usize) -> Vec<usize> {
    let factor = if most <= 8 { 2 } else { 4 };
    let mut steps: Vec<usize> =
        std::iter::successors(Some(1usize), |step| step.checked_mul(factor)).take_while(|&step| step < most).collect();
    steps.push(most.max(1));
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn axis() -> impl Strategy<Value = Option<Vec<usize>>> {
        prop::option::of(prop::collection::vec(0..40usize, 0..5))
    }

    prop_compose! {
        fn setting()(max_rows in 1..300usize, instances in 1..9usize, threads in 1..9usize) -> Setting {
            Setting { max_rows, instances, threads }
        }
    }

    prop_compose! {
        fn bounds()(
            cores in 1..129usize, callers in 1..100usize, rows in 1..9usize, queue_rows in 1..5000usize,
            batched in any::<bool>(), threaded in any::<bool>(),
        ) -> Bounds {
            Bounds { cores, callers, offered: callers * rows, queue_rows, batched, threaded }
        }
    }

    proptest! {
        #[test]
        fn no_setting_is_tried_twice_or_is_more_than_the_machine_and_the_limits_allow(
            max_rows in axis(), instances in axis(), threads in axis(), configured in setting(), bounds in bounds(),
        ) {
            let axes = Axes { max_rows, instances, threads };
            let all = settings(&axes, configured, &bounds);
            for (place, setting) in all.iter().enumerate() {
                prop_assert!(setting.cores() >= 1 && setting.cores() <= bounds.cores && setting.max_rows <= bounds.queue_rows);
                prop_assert!(!all[..place].contains(setting), "{setting} twice");
                let asked = |axis: &Option<Vec<usize>>, value| axis.as_ref().is_none_or(|values| values.contains(&value));
                prop_assert!(asked(&axes.max_rows, setting.max_rows) && asked(&axes.instances, setting.instances));
                prop_assert!(asked(&axes.threads, setting.threads));
            }
        }

        #[test]
        fn the_configured_setting_comes_first_wherever_the_machine_can_run_it(configured in setting(), bounds in bounds()) {
            let all = settings(&Axes::default(), configured, &bounds);
            let fits = configured.cores() <= bounds.cores
                && configured.max_rows <= bounds.queue_rows
                && (bounds.threaded || configured.threads == 1);
            prop_assert_eq!(all.first() == Some(&configured), fits);
        }

        #[test]
        fn without_a_wish_there_is_always_something_to_try_and_not_too_much(bounds in bounds()) {
            let configured = Setting { max_rows: 64.min(bounds.queue_rows), instances: 1, threads: 1 };
            let all = settings(&Axes::default(), configured, &bounds);
            prop_assert!((1..=100).contains(&all.len()), "{} settings", all.len());
            let beyond = all.iter().filter(|setting| setting.max_rows > bounds.offered && **setting != configured);
            prop_assert!(beyond.into_iter().all(|setting| setting.max_rows == configured.max_rows));
        }
    }

    #[test]
    fn two_cores_and_32_callers_are_twelve_settings() {
        let bounds = Bounds { cores: 2, callers: 32, offered: 32, queue_rows: 4096, batched: true, threaded: true };
        let all = settings(&Axes::default(), Setting { max_rows: 64, instances: 1, threads: 1 }, &bounds);
        let shown: Vec<_> = all.iter().map(|s| (s.max_rows, s.instances, s.threads)).collect();
        let first = [(64, 1, 1), (1, 1, 1), (4, 1, 1), (16, 1, 1)];
        let more = [(1, 1, 2), (4, 1, 2), (16, 1, 2), (64, 1, 2), (1, 2, 1), (4, 2, 1), (16, 2, 1), (64, 2, 1)];
        assert_eq!(shown, [&first[..], &more[..]].concat());
    }

    #[test]
    fn an_engine_of_one_thread_and_a_model_of_one_row_leave_only_instances_to_try() {
        let bounds = Bounds { cores: 8, callers: 4, offered: 4, queue_rows: 4096, batched: false, threaded: false };
        let all = settings(&Axes::default(), Setting { max_rows: 64, instances: 1, threads: 1 }, &bounds);
        assert_eq!(
            all.iter().map(|s| (s.max_rows, s.instances, s.threads)).collect::<Vec<_>>(),
            [(64, 1, 1), (64, 2, 1), (64, 4, 1)]
        );
    }
}
