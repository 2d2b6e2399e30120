//! Which setting is best: a pure function of the figures and the bound.

use std::time::Duration;

use super::report::time;
use super::{Measured, Tried};
use crate::tune::grid::Setting;

/// Figures that differ by less are the same: two runs of one setting differ by about as much.
const SAME: f64 = 0.03;

/// What was chosen of a list of settings, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The place in the list of the best setting; where none is within the bound, of the one that came nearest. `None` where
    /// nothing was measured.
    pub place: Option<usize>,
    /// Whether it is within the bound.
    pub within: bool,
    /// The reason, in words.
    pub reason: String,
}

/// Of those whose p99 is within the bound, the one that answers most rows a second. Where others come within 3 % of that, the
/// lowest p99 of them all decides, then the fewest cores, the fewest instances, and the smallest batch.
pub fn choose(tried: &[Tried], p99: Option<Duration>) -> Choice {
    let all: Vec<One> = tried.iter().enumerate().filter_map(One::new).collect();
    let within: Vec<One> = all.iter().copied().filter(|one| p99.is_none_or(|bound| one.figures.p99 <= bound)).collect();
    match (best(&within), all.iter().min_by_key(|one| one.key()), p99) {
        (Some((best, same)), _, _) => {
            let rate = best.figures.rows_per_second;
            let mut reason = format!("{}: {rate:.0} rows/s with a p99 of {}", best.setting, time(best.figures.p99));
            match p99 {
                Some(bound) => reason += &format!(" is the most within the bound of {}", time(bound)),
                None => reason += " is the most; no bound on p99 was given",
            }
            if same > 0 {
                reason += &format!("; {same} more within 3 % of the most, of which it has the lower p99 or needs less");
            }
            Choice { place: Some(best.place), within: true, reason }
        }
        (None, Some(nearest), Some(bound)) => {
            let (setting, p99) = (nearest.setting, time(nearest.figures.p99));
            let hint = "offer less (--callers, --rows), add cores, or take a cheaper model";
            let reason = format!("no setting keeps p99 within {}; the nearest is {setting} with {p99}: {hint}", time(bound));
            Choice { place: Some(nearest.place), within: false, reason }
        }
        _ => Choice { place: None, within: false, reason: "no setting could be measured".to_owned() },
    }
}

/// A setting that was measured.
#[derive(Clone, Copy)]
struct One {
    place: usize,
    setting: Setting,
    figures: Measured,
}

impl One {
    fn new((place, tried): (usize, &Tried)) -> Option<Self> {
        Some(Self { place, setting: tried.setting, figures: *tried.outcome.as_ref().ok()? })
    }

    /// Lower p99 first, and then what needs less.
    fn key(&self) -> (Duration, [usize; 4]) {
        (self.figures.p99, self.needs())
    }

    fn needs(&self) -> [usize; 4] {
        [self.setting.cores(), self.setting.instances, self.setting.max_rows, self.place]
    }
}

