"""Ray's worker processes, forked from one that has imported the heavy libraries already.

A trial of Ray Train takes seven processes, most of them one after another. Torch, transformers and DeepSpeed cost each
that needs them five seconds, which is most of a small trial. Ray starts a worker by the `py_executable` of its runtime
environment, which here is this file. It asks a server, one for each node and job, to fork, hands over arguments,
variables, folder and open files, and lives as long as the process that was forked. Whatever is not as expected ends in
plain Python, which costs time and nothing else.

The server never imports ray: what Ray draws its ids from would be the same in every fork. It does not touch a GPU
either, whose driver does not survive a fork, so a node that has one is left to plain Python.
"""

# Nothing but the standard library: every worker process is this file before it is itself.
import contextlib
import gc
import json
import os
import runpy
import selectors
import socket
import struct
import subprocess
import sys
import time
from typing import Any

MODULES = (
    "torch.distributed",
    "pandas",
    "pyarrow.parquet",
    "scipy.optimize",
    "slmrec_core.recommender",
    "slmrec_core.training.item_table",
    "orchestrator.storage.payload",
    "deepspeed",
    "peft",
    "transformers.models.llama.modeling_llama",
)
"""What is there in a forked process: all that a trial's worker needs, but for ray."""
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_UP_WITHIN_S = 45.0
"""Ray gives a worker 60 s to report."""
_UNUSED_S = 30.0
"""So long after the last of its forks the server ends."""
_UNASKED_S = 900.0
"""So long after it was last asked the server ends, whatever still runs: an actor of Ray's own may never end."""
_LOOK_EVERY_S = 1.0
_SERVE = "--serve"
_CREDENTIALS = struct.Struct("3i")
_NUMBER = struct.Struct("!i")


def py_executable(root: str) -> str:
    """The shell words that Ray puts before the arguments of a worker.

    A node that lacks this copy of the project or this interpreter has the `python` of its `ray start` instead.
    """
    script = os.path.join(root, "orchestrator", "forkserver.py")
    # -SE: site-packages and variables take a while to be looked at, and nothing of them is needed here.
    ours = f'exec "{sys.executable}" -SE "{script}" "$@"'
    return f"""sh -c 'test -x "{sys.executable}" -a -f "{script}" && {ours}; exec python "$@"' sh"""


def launch(arguments: list[str]) -> None:
    """Runs `python <arguments>`, in a forked process if it can be, and ends as it ends."""
    raylet, job = os.environ.get("RAY_RAYLET_PID"), os.environ.get("RAY_JOB_ID")
    if sys.platform == "linux" and raylet and job and not any(map(os.path.exists, _GPU_DEVICES)):
        # One server for a job: the next one may come with other code and other variables.
        with contextlib.suppress(OSError, struct.error):
            status = _ask(f"slmrec-{os.getuid()}-{raylet}-{job}", arguments)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.execv(sys.executable, [sys.executable, *arguments])


def _ask(name: str, arguments: list[str]) -> int:
    """Has the server fork, waits, and gives the wait status.

    Raises:
        OSError: The server cannot be reached, or is not up in time.
        struct.error: The server ended before it had forked.
    """
    with _connected(name, _log_folder(arguments)) as connection:
        # The server speaks first, when it has imported everything: who gave up waiting is not forked for.
        connection.settimeout(_UP_WITHIN_S)
        _NUMBER.unpack(connection.recv(_NUMBER.size))
        connection.settimeout(None)
        request = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
        socket.send_fds(connection, [_NUMBER.pack(len(request))], [0, 1, 2])
        connection.sendall(request)
        _NUMBER.unpack(connection.recv(_NUMBER.size))
        ended = connection.recv(_NUMBER.size)
    # A server that was lost took no worker with it, so there is nothing to run again.
    return int(_NUMBER.unpack(ended)[0]) if len(ended) == _NUMBER.size else 0


def _log_folder(arguments: list[str]) -> str | None:
    """That of the session, in which each worker is told of the raylet's socket."""
    sockets = [os.path.dirname(a.partition("=")[2]) for a in arguments if a.startswith("--raylet-name=")]
    folders = [os.path.join(os.path.dirname(folder), "logs") for folder in sockets]
    return next(filter(os.path.isdir, folders), None)


