//! A figure of a real Prometheus that scrapes itself, and of servers that are none.
//!
//! Skipped where the program is not on the machine (Debian's package `prometheus`), unless `SLUICEGATE_REQUIRE_PROMETHEUS` is set.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::receiver::{Act, Receiver, wait_for};
use sluicegate_core::Code;
use sluicegate_outbound::{Address, prometheus};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Killed at the end of the test.
struct Server(Child, #[expect(dead_code, reason = "removed at its drop")] tempfile::TempDir);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Prometheus behind a path, as behind a proxy; none where the program is not there.
fn start() -> Option<(Server, Address)> {
    let folder = tempfile::tempdir().expect("a folder");
    // Free a moment ago; Prometheus takes no port that it chooses itself.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let scrape = "scrape_configs: [{job_name: self, scrape_interval: 1s, metrics_path: /prom/metrics, static_configs: [{targets:";
    std::fs::write(folder.path().join("prometheus.yml"), format!("{scrape} ['127.0.0.1:{port}']}}]}}]\n")).expect("written");
    let child = Command::new("prometheus")
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.route-prefix=/prom"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    #[expect(clippy::disallowed_methods, reason = "what has to be there is told to the tests, not to the product")]
    let required = std::env::var_os("SLUICEGATE_REQUIRE_PROMETHEUS").is_some();
    match child {
        Ok(child) => Some((Server(child, folder), address(&format!("http://127.0.0.1:{port}/prom/")))),
        Err(error) if required => panic!("prometheus cannot be started: {error}; apt-get install prometheus"),
        Err(error) => {
            eprintln!("skipped: prometheus cannot be started ({error}); apt-get install prometheus");
            None
        }
    }
}

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

fn error(address: &Address, expression: &str, timeout: Duration) -> String {
    let error = prometheus::query(address, expression, timeout).expect_err(expression);
    assert!(matches!(error.code(), Code::Io | Code::BadConfig), "{error}");
    error.to_string()
}

#[test]
fn a_real_prometheus_is_asked_and_what_is_not_one_number_says_what_to_change() {
    let Some((_server, address)) = start() else { return };
    let query = |expression: &str| prometheus::query(&address, expression, TIMEOUT);
    wait_for("the first scrape", || query("up{job=\"self\"}").is_ok_and(|value| value == Some(1.0)));
    assert_eq!(query("6 * 7 + 0.5").expect("a scalar"), Some(42.5));
    assert_eq!(query("up{job=\"nobody's & +%\"}").expect("no data"), None);
    let error = |expression: &str| error(&address, expression, TIMEOUT);
    let many = error("prometheus_http_requests_total or up");
    assert!(many.contains(" series and not one, as ") && many.contains("`sum(…)`"), "{many}");
    assert!(error("0 / 0").contains("NaN is not a number to decide by"));
    assert!(error("up[1m]").contains("a range and not a number"));
    let slip = error("sum(up");
    assert!(slip.contains("query `sum(up`: ") && slip.contains("parse error") && slip.ends_with("change the `query`"), "{slip}");
}

#[test]
fn a_server_that_is_no_prometheus_is_named_with_the_setting() {
    let receiver = Receiver::start(&[Act::Answer(200, ""), Act::Answer(404, ""), Act::Hang, Act::Close]);
    let address = address(&format!("http://me:s3cret@{}", receiver.address));
    for status in [200, 404] {
        let said = error(&address, "up", TIMEOUT);
        assert!(
            said.contains(&format!("answered {status} with something else than the API of Prometheus; `address` is")),
            "{said}"
        );
        assert!(!said.contains("s3cret"), "{said}");
    }
    let late = error(&address, "up", Duration::from_millis(300));
    assert!(late.contains("did not answer within 300ms") && late.contains("longer `timeout`"), "{late}");
    error(&address, "up", TIMEOUT);
    let got = receiver.got();
    assert_eq!((&*got[0].path, &*got[0].body), ("/api/v1/query", &b"query=up&timeout=30000ms"[..]));
    assert_eq!(got[0].headers["content-type"], "application/x-www-form-urlencoded");
}

#[test]
fn a_server_that_is_not_there_is_said_to_be_so() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let said = error(&address(&format!("http://{closed}")), "up", TIMEOUT);
    assert!(said.contains("cannot be reached") && said.contains("refused"), "{said}");
    let said = error(&address("http://no-such-host.invalid"), "up", TIMEOUT);
    assert!(said.contains("http://no-such-host.invalid cannot be reached"), "{said}");
    let plain = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let https = address(&format!("https://{}", plain.local_addr().expect("an address")));
    let answers = thread::spawn(move || {
        let (mut stream, _) = plain.accept().expect("a connection");
        stream.read(&mut [0; 1024]).and_then(|_| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")).expect("an answer");
    });
    let said = error(&https, "up", TIMEOUT);
    answers.join().expect("it answered");
    assert!(said.contains("does not speak TLS") && said.ends_with("look whether its address begins with `http://`"), "{said}");
}
