//! The URL of a PostgreSQL database, as other clients read it, and what of it is about TLS.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use sluicegate_core::{Code, Error, Result};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How a session is opened.
pub(crate) struct Settings {
    pub(crate) config: Config,
    /// Whether TLS is spoken where the server can.
    pub(crate) over_tls: bool,
    /// The file with the authorities that may have signed the server's certificate; without one those of the system.
    pub(crate) root: Option<PathBuf>,
}

/// Reads the URL. No part of it is in an error: where it is written wrongly, each part may be the password.
pub(crate) fn parse(url: &str) -> Result<Settings> {
    let expected = "expected `postgres://user:password@host:5432/database`, with parameters such as `?sslmode=verify-full` and \
                    `&sslrootcert=/path/of/the/authority.pem` after it";
    let wrong = |what: &str| Error::new(Code::BadConfig, format!("state.postgres: {what}; {expected}"));
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(wrong("the text is not a URL of PostgreSQL"));
    }
    if url.matches('@').count() > 1 {
        return Err(wrong("the URL has more than one `@`; write one in a name or password as `%40`"));
    }
    let start = url.find('@').unwrap_or(0);
    let (place, parameters) = match url[start..].find('?') {
        Some(at) => (&url[..start + at], &url[start + at + 1..]),
        None => (url, ""),
    };
    let (mut rest, mut root) = (Vec::new(), None);
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslrootcert", "system")) => {}
            Some(("sslrootcert", path)) => {
                let path = percent_decode_str(path).decode_utf8().map_err(|_| wrong("`sslrootcert` is not a path in UTF-8"))?;
                root = Some(PathBuf::from(&*path));
            }
            // Where TLS is spoken, the certificate and the name in it are always verified.
            Some(("sslmode", "verify-ca" | "verify-full")) => rest.push("sslmode=require"),
            Some(("sslmode", "disable" | "prefer" | "require")) => rest.push(parameter),
            Some(("sslmode", _)) => return Err(wrong("`sslmode` is one of disable, prefer, require, verify-ca and verify-full")),
            Some(("sslcert" | "sslkey", _)) => {
                return Err(wrong("certificates of clients (`sslcert`, `sslkey`) are not supported"));
            }
            _ => rest.push(parameter),
        }
    }
    let config = format!("{place}?{}", rest.join("&")).parse::<Config>();
    let config = config.map_err(|_| wrong("the URL cannot be read, or has a parameter that is not known"))?;
    if config.get_hosts().is_empty() {
        return Err(wrong("the URL has no host"));
    }
    let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    let over_tls = config.get_ssl_mode() != SslMode::Disable && !is_local;
    Ok(Settings { config, over_tls, root })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        parse(url).err().map(|error| error.to_string()).unwrap_or_else(|| panic!("{url} is read"))
    }

    #[test]
    fn tls_is_spoken_as_the_url_says() {
        for (url, mode, over_tls) in [
            ("postgres://u:p@db/s", SslMode::Prefer, true),
            ("postgresql://u:p@db:5433/s?sslmode=disable", SslMode::Disable, false),
            ("postgres://u:p@db/s?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem", SslMode::Require, true),
            ("postgres://u:p@db/s?sslmode=verify-ca&sslrootcert=system", SslMode::Require, true),
            ("postgres://u:p%3F%40@a,b:5433/s?target_session_attrs=read-write&sslmode=require", SslMode::Require, true),
            ("postgres://u@%2Frun%2Fpostgresql/s", SslMode::Prefer, false),
        ] {
            let settings = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((settings.config.get_ssl_mode(), settings.over_tls), (mode, over_tls), "{url}");
        }
        let settings = parse("postgres://u:p@db/s?sslrootcert=%2Fetc%2Fca.pem&sslmode=verify-full").expect("a URL");
        assert_eq!(settings.root, Some(PathBuf::from("/etc/ca.pem")));
        assert_eq!(settings.config.get_password(), Some(&b"p"[..]));
    }

    #[test]
    fn a_url_that_is_wrong_is_refused_without_a_part_of_it() {
        for url in [
            "mysql://u:hunter2@db/s",
            "host=db password=hunter2",
            "postgres://u:hun@hunter2@db/s",
            "postgres://u:x@db/s?hunter2=1",
            "postgres://u:x@db:hunter2/s",
            "postgres://u:x@db/s?sslmode=hunter2",
            "postgres://u:x@db/s?sslkey=hunter2",
            "postgres://u:hunter2@/s",
            "postgres://[hunter2/s",
        ] {
            let said = refused(url);
            assert!(!said.contains("hunter2") && said.contains("state.postgres") && said.contains("expected"), "{url}: {said}");
        }
    }
}
