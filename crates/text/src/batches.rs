//! Which rows are computed together: those of like lengths, no more tokens at once than are allowed. Pure.

/// What bounds the tokens that are computed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Most tokens, padding included; one row alone may have more.
    pub tokens: usize,
    /// Where rows are filled up to the longest: the tokens that cost as much as another run does. `None` where they are not.
    pub run: Option<usize>,
}

/// The part of a batch that padding may be, where it is more than another run would cost.
const SHARE: usize = 8;

/// The places of rows in batches, shorter rows first, and those of one length as they came.
pub fn batches(lengths: &[usize], bound: Bound) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&place| lengths[place]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0_usize;
    for place in order {
        let with = tokens.saturating_add(lengths[place]);
        match batches.last_mut() {
            Some(batch) if fits(batch.len() + 1, lengths[place], with, bound) => {
                batch.push(place);
                tokens = with;
            }
            _ => {
                batches.push(vec![place]);
                tokens = lengths[place];
            }
        }
    }
    batches
}

/// Whether so many rows with so many tokens, of which the longest has `longest`, are computed at once.
fn fits(rows: usize, longest: usize, tokens: usize, bound: Bound) -> bool {
    let Some(run) = bound.run else { return tokens <= bound.tokens };
    let filled = longest.saturating_mul(rows);
    filled <= bound.tokens && filled - tokens <= run.max(filled / SHARE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_row_is_in_one_batch_and_no_batch_is_too_large_unless_it_has_one_row(
            lengths in prop::collection::vec(1..300_usize, 0..80),
            tokens in 1..2000_usize,
            run in prop::option::of(0..5000_usize),
        ) {
            let bound = Bound { tokens, run };
            let batches = batches(&lengths, bound);
            let mut places: Vec<usize> = batches.iter().flatten().copied().collect();
            prop_assert!(places.iter().map(|&place| lengths[place]).is_sorted(), "shorter ones first");
            places.sort_unstable();
            prop_assert_eq!(places, (0..lengths.len()).collect::<Vec<_>>());
            for batch in batches.iter().filter(|batch| batch.len() > 1) {
                let read: usize = batch.iter().map(|&place| lengths[place]).sum();
                let longest = batch.iter().map(|&place| lengths[place]).max().unwrap_or(0);
                let size = if run.is_some() { longest * batch.len() } else { read };
                prop_assert!(size <= tokens, "{size} tokens in {batch:?}");
                if let Some(run) = run {
                    prop_assert!(size - read <= run.max(size / SHARE), "{} of {size} are padding", size - read);
                }
            }
        }
    }

    #[test]
    fn rows_of_one_length_share_a_run_and_a_long_one_does_not_fill_up_the_short_ones() {
        let bound = Bound { tokens: 100, run: Some(8) };
        assert_eq!(batches(&[5, 60, 5, 7, 5], bound), [vec![0, 2, 4, 3], vec![1]]);
        assert_eq!(batches(&[50, 50, 50], bound), [vec![0, 1], vec![2]]);
        assert_eq!(batches(&[500, 1], bound), [vec![1], vec![0]]);
        assert_eq!(batches(&[5, 60, 5, 7, 5], Bound { tokens: 100, run: None }), [vec![0, 2, 4, 3, 1]]);
    }
}
