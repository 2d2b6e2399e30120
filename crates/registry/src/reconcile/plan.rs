//! What to do about one model: a pure function of what is declared, what is found, and what is live.

use std::collections::HashMap;
use std::time::Duration;

use super::hold::Hold;
use crate::source::{Fingerprint, Found};
use crate::spec::{Also, Run, Spec, Want};

/// What is known of a live version.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing<'a> {
    /// Its files when they were read.
    pub fingerprint: Fingerprint,
    /// How it was declared to run.
    pub run: &'a Run,
}

/// Why a version is not tried again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its files when it failed.
    pub fingerprint: Fingerprint,
    /// Whether its files had come to rest. If not, it is tried once more when they have.
    pub settled: bool,
}

/// What a version's files are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Still being copied, as far as one can tell.
    Moving,
    /// Not resting yet, but its manifest vouches for its files: worth a try.
    Vouched,
    /// Nothing has changed for the settling time.
    Settled,
}

/// All that is known of one model's versions.
pub struct Scene<'a> {
    /// What is declared.
    pub spec: &'a Spec,
    /// What the registry has, by ascending number.
    pub found: &'a [Found],
    /// What each found version's files are worth.
    pub readiness: &'a dyn Fn(&Found) -> Readiness,
    /// Whether a found version has the declared digest.
    pub has_digest: &'a dyn Fn(&Found) -> bool,
    /// What has failed, by number.
    pub failed: &'a HashMap<u64, Failure>,
    /// What is live, by number.
    pub live: &'a HashMap<u64, Standing<'a>>,
    /// The version that answers now.
    pub default: Option<u64>,
    /// What callers changed by hand.
    pub hold: &'a Hold,
    /// Whether it is on demand, and nobody demands it: none of its versions is to be in memory.
    pub rests: bool,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The version that should answer, where one could.
    pub default: Option<u64>,
    /// The live version that answers until then: the one that does now, unless it was unloaded by hand.
    pub stays: Option<u64>,
    /// The version to load next. One at a time, and first the one that should answer.
    pub load: Option<u64>,
    /// Versions that are no longer wanted. Never the one that answers, unless it was unloaded by hand.
    pub retire: Vec<u64>,
}

impl Readiness {
    /// Judges by the time that nothing has changed.
    pub fn of(still: Duration, settle: Duration, vouched: impl FnOnce() -> bool) -> Self {
        if still >= settle {
            Self::Settled
        } else if vouched() {
            Self::Vouched
        } else {
            Self::Moving
        }
    }
}

/// Decides.
pub fn plan(scene: &Scene<'_>) -> Plan {
    let usable = |found: &&Found| {
        let readiness = (scene.readiness)(found);
        let failed = scene.failed.get(&found.version).is_some_and(|failure| {
            let retry = readiness == Readiness::Settled && !failure.settled;
            failure.fingerprint == found.fingerprint && !retry
        });
        readiness != Readiness::Moving && !failed
    };
    let standing = |found: &Found| {
        let fits = |live: &Standing<'_>| live.fingerprint == found.fingerprint && *live.run == scene.spec.run;
        scene.live.get(&found.version).is_some_and(fits)
    };
    let usable: Vec<&Found> = scene.found.iter().filter(usable).collect();

    let target = match &scene.spec.version {
        Want::Latest => usable.last().copied(),
        Want::LatestOf(numbers) => usable.iter().rev().copied().find(|found| numbers.contains(&found.version)),
        Want::Number(number) => usable.iter().copied().find(|found| found.version == *number),
        Want::Digest(_) => usable.iter().copied().find(|found| (scene.has_digest)(found)),
    };
    let leaves = |number: u64| scene.rests || scene.hold.leaves(number);
    let target = target.filter(|found| !leaves(found.version));
    // What answers now goes on answering while the version that should is not there, broken, or still on its way.
    let newest = || scene.live.keys().copied().filter(|number| !leaves(*number)).max();
    let stays = scene.default.filter(|number| !leaves(*number)).or_else(newest);
    let default = target.map(|found| found.version).or(stays);
    let by_hand = |number: &u64| scene.hold.beside.contains(number);
    let beside = |found: &&Found| match &scene.spec.also {
        _ if by_hand(&found.version) => true,
        Also::All => true,
        Also::Numbers(numbers) => numbers.contains(&found.version),
        Also::Newest(count) => usable.iter().rev().take(*count).any(|newest| newest.version == found.version),
    };
    let wanted: Vec<&Found> =
        target.into_iter().chain(usable.iter().copied().filter(beside)).filter(|found| !leaves(found.version)).collect();
    let load = wanted.iter().find(|found| !standing(found)).map(|found| found.version);

    let keep = |number: &u64| {
        let declared = match &scene.spec.also {
            _ if by_hand(number) => true,
            Also::All => scene.found.iter().any(|found| found.version == *number),
            Also::Numbers(numbers) => numbers.contains(number),
            // Of those that are live: none goes before the one that takes its place is there.
            Also::Newest(count) => {
                let live = scene.found.iter().rev().filter(|found| scene.live.contains_key(&found.version));
                live.take(*count).any(|found| found.version == *number)
            }
        };
        (declared || Some(*number) == default || Some(*number) == scene.default) && !leaves(*number)
    };
    let mut retire: Vec<u64> = scene.live.keys().copied().filter(|number| !keep(number)).collect();
    retire.sort_unstable();
    Plan { default, stays, load, retire }
}

