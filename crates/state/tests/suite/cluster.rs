//! A real PostgreSQL, started by the tests in a directory of its own, and gone with them.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Who runs the server, which refuses to be run by root.
const USER: &str = "postgres";
/// Of that user, where it is asked for one.
pub(crate) const PASSWORD: &str = "hunter2/with:signs";

/// A server with its data.
pub(crate) struct Cluster {
    programs: PathBuf,
    directory: PathBuf,
    pub(crate) port: u16,
    /// Ends the server and removes the directory when this program is gone, however it went: its input ends then.
    _guard: Child,
    databases: AtomicU32,
}

impl Cluster {
    /// The one that all tests share that leave it running.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// A running one, where PostgreSQL is installed.
    #[allow(clippy::disallowed_methods, reason = "a test's switch; the product reads no environment here")]
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let required = std::env::var_os("SLUICEGATE_REQUIRE_POSTGRES").is_some_and(|value| value == "1");
            assert!(!required, "SLUICEGATE_REQUIRE_POSTGRES=1, and there is no PostgreSQL: apt-get install postgresql");
            eprintln!("skipped for PostgreSQL: it is not installed; apt-get install postgresql");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("pg").tempdir().expect("a directory").keep();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("permissions");
        let guard = format!(
            "cat >/dev/null; '{}' stop -D data -m immediate; rm -rf '{}'",
            programs.join("pg_ctl").display(),
            directory.display()
        );
        if let Some((user, group)) = ids() {
            chown(&directory, Some(user), Some(group)).expect("an owner");
        }
        let guard = command("sh", &directory)
            .args(["-c", &guard])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let cluster = Self { programs, directory, port, _guard: guard.expect("a guard"), databases: AtomicU32::new(0) };
        fs::write(cluster.directory.join("password"), PASSWORD).expect("a password");
        cluster.tool(
            "initdb",
            &["-D", "data", "-U", USER, "-A", "trust", "--pwfile=password", "--no-sync", "-E", "UTF8", "--locale=C"],
        );
        // Over TCP only with TLS and a password, through the socket without.
        let hba = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        cluster.write("data/pg_hba.conf", hba);
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nmax_connections = 60\n\
             fsync = off\nshared_buffers = 16MB\n",
            cluster.directory.display()
        );
        cluster.write("data/postgresql.auto.conf", &settings);
        cluster.up();
        Some(cluster)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.directory.join(path), text).expect("a file of the server");
    }

    /// A database that is empty.
    pub(crate) fn database(&self) -> String {
        let name = format!("state{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// The URL of a database through the server's socket.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_in(&self.directory, database)
    }

    /// The URL of a database through a socket of the same name in another directory.
    pub(crate) fn url_in(&self, directory: &Path, database: &str) -> String {
        let socket = directory.display().to_string().replace('/', "%2F");
        format!("postgres://{USER}@{socket}:{}/{database}?connect_timeout=2", self.port)
    }

    /// The server's socket.
    #[allow(dead_code, reason = "for the tests of the whole process")]
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join(format!(".s.PGSQL.{}", self.port))
    }

    /// What a statement answers, by PostgreSQL's own client.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let (port, directory) = (self.port.to_string(), self.directory.display().to_string());
        self.tool(
            "psql",
            &[
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                USER,
                "-h",
                &directory,
                "-p",
                &port,
                "-d",
                database,
                "-c",
                sql,
            ],
        )
    }

    /// Starts the server, and waits until it answers.
    pub(crate) fn up(&self) {
        self.tool("pg_ctl", &["start", "-D", "data", "-l", "log", "-w", "-s"]);
    }

    /// Stops it: `fast` ends sessions, `immediate` is as a loss of power.
    pub(crate) fn down(&self, mode: &str) {
        self.tool("pg_ctl", &["stop", "-D", "data", "-m", mode, "-w", "-s"]);
    }

    /// Sends a signal to every process of the server: `STOP` leaves it listening, and answering nobody, until `CONT`.
    #[allow(dead_code, reason = "for the tests of the whole process")]
    pub(crate) fn signal(&self, name: &str) {
        let script = format!("p=$(head -n 1 data/postmaster.pid); kill -{name} $p $(cat /proc/$p/task/$p/children)");
        run(command("sh", &self.directory).args(["-c", &script]));
    }

    /// Has it speak TLS as `localhost`; the file of the authority that says so.
    pub(crate) fn speak_tls(&self) -> PathBuf {
        let script = "set -e; key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'; echo subjectAltName=DNS:localhost >san; \
            openssl req -x509 $key -keyout ca.key -out ca.pem -subj /CN=authority -days 2; \
            openssl req $key -keyout server.key -out server.csr -subj /CN=localhost; \
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem; \
            printf \"ssl = on\\nssl_cert_file = '$PWD/server.pem'\\nssl_key_file = '$PWD/server.key'\\n\" >>data/postgresql.auto.conf";
        run(command("sh", &self.directory).args(["-c", script]));
        self.tool("pg_ctl", &["restart", "-D", "data", "-l", "log", "-w", "-s"]);
        self.directory.join("ca.pem")
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> String {
        run(command(self.programs.join(name), &self.directory).args(arguments))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self._guard.stdin.take());
        drop(self._guard.wait());
    }
}

/// Where the newest server's programs are.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| Some((version.file_name().to_str()?.parse().ok()?, version.path().join("bin"))))
        .filter(|(_, programs)| programs.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs)
}

/// The ids of the server's user, where this program is root's.
fn ids() -> Option<(u32, u32)> {
    let id = |what: &[&str]| run(Command::new("id").args(what)).trim().parse::<u32>().expect("a number");
    (id(&["-u"]) == 0).then(|| (id(&["-u", USER]), id(&["-g", USER])))
}

/// A command in the server's directory, by a user whom the server accepts.
fn command(program: impl AsRef<OsStr>, directory: &Path) -> Command {
    let mut command = match ids() {
        None => Command::new(program),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups", "--"]).arg(program);
            command
        }
    };
    command.current_dir(directory);
    command
}

/// What it prints. A server inherits the output, so that is not waited for to end where the command has ended.
fn run(command: &mut Command) -> String {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a command");
    let (mut output, mut errors) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let reader = thread::spawn(move || {
        let mut text = String::new();
        drop(output.read_to_string(&mut text));
        text
    });
    let status = child.wait().expect("an end");
    if !status.success() {
        let mut said = String::new();
        drop(errors.read_to_string(&mut said));
        panic!("{command:?}: {status}: {said}");
    }
    reader.join().expect("text")
}
