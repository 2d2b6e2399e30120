//! A model's configuration in its two text forms: protobuf text (`config.pbtxt`) and JSON with the names of the fields.

use std::sync::LazyLock;

use miette::Diagnostic;
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};

use crate::DESCRIPTORS;
use crate::inference::ModelConfig;

static DESCRIPTOR: LazyLock<Option<MessageDescriptor>> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).ok()?.get_message_by_name("inference.ModelConfig"));

/// Reads a `config.pbtxt`.
///
/// # Errors
/// What is wrong with it, a field that is none among it, after line and column: `3:7: …`.
pub fn from_text(text: &str) -> Result<ModelConfig, String> {
    let text = with_colons(text)?;
    let message = DynamicMessage::parse_text_format(descriptor()?, &text).map_err(|error| {
        let place = error.labels().and_then(|mut labels| labels.next()).map_or(text.len(), |label| label.offset());
        format!("{}: {error}", line_and_column(&text, place))
    })?;
    message.transcode_to().map_err(|error| error.to_string())
}

/// A place as editors count it, both from 1.
fn line_and_column(text: &str, place: usize) -> String {
    let before = text.get(..place).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    format!("{}:{}", before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Reads its JSON: the names of fields as they are in `config.pbtxt`, or in camel case.
///
/// # Errors
/// What is wrong with it and where, a field that is none among it.
pub fn from_json(text: &str) -> Result<ModelConfig, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(descriptor()?, &mut deserializer, &options);
    let message = message.map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    message.transcode_to().map_err(|error| error.to_string())
}

/// Writes its JSON, with the names of fields as they are in `config.pbtxt`. What has its default is left out, but for
/// the fields that clients read without asking whether they are there.
///
/// # Errors
/// None that a configuration made here could have.
pub fn to_json(config: &ModelConfig) -> Result<serde_json::Value, String> {
    let message = DynamicMessage::decode(descriptor()?, config.encode_to_vec().as_slice()).map_err(|error| error.to_string())?;
    // 64-bit numbers as numbers: perf_analyzer and Triton's own clients read them so.
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    let mut json = message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| error.to_string())?;
    if let Some(fields) = json.as_object_mut() {
        fields.entry("max_batch_size").or_insert(0.into());
    }
    Ok(json)
}

/// Deepest nesting that is read. Configurations need less than ten; the parser goes as deep as it is led, to the end of its stack.
const MAX_DEPTH: usize = 64;

/// Most bytes of a string, a gap, or anything else without a gap. Built for debugging, the parser goes one step down its
/// stack for each character of them, and is at its end after 30,000.
const MAX_RUN: usize = 8 * 1024;

/// The same with a colon before each list: protobuf text may leave it out before a list of messages, which is how Triton's
/// configurations are written, and the parser insists on it. And without comments, of which the parser bears no more than of gaps. Where there is a space it takes that, so that places stay.
fn with_colons(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 16);
    // The quote that a string began with, whether in a comment, and the last character that means something.
    let (mut quote, mut comment, mut last) = (None, false, ' ');
    let mut depth = 0usize;
    let (mut kind, mut run) = ((None, false), 0usize);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if comment && c != '\n' {
            continue;
        }
        comment = false;
        let now = (quote, quote.is_none() && c.is_whitespace());
        run = if now == kind { run + c.len_utf8() } else { 0 };
        kind = now;
        if run > MAX_RUN {
            return Err(format!("a string or a gap of more than {MAX_RUN} bytes"));
        }
        match (quote, c) {
            (Some(_), '\\') => {
                out.push(c);
                out.extend(chars.next());
                continue;
            }
            (Some(open), _) => quote = quote.filter(|_| c != open && c != '\n'),
            (None, '#') => {
                comment = true;
                continue;
            }
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') if last.is_ascii_alphanumeric() || last == '_' => {
                if out.ends_with(' ') {
                    out.pop();
                }
                out.push(':');
            }
            _ => {}
        }
        if quote.is_none() {
            match c {
                '{' | '<' | '[' => depth += 1,
                '}' | '>' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > MAX_DEPTH {
                return Err(format!("more than {MAX_DEPTH} messages and lists within each other"));
            }
        }
        if !c.is_whitespace() {
            last = c;
        }
        out.push(c);
    }
    Ok(out)
}

fn descriptor() -> Result<MessageDescriptor, String> {
    DESCRIPTOR.clone().ok_or_else(|| "the descriptors of this build cannot be read".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        name: "fraud"
        backend: "onnxruntime"
        max_batch_size: 8
        input [ { name: "X" data_type: TYPE_FP32 dims: [ 30 ] } ]
        output [ { name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } label_filename: "labels.txt" } ]
        dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
        instance_group [ { count: 2 kind: KIND_CPU } ]
        version_policy: { specific { versions: 1 versions: 3 } }
        parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
        # a comment with [ and "
        metric_tags { key: 'it is [ "so" \' [' value: "y" }
    "#;

    #[test]
    fn text_and_json_say_the_same() {
        let config = from_text(TEXT).expect("a good configuration");
        assert_eq!((config.max_batch_size, config.input[0].dims[0], config.instance_group[0].count), (8, 30, 2));
        let json = to_json(&config).expect("to JSON");
        assert_eq!(json["input"][0]["data_type"], "TYPE_FP32");
        assert_eq!(json["input"][0]["dims"], serde_json::json!([30]));
        assert_eq!(json["dynamic_batching"]["max_queue_delay_microseconds"], 100);
        assert_eq!(from_json(&json.to_string()).expect("its own JSON"), config);
    }

    #[test]
    fn nesting_is_bounded_before_the_parser_follows_it() {
        let deep = "[a/inference.ModelConfig] { ".repeat(100_000);
        assert!(from_text(&deep).expect_err("too deep").contains("64"));
        let in_strings = format!("name: \"{}\" # {}", "{".repeat(100), "[".repeat(100));
        assert!(from_text(&in_strings).is_ok());
        assert!(from_text(&"input { } ".repeat(100)).is_ok());
    }

    #[test]
    fn the_length_of_a_word_is_bounded_before_the_parser_follows_it() {
        let long = "8\u{feff}".repeat(20_000);
        for text in [format!("name: \"{long}\""), long.clone(), " ".repeat(100_000), "\\n".repeat(50_000)] {
            assert!(from_text(&text).is_err_and(|error| error.contains("8192") || error.contains("1:")), "{text:.20}");
        }
        assert!(from_text(&format!("name: \"{}\" # {}", "a".repeat(8000), "b".repeat(80_000))).is_ok());
        assert!(from_text(&"# a } }\n".repeat(5_000)).is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_column() {
        for (text, place, words) in [
            ("max_batch_size: 8\n  max_batch_sise: 8", "2:3: ", "max_batch_sise"),
            ("input [ { name: \"x\" data_type: TYPE_FP8 } ]", "1:32: ", "TYPE_FP8"),
            ("max_batch_size: \"8\"", "1:17: ", "expected"),
            ("input {\n name: \"x\"", "2:11: ", "end of input"),
        ] {
            let error = from_text(text).expect_err(words);
            assert!(error.starts_with(place) && error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_field_that_is_none_is_named() {
        for error in [from_text("max_batch_sise: 8"), from_json(r#"{"max_batch_sise": 8}"#)] {
            let error = error.expect_err("no such field");
            assert!(error.contains("max_batch_sise"), "{error}");
        }
    }
}