#[cfg(test)]
mod tests {
    use sluicegate_core::ModelName;

    use super::*;

    fn run() -> Run {
        Run {
            options: sluicegate_engine::Options::default(),
            limits: sluicegate_batch::Limits { max_rows: 8, max_delay: Duration::ZERO, queue_rows: 64 },
            execution: sluicegate_batch::Execution::Auto,
            preferred: Vec::new(),
            priorities: crate::spec::Priorities::default(),
            timeout: Duration::from_secs(1),
            own_timeout: true,
            cache: None,
            allow_signature_change: false,
            said: crate::spec::Said::default(),
        }
    }

    fn found(version: u64, content: u64) -> Found {
        let model: ModelName = "m".parse().expect("a name");
        let (fingerprint, still) = (Fingerprint(content), Duration::from_secs(9));
        Found { model, version, path: "m".into(), fingerprint, still, config: None, overruled: false }
    }

    struct Case {
        version: Want,
        also: Also,
        found: Vec<Found>,
        moving: Vec<u64>,
        failed: Vec<(u64, u64)>,
        live: Vec<(u64, u64)>,
        default: Option<u64>,
        hold: Hold,
        rests: bool,
    }

    impl Default for Case {
        fn default() -> Self {
            let found = vec![found(1, 1), found(2, 2), found(3, 3)];
            let (moving, failed, live, hold) = Default::default();
            let (also, default, rests) = (Also::Numbers(vec![]), None, false);
            Self { version: Want::Latest, also, found, moving, failed, live, default, hold, rests }
        }
    }

    impl Case {
        fn plan(self) -> (Option<u64>, Option<u64>, Vec<u64>) {
            let run = run();
            let name = "m".parse().expect("a name");
            let spec = Spec {
                name,
                registry: "local".into(),
                version: self.version,
                also: self.also,
                aliases: Default::default(),
                residency: Default::default(),
                run: run.clone(),
            };
            let spec = self.hold.over(spec);
            let failure =
                |&(version, content): &(u64, u64)| (version, Failure { fingerprint: Fingerprint(content), settled: true });
            let standing =
                |&(version, content): &(u64, u64)| (version, Standing { fingerprint: Fingerprint(content), run: &run });
            let moving = self.moving;
            let plan = plan(&Scene {
                spec: &spec,
                found: &self.found,
                readiness: &|found| if moving.contains(&found.version) { Readiness::Moving } else { Readiness::Settled },
                has_digest: &|found| found.version == 2,
                failed: &self.failed.iter().map(failure).collect(),
                live: &self.live.iter().map(standing).collect(),
                default: self.default,
                hold: &self.hold,
                rests: self.rests,
            });
            (plan.default, plan.load, plan.retire)
        }
    }

    #[test]
    fn the_newest_complete_version_is_loaded() {
        assert_eq!(Case::default().plan(), (Some(3), Some(3), vec![]));
        assert_eq!(Case { moving: vec![3], ..Case::default() }.plan(), (Some(2), Some(2), vec![]));
    }

    #[test]
    fn a_failed_version_is_passed_over_until_its_files_change() {
        assert_eq!(Case { failed: vec![(3, 3)], ..Case::default() }.plan(), (Some(2), Some(2), vec![]));
        assert_eq!(Case { failed: vec![(3, 7)], ..Case::default() }.plan(), (Some(3), Some(3), vec![]));
    }

    #[test]
    fn the_old_version_is_retired_only_when_the_new_one_answers() {
        let live = || vec![(2, 2)];
        assert_eq!(Case { live: live(), default: Some(2), ..Case::default() }.plan(), (Some(3), Some(3), vec![]));
        let live = vec![(2, 2), (3, 3)];
        assert_eq!(Case { live, default: Some(3), ..Case::default() }.plan(), (Some(3), None, vec![2]));
    }

    #[test]
    fn what_answers_stays_when_its_files_or_all_files_vanish() {
        let case = Case { found: vec![], live: vec![(2, 2)], default: Some(2), ..Case::default() };
        assert_eq!(case.plan(), (Some(2), None, vec![]));
        let case = Case { version: Want::Number(9), live: vec![(2, 2)], default: Some(2), ..Case::default() };
        assert_eq!(case.plan(), (Some(2), None, vec![]));
    }

    #[test]
    fn changed_content_is_loaded_anew_beside_the_old() {
        let case = Case { live: vec![(3, 8)], default: Some(3), ..Case::default() };
        assert_eq!(case.plan(), (Some(3), Some(3), vec![]));
    }

