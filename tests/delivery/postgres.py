"""A real PostgreSQL in a directory of its own, reached through its socket."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from chart import missing
from gateway import wait_for

# It refuses to be run by root.
USER = "postgres"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        missing("PostgreSQL is missing: apt-get install postgresql")
    bin = programs[-1].parent
    # Short, for a socket's path is.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    options: dict = {"cwd": folder, "stdin": subprocess.DEVNULL}
    if os.geteuid() == 0:
        shutil.chown(folder, USER, USER)
        options |= {"user": USER, "group": USER, "extra_groups": []}
    settings = [f"unix_socket_directories={folder}", "listen_addresses=", "fsync=off", "shared_buffers=16MB"]
    log = (folder / "log").open("wb")
    try:
        made = subprocess.run(
            [bin / "initdb", "-D", "data", "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        command = [bin / "postgres", "-D", "data", *(part for setting in settings for part in ("-c", setting))]
        server = subprocess.Popen(command, stdout=log, stderr=log, **options)
        try:

            def answers() -> bool:
                assert server.poll() is None, (folder / "log").read_text()
                return subprocess.run([bin / "pg_isready", "-q", "-h", folder], timeout=10).returncode == 0

            wait_for("PostgreSQL", answers)
            yield f"postgres://{USER}@{quote(str(folder), safe='')}:5432/postgres?connect_timeout=2"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()
    finally:
        log.close()
        shutil.rmtree(folder)
