"""Holds a search to its time limit: it runs in a child process that is ended when it overruns.

Solvers check their own clock between pieces of work, and a piece can last minutes. The child reports what it has as it goes;
the parent keeps the last report and needs nothing from the child when time is up. The child ends with its parent.
"""

from __future__ import annotations

import importlib
import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<Q")
_START = "import sys; sys.path[:] = {path!r}; from npq_assets.optimization.watchdog import child; child()"

Report = Callable[..., None]


@dataclass(frozen=True)
class Outcome:
    """What a search reported.

    Attributes:
        state: Keys and values reported, the last value of each key.
        finished: Whether it came to its end by itself.
        failed: Whether it raised: a bug, unlike a search that was stopped or killed.
        error: Why it ended early.
        seconds: Wall-clock time, start of the child included.
    """

    state: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    failed: bool = False
    error: str = ""
    seconds: float = 0.0


def run(target: str, *arguments: Any, seconds: float, grace: float = 1.0, here: bool = False) -> Outcome:
    """Calls `target(report, *arguments)` in a child process and ends it after `seconds` + `grace`.

    Args:
        target: `module:function`; it calls `report(key=value, …)` whenever it knows more. Arguments and reported values
            are pickled.
        *arguments: Passed on.
        seconds: Time limit; the target is expected to stop by itself then.
        grace: What it may overrun before it is ended (seconds).
        here: Run in this process, without a watchdog.

    Returns:
        What was reported until then.
    """
    started = time.monotonic()
    if here:
        state: dict[str, Any] = {}
        _resolve(target)(state.update, *arguments)
        return Outcome(state, True, seconds=time.monotonic() - started)
    # Solvers' threads of the parent must not be inherited, and __main__ need not be importable: hence no fork, no spawn.
    process = subprocess.Popen(
        [sys.executable, "-c", _START.format(path=sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
    )
    assert process.stdin is not None and process.stdout is not None
    messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(process.stdout, messages), daemon=True).start()
    # Written beside the deadline's clock: a child that died at start must not block us.
    threading.Thread(target=_send_task, args=(process.stdin, (target, arguments)), daemon=True).start()
    state, kind, error = {}, "", ""
    deadline = started + seconds + grace
    try:
        while True:
            kind, value = messages.get(timeout=max(0.0, deadline - time.monotonic()))
            if kind == "report":
                state.update(value)
            else:
                error = "" if kind == "done" else str(value)
                break
    except queue.Empty:
        kind, error = "stopped", f"stopped by the watchdog after {seconds + grace:.1f} s"
    finally:
        process.kill()
        process.wait()
    return Outcome(state, kind == "done", kind == "failed", error, time.monotonic() - started)


def _resolve(target: str) -> Callable[..., Any]:
    module, name = target.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _write(stream: BinaryIO, message: Any) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _read(stream: BinaryIO) -> Any:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    length = _LENGTH.unpack(head)[0]
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def _send_task(stream: BinaryIO, task: Any) -> None:
    try:
        _write(stream, task)
    except OSError:
        return  # the child is gone: the listener says so


def _listen(stream: BinaryIO, messages: queue.SimpleQueue[tuple[str, Any]]) -> None:
    try:
        while True:
            kind, value = _read(stream)
            messages.put((kind, value))
            if kind != "report":
                return
    except (EOFError, OSError, ValueError):
        messages.put(("died", "the search ended without an answer"))


def child() -> None:
    """The child's side: reads a task from standard input, reports on standard output."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a solver prints must not disturb the reports
    sys.stdout = sys.stderr
    source = sys.stdin.buffer
    target, arguments = _read(source)
    lock = threading.Lock()

    def report(**values: Any) -> None:
        with lock:
            _write(out, ("report", values))

    def end_with_parent() -> None:
        source.read()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        _resolve(target)(report, *arguments)
        last: tuple[str, Any] = ("done", None)
    except Exception as problem:
        last = ("failed", f"{type(problem).__name__}: {problem}")
    with lock:
        _write(out, last)
    os._exit(0)  # no waiting for a solver's threads
