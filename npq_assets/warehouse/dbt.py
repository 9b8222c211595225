"""dbt in the step's own process: parsed once, its events handed on while it works.

A dbt command line costs seconds before the first query; the same invocation in this process costs tenths. What the
models mean does not belong here (see `dbt_project/`), nor how Dagster names them (see `translator`).
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from npq_assets.errors import RunError
from npq_assets.settings import Home
from npq_assets.storage import replacing, write_text

PROJECT = Path(os.environ.get("NPQ_DBT_PROJECT") or Path(__file__).resolve().parents[2] / "dbt_project")
TARGET = PROJECT / "target"
_PARSED = TARGET / "npq_parsed_from.txt"
_SOURCES = ("dbt_project.yml", "profiles.yml", "models", "macros", "tests")


def environment(home: Home) -> dict[str, str]:
    """What the dbt project reads from the environment to find a home; see `dbt_project/profiles.yml`."""
    return {
        "NPQ_HOME": str(home.root),
        "NPQ_WAREHOUSE": str(home.warehouse),
        "NPQ_RAW": str(home.raw),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
    }


@lru_cache(maxsize=1)
def project_hash() -> str:
    """Hash of everything the dbt project consists of, and of dbt's version."""
    from dbt.version import __version__ as dbt_version

    digest = hashlib.sha256(dbt_version.encode())
    for name in _SOURCES:
        place = PROJECT / name
        files = (
            [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.suffix in {".sql", ".yml", ".md"})
        )
        for file in files:
            digest.update(str(file.relative_to(PROJECT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def prepare() -> Path:
    """Parses the dbt project if its files have changed since it was last parsed; returns the manifest's path.

    Raises:
        RunError: dbt cannot parse the project.
    """
    manifest = TARGET / "manifest.json"
    parsed_from = project_hash()
    if manifest.exists() and _PARSED.exists() and _PARSED.read_text() == parsed_from:
        return manifest
    TARGET.mkdir(parents=True, exist_ok=True)
    with FileLock(TARGET / ".parse.lock"):
        if manifest.exists() and _PARSED.exists() and _PARSED.read_text() == parsed_from:
            return manifest
        from dbt.cli.main import dbtRunner

        # The parse needs some home to name; no file of it is opened and none of its paths enters the manifest.
        with _environment({**environment(Home(PROJECT / "target" / "no-home")), **_quiet()}):
            result = dbtRunner().invoke(["parse", *_arguments(), "--no-partial-parse", "--quiet"])
        if not result.success:
            raise RunError(f"dbt cannot parse {PROJECT}: {result.exception}")
        write_text(parsed_from, _PARSED)
    return manifest


@lru_cache(maxsize=1)
def manifest() -> Mapping[str, Any]:
    """The parsed project as dbt's manifest JSON, read once in a process."""
    content: dict[str, Any] = json.loads(prepare().read_text())
    return content


@lru_cache(maxsize=1)
def _manifest_object() -> Any:
    from dbt.contracts.graph.manifest import Manifest

    prepare()
    parsed = Manifest.from_msgpack((TARGET / "partial_parse.msgpack").read_bytes())
    parsed.build_flat_graph()
    return parsed


def _quiet() -> dict[str, str]:
    return {"DBT_USE_COLORS": "false"}


def _arguments() -> list[str]:
    return ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--target-path", str(TARGET)]


class _environment:
    """Sets environment variables for a block; dbt reads its settings nowhere else."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._values}
        os.environ.update(self._values)

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class Invocation:
    """A dbt command on a home.

    Attributes:
        home: The home whose raw tables are read and whose warehouse is written.
        command: `build`, `run`, `test`, `compile` or `docs generate`, in words.
        select: dbt selection strings; empty for all.
        variables: dbt vars.
    """

    home: Home
    command: tuple[str, ...]
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    variables: tuple[tuple[str, Any], ...] = ()

    def _words(self, target: Path) -> list[str]:
        words = [
            *self.command,
            "--project-dir",
            str(PROJECT),
            "--profiles-dir",
            str(PROJECT),
            "--target-path",
            str(target),
            "--log-path",
            str(self.home.root / "warehouse" / "logs"),
            "--log-level",
            "none",
            "--log-level-file",
            "info",
            "--no-write-json" if self.command[0] != "docs" else "--write-json",
            "--no-use-colors",
        ]
        if self.command[0] == "build":
            # Unit tests judge the SQL, not the data: `make test` runs them, a run of the graph does not.
            words += ["--exclude-resource-type", "unit_test"]
        if self.select:
            words += ["--select", *self.select]
        if self.exclude:
            words += ["--exclude", *self.exclude]
        if self.variables:
            words += ["--vars", json.dumps(dict(self.variables))]
        return words

    def stream(self) -> Iterator[dict[str, Any]]:
        """Runs dbt and yields its events as dictionaries while it works; the warehouse file is free afterwards.

        Events of level debug are left out: a build makes thousands of them, each costs as much as a small query to convert,
        and what became of a model or a test is an event of a higher level.

        Raises:
            RunError: A model failed or dbt could not start; failed tests are events, not errors.
        """
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager
        from dbt.cli.main import dbtRunner
        from dbt_common.events.base_types import EventMsg
        from dbt_common.events.functions import msg_to_dict

        self.home.warehouse.parent.mkdir(parents=True, exist_ok=True)
        events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        outcome: list[Any] = []

        def tell(event: EventMsg) -> None:
            if event.info.level != "debug":
                events.put(msg_to_dict(event))

        def work() -> None:
            try:
                runner = dbtRunner(manifest=_manifest_object(), callbacks=[tell])
                outcome.append(runner.invoke(self._words(self.home.root / "warehouse" / "target")))
            finally:
                DuckDBConnectionManager.close_all_connections()
                events.put(None)

        with _environment({**environment(self.home), **_quiet()}):
            worker = threading.Thread(target=work, name="dbt")
            worker.start()
            try:
                while (event := events.get()) is not None:
                    yield event
            finally:
                worker.join()
        if not outcome:
            raise RunError("dbt ended without a result; see the log")
        self._raise_for(outcome[0])

    def _raise_for(self, result: Any) -> None:
        if result.exception is not None:
            raise RunError(f"dbt {' '.join(self.command)} failed: {result.exception}")
        broken = [
            f"{node.node.name}: {' '.join(str(node.message).split())}"
            for node in getattr(result.result, "results", ()) or ()
            if str(node.status) in {"error", "runtime error"}
        ]
        if broken:
            raise RunError(f"dbt could not build {'; '.join(broken)}")

    def run(self) -> None:
        """Runs dbt to its end, ignoring events."""
        for _ in self.stream():
            pass


def export_marts(home: Home, models: Mapping[str, str]) -> dict[str, int]:
    """Copies marts from the warehouse to Parquet, each in one step; returns rows by model.

    Args:
        home: The home.
        models: Relation in the warehouse (`schema.name`) by `domain/model`.
    """
    import duckdb

    rows: dict[str, int] = {}
    with duckdb.connect(str(home.warehouse)) as connection:
        for place, relation in sorted(models.items()):
            domain, model = place.split("/")
            with replacing(home.mart(domain, model)) as temporary:
                copied = connection.execute(
                    f"copy (select * from {relation}) to '{temporary}' (format parquet, compression zstd)"
                ).fetchone()
            rows[place] = int(copied[0]) if copied else 0
    return rows
