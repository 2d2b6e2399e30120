//! TLS to a real server: the certificate and the name in it are verified.

use std::path::Path;

use sluicegate_core::Code;
use sluicegate_state::{Incarnation, Place, Secret, Store};

use crate::cluster::{Cluster, PASSWORD};
use crate::next;

#[test]
fn a_password_is_given_to_the_server_that_the_authority_names_and_to_no_other() {
    let Some(cluster) = Cluster::start() else { return };
    let root = cluster.speak_tls();
    let database = cluster.database();
    let encoded = PASSWORD.replace('/', "%2F").replace(':', "%3A");
    let open = |password: &str, host: &str, parameters: &str| {
        let url = format!("postgres://postgres:{password}@{host}:{}/{database}?{parameters}", cluster.port);
        Store::open(&Place::Postgres(Secret::Text(url)), Incarnation::new("a").expect("a name"))
    };
    let trusting = |root: &Path| format!("sslmode=verify-full&sslrootcert={}", root.display());

    let mut store = open(&encoded, "localhost", &trusting(&root)).expect("a store");
    assert!(store.advance("fraud", None, next("{}"), &[]).expect("written"));
    let over = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'sluicegate'";
    assert_eq!(cluster.psql(&database, over).trim(), "1");

    let empty = root.with_file_name("san");
    for (what, password, host, parameters) in [
        ("authentication failed", "hunter2", "localhost", trusting(&root)),
        ("UnknownIssuer", &*encoded, "localhost", "sslmode=require".to_owned()),
        ("UnknownIssuer", &*encoded, "localhost", String::new()),
        ("not valid for name", &*encoded, "127.0.0.1", trusting(&root)),
        ("no pg_hba.conf entry", &*encoded, "localhost", "sslmode=disable".to_owned()),
        ("sslrootcert", &*encoded, "localhost", trusting(&empty)),
        ("sslrootcert", &*encoded, "localhost", trusting(Path::new("/missing.pem"))),
    ] {
        let error = open(password, host, &parameters).expect_err(what);
        let said = error.message();
        assert!(said.contains(what), "{what}: {said}");
        let is_operators = !matches!(what, "UnknownIssuer" | "not valid for name");
        assert_eq!(error.code(), if is_operators { Code::BadConfig } else { Code::Io }, "{said}");
        assert!(!said.contains(PASSWORD) && !said.contains(&encoded) && !said.contains("hunter2"), "{said}");
    }
}
