//! The entities of a text, out of the scores of its tokens. Pure.
//!
//! Neighbours of one kind are one, as the pipeline of `transformers` has it with `aggregation_strategy="simple"`: `B-` of a label
//! begins an entity, any other label goes on with its like, and what is labelled `O` is none.

use serde::Serialize;

use crate::Tokens;
use crate::task::softmax;

const OUTSIDE: &str = "O";

#[derive(Serialize)]
struct Entity<'a> {
    entity_group: &'a str,
    /// The mean of its tokens' probabilities.
    score: f32,
    word: &'a str,
    /// In characters.
    start: usize,
    end: usize,
}

struct Group<'a> {
    kind: &'a str,
    sum: f32,
    tokens: u16,
    from: usize,
    to: usize,
}

/// A list in JSON. `scores` has a number a label for each token.
pub(crate) fn entities<'a>(labels: &'a [String], scores: &[f32], tokens: &'a Tokens) -> String {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (scores, span) in scores.chunks_exact(labels.len().max(1)).zip(&tokens.spans) {
        let Some((from, to)) = *span else { continue };
        let mut scores = scores.to_vec();
        softmax(&mut scores);
        let best = scores.iter().enumerate().fold(0, |best, (place, score)| if *score > scores[best] { place } else { best });
        let label = labels[best].as_str();
        let begins = label.starts_with("B-");
        let kind = if begins || label.starts_with("I-") { &label[2..] } else { label };
        match groups.last_mut().filter(|last| last.kind == kind && !begins) {
            Some(last) => (last.sum, last.tokens, last.to) = (last.sum + scores[best], last.tokens.saturating_add(1), to),
            None => groups.push(Group { kind, sum: scores[best], tokens: 1, from, to }),
        }
    }
    let (mut byte, mut character) = (0, 0);
    let mut characters = |text: &str, to: usize| {
        if to < byte {
            (byte, character) = (0, 0);
        }
        character += text[byte..to].chars().count();
        byte = to;
        character
    };
    let entity = |group: Group<'a>| {
        let text = tokens.text.as_str();
        let (from, to) = (text.floor_char_boundary(group.from), text.ceil_char_boundary(group.to.max(group.from)));
        Entity {
            entity_group: group.kind,
            score: group.sum / f32::from(group.tokens),
            word: &text[from..to],
            start: characters(text, from),
            end: characters(text, to),
        }
    };
    let found: Vec<Entity<'_>> = groups.into_iter().filter(|group| group.kind != OUTSIDE).map(entity).collect();
    serde_json::to_string(&found).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The entities of this text, whose tokens are the spans, each with its label.
    fn found(text: &str, tokens: &[(Option<(usize, usize)>, &str)]) -> Value {
        let labels = ["O", "B-PER", "I-PER", "I-LOC", "MISC"].map(str::to_owned);
        let score = |label: &str| labels.iter().map(|other| if other == label { 100.0 } else { 0.0 }).collect::<Vec<f32>>();
        let scores: Vec<f32> = tokens.iter().flat_map(|(_, label)| score(label)).collect();
        let spans = tokens.iter().map(|(span, _)| *span).collect();
        let tokens = Tokens { ids: Vec::new(), types: Vec::new(), text: text.into(), spans };
        serde_json::from_str(&entities(&labels, &scores, &tokens)).expect("JSON")
    }

    fn entity(kind: &str, word: &str, start: usize, end: usize) -> Value {
        json!({ "entity_group": kind, "score": 1.0, "word": word, "start": start, "end": end })
    }

    #[test]
    fn neighbours_of_one_kind_are_one_entity_and_another_begins_anew() {
        let text = "Ada Lovelace Grace in Rome";
        let spans = [(0, 3), (4, 8), (8, 12), (13, 18), (19, 21), (22, 26)].map(Some);
        let labels = ["B-PER", "I-PER", "I-PER", "B-PER", "O", "I-LOC"];
        let tokens: Vec<_> = [(None, "MISC")].into_iter().chain(spans.into_iter().zip(labels)).chain([(None, "MISC")]).collect();
        let expected =
            json!([entity("PER", "Ada Lovelace", 0, 12), entity("PER", "Grace", 13, 18), entity("LOC", "Rome", 22, 26)]);
        assert_eq!(found(text, &tokens), expected);
        assert_eq!(found(text, &[]), json!([]));
    }

    #[test]
    fn places_are_those_of_characters_whatever_bytes_a_token_has() {
        let told =
            found("é🐧 ü", &[(Some((0, 2)), "O"), (Some((3, 4)), "MISC"), (Some((7, 9)), "I-LOC"), (Some((0, 2)), "MISC")]);
        assert_eq!(told, json!([entity("MISC", "🐧", 1, 2), entity("LOC", "ü", 3, 4), entity("MISC", "é", 0, 1)]));
    }
}