def _connected(name: str, log_folder: str | None) -> socket.socket:
    give_up, is_started = time.monotonic() + _UP_WITHIN_S, False
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            # An abstract socket: it lies in no folder, and is gone with its server.
            connection.connect(f"\0{name}")
            _check_owner(connection)
        except ConnectionRefusedError:
            connection.close()
            if time.monotonic() > give_up:
                raise
            if not is_started:
                _start_server(name, log_folder)
                is_started = True
            time.sleep(0.02)
        else:
            return connection


def _start_server(name: str, log_folder: str | None) -> None:
    """Starts a server; of several that start at a time, the first to take the name stays."""
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, os.path.abspath(__file__), _SERVE, name]
    # Never our own files: who reads from their other end would wait for the server.
    with open(os.path.join(log_folder, f"{name}.err") if log_folder else os.devnull, "ab") as log:
        subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _check_owner(connection: socket.socket) -> None:
    """An abstract socket has no permissions of its own.

    Raises:
        PermissionError: The other end belongs to somebody else.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if (owner := _CREDENTIALS.unpack(raw)[1]) != os.getuid():
        raise PermissionError(f"forkserver: the other end must be of user {os.getuid()}, got {owner}.")


def serve(name: str) -> dict[str, Any] | None:
    """Imports everything, then forks whenever it is asked to, until its raylet ends or nobody needs it any more.

    Returns:
        What to run, in a process that was forked; None in the server.
    """
    raylet, listener = int(os.environ["RAY_RAYLET_PID"]), socket.socket(socket.AF_UNIX)
    try:
        listener.bind(f"\0{name}")
    except OSError:
        # Another one serves already.
        return None
    listener.listen(128)
    for module in MODULES:
        __import__(module)
    # What is never looked at by the collector is never written to, so forks share its memory.
    gc.freeze()
    running: dict[int, tuple[int, socket.socket]] = {}
    asked = used = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while _is_alive(raylet) and time.monotonic() < (asked + _UNASKED_S if running else used + _UNUSED_S):
            for key, _ in selector.select(timeout=_LOOK_EVERY_S):
                used = time.monotonic()
                if key.fileobj is listener:
                    asked, connection = used, listener.accept()[0]
                    # Who asked is gone, or somebody else's.
                    with contextlib.suppress(OSError, struct.error):
                        request = _receive(connection)
                        if (child := os.fork()) == 0:
                            return request
                        ended = os.pidfd_open(child)
                        running[ended] = (child, connection)
                        selector.register(ended, selectors.EVENT_READ)
                        _answer(connection, child)
                        for file in request["files"]:
                            os.close(file)
                else:
                    child, connection = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _answer(connection, os.waitpid(child, 0)[1])
                    connection.close()
    return None


def _receive(connection: socket.socket) -> dict[str, Any]:
    """What to run, with its open files as `files`.

    Raises:
        OSError: Whoever asked is gone, or belongs to somebody else.
        struct.error: The same.
    """
    _check_owner(connection)
    connection.settimeout(_LOOK_EVERY_S)
    connection.sendall(_NUMBER.pack(0))
    header, files, _, _ = socket.recv_fds(connection, _NUMBER.size, 3)
    (size,) = _NUMBER.unpack(header)
    text = b""
    while len(text) < size:
        if not (part := connection.recv(size - len(text))):
            raise ConnectionError("forkserver: whoever asked is gone.")
        text += part
    return {**json.loads(text), "files": files}


def _answer(connection: socket.socket, number: int) -> None:
    # Who asked may be gone before its worker is.
    with contextlib.suppress(OSError):
        connection.sendall(_NUMBER.pack(number))


def become(request: dict[str, Any]) -> None:
    """Turns a forked process into what was asked for."""
    for number, file in enumerate(request["files"]):
        os.dup2(file, number)
    # The server's own: a connection that stayed open here would outlive its two ends.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # Ray ends the process group of a worker together with it.
    os.setpgid(0, 0)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    # Python's own generator is seeded anew in a fork, this one is not; torch's has the same seed in every process.
    sys.modules["numpy"].random.seed()
    runpy.run_path(sys.argv[0], run_name="__main__")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def main(arguments: list[str]) -> None:
    """A worker process of Ray's, or the server."""
    # The script's own folder, where our modules would hide others' of the same name.
    del sys.path[0]
    if arguments[:1] != [_SERVE]:
        launch(arguments)
    elif (request := serve(arguments[1])) is not None:
        become(request)


if __name__ == "__main__":
    main(sys.argv[1:])
