"""A search that overruns is ended, and what it had reported is kept."""

import time
from typing import Any

from npq_assets.optimization import watchdog


def overrun(report: Any, value: int) -> None:
    """Reports, then never comes back."""
    report(plan=value, bound=1.0)
    report(bound=2.0)
    while True:
        time.sleep(0.01)


def fail(report: Any) -> None:
    """A bug."""
    report(plan=1)
    raise ValueError("broken")


def finish(report: Any, value: int) -> None:
    """Prints, as solvers do, and comes to an end."""
    print("banner")
    report(plan=value)


def test_a_search_that_overruns_is_ended_and_its_plan_kept() -> None:
    outcome = watchdog.run("tests.optimization.test_watchdog:overrun", 7, seconds=3.0, grace=0.2)
    assert outcome.state == {"plan": 7, "bound": 2.0}
    assert not outcome.finished and not outcome.failed
    assert "watchdog" in outcome.error


def test_a_bug_is_told_from_an_overrun() -> None:
    outcome = watchdog.run("tests.optimization.test_watchdog:fail", seconds=60.0)
    assert outcome.failed and "broken" in outcome.error and outcome.state == {"plan": 1}


def test_what_a_solver_prints_does_not_disturb() -> None:
    outcome = watchdog.run("tests.optimization.test_watchdog:finish", 3, seconds=60.0)
    assert outcome.finished and outcome.state == {"plan": 3}
