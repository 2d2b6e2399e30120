//! `/docs` (Swagger UI), `/redoc` (ReDoc) and their assets: embedded, so that they work with no network at all.
//!
//! Every address in the pages is relative, so that they work behind a path prefix. The assets under `vendor/` are as they
//! were published; `vendor/README.md` says which they are. ReDoc's bundle asks a host of its makers for a logo, which the
//! [`CONTENT_SECURITY_POLICY`] refuses.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY as CSP, CONTENT_TYPE, ETAG, LOCATION, REFERRER_POLICY};
use http::header::{HeaderMap, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, StatusCode};

use super::{etag, is_fresh};

/// What the pages may load and do: nothing from or to another host.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'self'";

/// A page, or something that a page loads.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Its path under the gateway's root.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its content.
    pub body: &'static [u8],
    /// The version of the package that it comes from, where it is a vendored one. The pages name it in the address
    /// (`?v=`), so that it may be kept for ever.
    pub version: Option<&'static str>,
}

const SWAGGER_UI: Option<&str> = Some("5.35.0");
const REDOC: Option<&str> = Some("2.5.4");
const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($path:literal $content_type:expr, $version:expr, $file:literal;)*) => {
        &[$(Asset { path: $path, content_type: $content_type, body: include_bytes!($file), version: $version }),*]
    };
}

pub(super) const ASSETS: &[Asset] = assets! {
    "/docs" HTML, None, "page/docs.html";
    "/docs/assets/docs.js" JS, None, "page/docs.js";
    "/docs/oauth2-redirect" HTML, None, "page/oauth2-redirect.html";
    "/docs/assets/oauth2-redirect.js" JS, SWAGGER_UI, "../../../vendor/swagger-ui/oauth2-redirect.js";
    "/docs/assets/swagger-ui-bundle.js" JS, SWAGGER_UI, "../../../vendor/swagger-ui/swagger-ui-bundle.js";
    "/docs/assets/swagger-ui.css" "text/css; charset=utf-8", SWAGGER_UI, "../../../vendor/swagger-ui/swagger-ui.css";
    "/docs/assets/favicon-32x32.png" "image/png", SWAGGER_UI, "../../../vendor/swagger-ui/favicon-32x32.png";
    "/redoc" HTML, None, "page/redoc.html";
    "/docs/assets/redoc.js" JS, None, "page/redoc.js";
    "/docs/assets/redoc.standalone.js" JS, REDOC, "../../../vendor/redoc/redoc.standalone.js";
};

/// The page or asset of this path.
pub fn page(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// The routes of the pages and their assets; `/openapi.json`, which they show, is not among them.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let router = ASSETS.iter().fold(Router::new(), |router, asset| {
        router.route(asset.path, get(move |headers: HeaderMap| async move { answer(asset, &headers) }))
    });
    // With a slash at its end the page's relative addresses would miss; the way back is relative as well.
    let up = |to: &'static str| get(move || async move { (StatusCode::PERMANENT_REDIRECT, [(LOCATION, to)]) });
    router.route("/docs/", up("../docs")).route("/redoc/", up("../redoc"))
}

fn answer(asset: &'static Asset, headers: &HeaderMap) -> Response {
    let (tag, keep) = match asset.version {
        Some(version) => (format!("\"{version}\""), "public, max-age=31536000, immutable"),
        None => (etag(asset.body), "no-cache"),
    };
    let fresh = is_fresh(headers, &tag);
    let common: [(HeaderName, &str); 5] = [
        (CACHE_CONTROL, keep),
        (ETAG, &tag),
        (CSP, CONTENT_SECURITY_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    if fresh {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, asset.content_type)], asset.body).into_response()
}
