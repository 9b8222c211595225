"""A small company decided once, shared by the tests of the whole graph."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from npq_assets.settings import Home

# Timings belong to benchmarks: a busy machine must not fail a property.
settings.register_profile("npq", deadline=None)
settings.load_profile("npq")

# The longest files start first, so that no process ends alone with one of them; xdist's own order, by number of tests, puts
# them last. Those that use the shared company stand apart: while one process makes it, the other has something else to do.
LONGEST_FIRST = (
    "graph/test_run.py",
    "graph/test_robustness.py",
    "manufacturing/test_plant.py",
    "graph/test_foresight.py",
    "test_cli.py",
    "forecasting/test_forecast.py",
    "ingestion/test_days.py",
    "warehouse/test_models.py",
    "optimization/test_routing.py",
    "ingestion/test_dirty.py",
    "company/test_simulate.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts files by `LONGEST_FIRST`; the rest, and tests within a file, keep their order."""
    tests = Path(__file__).parent
    place = {tests / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@dataclass(frozen=True)
class Company:
    """A home with a decided day."""

    home: Home
    as_of: date


@pytest.fixture(scope="session")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    """The sample company at a tenth of its size, the whole graph run as of its next day. Tests must not change it."""
    from npq_assets.company.landing import write_sample
    from npq_assets.deciding import Decider

    # Test processes share one company: the first to come makes it.
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    home, ready = Home.at(shared / "company" / "home"), shared / "company" / "as_of"
    with FileLock(shared / "company.lock"):
        if not ready.exists():
            summary = write_sample(home.landing, scale=0.1, days=200, seed=5)
            Decider(home).decide(summary.as_of)
            ready.write_text(summary.as_of.isoformat())
    return Company(home, date.fromisoformat(ready.read_text()))


@pytest.fixture
def copied(company: Company, tmp_path: Path) -> Callable[[], Company]:
    """A copy of the company that a test may change."""

    def copy() -> Company:
        root = tmp_path / "copy"
        shutil.copytree(company.home.root, root, ignore=shutil.ignore_patterns(".lock"), copy_function=shutil.copy2)
        return Company(Home.at(root), company.as_of)

    return copy
