"""A PostgreSQL server of the test's own, on loopback."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("initdb", "pg_ctl", "createdb")


def server_programs() -> Path | None:
    """The folder of the server's programs: where Debian's package puts them, or on the path."""
    found = shutil.which("initdb")
    places = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        *([Path(found).parent] if found else []),
    ]
    return next((place for place in places if all((place / name).exists() for name in PROGRAMS)), None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """host:port of a server with the empty databases `studies` and `mlflow`, of the user `wafer`."""
    programs = server_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed; apt-get install postgresql")
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="pg_"))  # short: a socket's path has an end; and another user has to enter
    if user:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program: str, *words: str) -> None:
        command = [str(programs / program), *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **user)
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    call("initdb", "-D", data, "-U", "wafer", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    call("pg_ctl", "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start")
    try:
        for name in ("studies", "mlflow"):
            call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "wafer", name)
        yield f"127.0.0.1:{port}"
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)
