//! How the states of a text's tokens become one vector.

use serde::Deserialize;

/// How the states of a row's tokens become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean of all.
    #[default]
    Mean,
    /// The first token's.
    #[serde(rename = "cls")]
    First,
    /// The last token's.
    #[serde(rename = "lasttoken")]
    Last,
    /// The maximum of each number.
    Max,
    /// The mean of all, in which each counts by its place: the first once, the second twice.
    WeightedMean,
    /// The sum of all, divided by the root of their count.
    #[serde(rename = "mean_sqrt_len_tokens")]
    MeanSqrtLen,
}

impl Pooling {
    /// Adds the vector of one row's states, of which each has `size` numbers.
    pub fn pool(self, states: &[f32], size: usize, out: &mut Vec<f32>) {
        let count = states.len() / size;
        let (first, others) = states.split_at(size);
        let start = out.len();
        out.extend_from_slice(if self == Self::Last { &states[states.len() - size..] } else { first });
        let vector = &mut out[start..];
        let mut each = |join: fn(f32, f32, f32) -> f32| {
            for (state, place) in others.chunks_exact(size).zip(2_u32..) {
                vector.iter_mut().zip(state).for_each(|(all, one)| *all = join(*all, *one, place as f32));
            }
        };
        let total = match self {
            Self::First | Self::Last => return,
            Self::Max => return each(|all, one, _| all.max(one)),
            Self::WeightedMean => {
                each(|all, one, place| all + one * place);
                (count * (count + 1) / 2) as f32
            }
            Self::Mean | Self::MeanSqrtLen => {
                each(|all, one, _| all + one);
                if self == Self::Mean { count as f32 } else { (count as f32).sqrt() }
            }
        };
        vector.iter_mut().for_each(|sum| *sum /= total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_become_one_vector_in_each_way() {
        let states = [1.0, 2.0, 3.0, -2.0, 2.0, 6.0];
        for (pooling, expected) in [
            (Pooling::Mean, [2.0, 2.0]),
            (Pooling::First, [1.0, 2.0]),
            (Pooling::Last, [2.0, 6.0]),
            (Pooling::Max, [3.0, 6.0]),
            (Pooling::WeightedMean, [13.0 / 6.0, 16.0 / 6.0]),
            (Pooling::MeanSqrtLen, [6.0 / 3_f32.sqrt(), 6.0 / 3_f32.sqrt()]),
        ] {
            let mut out = vec![9.0];
            pooling.pool(&states, 2, &mut out);
            assert_eq!(out, [9.0, expected[0], expected[1]], "{pooling:?}");
        }
    }
}
