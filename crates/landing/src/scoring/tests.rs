//! Tables in JSON and CSV are the same rows; what does not fit is named.

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate_core::Tensor;

use super::*;
use crate::instances::tests::{floats, fraud, response, words};

fn inputs(signature: &Signature, body: &Value) -> Vec<Tensor> {
    let inputs = read(signature, body.to_string().as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"));
    inputs.into_iter().map(|(_, tensor)| tensor).collect()
}

fn csv_inputs(signature: &Signature, text: &str, header: bool) -> Vec<Tensor> {
    let inputs = read_csv(signature, text.as_bytes(), header).unwrap_or_else(|error| panic!("{text}: {error}"));
    inputs.into_iter().map(|(_, tensor)| tensor).collect()
}

#[test]
fn every_form_of_a_table_is_the_same_rows() {
    let expected = [floats(&[2, 2], vec![1.0, 2.0, 3.0, 4.0])];
    for body in [
        json!({ "dataframe_split": { "index": [0, 1], "columns": ["amount", "hour"], "data": [[1, 2], [3, 4.0]] } }),
        json!({ "dataframe_split": { "data": [[2, 1], [4, 3]], "columns": ["hour", "amount"] }, "params": {} }),
        json!({ "dataframe_split": { "columns": [0, 1], "data": [[1, 2], [3, 4]] }, "params": null }),
        json!({ "dataframe_split": { "data": [[1, 2], [3, 4]] } }),
        json!({ "dataframe_split": { "columns": ["X"], "data": [[[1, 2]], [[3, 4]]] } }),
        json!({ "dataframe_records": [{ "hour": 2, "amount": 1 }, { "amount": 3, "hour": 4 }] }),
        json!({ "instances": [[1, 2], [3, 4]] }),
        json!({ "inputs": [[1, 2], [3, 4]] }),
        json!({ "inputs": { "amount": [1, 3], "hour": [2, 4] } }),
        json!({ "inputs": [{ "hour": 2, "amount": 1 }, { "amount": 3, "hour": 4 }] }),
    ] {
        assert_eq!(inputs(&fraud(), &body), expected, "{body}");
    }
    for (text, header) in [
        ("amount,hour\n1,2\n3,4\n", true),
        ("\u{feff}hour,amount\r\n2, 1\r\n4,3e0", true),
        ("0,1\n1,2\n3,4\n", true),
        ("1,2\n3,4\n", false),
    ] {
        assert_eq!(csv_inputs(&fraud(), text, header), expected, "{text}");
    }
    let mixed = inputs(&words(), &json!({ "dataframe_records": [{ "word": "a, \"b\"", "count": 7 }] }));
    assert_eq!(csv_inputs(&words(), "count,word\n7,\"a, \"\"b\"\"\"\n", true), mixed);
    assert_eq!(csv_inputs(&words(), "word,count\n", true)[0].shape().rows(), 0);
}

#[test]
fn a_number_that_is_missing_is_none() {
    let bodies = [
        inputs(&fraud(), &json!({ "dataframe_split": { "columns": ["amount", "hour"], "data": [[null, "Infinity"]] } })),
        csv_inputs(&fraud(), "amount,hour\n,inf\n", true),
    ];
    for tensors in bodies {
        let values = tensors[0].values::<f32>().expect("floats").into_owned();
        assert!(values[0].is_nan() && values[1] == f32::INFINITY, "{values:?}");
    }
}

#[test]
fn missing_and_unknown_columns_are_named() {
    let split = |columns: Value, data: Value| json!({ "dataframe_split": { "columns": columns, "data": data } });
    for (body, why) in [
        (split(json!(["amount", "day"]), json!([])), "columns unknown: `day`; missing: `hour`"),
        (split(json!(["amount", "amount", "hour"]), json!([])), "`amount` is there twice"),
        (split(json!(["amount", "hour"]), json!([[1, 2], [3]])), "row 1: expected 2 values, got 1"),
        (split(json!([0, 1, 2]), json!([[1, 2, 3]])), "row 0: expected 2 values, got 3"),
        (split(json!([3, 4]), json!([[1, 2]])), "columns unknown: `3`, `4`; missing: `amount`, `hour`"),
        (json!({ "dataframe_split": { "columns": ["amount", "hour"] } }), "`data` is missing"),
        (json!({ "dataframe_split": { "data": [], "dtypes": [] } }), "unknown key `dtypes`"),
        (json!({ "dataframe_records": [[1, 2]] }), "expected an object"),
        (json!({ "dataframe_records": [{ "amount": 1, "hour": 2 }, { "amount": 1 }] }), "row 1: `hour` is missing"),
        (json!({ "dataframe_records": [], "instances": [] }), "got two"),
        (json!({ "instances": [], "params": { "k": 1 } }), "params: the model takes none, got `k`"),
        (json!({ "columns": ["amount"], "data": [[1]] }), "unknown key `columns`: expected one of `dataframe_split`"),
        (json!({}), "got none"),
    ] {
        let error = read(&fraud(), body.to_string().as_bytes()).expect_err(why);
        assert!(error.code() == Code::Malformed && error.message().contains(why), "{body}: {error}");
    }
    for (text, why) in [
        ("", "it is empty"),
        ("amount,hour,Unnamed: 0\n1,2,3\n", "columns unknown: `Unnamed: 0`"),
        ("amount\n1\n", "columns missing: `hour`"),
        ("amount,hour\n1\n", "line 2: expected 2 values, got 1"),
        ("amount,hour\n1,2\n1,x\n", "line 3: `hour`: \"x\" is no FP32"),
    ] {
        let error = read_csv(&fraud(), text.as_bytes(), true).expect_err(why);
        assert!(error.message().contains(why), "{text}: {error}");
    }
    assert!(read_csv(&words(), b"word,count\n\"\xff\",1\n", true).is_err());
    assert!(read_csv(&words(), b"word,count\na,\n", true).expect_err("no number").message().contains("`count`"));
}

#[test]
fn the_answer_is_a_value_or_a_record_a_row() {
    let one = response(vec![("y", floats(&[2, 1], vec![0.5, f32::NAN]))]);
    assert_eq!(String::from_utf8(write(&one).expect("writes")).expect("text"), r#"{"predictions":[[0.5],[null]]}"#);
    assert_eq!(write_csv(&one).expect("writes"), b"0.5\n\"\"\n");
    let word = Tensor::text(sluicegate_core::Shape::new(&[2]), vec!["a,b".into(), "c".into()]).expect("fits");
    let two = response(vec![("y", floats(&[2, 2], vec![1.0, 2.0, 3.0, 4.0])), ("w", word)]);
    assert_eq!(write_csv(&two).expect("writes"), b"1.0,2.0,\"a,b\"\n3.0,4.0,c\n");
    let answer: Value = serde_json::from_slice(&write(&two).expect("writes")).expect("JSON");
    assert_eq!(answer["predictions"][1], json!({ "y": [3.0, 4.0], "w": "c" }));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}:,\"a0-9N \n.-]{0,64}") {
        for signature in [fraud(), words()] {
            let _ = read(&signature, &bytes);
            for body in [
                format!("{{\"dataframe_split\": {{\"data\": [{text}], \"columns\": [{text}]}}}}"),
                format!("{{\"dataframe_split\": {{\"columns\": [\"amount\", \"hour\"], \"data\": [{text}]}}}}"),
                format!("{{\"dataframe_records\": [{text}]}}"),
            ] {
                let _ = read(&signature, body.as_bytes());
            }
            for header in [true, false] {
                let _ = read_csv(&signature, &bytes, header);
                let _ = read_csv(&signature, text.as_bytes(), header);
            }
        }
    }

    /// A table as `split`, as `records` and as CSV is one tensor, whatever the order of its columns.
    #[test]
    fn a_table_is_the_same_in_every_format(values in prop::collection::vec((-1e6f32..1e6, -1e6f32..1e6), 0..6), turned: bool) {
        let columns = if turned { ["hour", "amount"] } else { ["amount", "hour"] };
        let table: Vec<[f32; 2]> = values.iter().map(|&(a, b)| if turned { [b, a] } else { [a, b] }).collect();
        let split = inputs(&fraud(), &json!({ "dataframe_split": { "columns": columns, "data": table } }));
        let records: Vec<Value> = table.iter().map(|row| json!({ columns[0]: row[0], columns[1]: row[1] })).collect();
        prop_assert_eq!(&inputs(&fraud(), &json!({ "dataframe_records": records })), &split);
        let lines: String = table.iter().map(|[a, b]| format!("{a},{b}\n")).collect();
        prop_assert_eq!(&csv_inputs(&fraud(), &format!("{},{}\n{lines}", columns[0], columns[1]), true), &split);
        let flat: Vec<f32> = values.iter().flat_map(|&(a, b)| [a, b]).collect();
        prop_assert_eq!(&split, &[floats(&[values.len(), 2], flat)]);
    }
}
