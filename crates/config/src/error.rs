//! An error in the configuration: its place, and one clear line.

use std::fmt;

/// One thing wrong with the configuration. Its text is `place: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    place: String,
    message: String,
    line: u64,
}

impl ConfigError {
    /// An error at a place that is no line of a file. An empty place is left out of the text.
    pub fn new(place: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { place: place.to_string(), message: message.into(), line: u64::MAX }
    }

    /// The same error, sorted under this line of the file.
    #[must_use]
    pub(super) fn on_line(mut self, line: u64) -> Self {
        self.line = line;
        self
    }

    /// Where: `sluicegate.yaml:12:5`, `SLUICEGATE__LOG__LEVEL`, `--http`, or nothing.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong, what was expected, and what was got.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn order(&self) -> u64 {
        self.line
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// `; did you mean …?` where one of the words is near enough, else nothing.
pub(super) fn suggest<'a>(got: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    let bound = match got.len() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    let near = words.into_iter().map(|word| (distance(got, word), word)).min_by_key(|(distance, _)| *distance);
    match near {
        Some((distance, word)) if distance <= bound => format!("; did you mean `{word}`?"),
        _ => String::new(),
    }
}

/// Levenshtein's distance, with one row of memory.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        let words = ["max_rows", "max_delay", "queue_rows"];
        assert_eq!(suggest("max_row", words), "; did you mean `max_rows`?");
        assert_eq!(suggest("mx_delays", words), "; did you mean `max_delay`?");
        assert_eq!(suggest("timeout", words), "");
        assert_eq!(suggest("", words), "");
        assert_eq!(suggest("x", []), "");
    }

    #[test]
    fn the_distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
