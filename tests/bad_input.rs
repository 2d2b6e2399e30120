//! Whatever a caller sends gets a clear answer that says whose fault it was, and the next caller notices nothing.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use sluicegate_core::{DType, Dim};
use sluicegate_testkit::client::{Client, Request, Response};
use sluicegate_testkit::folder::Folder;
use sluicegate_testkit::onnx::{self, rows};
use sluicegate_testkit::process::Gateway;
use sluicegate_tests::{infer, infer_path, pair, problems, raw};

const ADD: &str = "/v2/models/add/infer";
const PREDICT: &str = "/models/add/predict";
const NO_BYTES: &str = "tract does not serve BYTES";

/// One wrong request, and what its answer must be.
struct Case {
    name: &'static str,
    request: Request,
    status: u16,
    code: &'static str,
    /// Words that the explanation must have.
    says: &'static str,
}

/// A body for a route that all of a table go to: with whose model, which name, code and words.
struct Row {
    model: &'static str,
    name: &'static str,
    body: String,
    code: &'static str,
    says: &'static str,
}

fn row(model: &'static str, name: &'static str, body: impl Into<String>, code: &'static str, says: &'static str) -> Row {
    Row { model, name, body: body.into(), code, says }
}

impl Row {
    fn to(&self, path: &str, status: u16) -> Case {
        case(self.name, Request::post(path, self.body.as_str()), status, self.code, self.says)
    }
}

fn case(name: &'static str, request: Request, status: u16, code: &'static str, says: &'static str) -> Case {
    Case { name, request, status, code, says }
}

/// Models of every kind that a request can be wrong about.
fn models() -> Folder {
    let folder = Folder::default();
    let fixed = |width| [rows(), Dim::Fixed(width)];
    let features = "signature: { inputs: [ { name: x, features: [ { name: a, min: 0, max: 10 }, b ] } ] }";
    folder.publish_with("add", 1, &onnx::add_constant(1.0, 2), features);
    folder.publish_with(
        "word",
        1,
        &onnx::identity(DType::Bytes, &fixed(1)),
        "signature: { inputs: [ { name: x, categories: [red, green] } ] }",
    );
    folder.publish("text", 1, &onnx::identity(DType::Bytes, &fixed(1)));
    folder.publish("flags", 1, &onnx::identity(DType::Bool, &fixed(2)));
    folder.publish("half", 1, &onnx::identity(DType::Fp16, &fixed(2)));
    folder.publish("byte", 1, &onnx::identity(DType::Uint8, &fixed(2)));
    folder.publish("vector", 1, &onnx::identity(DType::Fp32, &fixed(3)));
    folder.publish("tokens", 1, &onnx::identity(DType::Int64, &[rows(), Dim::Free(Some("T".into())), Dim::Fixed(2)]));
    folder.publish("pair", 1, &pair());
    folder
}

