//! One input out of others: bytes, text and, where there is JSON in it, its tree.

use std::ops::Range;

use serde_json::Value;

/// Longest input that is made.
pub const LONGEST: usize = 1 << 16;

/// Numbers at which something ends: of types, of what an `f64` holds exactly, of what is a number at all.
const NUMBERS: [&str; 24] = [
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "127",
    "128",
    "255",
    "256",
    "-129",
    "65504",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1.5",
    "1e400",
    "-1e-400",
    "3.5e38",
];

/// Changes an input in one way or a few. `others` are inputs to take parts from, `words` those of its language.
pub fn mutate(random: &mut fastrand::Rng, input: &mut Vec<u8>, others: &[Vec<u8>], words: &[&[&str]]) {
    for _ in 0..random.usize(1..=4) {
        let other = random.choice(others).map_or(&[][..], Vec::as_slice);
        match random.u8(0..16) {
            0..=4 => tree(random, input, other, words),
            5 => number(random, input),
            6..=7 => {
                let word = random_word(random, words);
                put(random, input, 0, word.as_bytes());
            }
            8 => {
                let cut = range(random, input.len()).len().min(16);
                let word = random_word(random, words);
                put(random, input, cut, word.as_bytes());
            }
            9 => drop(input.drain(range(random, input.len()))),
            10 => repeat(random, input),
            11 => {
                let part = &other[range(random, other.len())];
                put(random, input, part.len(), part);
            }
            12 => {
                let end = random.usize(0..=input.len());
                input.truncate(end);
                input.extend_from_slice(&other[random.usize(0..=other.len())..]);
            }
            13 => {
                let byte = [0, 1, b'\n', b'"', b'\\', 0x7f, 0x80, 0xc3, 0xff][random.usize(0..9)];
                let cut = random.usize(0..2);
                put(random, input, cut, &[byte]);
            }
            _ => {
                if let Some(byte) = random.choice(input.iter_mut()) {
                    *byte ^= 1 << random.u8(0..8);
                }
            }
        }
        input.truncate(LONGEST);
    }
}

fn random_word<'a>(random: &mut fastrand::Rng, words: &[&[&'a str]]) -> &'a str {
    let all = || words.iter().copied().flatten();
    let count = all().count();
    if count == 0 { "" } else { all().nth(random.usize(..count)).copied().unwrap_or_default() }
}

/// A part of so many bytes: short ones as often as long ones.
fn range(random: &mut fastrand::Rng, length: usize) -> Range<usize> {
    let start = random.usize(0..=length);
    let most = if random.bool() { 8 } else { length };
    start..start + random.usize(0..=most.min(length - start))
}

/// Puts bytes somewhere, in place of so many others.
fn put(random: &mut fastrand::Rng, input: &mut Vec<u8>, cut: usize, bytes: &[u8]) {
    let start = random.usize(0..=input.len());
    let end = (start + cut).min(input.len());
    input.splice(start..end, bytes.iter().copied());
}

/// Says a part again and again: a list gets long, a nesting deep.
fn repeat(random: &mut fastrand::Rng, input: &mut Vec<u8>) {
    let range = range(random, input.len());
    if range.is_empty() {
        return;
    }
    let most = if random.u8(0..8) == 0 { LONGEST } else { 512 };
    let times = random.usize(1..=(most / range.len()).max(1));
    let again = input[range.clone()].repeat(times);
    input.splice(range.end..range.end, again);
}

/// Puts another number in the place of one.
fn number(random: &mut fastrand::Rng, input: &mut Vec<u8>) {
    let is_digit = |at: &usize| input[*at].is_ascii_digit();
    let starts: Vec<usize> = (0..input.len()).filter(|at| is_digit(at) && (*at == 0 || !is_digit(&(at - 1)))).collect();
    let Some(&start) = random.choice(&starts) else { return };
    let end = (start..input.len()).find(|at| !is_digit(at)).unwrap_or(input.len());
    input.splice(start..end, random_word(random, &[&NUMBERS]).bytes());
}

/// Changes one value of the JSON in an input.
fn tree(random: &mut fastrand::Rng, input: &mut Vec<u8>, other: &[u8], words: &[&[&str]]) {
    let Some((place, mut root)) = json(input) else { return number(random, input) };
    let mut at = random.usize(0..count(&root));
    let donor = json(other).map(|(_, mut donor)| {
        let mut at = random.usize(0..count(&donor));
        let mut found = Value::Null;
        visit(&mut donor, &mut at, &mut |value| found = value.take());
        found
    });
    visit(&mut root, &mut at, &mut |value| change(random, value, donor.clone(), words));
    let text = root.to_string();
    input.splice(place, text.into_bytes());
}

fn change(random: &mut fastrand::Rng, value: &mut Value, donor: Option<Value>, words: &[&[&str]]) {
    match (random.u8(0..8), &mut *value) {
        (0..=1, Value::Array(items)) if !items.is_empty() => {
            let item = items[random.usize(0..items.len())].clone();
            items.insert(random.usize(0..=items.len()), item);
        }
        (2, Value::Array(items)) if !items.is_empty() => drop(items.remove(random.usize(0..items.len()))),
        (0..=1, Value::Object(fields)) => {
            let key = random_word(random, words).trim_matches('"').to_owned();
            fields.insert(key, donor.unwrap_or_default());
        }
        (2..=3, Value::Object(fields)) if !fields.is_empty() => {
            // The order of fields is the order in which they are read.
            let key = fields.keys().nth(random.usize(0..fields.len())).cloned().unwrap_or_default();
            let field = fields.shift_remove(&key);
            if random.bool() {
                fields.insert(key, field.unwrap_or_default());
            }
        }
        (4, _) => (0..random.usize(1..20)).for_each(|_| *value = Value::Array(vec![value.take()])),
        (5, _) => *value = Value::String(random_word(random, words).trim_matches('"').to_owned()),
        (6, _) => *value = donor.unwrap_or_default(),
        // 1e400 is no number to the tree, and is put in by `number`.
        _ => *value = serde_json::from_str(random_word(random, &[&NUMBERS])).unwrap_or(Value::Bool(random.bool())),
    }
}

/// The first JSON value of an input that is an object or a list, and where it is.
fn json(input: &[u8]) -> Option<(Range<usize>, Value)> {
    let start = input.iter().position(|byte| matches!(byte, b'{' | b'['))?;
    let mut values = serde_json::Deserializer::from_slice(&input[start..]).into_iter::<Value>();
    let value = values.next()?.ok()?;
    Some((start..start + values.byte_offset(), value))
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Calls with the value that `at` others come before. False where there are not so many.
fn visit(value: &mut Value, at: &mut usize, call: &mut dyn FnMut(&mut Value)) -> bool {
    if *at == 0 {
        call(value);
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| visit(item, at, call)),
        Value::Object(fields) => fields.values_mut().any(|field| visit(field, at, call)),
        _ => false,
    }
}
