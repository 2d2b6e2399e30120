//! One figure of a server of Prometheus: an instant query, by its HTTP API.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use sluicegate_core::{Code, Error, Result};

use crate::address::Address;
use crate::client::Post;

/// Most bytes of an answer: one sample has some hundred.
const MOST: usize = 1024 * 1024;

/// Most characters of a stranger's words in an error.
const WORDS: usize = 300;

/// What the API answers.
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Reply {
    Success {
        data: Data,
    },
    Error {
        #[serde(rename = "errorType")]
        kind: String,
        error: String,
    },
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

/// A sample of an instant vector; a histogram has no `value`.
#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: Value,
    value: Option<(f64, String)>,
}

/// What the expression is now; none where there is no data. The address is that of the server, with the path of a proxy where there
/// is one.
///
/// # Errors
/// [`Code::Io`] where the server cannot be asked, [`Code::BadConfig`] where what it answers is not one finite number.
pub fn query(address: &Address, expression: &str, timeout: Duration) -> Result<Option<f64>> {
    let address = address.below("/api/v1/query");
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    // Told to the server too, so that it does not go on with what nobody waits for.
    let body = format!("query={}&timeout={}ms", encode(expression), timeout.as_millis());
    let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
    let post = Post { address: &address, headers: &headers, body: body.as_bytes(), timeout, most: MOST + 1, again: false };
    let unasked = |why: String| Error::new(Code::Io, format!("Prometheus was not asked: {why}"));
    let answer = post.send().map_err(|failure| unasked(failure.why))?;
    let body = answer.body.map_err(|failure| unasked(failure.why))?;
    read(answer.status, &body).map_err(|wrong| match wrong {
        Wrong::Server(why) => unasked(format!("{address} {why}; `address` is to be that of a server of Prometheus")),
        Wrong::Query(why) => {
            Error::new(Code::BadConfig, format!("Prometheus at {address}, query `{}`: {why}", short(expression)))
        }
    })
}

/// Whose an error is.
#[derive(Debug)]
enum Wrong {
    Server(String),
    Query(String),
}

/// The number of an answer.
fn read(status: u16, body: &[u8]) -> Result<Option<f64>, Wrong> {
    if body.len() > MOST {
        return Err(Wrong::Query(format!("the answer is longer than {MOST} bytes; make it one series, as `sum(…)` does")));
    }
    let data = match serde_json::from_slice::<Reply>(body) {
        Ok(Reply::Success { data }) if (200..300).contains(&status) => data,
        Ok(Reply::Error { kind, error }) if matches!(&*kind, "timeout" | "canceled") => {
            return Err(Wrong::Query(format!("it took too long ({}); make it simpler, or its `timeout` longer", short(&error))));
        }
        Ok(Reply::Error { kind, error }) if matches!(&*kind, "bad_data" | "execution") => {
            return Err(Wrong::Query(format!("{}; change the `query`", short(&error))));
        }
        Ok(Reply::Error { kind, error }) => return Err(Wrong::Server(format!("answered {status}, {kind}: {}", short(&error)))),
        _ => return Err(Wrong::Server(format!("answered {status} with something else than the API of Prometheus"))),
    };
    let odd = |error: serde_json::Error| Wrong::Server(format!("answered a {} that cannot be read ({error})", short(&data.kind)));
    let text = match &*data.kind {
        "scalar" => serde_json::from_value::<(f64, String)>(data.result).map_err(odd)?.1,
        "vector" => {
            let series: Vec<Series> = serde_json::from_value(data.result).map_err(odd)?;
            match &*series {
                [] => return Ok(None),
                [Series { value: Some((_, text)), .. }] => text.clone(),
                [_] => {
                    return Err(Wrong::Query("a histogram; make it a number, as `histogram_quantile(0.99, …)` does".to_owned()));
                }
                [one, two, ..] => {
                    let (count, one, two) = (series.len(), short(&one.metric.to_string()), short(&two.metric.to_string()));
                    let what = format!("{count} series and not one, as {one} and {two}");
                    return Err(Wrong::Query(format!("{what}; choose one by its labels, or join them, as `sum(…)` does")));
                }
            }
        }
        "matrix" => return Err(Wrong::Query("a range and not a number; make it one, as `avg_over_time(…)` does".to_owned())),
        other => return Err(Wrong::Query(format!("a {} and not a number; change the `query`", short(other)))),
    };
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Some(number)),
        Ok(_) => {
            Err(Wrong::Query(format!("{text} is not a number to decide by; keep it from dividing by 0, as in `a / (b > 0)`")))
        }
        Err(_) => Err(Wrong::Server(format!("answered `{}` for a number", short(&text)))),
    }
}