#[test]
fn every_wrong_request_gets_its_answer_and_the_next_good_one_works() {
    let folder = models();
    let gateway = Gateway::start(&folder, "http: { max_body: 1MiB }");
    let mut client = gateway.client();
    let mut cases: Vec<Case> = Vec::new();
    cases.extend(json_cases());
    cases.extend(signature_cases());
    cases.extend(parameter_cases());
    cases.extend(binary_cases());
    cases.extend(path_cases());
    cases.extend(body_cases());
    cases.extend(record_cases());
    assert!(cases.len() >= 60, "{} cases", cases.len());
    // tract serves no strings: there, whatever is sent to these models is told so.
    if gateway.version("text", 1).1.contains(NO_BYTES) {
        for case in cases.iter_mut().filter(|case| ["/text/", "/word/"].iter().any(|model| case.request.path.contains(model))) {
            (case.status, case.code, case.says) = (503, "not_ready", NO_BYTES);
        }
    }
    let mut wrong = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        if let Err(why) = check(&mut client, case).and_then(|()| good(&mut client, i)) {
            wrong.push(format!("{}: {why}", case.name));
            client.close();
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let failed = gateway.metric("sluicegate_requests_total", &[("code", "internal")]);
    assert_eq!(failed, 0.0, "no request is this program's fault");
}

fn check(client: &mut Client, case: &Case) -> Result<(), String> {
    let response = client.request(&case.request).map_err(|error| format!("no answer: {error}"))?;
    let body = response.json();
    let got = format!("{} {}", response.status, response.text());
    let id = response.header("x-request-id").ok_or_else(|| format!("no x-request-id: {got}"))?;
    let typed = case.request.path.starts_with("/models") || case.request.path == "/nowhere";
    let told = match (&body["error"], &body["detail"]) {
        (Value::String(error), _) if !typed => error.clone(),
        (_, detail @ Value::Array(_)) if typed && response.status == 422 => problems(detail)?,
        (_, Value::String(detail)) if typed && response.status != 422 => detail.clone(),
        _ => return Err(format!("the body has not the form of its route: {got}")),
    };
    if response.status != case.status || body["code"] != case.code {
        return Err(format!("expected {} {}, got {got}", case.status, case.code));
    }
    if body["request_id"] != id || response.header("content-type") != Some("application/json") {
        return Err(format!("headers and body do not agree: {:?} {got}", response.headers));
    }
    if told.contains(case.says) { Ok(()) } else { Err(format!("expected words `{}`, got {got}", case.says)) }
}

/// A good request on the same connection, if that is open; of each kind in turn.
fn good(client: &mut Client, turn: usize) -> Result<(), String> {
    let answer = if turn.is_multiple_of(2) {
        client
            .post_json(ADD, &infer(&[1, 2], &[1.0, 2.0]))
            .map(|response| (response.json()["outputs"][0]["data"].clone(), response))
    } else {
        client.post_json(PREDICT, &json!({ "a": 1, "b": 2 })).map(|response| (response.json()["y"].clone(), response))
    };
    let (numbers, response): (Value, Response) =
        answer.map_err(|error| format!("no answer to the good request after it: {error}"))?;
    if response.status == 200 && numbers == json!([2.0, 3.0]) {
        return Ok(());
    }
    Err(format!("the good request after it got {} {}", response.status, response.text()))
}

/// V2 bodies that are no requests.
fn json_cases() -> Vec<Case> {
    let input = |rest: &str| format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32",{rest}}}]}}"#);
    let shape = |shape: &str| input(&format!(r#""shape":{shape},"data":[1,2]"#));
    let data = |data: &str| input(&format!(r#""shape":[1,2],"data":{data}"#));
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let rows = vec![
        row("add", "an empty body", "", "malformed", "no inference request"),
        row("add", "no JSON", "hello", "malformed", "no inference request"),
        row("add", "half a JSON", r#"{"inputs":["#, "malformed", "EOF"),
        row("add", "two bodies", data("[1,2]") + "{}", "malformed", "trailing"),
        row("add", "a list", "[]", "malformed", "no inference request"),
        row("add", "null", "null", "malformed", "no inference request"),
        row("add", "no inputs", "{}", "malformed", "inputs"),
        row("add", "inputs that are no list", r#"{"inputs":3}"#, "malformed", "a list of tensors"),
        row("add", "an input that is no object", r#"{"inputs":[1]}"#, "malformed", "tensor"),
        row("add", "inputs twice", r#"{"inputs":[],"inputs":[]}"#, "malformed", "inputs"),
        row("add", "no name", r#"{"inputs":[{"shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#, "malformed", "name"),
        row(
            "add",
            "a name that is a number",
            r#"{"inputs":[{"name":1,"shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#,
            "malformed",
            "string",
        ),
        row("add", "no datatype", r#"{"inputs":[{"name":"x","shape":[1,2],"data":[1,2]}]}"#, "malformed", "datatype"),
        row("add", "no shape", input(r#""data":[1,2]"#), "malformed", "shape"),
        row("add", "no data", input(r#""shape":[1,2]"#), "malformed", "neither"),
        row("add", "an unknown datatype", r#"{"inputs":[{"name":"x","datatype":"FLOAT"}]}"#, "malformed", "FP32"),
        row("add", "a datatype in small letters", r#"{"inputs":[{"name":"x","datatype":"fp32"}]}"#, "malformed", "FP32"),
        row("add", "a datatype that is a number", r#"{"inputs":[{"name":"x","datatype":1}]}"#, "malformed", "string"),
        row("add", "a shape that is text", shape(r#""1,2""#), "malformed", "sequence"),
        row("add", "a size that is text", shape(r#"["1",2]"#), "malformed", "string"),
        row("add", "a size with a fraction", shape("[1.5,2]"), "malformed", "1.5"),
        row("add", "a size that is null", shape("[null,2]"), "malformed", "null"),
        row("add", "a negative size", shape("[-1,2]"), "invalid_shape", "-1"),
        row("add", "a shape that overflows", shape("[4611686018427387904,4]"), "invalid_shape", "more elements"),
        row("add", "a size that no integer holds", shape("[18446744073709551616,1]"), "malformed", "i64"),
        row("add", "17 dimensions", shape("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]"), "invalid_shape", "16"),
        row("add", "too few elements", data("[1]"), "wrong_element_count", "2 elements"),
        row("add", "too many elements", data("[1,2,3]"), "wrong_element_count", "2 elements"),
        row("add", "text for a number", data(r#"["a",1]"#), "malformed", "FP32"),
        row("add", "null for a number", data("[null,1]"), "malformed", "null"),
        row("add", "true for a number", data("[true,1]"), "malformed", "FP32"),
        row("add", "an object for a number", data(r#"[{"a":1},1]"#), "malformed", "map"),
        row("add", "NaN", data("[NaN,1]"), "malformed", "no inference request"),
        row("add", "Infinity", data("[Infinity,1]"), "malformed", "no inference request"),
        row("add", "a number that no float holds", data("[1e400,1]"), "malformed", "out of range"),
        row("add", "a number that FP32 does not hold", data("[1e39,1]"), "malformed", "FP32"),
        row("add", "lists in lists in lists", data(&deep), "malformed", "16"),
        row("add", "a lone surrogate", r#"{"id":"\ud800","inputs":[]}"#, "malformed", "no inference request"),
        row("add", "an id that is a number", r#"{"id":1,"inputs":[]}"#, "malformed", "string"),
    ];
    let mut cases: Vec<Case> = rows.into_iter().map(|row| row.to(ADD, 400)).collect();
    let bottomless = "[".repeat(100_000);
    cases.push(case("a hundred thousand open brackets", Request::post(ADD, bottomless), 400, "malformed", ""));
    let latin = [b"{\"id\":\"caf\xe9\",\"inputs\":[]}".as_slice()].concat();
    cases.push(case("JSON that is not UTF-8", Request::post(ADD, latin), 400, "malformed", ""));
    cases
}

/// V2 requests that do not fit the model.
fn signature_cases() -> Vec<Case> {
    let one = |name: &str, datatype: &str, shape: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"{name}","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#)
    };
    let x = |datatype: &str, shape: &str, data: &str| one("x", datatype, shape, data);
    let good = r#"{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}"#;
    let both = |a: &str, b: &str| {
        let input =
            |name: &str, shape: &str| format!(r#"{{"name":"{name}","datatype":"FP32","shape":{shape},"data":[1,2,3,4]}}"#);
        format!(r#"{{"inputs":[{},{}]}}"#, input("a", a), input("b", b))
    };
    let rows = vec![
        row("add", "another type", x("INT64", "[1,2]", "[1,2]"), "wrong_dtype", "expected FP32"),
        row("add", "one dimension too few", x("FP32", "[2]", "[1,2]"), "wrong_shape", "expected [-1, 2]"),
        row("add", "one dimension too many", x("FP32", "[1,1,2]", "[1,2]"), "wrong_shape", "expected [-1, 2]"),
        row("add", "a column too many", x("FP32", "[1,3]", "[1,2,3]"), "wrong_shape", "expected [-1, 2]"),
        row("add", "no input", r#"{"inputs":[]}"#, "missing_input", "`x` is missing: expected FP32 [-1, 2]"),
        row("add", "an unknown input", one("z", "FP32", "[1,2]", "[1,2]"), "unknown_input", "it has `x`"),
        row("add", "an input twice", format!(r#"{{"inputs":[{good},{good}]}}"#), "unknown_input", "twice"),
        row(
            "add",
            "an unknown output",
            format!(r#"{{"inputs":[{good}],"outputs":[{{"name":"q"}}]}}"#),
            "unknown_output",
            "it has `y`",
        ),
        row("add", "outputs that are no list", format!(r#"{{"inputs":[{good}],"outputs":1}}"#), "malformed", "sequence"),
        row("add", "an output without name", format!(r#"{{"inputs":[{good}],"outputs":[{{}}]}}"#), "malformed", "name"),
        row("pair", "rows that differ", both("[2,2]", "[1,4]"), "wrong_shape", "[-1, 2]"),
        row("pair", "one input of two", one("a", "FP32", "[1,2]", "[1,2]"), "missing_input", "`b` is missing"),
        row("byte", "an integer too large", x("UINT8", "[1,2]", "[1,256]"), "malformed", "256 is no UINT8"),
        row("byte", "a negative one", x("UINT8", "[1,2]", "[1,-1]"), "malformed", "-1 is no UINT8"),
        row("byte", "a fraction", x("UINT8", "[1,2]", "[1,1.5]"), "malformed", "1.5 is no UINT8"),
        row("flags", "a BOOL of two", x("BOOL", "[1,2]", "[true,2]"), "malformed", "2 is no BOOL"),
        row("half", "FP16 as JSON", x("FP16", "[1,2]", "[1,2]"), "invalid_tensor", "binary tensor data extension"),
        row("half", "BF16 as JSON", x("BF16", "[1,2]", "[1,2]"), "invalid_tensor", "binary tensor data extension"),
        row("text", "a number for BYTES", x("BYTES", "[1,1]", "[1]"), "malformed", "1 is no BYTES"),
        row("text", "two strings for one", x("BYTES", "[1,1]", r#"["a","b"]"#), "wrong_element_count", "1 element"),
    ];
    rows.into_iter().map(|row| row.to(&infer_path(row.model), 400)).collect()
}

/// Parameters that mean nothing, or something that is not served.
fn parameter_cases() -> Vec<Case> {
    let with = |parameters: &str| {
        Request::post(
            ADD,
            format!(r#"{{"parameters":{parameters},"inputs":[{{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}}]}}"#),
        )
    };
    vec![
        case("parameters that are no object", with("[]"), 400, "malformed", "object of parameters"),
        case("a reserved parameter", with(r#"{"triton_x":1}"#), 400, "malformed", "`triton_` is reserved"),
        case("a parameter that is an object", with(r#"{"mine":{}}"#), 400, "malformed", "string, number or boolean"),
        case("a priority that is text", with(r#"{"priority":"high"}"#), 400, "malformed", "expected a whole number"),
        case("a negative timeout", with(r#"{"timeout":-1}"#), 400, "malformed", "-1"),
        case("a sequence", with(r#"{"sequence_id":7}"#), 501, "unsupported", "sequence_id"),
        case("shared memory", with(r#"{"shared_memory_region":"r"}"#), 501, "unsupported", "shared_memory_region"),
        case("classification", with(r#"{"classification":3}"#), 501, "unsupported", "classification"),
    ]
}

/// Bodies of the binary tensor extension whose parts do not fit together.
fn binary_cases() -> Vec<Case> {
    let head = |datatype: &str, shape: Value, size: Value| json!({ "inputs": [{ "name": "x", "datatype": datatype, "shape": shape, "parameters": { "binary_data_size": size } }] });
    let add = |size: Value, bytes: &[u8]| Request::binary(ADD, &head("FP32", json!([1, 2]), size), bytes);
    let to = |model: &str, datatype: &str, shape: Value, bytes: &[u8]| {
        Request::binary(&infer_path(model), &head(datatype, shape, json!(bytes.len())), bytes)
    };
    let length = |value: &str| {
        Request::post(ADD, infer(&[1, 2], &[1.0, 2.0]).to_string()).header("Inference-Header-Content-Length", value)
    };
    let two = raw(&[1.0, 2.0]);
    let mut both = head("FP32", json!([1, 2]), json!(8));
    both["inputs"][0]["data"] = json!([1, 2]);
    let half = to("half", "FP16", json!([1, 2]), &[0, 60, 0, 60]);
    vec![
        case("a header length of text", length("abc"), 400, "bad_header", "`abc`"),
        case("an empty header length", length(""), 400, "bad_header", "expected a length"),
        case("a negative header length", length("-1"), 400, "bad_header", "`-1`"),
        case("a header length beyond the body", length("100000"), 400, "bad_header", "`100000`"),
        case("a header length that overflows", length("99999999999999999999999"), 400, "bad_header", "expected a length"),
        case("a header length that cuts the JSON", length("10"), 400, "malformed", "EOF"),
        case(
            "a size without the header",
            Request::post(ADD, head("FP32", json!([1, 2]), json!(8)).to_string()),
            400,
            "bad_header",
            "missing",
        ),
        case("data and a size", Request::binary(ADD, &both, &two), 400, "malformed", "both"),
        case("fewer bytes than announced", add(json!(8), &two[..4]), 400, "wrong_byte_count", "4 are left"),
        case(
            "bytes left over",
            add(json!(8), &[&two[..], &[0]].concat()),
            400,
            "wrong_byte_count",
            "unexpected additional input data",
        ),
        case("a size other than the shape's", add(json!(4), &two[..4]), 400, "wrong_byte_count", "takes 8 bytes, got 4"),
        case("a negative size of data", add(json!(-8), &two), 400, "malformed", "-8"),
        case("a size of data that is text", add(json!("8"), &two), 400, "malformed", "expected a whole number"),
        case("a size of data with a fraction", add(json!(8.5), &two), 400, "malformed", "8.5"),
        case("the largest size of data", add(json!(u64::MAX), &two), 400, "wrong_byte_count", "8 are left"),
        case("binary data of another type", to("add", "FP64", json!([1, 1]), &two), 400, "wrong_dtype", "expected FP32"),
        case("a BOOL byte of two", to("flags", "BOOL", json!([1, 2]), &[1, 2]), 400, "invalid_tensor", "0 or 1"),
        case("half a length of BYTES", to("text", "BYTES", json!([1, 1]), &[1, 0]), 400, "wrong_byte_count", "2 bytes are left"),
        case(
            "a length of BYTES without its bytes",
            to("text", "BYTES", json!([1, 1]), &[9, 0, 0, 0, 1]),
            400,
            "wrong_byte_count",
            "announces 9",
        ),
        case(
            "the longest BYTES",
            to("text", "BYTES", json!([1, 1]), &[255, 255, 255, 255, 1]),
            400,
            "wrong_byte_count",
            "4294967295",
        ),
        case(
            "one string of two",
            to("text", "BYTES", json!([2, 1]), &[1, 0, 0, 0, b'a']),
            400,
            "wrong_element_count",
            "2 elements",
        ),
        case("BYTES that are not UTF-8", to("text", "BYTES", json!([1, 1]), &[1, 0, 0, 0, 255]), 400, "invalid_tensor", "UTF-8"),
        case("FP16 back as JSON", half, 400, "invalid_tensor", "binary_data"),
        case(
            "a raw request of odd length",
            Request::post(ADD, vec![0; 7]).header("inference-header-content-length", "0"),
            400,
            "wrong_byte_count",
            "8 bytes",
        ),
        case(
            "a raw request for two inputs",
            Request::post(&infer_path("pair"), two).header("inference-header-content-length", "0"),
            400,
            "invalid_shape",
            "one input",
        ),
    ]
}

/// Paths and methods that are none.
fn path_cases() -> Vec<Case> {
    let post = |path: &str| Request::post(path, infer(&[1, 2], &[1.0, 2.0]).to_string());
    let predict = |path: &str| Request::post(path, r#"{"a":1,"b":2}"#);
    let get = |path: &str| Request::new("GET", path);
    vec![
        case("an unknown model", post("/v2/models/nobody/infer"), 404, "unknown_model", "nobody"),
        case("an unknown version", post("/v2/models/add/versions/9/infer"), 404, "unknown_version", "live: 1"),
        case(
            "a version beyond all numbers",
            post("/v2/models/add/versions/99999999999999999999/infer"),
            404,
            "unknown_version",
            "larger",
        ),
        case("an alias that is none", post("/v2/models/add/versions/champion/infer"), 404, "unknown_version", "champion"),
        case("a version with a space", post("/v2/models/add/versions/a%20b/infer"), 404, "unknown_version", "no version"),
        case("a model with a slash", post("/v2/models/a%2Fb/infer"), 404, "unknown_model", "a/b"),
        case("a model that is not UTF-8", post("/v2/models/%ff/infer"), 404, "not_found", "UTF-8"),
        case("a model for people that is not UTF-8", predict("/models/%ff/predict"), 404, "not_found", "UTF-8"),
        case("metadata of an unknown model", get("/v2/models/nobody"), 404, "unknown_model", "nobody"),
        case("readiness of an unknown version", get("/v2/models/add/versions/9/ready"), 404, "unknown_version", "live: 1"),
        case("GET for infer", get(ADD), 405, "method_not_allowed", "Method Not Allowed"),
        case("DELETE for metadata", Request::new("DELETE", "/v2/models/add"), 405, "method_not_allowed", "Method Not Allowed"),
        case("an unknown method", Request::new("BREW", "/v2"), 405, "method_not_allowed", "Method Not Allowed"),
        case("an unknown path of the protocol", get("/v2/nowhere"), 404, "not_found", "Not Found"),
        case("a path too long", post("/v2/models/add/infer/more"), 404, "not_found", "Not Found"),
        case("an unknown path", get("/nowhere"), 404, "not_found", "Not Found"),
        case("GET for predict", get(PREDICT), 405, "method_not_allowed", "Method Not Allowed"),
        case("PUT for predict", Request::new("PUT", PREDICT), 405, "method_not_allowed", "Method Not Allowed"),
        case("predict of an unknown model", predict("/models/nobody/predict"), 404, "unknown_model", "nobody"),
        case("predict of an unknown version", predict("/models/add@9/predict"), 404, "unknown_version", "live: 1"),
        case("predict of an unknown alias", predict("/models/add@champion/predict"), 404, "unknown_version", "champion"),
        case("predict of no version", predict("/models/add@/predict"), 404, "unknown_version", "no version"),
    ]
}

fn packed<W: Write>(mut encoder: W, finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>, bytes: &[u8]) -> Vec<u8> {
    encoder.write_all(bytes).and_then(|()| finish(encoder)).expect("packs to memory")
}

/// Bodies too large, or not packed as they say.
fn body_cases() -> Vec<Case> {
    let good = infer(&[1, 2], &[1.0, 2.0]).to_string();
    let large = vec![b' '; (1 << 20) + 1];
    let fast = Compression::fast;
    let gzip = |bytes: &[u8]| packed(GzEncoder::new(Vec::new(), fast()), GzEncoder::finish, bytes);
    let zlib = |bytes: &[u8]| packed(ZlibEncoder::new(Vec::new(), fast()), ZlibEncoder::finish, bytes);
    let bare = packed(DeflateEncoder::new(Vec::new(), fast()), DeflateEncoder::finish, good.as_bytes());
    let sent = |encoding: &str, bytes: Vec<u8>| Request::post(ADD, bytes).header("content-encoding", encoding);
    let half = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let flipped = |mut bytes: Vec<u8>| {
        let at = bytes.len() - 6;
        bytes[at] ^= 0xff;
        bytes
    };
    let (bomb, zbomb) = (gzip(&vec![0; 64 << 20]), zlib(&vec![0; 64 << 20]));
    vec![
        case("a body too large", Request::post(ADD, large.clone()), 413, "body_too_large", "http.max_body"),
        case(
            "a body too large in chunks",
            Request::post(ADD, large.clone()).chunked(100_000),
            413,
            "body_too_large",
            "http.max_body",
        ),
        case("records too large", Request::post(PREDICT, large), 413, "body_too_large", "http.max_body"),
        case("a gzip bomb", sent("gzip", bomb), 413, "body_too_large", "http.max_body"),
        case("a deflate bomb", sent("deflate", zbomb), 413, "body_too_large", "http.max_body"),
        case("no gzip", sent("gzip", good.clone().into_bytes()), 400, "bad_encoding", "gzip"),
        case("half a gzip", sent("gzip", half(gzip(good.as_bytes()))), 400, "bad_encoding", "gzip"),
        case("a gzip with a wrong sum", sent("gzip", flipped(gzip(good.as_bytes()))), 400, "bad_encoding", "gzip"),
        case("no deflate", sent("deflate", good.clone().into_bytes()), 400, "bad_encoding", "deflate"),
        case("half a deflate", sent("deflate", half(zlib(good.as_bytes()))), 400, "bad_encoding", "deflate"),
        case("a deflate without its frame", sent("deflate", bare), 400, "bad_encoding", "deflate"),
        case("an unknown encoding", sent("br", good.clone().into_bytes()), 415, "unsupported_media", "`br`"),
        case("two encodings", sent("gzip, gzip", good.into_bytes()), 415, "unsupported_media", "gzip, gzip"),
        case("gzip of no JSON", sent("gzip", gzip(b"hello")), 400, "malformed", "no inference request"),
    ]
}

/// Records for people.
fn record_cases() -> Vec<Case> {
    let rows = vec![
        row("add", "no record", "", "invalid_fields", "json_invalid body.0: JSON decode error"),
        row("add", "half a record", r#"{"a":1"#, "invalid_fields", "json_invalid"),
        row("add", "NaN in a record", r#"{"a":NaN,"b":1}"#, "invalid_fields", "json_invalid"),
        row("add", "a number as a record", "3", "invalid_fields", "model_attributes_type body:"),
        row("add", "null as a record", "null", "invalid_fields", "model_attributes_type body:"),
        row("add", "a list of numbers", "[3]", "invalid_fields", "model_attributes_type body.0:"),
        row("add", "a list of lists", r#"[[{"a":1,"b":2}]]"#, "invalid_fields", "model_attributes_type body.0:"),
        row(
            "add",
            "two missing fields",
            "{}",
            "invalid_fields",
            "missing body.a: Field required; missing body.b: Field required",
        ),
        row("add", "an extra field", r#"{"a":1,"b":2,"c":3}"#, "invalid_fields", "extra_forbidden body.c:"),
        row("add", "text for a number in a record", r#"{"a":"x","b":2}"#, "invalid_fields", "float_parsing body.a:"),
        row("add", "null for a number in a record", r#"{"a":null,"b":2}"#, "invalid_fields", "float_type body.a:"),
        row("add", "true for a number in a record", r#"{"a":true,"b":2}"#, "invalid_fields", "float_type body.a:"),
        row("add", "a list for a number in a record", r#"{"a":[1],"b":2}"#, "invalid_fields", "float_type body.a:"),
        row("add", "an object for a number in a record", r#"{"a":{},"b":2}"#, "invalid_fields", "float_type body.a:"),
        row("add", "below the range", r#"{"a":-1,"b":2}"#, "invalid_fields", "greater_than_equal body.a:"),
        row("add", "above the range", r#"{"a":11,"b":2}"#, "invalid_fields", "less_than_equal body.a:"),
        row("add", "a field that FP32 does not hold", r#"{"a":1,"b":1e39}"#, "invalid_fields", "body.b:"),
        row("add", "a field twice", r#"{"a":1,"a":1,"b":2}"#, "invalid_fields", "twice"),
        row("add", "the second record wrong", r#"[{"a":1,"b":2},{"a":1}]"#, "invalid_fields", "missing body.1.b:"),
        row(
            "add",
            "three things wrong",
            r#"{"a":99,"c":1}"#,
            "invalid_fields",
            "less_than_equal body.a: Input should be less than or equal to 10; missing body.b: Field required; extra_forbidden body.c:",
        ),
        row("word", "no category", r#"{"x":"blue"}"#, "invalid_fields", "literal_error body.x: Input should be 'red' or 'green'"),
        row("word", "a number for text", r#"{"x":1}"#, "invalid_fields", "literal_error body.x:"),
        row("byte", "a fraction for an integer", r#"{"x":[1,1.5]}"#, "invalid_fields", "int_from_float body.x.1:"),
        row("byte", "an integer out of its range", r#"{"x":[1,256]}"#, "invalid_fields", "int_parsing_size body.x.1:"),
        row("byte", "text for an integer", r#"{"x":[1,"a"]}"#, "invalid_fields", "int_parsing body.x.1:"),
        row("flags", "a number for a truth", r#"{"x":[true,7]}"#, "invalid_fields", "bool_parsing body.x.1:"),
        row("vector", "a list too short", r#"{"x":[1,2]}"#, "invalid_fields", "too_short body.x:"),
        row("vector", "a list too long", r#"{"x":[1,2,3,4]}"#, "invalid_fields", "too_long body.x:"),
        row("vector", "a number for a list", r#"{"x":1}"#, "invalid_fields", "list_type body.x:"),
        row("tokens", "a list too short within a list", r#"{"x":[[1,2],[3]]}"#, "invalid_fields", "too_short body.x.1:"),
        row("tokens", "records of different lengths", r#"[{"x":[[1,2]]},{"x":[[1,2],[3,4]]}]"#, "invalid_fields", "shape"),
    ];
    let mut cases: Vec<Case> = rows.into_iter().map(|row| row.to(&format!("/models/{}/predict", row.model), 422)).collect();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"] {
        let request = Request::post(PREDICT, r#"{"a":1,"b":2}"#).header("content-type", kind);
        cases.push(case("a record that is not said to be JSON", request, 422, "invalid_fields", "application/json"));
    }
    cases
}
