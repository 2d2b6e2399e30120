//! The one table from errors to what goes over the wire: HTTP and gRPC side by side.

use http::StatusCode;
use sluicegate_core::{Code, Fault};

/// What a code is on each wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// On the routes of the Open Inference Protocol.
    pub http: StatusCode,
    /// On the typed routes, where FastAPI's habits hold.
    pub typed: StatusCode,
    /// The canonical gRPC code, by its number.
    pub grpc: i32,
    /// Seconds after which trying again may help.
    pub retry_after: Option<u32>,
}

/// Looks a code up.
pub fn wire(code: Code) -> Wire {
    use StatusCode as S;
    const INVALID_ARGUMENT: i32 = 3;
    let (http, typed, grpc, retry_after) = match code {
        Code::InvalidFields => (S::BAD_REQUEST, S::UNPROCESSABLE_ENTITY, INVALID_ARGUMENT, None),
        Code::Malformed => (S::BAD_REQUEST, S::UNPROCESSABLE_ENTITY, INVALID_ARGUMENT, None),
        Code::InvalidTensor
        | Code::InvalidShape
        | Code::WrongElementCount
        | Code::WrongByteCount
        | Code::WrongDtype
        | Code::WrongShape
        | Code::MissingInput
        | Code::UnknownInput
        | Code::UnknownOutput => (S::BAD_REQUEST, S::UNPROCESSABLE_ENTITY, INVALID_ARGUMENT, None),
        Code::BadHeader | Code::BadEncoding => (S::BAD_REQUEST, S::BAD_REQUEST, INVALID_ARGUMENT, None),
        Code::UnsupportedMedia => (S::UNSUPPORTED_MEDIA_TYPE, S::UNSUPPORTED_MEDIA_TYPE, INVALID_ARGUMENT, None),
        Code::NotAcceptable => (S::NOT_ACCEPTABLE, S::NOT_ACCEPTABLE, INVALID_ARGUMENT, None),
        Code::UnknownModel | Code::UnknownVersion | Code::NotFound => (S::NOT_FOUND, S::NOT_FOUND, 5, None),
        Code::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, S::METHOD_NOT_ALLOWED, 12, None),
        Code::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, S::PAYLOAD_TOO_LARGE, 8, None),
        Code::SlowBody => (S::REQUEST_TIMEOUT, S::REQUEST_TIMEOUT, 4, None),
        Code::NotLoaded => (S::BAD_REQUEST, S::BAD_REQUEST, 9, None),
        Code::Forbidden => (S::FORBIDDEN, S::FORBIDDEN, 7, None),
        Code::Conflict => (S::CONFLICT, S::CONFLICT, 9, None),
        Code::Unsupported => (S::NOT_IMPLEMENTED, S::NOT_IMPLEMENTED, 12, None),
        // The caller who left reads no status; nginx's 499 says so in logs.
        Code::Cancelled => (S::BAD_REQUEST, S::BAD_REQUEST, 1, None),
        Code::QueueFull | Code::TooBusy => (S::TOO_MANY_REQUESTS, S::TOO_MANY_REQUESTS, 14, Some(1)),
        Code::DeadlineExceeded => (S::GATEWAY_TIMEOUT, S::GATEWAY_TIMEOUT, 4, None),
        Code::NotReady => (S::SERVICE_UNAVAILABLE, S::SERVICE_UNAVAILABLE, 14, Some(1)),
        Code::RunFailed
        | Code::LoadFailed
        | Code::BadSignature
        | Code::BadManifest
        | Code::BadConfig
        | Code::NoEngine
        | Code::Io
        | Code::Internal => (S::INTERNAL_SERVER_ERROR, S::INTERNAL_SERVER_ERROR, 13, None),
    };
    Wire { http, typed, grpc, retry_after }
}

/// The word that MLflow has for a code.
pub fn mlflow(code: Code) -> &'static str {
    match code {
        Code::UnknownModel | Code::UnknownVersion => "RESOURCE_DOES_NOT_EXIST",
        Code::NotFound => "ENDPOINT_NOT_FOUND",
        Code::InvalidFields
        | Code::InvalidTensor
        | Code::InvalidShape
        | Code::WrongElementCount
        | Code::WrongByteCount
        | Code::WrongDtype
        | Code::WrongShape
        | Code::MissingInput
        | Code::UnknownInput
        | Code::UnknownOutput => "INVALID_PARAMETER_VALUE",
        _ => match wire(code).http {
            StatusCode::TOO_MANY_REQUESTS => "REQUEST_LIMIT_EXCEEDED",
            StatusCode::NOT_IMPLEMENTED => "NOT_IMPLEMENTED",
            StatusCode::SERVICE_UNAVAILABLE => "TEMPORARILY_UNAVAILABLE",
            StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
            status if status.is_client_error() => "BAD_REQUEST",
            _ => "INTERNAL_ERROR",
        },
    }
}

/// OpenAI's type of error for a code, and its word for it: ours, but for those that clients look for.
pub fn openai(code: Code) -> (&'static str, &'static str) {
    let kind = match wire(code).http {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_exceeded",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    match code {
        Code::UnknownModel | Code::UnknownVersion => (kind, "model_not_found"),
        _ => (kind, code.name()),
    }
}

/// The type of error that text-embeddings-inference has for a code.
pub fn tei(code: Code) -> &'static str {
    match code.fault() {
        Fault::Caller => "Validation",
        Fault::Overload => "Overloaded",
        Fault::Model | Fault::Operator | Fault::Us => "Backend",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_whose_fault_it_was() {
        for &code in Code::ALL {
            let wire = wire(code);
            for status in [wire.http, wire.typed] {
                match code.fault() {
                    Fault::Caller if code == Code::Unsupported => assert_eq!(status, 501),
                    Fault::Caller => assert!(status.is_client_error(), "{code:?}"),
                    Fault::Overload => assert!([429, 503, 504].contains(&status.as_u16()), "{code:?}"),
                    Fault::Model | Fault::Operator | Fault::Us => assert_eq!(status, 500, "{code:?}"),
                }
            }
            assert_eq!(wire.retry_after.is_some(), [429, 503].contains(&wire.http.as_u16()), "{code:?}");
        }
    }
}