/// The best one, and how many others answered as much.
fn best(all: &[One]) -> Option<(One, usize)> {
    let most = all.iter().map(|one| one.figures.rows_per_second).fold(0.0, f64::max);
    let mut same: Vec<One> = all.iter().copied().filter(|one| one.figures.rows_per_second >= most * (1.0 - SAME)).collect();
    let others = same.len().checked_sub(1)?;
    let lowest = same.iter().map(|one| one.figures.p99).min()?;
    same.retain(|one| one.figures.p99 <= lowest.mul_f64(1.0 + SAME));
    same.into_iter().min_by_key(One::needs).map(|best| (best, others))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluicegate_batch::Execution;
    use sluicegate_core::{Code, Error};

    use super::*;

    fn tried(max_rows: usize, instances: usize, rate: f64, p99_us: u64) -> Tried {
        let p99 = Duration::from_micros(p99_us);
        let figures = Measured { rows_per_second: rate, p50: p99 / 2, p99, rows_per_run: 1.0, execution: Execution::Threads };
        Tried { setting: Setting { max_rows, instances, threads: 1 }, outcome: Ok(figures) }
    }

    fn failed() -> Tried {
        let setting = Setting { max_rows: 9, instances: 1, threads: 1 };
        Tried { setting, outcome: Err(Error::new(Code::RunFailed, "it failed")) }
    }

    fn list() -> impl Strategy<Value = Vec<Tried>> {
        let one = (1..100usize, 1..5usize, 1.0..10_000.0f64, 1..1_000u64, prop::bool::weighted(0.1));
        let one = one.prop_map(
            |(max_rows, instances, rate, p99, fails)| {
                if fails { failed() } else { tried(max_rows, instances, rate, p99) }
            },
        );
        prop::collection::vec(one, 0..20)
    }

    proptest! {
        #[test]
        fn the_best_is_within_the_bound_and_nobody_within_it_beats_it(list in list(), bound in prop::option::of(1..1_000u64)) {
            let bound = bound.map(Duration::from_micros);
            let choice = choose(&list, bound);
            let measured: Vec<Measured> = list.iter().filter_map(|one| one.outcome.clone().ok()).collect();
            let fits = |one: &&Measured| bound.is_none_or(|bound| one.p99 <= bound);
            prop_assert_eq!(choice.place.is_some(), !measured.is_empty());
            prop_assert_eq!(choice.within, measured.iter().any(|one| fits(&one)));
            let Some(place) = choice.place else { return Ok(()) };
            let chosen = list[place].outcome.clone().expect("only what was measured is chosen");
            if choice.within {
                prop_assert!(fits(&&chosen));
                let most = measured.iter().filter(fits).map(|one| one.rows_per_second).fold(0.0, f64::max);
                prop_assert!(chosen.rows_per_second >= 0.97 * most);
                let same = measured.iter().filter(fits).filter(|one| one.rows_per_second >= 0.97 * most);
                prop_assert!(same.into_iter().all(|one| chosen.p99 <= one.p99.mul_f64(1.03)));
            } else {
                prop_assert!(measured.iter().all(|one| one.p99 >= chosen.p99), "the nearest has the lowest p99");
            }
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(list in list(), bound in 1..1_000u64, turn in 0..20usize) {
            let bound = Some(Duration::from_micros(bound));
            let mut turned = list.clone();
            turned.rotate_left(turn.min(list.len()));
            let (one, other) = (choose(&list, bound), choose(&turned, bound));
            let setting = |list: &[Tried], choice: &Choice| choice.place.map(|place| list[place].setting);
            prop_assert_eq!(setting(&list, &one), setting(&turned, &other));
        }
    }

    #[test]
    fn throughput_decides_then_p99_then_what_needs_less() {
        let bound = Some(Duration::from_millis(20));
        let of = |list: &[Tried]| choose(list, bound).place;
        assert_eq!(of(&[tried(1, 1, 100.0, 10), tried(8, 1, 200.0, 9_000)]), Some(1), "more rows");
        assert_eq!(of(&[tried(1, 1, 200.0, 100), tried(8, 1, 201.0, 200)]), Some(0), "as many rows, a lower p99");
        assert_eq!(of(&[tried(8, 2, 200.0, 100), tried(8, 1, 201.0, 101)]), Some(1), "the same, on fewer cores");
        assert_eq!(of(&[tried(1, 1, 100.0, 10), tried(8, 1, 900.0, 21_000)]), Some(0), "outside of the bound");
        assert_eq!(of(&[failed(), tried(1, 1, 1.0, 10)]), Some(1), "what failed is no choice");
    }

    #[test]
    fn the_reason_says_what_decided() {
        let list = [tried(8, 2, 1234.4, 19_000), tried(1, 1, 100.0, 1_500)];
        let reason = choose(&list, Some(Duration::from_millis(20))).reason;
        assert_eq!(
            reason,
            "max_rows=8 instances=2 threads=1: 1234 rows/s with a p99 of 19.0 ms is the most within the bound of 20.0 ms"
        );
        let none = choose(&list, Some(Duration::from_nanos(1)));
        assert!(!none.within && none.place == Some(1));
        assert!(
            none.reason
                .starts_with("no setting keeps p99 within 1 ns; the nearest is max_rows=1 instances=1 threads=1 with 1.5 ms")
        );
        assert!(choose(&list, None).reason.contains("no bound on p99 was given"));
    }
}