/// A stranger's words, cut short.
fn short(text: &str) -> String {
    let mut words: String = text.chars().take(WORDS).map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if text.chars().nth(WORDS).is_some() {
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(series: &str) -> Result<Option<f64>, Wrong> {
        read(200, format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#).as_bytes())
    }

    fn wrong(result: Result<Option<f64>, Wrong>) -> String {
        match result.expect_err("no number") {
            Wrong::Server(why) => format!("server: {why}"),
            Wrong::Query(why) => format!("query: {why}"),
        }
    }

    #[test]
    fn a_vector_of_one_series_and_a_scalar_are_a_number_and_an_empty_one_is_no_data() {
        assert_eq!(vector(r#"{"metric":{"job":"a"},"value":[1785412800.123,"0.25"]}"#).expect("a number"), Some(0.25));
        assert_eq!(vector("").expect("no data"), None);
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1,"-1e3"]},"warnings":["w"]}"#;
        assert_eq!(read(200, scalar).expect("a number"), Some(-1000.0));
    }

    #[test]
    fn what_is_not_one_finite_number_says_what_to_change() {
        let two = wrong(vector(r#"{"metric":{"job":"a"},"value":[1,"1"]},{"metric":{"job":"b"},"value":[1,"1"]}"#));
        assert_eq!(
            two,
            r#"query: 2 series and not one, as {"job":"a"} and {"job":"b"}; choose one by its labels, or join them, as `sum(…)` does"#
        );
        for text in ["NaN", "+Inf", "-Inf"] {
            let said = wrong(vector(&format!(r#"{{"metric":{{}},"value":[1,"{text}"]}}"#)));
            assert!(said.starts_with(&format!("query: {text} is not")) && said.contains("`a / (b > 0)`"), "{said}");
        }
        assert!(wrong(vector(r#"{"metric":{},"histogram":[1,{}]}"#)).contains("histogram_quantile"));
        let of =
            |kind| wrong(read(200, format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":[]}}}}"#).as_bytes()));
        assert!(of("matrix").contains("avg_over_time"));
        assert!(of("string").starts_with("query: a string and not a number"));
    }

    #[test]
    fn an_error_tells_a_wrong_query_from_a_wrong_server() {
        let error = |status, kind: &str| {
            wrong(read(status, format!(r#"{{"status":"error","errorType":"{kind}","error":"why"}}"#).as_bytes()))
        };
        assert_eq!(error(400, "bad_data"), "query: why; change the `query`");
        assert_eq!(error(422, "execution"), "query: why; change the `query`");
        assert!(error(503, "timeout").contains("its `timeout` longer"));
        assert_eq!(error(500, "internal"), "server: answered 500, internal: why");
        assert!(wrong(read(404, b"<html>")).starts_with("server: answered 404 with something else"));
        assert!(wrong(read(200, b"{}")).starts_with("server: answered 200 with something else"));
        assert!(wrong(vector(r#"{"metric":{},"value":[1,"one"]}"#)).starts_with("server: answered `one` for a number"));
        assert!(wrong(vector(r#"{"metric":{},"value":[1,2]}"#)).starts_with("server: answered a vector that cannot be read"));
        assert!(wrong(read(200, &vec![b' '; MOST + 1])).starts_with("query: the answer is longer than 1048576 bytes"));
    }

    proptest! {
        #[test]
        fn no_answer_makes_reading_it_fail_badly(status: u16, body in ".{0,200}") {
            let _ = read(status, body.as_bytes());
        }

        #[test]
        fn a_strangers_words_are_cut_at_a_letter(text: String) {
            prop_assert!(short(&text).chars().count() <= WORDS + 1);
        }
    }
}
