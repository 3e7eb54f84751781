"""Blocking work runs on threads, through one module."""

from __future__ import annotations

import ast
import threading
from pathlib import Path

import pytest

import dls.server
from dls.server.executors import SerialWorker

ROOT = Path(dls.server.__file__).parent
POOLS = {"run_in_executor", "to_thread", "ThreadPoolExecutor", "ProcessPoolExecutor"}
ALLOWED = {
    ROOT / "executors.py",
    ROOT / "engines" / "worker.py",  # the engine's process has no event loop for its calls
}


def pools_used_in(path: Path) -> set[str]:
    """Return the names of thread pools that a module calls."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
    return names & POOLS


def test_only_one_module_uses_thread_pools() -> None:
    """No module of the HTTP side but `executors` calls run_in_executor or makes a pool."""
    users = {path for path in ROOT.rglob("*.py") if pools_used_in(path)}
    assert users == ALLOWED


def test_serial_work_runs_in_order() -> None:
    """A SerialWorker runs its work in order, and `finish` waits until all of it has run."""
    worker, results = SerialWorker(), list[int]()
    for number in range(100):
        worker.submit(results.append, number)
    worker.finish()
    assert results == list(range(100))


def test_a_failure_stops_serial_work() -> None:
    """After an error a SerialWorker runs no more work, and both `submit` and `finish` raise that error."""
    worker, results, release = SerialWorker(), list[int](), threading.Event()

    def fail() -> None:
        release.wait(30)
        raise ZeroDivisionError

    worker.submit(fail)
    worker.submit(results.append, 1)
    release.set()
    with pytest.raises(ZeroDivisionError):
        worker.finish()
    with pytest.raises(ZeroDivisionError):
        worker.submit(results.append, 2)
    assert results == []


def test_serial_work_gives_its_result() -> None:
    """`submit` returns a future of the work's result, and of the error that kept it from running."""
    worker = SerialWorker()
    assert worker.submit(int, "7").result(30) == 7
    failed, skipped = worker.submit(int, "x"), worker.submit(int, "8")
    for future in (failed, skipped):
        with pytest.raises(ValueError, match="'x'"):
            future.result(30)
    worker.close()


def test_a_serial_worker_without_work_can_be_closed() -> None:
    """Closing a SerialWorker that got no work starts no thread and does not block."""
    worker = SerialWorker()
    worker.close()
    worker.finish()
