//! What the pages may load, and that they are what was published.

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use tower::ServiceExt;

use super::*;

#[test]
fn pages_name_addresses_of_their_own_alone_and_vendored_ones_with_their_version() {
    for (at, base) in [("/docs", "/"), ("/redoc", "/"), ("/docs/oauth2-redirect", "/docs/")] {
        let html = std::str::from_utf8(page(at).expect("a page").body).expect("text");
        assert!(!html.contains("://"), "{at}");
        let linked = html.split(['"']).skip(1).step_by(2).filter(|value| value.contains("assets/"));
        for link in linked {
            assert!(!link.starts_with('/'), "{link} would leave a path prefix");
            let (path, version) = link.split_once("?v=").map_or((link, None), |(path, version)| (path, Some(version)));
            let asset = page(&format!("{base}{path}")).unwrap_or_else(|| panic!("{link} is not served"));
            assert_eq!(asset.version, version, "{link}");
        }
    }
    assert!(page("/docs/assets/../docs").is_none());
}

#[test]
fn vendored_files_are_those_that_the_readme_records() {
    let readme = include_str!("../../../vendor/README.md");
    for asset in page::ASSETS.iter().filter(|asset| asset.version.is_some()) {
        let name = asset.path.rsplit('/').next().expect("a file");
        let digest = Digest::sha256(&Sha256::digest(asset.body));
        let row = readme.lines().find(|line| line.contains(&format!("/{name}`"))).unwrap_or_else(|| panic!("{name}"));
        assert!(row.contains(digest.as_str().trim_start_matches("sha256:")), "{name} is {digest}");
    }
}

#[tokio::test]
async fn pages_are_answered_with_their_policy_and_are_not_sent_twice() {
    let router: Router = routes();
    let ask = async |path: &str, tag: &str| {
        let request = Request::get(path).header(IF_NONE_MATCH, tag).body(Body::empty()).expect("a request");
        router.clone().oneshot(request).await.expect("infallible")
    };
    for path in ["/docs", "/redoc", "/docs/oauth2-redirect", "/docs/assets/swagger-ui.css"] {
        let first = ask(path, "\"other\"").await;
        assert_eq!(first.status(), StatusCode::OK, "{path}");
        assert_eq!(first.headers()["content-security-policy"], CONTENT_SECURITY_POLICY);
        let tag = first.headers()["etag"].to_str().expect("text").to_owned();
        assert_eq!(ask(path, &format!("\"other\", W/{tag}")).await.status(), StatusCode::NOT_MODIFIED, "{path}");
    }
    let slash = ask("/docs/", "").await;
    assert_eq!(
        (slash.status(), &slash.headers()["location"]),
        (StatusCode::PERMANENT_REDIRECT, &"../docs".parse().expect("text"))
    );
}
