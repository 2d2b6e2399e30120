//! Whether the candidate fails oftener than stable: a test of two counts that holds however often one looks, and while shares change.
//!
//! After Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022: if both variants fail equally often, a
//! failure falls on the candidate as often as a request does. What they integrate over a beta distribution is summed here over some
//! ratios of the two rates, because a ratio means the same whatever the share is: in a slice of time in which the candidate had the
//! part `w` of all requests, and `x` of `f` failures were its own, the likelihood beside that of equal rates is
//! `θ^x / (wθ + 1 - w)^f` for a candidate that fails `θ` times as often.
//!
//! That `w` is the part of requests that really fell to the candidate in the slice, not the share that was declared: heavy callers who
//! stay on one variant do not pass for failures. Given `w` and `f`, under equal rates `x` is hypergeometric; the likelihood is convex in `x`,
//! so that its mean is at most that of a binomial `x` (Hoeffding 1963, theorem 4), which is 1. A product over slices is then a
//! supermartingale, and so is a mean over ratios.

/// How many times as often a worse candidate may fail, or say a thing.
pub const WORSE: [f64; 10] = [1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// How many times as often another distribution may say a thing.
pub const OTHER: [f64; 6] = [0.2, 0.5, 0.8, 1.25, 2.0, 5.0];

/// Adds a slice of time to the logarithms of the likelihoods: `own` of `all` things fell to the candidate, and the part `share` of all
/// requests.
pub fn settle(logs: &mut [f64], ratios: &[f64], own: u64, all: u64, share: f64) {
    for (log, ratio) in logs.iter_mut().zip(ratios) {
        *log += own as f64 * ratio.ln() - all as f64 * (share * ratio + 1.0 - share).ln();
    }
}

/// The logarithm of the e-value: that of the mean of the likelihoods. Under equal rates it passes `ln(1/α)`, ever, with a probability of at
/// most `α`.
pub fn log_e(logs: &[f64]) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !most.is_finite() {
        return 0.0;
    }
    let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
    most + (sum / logs.len() as f64).ln()
}

/// The logarithm of the e-value that `own` of `all` draws fell to a part that each falls to with the probability `share`: the mixture over
/// a beta distribution about the share, as in the paper. Two-sided.
pub fn log_e_of_share(own: u64, all: u64, share: f64) -> f64 {
    if share <= 0.0 || share >= 1.0 {
        // Nothing can fall to the other part.
        let wrong = if share <= 0.0 { own } else { all - own };
        return if wrong > 0 { f64::INFINITY } else { 0.0 };
    }
    // As heavy as two draws: broad, and still the more likely the nearer to the share.
    let (a, b) = (2.0 * share, 2.0 * (1.0 - share));
    let (own, rest) = (own as f64, (all - own) as f64);
    log_beta(a + own, b + rest) - log_beta(a, b) - own * share.ln() - rest * (1.0 - share).ln()
}

/// The logarithm of the beta function.
pub fn log_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}
