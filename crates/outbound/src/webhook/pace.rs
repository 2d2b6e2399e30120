//! What an answer means for an event, and how long to wait before the next attempt. Pure: clock and chance are parameters.

use std::time::{Duration, SystemTime};

/// No wait is longer, whatever the settings say.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long to wait between two attempts: twice as long each time, up to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Most of the wait after the first attempt.
    pub first: Duration,
    /// Most of any wait, also of one that a receiver asks for.
    pub most: Duration,
}

impl Default for Pace {
    /// Eight attempts span about a minute and a half; a receiver that asks for more gets up to five minutes.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(300) }
    }
}

impl Pace {
    /// The wait after so many attempts, which are at least one. Chance is in [0, 1): the wait is between half of its most and all
    /// of it, so that receivers that come back are not met by all at once.
    pub fn wait(&self, attempts: u32, asked: Option<Duration>, chance: f64) -> Duration {
        // Beyond 2^30 times the first wait every bound is reached.
        let doubled = self.first.saturating_mul(1 << attempts.saturating_sub(1).min(30)).min(self.most);
        let half = doubled / 2;
        let own = half + half.mul_f64(chance.clamp(0.0, 1.0));
        own.max(asked.unwrap_or_default().min(self.most)).min(DAY)
    }
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The receiver has it.
    Taken,
    /// The receiver will not have it, however often it is tried.
    Refused,
    /// To try again may help, after the time that the receiver asks for.
    Again(Option<Duration>),
}

/// What a status means, with the `retry-after` that came with it, at this time.
pub fn meaning(status: u16, retry_after: Option<&str>, now: SystemTime) -> Meaning {
    match status {
        200..=299 => Meaning::Taken,
        408 | 429 | 500..=599 => Meaning::Again(retry_after.and_then(|text| asked(text.trim(), now))),
        _ => Meaning::Refused,
    }
}

/// `retry-after` is a number of seconds or a date.
fn asked(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(text).ok()?;
    then.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let mean = |status| meaning(status, None, SystemTime::UNIX_EPOCH);
        for status in 100..600 {
            let expected = match status {
                200..300 => Meaning::Taken,
                408 | 429 | 500.. => Meaning::Again(None),
                _ => Meaning::Refused,
            };
            assert_eq!(mean(status), expected, "{status}");
        }
    }

    #[test]
    fn a_receiver_says_in_seconds_or_by_a_date_when_to_come_again() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_767);
        let mean = |text| meaning(429, Some(text), now);
        assert_eq!(mean("120"), Meaning::Again(Some(120 * SECOND)));
        assert_eq!(mean(" 0 "), Meaning::Again(Some(Duration::ZERO)));
        assert_eq!(mean("Sun, 06 Nov 1994 08:49:37 GMT"), Meaning::Again(Some(10 * SECOND)));
        for nothing in ["Sun, 06 Nov 1994 08:49:00 GMT", "soon", "-1", "1.5", ""] {
            assert_eq!(mean(nothing), Meaning::Again(None), "{nothing}");
        }
        assert_eq!(meaning(404, Some("1"), now), Meaning::Refused);
    }

    #[test]
    fn waits_double_up_to_their_bound() {
        let pace = Pace { first: SECOND, most: 10 * SECOND };
        let waits: Vec<u64> = (1..7).map(|attempts| pace.wait(attempts, None, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(pace.wait(3, None, 0.0), 2 * SECOND);
    }

    proptest! {
        #[test]
        fn a_wait_is_bounded_and_no_shorter_than_asked_for_within_the_bound(
            first in 0..10_000u64, most in 0..1_000_000u64, attempts: u32, asked: Option<u64>, chance in 0.0..1.0,
        ) {
            let pace = Pace { first: Duration::from_millis(first), most: Duration::from_millis(most) };
            let asked = asked.map(Duration::from_secs);
            let wait = pace.wait(attempts, asked, chance);
            prop_assert!(wait <= pace.most);
            prop_assert!(wait >= asked.unwrap_or_default().min(pace.most));
            prop_assert!(wait >= pace.first.min(pace.most).mul_f64(0.49));
            prop_assert!(pace.wait(attempts, asked, 0.0) <= wait);
            prop_assert!(pace.wait(attempts.saturating_add(1), asked, chance) >= wait);
        }

        #[test]
        fn no_header_makes_reading_it_fail_badly(text: String, status: u16) {
            meaning(status, Some(&text), SystemTime::UNIX_EPOCH);
        }
    }
}
