"""How a run starts outside the Dagster UI: in this process, on the home's own Dagster instance.

The same jobs that the UI, the sensors and the schedule start; nothing is computed here.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from npq_assets.errors import RunError
from npq_assets.settings import Home
from npq_assets.storage import write_text

if TYPE_CHECKING:
    import dagster as dg

INSTANCE_YAML = """\
telemetry:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 1
  pools:
    default_limit: 1
    granularity: op
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 30
retention:
  sensor:
    purge_after_days: 7
event_log_storage:
  module: npq_assets.event_log
  class: OpenSqliteEventLog
  config:
    base_dir: {base_dir}
"""


def prepare_instance(home: Home) -> None:
    """Writes the Dagster instance's configuration into the home and points this process at it."""
    folder = home.root / "dagster"
    # Written anew each time: a home may have been moved.
    base_dir = json.dumps(str(folder / "history" / "runs"), ensure_ascii=False)
    write_text(INSTANCE_YAML.format(base_dir=base_dir), folder / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ["NPQ_HOME"] = str(home.root)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: Dagster's id of the run.
        seconds: Wall-clock seconds by step.
        failures: One line a failed step or blocking check.
    """

    run_id: str
    seconds: dict[str, float]
    failures: tuple[str, ...]

    def raise_for_failure(self) -> None:
        """Raises RunError with the first failures if there are any."""
        if self.failures:
            raise RunError("; ".join(self.failures[:3]))


class Runner:
    """Runs jobs of the graph on one home; keep it for several runs, since definitions take time to build."""

    def __init__(self, home: Home) -> None:
        prepare_instance(home)
        import dagster as dg

        from npq_assets.build import build_defs

        self._home = home
        self._instance = dg.DagsterInstance.get()
        self._definitions = build_defs(home)

    def run(self, job: str, as_of: date | None = None, progress: Callable[[str], None] | None = None) -> Outcome:
        """Runs `job`, for the partition `as_of` if it has partitions, and waits for its end."""
        from npq_assets.orchestration import home_lock

        with home_lock(self._home), _progress(progress):
            self._bury_dead_runs()
            result = self._definitions.resolve_job_def(job).execute_in_process(
                instance=self._instance,
                partition_key=as_of.isoformat() if as_of else None,
                run_config={"loggers": {"npq": {"config": {}}}},
                raise_on_error=False,
                tags={"npq/started_by": "command line", "npq/pid": str(os.getpid())},
            )
        return Outcome(result.run_id, _seconds(result), _failures(result))

    def _bury_dead_runs(self) -> None:
        """Marks runs as failed whose process was killed: we hold the lock, so none of them can be alive."""
        import dagster as dg

        alive = dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED],
            tags={"npq/started_by": "command line"},
        )
        for run in self._instance.get_runs(alive):
            self._instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            self._instance.report_run_failed(run, "The process of this run ended before the run did.")


def _seconds(result: dg.ExecuteInProcessResult) -> dict[str, float]:
    return {
        str(event.step_key): float(event.step_success_data.duration_ms) / 1000
        for event in result.all_events
        if event.is_step_success
    }


def _failures(result: dg.ExecuteInProcessResult) -> tuple[str, ...]:
    lines = []
    for event in result.all_events:
        if event.is_step_failure:
            error: Any = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            message = " ".join(str(error.message if error else "unknown error").split())
            lines.append(f"step {event.step_key} failed: {message[:400]}")
    if not result.success and not lines:
        lines.append(f"run {result.run_id} failed; see the log in the Dagster UI")
    return tuple(lines)


class _progress:
    """Hands one line a finished step to a callback while the run goes on."""

    def __init__(self, callback: Callable[[str], None] | None) -> None:
        self._handler = ProgressHandler(callback) if callback else None

    def __enter__(self) -> None:
        logger = logging.getLogger(PROGRESS_LOGGER)
        logger.handlers = [self._handler] if self._handler else [logging.NullHandler()]
        logger.propagate = False

    def __exit__(self, *_: object) -> None:
        logging.getLogger(PROGRESS_LOGGER).handlers = [logging.NullHandler()]


PROGRESS_LOGGER = "npq.progress"


class ProgressHandler(logging.Handler):
    """Turns Dagster's events into lines that a person follows."""

    def __init__(self, callback: Callable[[str], None]) -> None:
        super().__init__()
        self._callback = callback
        self._started: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Prints step starts, ends and failed checks."""
        meta = getattr(record, "dagster_meta", {}) or {}
        event = meta.get("dagster_event")
        if event is None:
            if record.levelno >= logging.WARNING:
                self._callback(f"  ! {meta.get('orig_message') or record.getMessage()}")
            return
        kind = event.event_type_value
        if kind == "STEP_START":
            self._started[event.step_key] = time.monotonic()
            self._callback(f"  … {event.step_key}")
        elif kind == "STEP_SUCCESS":
            seconds = time.monotonic() - self._started.get(event.step_key, time.monotonic())
            self._callback(f"  ✓ {event.step_key} ({seconds:.1f} s)")
        elif kind == "STEP_FAILURE":
            self._callback(f"  ✗ {event.step_key}")
        elif kind == "ASSET_CHECK_EVALUATION":
            evaluation = event.event_specific_data
            if not evaluation.passed and evaluation.severity.value == "ERROR":
                self._callback(f"  ✗ check {evaluation.check_name} of {evaluation.asset_key.to_user_string()}")