    #[test]
    fn versions_named_beside_the_default_are_loaded_after_it_and_kept() {
        let case = || Case { version: Want::Number(2), also: Also::All, ..Case::default() };
        assert_eq!(case().plan(), (Some(2), Some(2), vec![]));
        let case = Case { live: vec![(2, 2)], default: Some(2), ..case() };
        assert_eq!(case.plan(), (Some(2), Some(1), vec![]));
        let case = Case { also: Also::Numbers(vec![1]), live: vec![(1, 1), (2, 2), (3, 3)], default: Some(3), ..Case::default() };
        assert_eq!(case.plan(), (Some(3), None, vec![2]));
    }

    fn held(off: bool, beside: &[u64], without: &[u64]) -> Hold {
        Hold { off, beside: beside.iter().copied().collect(), without: without.iter().copied().collect(), ..Hold::default() }
    }

    #[test]
    fn an_unloaded_model_serves_what_was_loaded_by_hand_and_nothing_else() {
        let live = || vec![(3, 3)];
        let case = |hold| Case { live: live(), default: Some(3), hold, ..Case::default() };
        assert_eq!(case(held(true, &[], &[])).plan(), (None, None, vec![3]));
        assert_eq!(case(held(true, &[1], &[])).plan(), (None, Some(1), vec![3]));
        let case = Case { live: vec![(1, 1)], default: Some(1), hold: held(true, &[1], &[]), ..Case::default() };
        assert_eq!(case.plan(), (Some(1), None, vec![]));
    }

    #[test]
    fn a_version_loaded_by_hand_serves_beside_the_default() {
        let case = Case { live: vec![(3, 3)], default: Some(3), hold: held(false, &[1], &[]), ..Case::default() };
        assert_eq!(case.plan(), (Some(3), Some(1), vec![]));
        let case = Case { live: vec![(1, 1), (3, 3)], default: Some(3), hold: held(false, &[1], &[]), ..Case::default() };
        assert_eq!(case.plan(), (Some(3), None, vec![]));
    }

    #[test]
    fn after_an_unloaded_default_the_newest_live_one_answers_and_none_is_loaded_instead() {
        let case = |live, default| Case { live, default, hold: held(false, &[], &[3]), ..Case::default() };
        assert_eq!(case(vec![(3, 3)], Some(3)).plan(), (None, None, vec![3]));
        let all = Case { also: Also::All, ..case(vec![(1, 1), (2, 2), (3, 3)], Some(3)) };
        assert_eq!(all.plan(), (Some(2), None, vec![3]));
        // A later version is another one.
        let found = vec![found(3, 3), found(4, 4)];
        assert_eq!(Case { found, ..case(vec![(3, 3)], Some(3)) }.plan(), (Some(4), Some(4), vec![3]));
    }

    #[test]
    fn the_newest_few_are_kept_until_a_newer_one_is_live() {
        let case = |live: &[u64]| Case {
            also: Also::Newest(2),
            live: live.iter().map(|&version| (version, version)).collect(),
            default: live.last().copied(),
            ..Case::default()
        };
        assert_eq!(case(&[]).plan(), (Some(3), Some(3), vec![]));
        assert_eq!(case(&[1, 2]).plan(), (Some(3), Some(3), vec![]), "1 goes when 3 is there");
        assert_eq!(case(&[1, 2, 3]).plan(), (Some(3), None, vec![1]));
        let failed = Case { failed: vec![(3, 3)], ..case(&[2]) };
        assert_eq!(failed.plan(), (Some(2), Some(1), vec![]), "one that fails is not counted");
    }

    #[test]
    fn the_newest_of_those_named_answers() {
        let case = |live: Vec<(u64, u64)>, default| Case {
            version: Want::LatestOf(vec![1, 2]),
            also: Also::Numbers(vec![1, 2]),
            live,
            default,
            ..Case::default()
        };
        assert_eq!(case(vec![], None).plan(), (Some(2), Some(2), vec![]));
        assert_eq!(case(vec![(1, 1), (2, 2), (3, 3)], Some(3)).plan(), (Some(2), None, vec![]));
        assert_eq!(case(vec![(1, 1), (2, 2), (3, 3)], Some(2)).plan(), (Some(2), None, vec![3]));
    }

    #[test]
    fn a_model_at_rest_has_no_version_in_memory_whatever_is_declared() {
        let case = |live, default| Case { also: Also::All, live, default, rests: true, ..Case::default() };
        assert_eq!(case(vec![], None).plan(), (None, None, vec![]));
        assert_eq!(case(vec![(1, 1), (3, 3)], Some(3)).plan(), (None, None, vec![1, 3]));
        let loaded = Case { hold: held(false, &[1], &[]), ..case(vec![(1, 1)], Some(1)) };
        assert_eq!(loaded.plan(), (None, None, vec![1]));
    }

    #[test]
    fn a_digest_picks_the_version_that_has_it() {
        let digest = format!("sha256:{}", "a".repeat(64)).parse().expect("a digest");
        assert_eq!(Case { version: Want::Digest(digest), ..Case::default() }.plan(), (Some(2), Some(2), vec![]));
    }
}
