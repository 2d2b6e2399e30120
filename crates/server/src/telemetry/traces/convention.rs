//! What the span of a request is called, and what is said of it, by OpenTelemetry's semantic conventions for HTTP and RPC servers.

use std::borrow::Cow;

use sluicegate_core::Code;
use sluicegate_core::trace::{Asked, Attribute, CODE, ERROR_TYPE, Value};

/// The span of a request.
pub(super) struct Served {
    pub(super) name: String,
    pub(super) attributes: Vec<Attribute>,
    pub(super) failed: bool,
}

/// What is told of a request to a path below `root`, of which this was said on its way.
pub(super) fn served(asked: &Asked, root: &str, said: &[Attribute]) -> Served {
    let text = |text: &str| Value::from(text.to_owned());
    let mut attributes = vec![("network.protocol.version", Value::from(asked.version))];
    attributes.extend(asked.agent.as_deref().map(|agent| ("user_agent.original", text(agent))));
    attributes.extend(asked.id.as_deref().map(|id| ("sluicegate.request.id", text(id))));
    let (name, status, failed) = if asked.is_call {
        let method = asked.path.trim_start_matches('/');
        let code = asked.status.map(tonic::Code::from_i32);
        attributes.extend([("rpc.system.name", "grpc".into()), ("rpc.method", text(method))]);
        attributes.extend(code.map(|code| ("rpc.response.status_code", status_name(code).into())));
        // Of these the server is to blame, as the conventions have it.
        use tonic::Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
        let blamed = [Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable, DataLoss];
        (method.to_owned(), code.map(|code| status_name(code).into()), code.is_none_or(|code| blamed.contains(&code)))
    } else {
        attributes.extend([
            ("http.request.method", "POST".into()),
            ("url.path", text(&asked.path)),
            ("url.scheme", "http".into()),
        ]);
        attributes.extend(asked.status.map(|status| ("http.response.status_code", Value::Number(status.into()))));
        let mut name = "POST".to_owned();
        if !matches!(asked.status, None | Some(404 | 405)) {
            let route = route(&asked.path, root);
            name.extend([" ", &route]);
            attributes.push(("http.route", route.into()));
        }
        let status = asked.status.map(|status| Cow::from(status.to_string()));
        (name, status, asked.status.is_none_or(|status| status >= 500))
    };
    if failed {
        let known = said.iter().find(|(name, _)| *name == CODE).map(|(_, code)| code.clone());
        let kind = known.or(status.map(Value::Text)).unwrap_or_else(|| Code::Cancelled.name().into());
        attributes.push((ERROR_TYPE, kind));
    }
    Served { name, attributes, failed }
}

/// A path with names in the places of models and versions, so that there are few.
fn route(path: &str, root: &str) -> String {
    let rest = path.strip_prefix(root).unwrap_or(path);
    let mut route = path[..path.len() - rest.len()].to_owned();
    let mut before = "";
    for (place, part) in rest.split('/').enumerate() {
        if place > 0 {
            route.push('/');
        }
        let verb = part.find(':').map_or("", |at| &part[at..]);
        match before {
            "models" => route.extend(["{model}", verb]),
            "versions" => route.extend(["{version}", verb]),
            "labels" => route.extend(["{label}", verb]),
            _ => route.push_str(part),
        }
        before = part;
    }
    route
}

/// A status as gRPC names it.
fn status_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_and_versions_are_in_no_route() {
        for (path, expected) in [
            ("/models/fraud@2/predict", "/models/{model}/predict"),
            ("/v2/models/fraud/versions/3/infer", "/v2/models/{model}/versions/{version}/infer"),
            ("/v1/models/fraud/labels/stable:predict", "/v1/models/{model}/labels/{label}:predict"),
            ("/v1/models/fraud:predict", "/v1/models/{model}:predict"),
            ("/invocations", "/invocations"),
            ("/", "/"),
        ] {
            assert_eq!(route(path, ""), expected);
        }
        assert_eq!(route("/models/v2/models/fraud/infer", "/models"), "/models/v2/models/{model}/infer");
    }

    fn said<'a>(served: &'a Served, name: &str) -> Option<&'a Value> {
        served.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    #[test]
    fn a_fault_of_the_server_and_a_caller_who_left_are_failures_and_a_fault_of_the_caller_is_none() {
        let asked = Asked { path: "/invocations".into(), ..Asked::default() };
        for (status, failed) in [(200, false), (404, false), (422, false), (429, false), (500, true), (503, true)] {
            let served = served(&Asked { status: Some(status), ..asked.clone() }, "", &[]);
            assert_eq!((served.failed, served.name == "POST /invocations"), (failed, status != 404), "{status}");
            assert_eq!(said(&served, ERROR_TYPE), failed.then(|| status.to_string().into()).as_ref(), "{status}");
        }
        let left = served(&asked, "", &[]);
        assert_eq!((left.failed, &*left.name, said(&left, ERROR_TYPE)), (true, "POST", Some(&"cancelled".into())));
        let known = served(&Asked { status: Some(500), ..asked }, "", &[(CODE, "run_failed".into())]);
        assert_eq!(said(&known, ERROR_TYPE), Some(&"run_failed".into()));

        let call = Asked { is_call: true, path: "/a/B".into(), ..Asked::default() };
        for (status, failed) in [(0, false), (3, false), (8, false), (13, true), (14, true)] {
            let served = served(&Asked { status: Some(status), ..call.clone() }, "", &[]);
            assert_eq!((served.failed, &*served.name), (failed, "a/B"), "{status}");
        }
    }
}
