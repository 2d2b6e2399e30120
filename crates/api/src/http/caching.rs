//! What a caller says of cached answers (`cache-control`), and is told of them (`x-cache`).

use axum::response::Response;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue};
use sluicegate_core::request::Reuse;
use sluicegate_core::response::Cached;

/// `hit` or `miss`, on answers of models that have a cache.
pub const CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Whether an answer that was given before will do: not with `no-cache`; with `no-store` the new one is not kept either.
pub fn asked(headers: &HeaderMap) -> Reuse {
    let mut asked = Reuse::Allowed;
    let lists = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|list| list.to_str().ok());
    for directive in lists.flat_map(|list| list.split(',')).map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") {
            return Reuse::Never;
        }
        if directive.eq_ignore_ascii_case("no-cache") {
            asked = Reuse::Anew;
        }
    }
    asked
}

/// Says whether the answer was in the cache.
pub fn tell(response: &mut Response, cached: Option<Cached>) {
    if let Some(cached) = cached {
        response.headers_mut().insert(CACHE, HeaderValue::from_static(cached.name()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_ask_for_an_answer_anew() {
        let said = |lists: &[&'static str]| {
            let lists = lists.iter().map(|list| (CACHE_CONTROL, HeaderValue::from_static(list)));
            asked(&lists.collect())
        };
        assert_eq!(said(&[]), Reuse::Allowed);
        assert_eq!(said(&["max-age=0"]), Reuse::Allowed);
        assert_eq!(said(&["max-age=0, No-Cache"]), Reuse::Anew);
        assert_eq!(said(&["no-cache,no-store"]), Reuse::Never);
    }
}
