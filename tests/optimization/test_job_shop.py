"""Schedules against known optima and brute force, the calendar, and re-planning that people can live with."""

import random
from dataclasses import replace
from itertools import permutations, product

import polars as pl
import pytest

from npq_assets.errors import NpqError
from npq_assets.optimization.job_shop import (
    RULES,
    Job,
    JobShopParams,
    JobShopProblem,
    Operation,
    Replanning,
    _broken,
    _dispatched,
    _Kept,
    _objective,
    cost_of_change,
    dispatch,
    setup_money,
    solve,
    violations,
)

SHORT = JobShopParams(seconds=20, work=4.0)
FT06 = """2 1 0 3 1 6 3 7 5 3 4 6
1 8 2 5 4 10 5 10 0 10 3 4
2 5 3 4 5 8 0 9 1 1 4 7
1 5 0 5 2 5 3 3 4 8 5 9
2 9 1 3 4 5 5 4 0 3 3 1
1 3 3 3 5 9 0 10 4 4 2 1"""


def ft06() -> JobShopProblem:
    jobs = []
    for j, line in enumerate(FT06.splitlines(), start=1):
        v = line.split()
        steps = [Operation(k // 2 + 1, {v[k]: int(v[k + 1])}) for k in range(0, len(v), 2)]
        jobs.append(Job(str(j), tuple(steps)))
    return JobShopProblem(tuple(jobs), tuple("012345"), objective="makespan")


def test_fisher_and_thompsons_six_by_six_takes_55() -> None:
    result = solve(ft06(), SHORT)
    assert (result.status, result.makespan, result.bound) == ("optimal", 55, pytest.approx(55))
    assert violations(ft06(), result.plan) == []


def random_shop(seed: int) -> JobShopProblem:
    """Five jobs on three machines with calendars, setups, transport and batches."""
    rng = random.Random(seed)
    machines, families = ["A", "B", "C"], ["", "x", "y"]
    jobs = []
    for j in range(5):
        steps = tuple(
            Operation(
                k + 1, {m: rng.randint(5, 40) for m in rng.sample(machines, rng.randint(1, 3))}, rng.choice(families),
                rng.choice([1.0, 1.0, 0.3, 0.5]), rng.random() < 0.7,
            )
            for k in range(rng.randint(1, 3))
        )  # fmt: skip
        jobs.append(
            Job(f"j{j}", steps, rng.choice([0, 10, 30]), rng.choice([None, 40, 60]), rng.choice([1.0, 2.5, 0.3]))
        )
    closed = {m: tuple((a, a + rng.randint(5, 20)) for a in range(rng.randint(20, 60), 400, 60)) for m in machines}
    setups = {
        m: {(a, b): rng.randint(1, 12) for a in families for b in families if a != b}
        for m in machines
        if rng.random() < 0.6
    }
    transport = {(a, b): rng.randint(1, 6) for a in machines for b in machines if a != b} if seed % 2 else {}
    objective = ("lateness", "makespan")[seed % 2]
    return JobShopProblem(tuple(jobs), tuple(machines), closed, setups, {"A": "x"}, transport, objective)


@pytest.mark.parametrize("seed", range(4))
def test_schedules_keep_every_rule_and_beat_dispatching(seed: int) -> None:
    problem = random_shop(seed)
    result = solve(problem, SHORT)
    assert violations(problem, result.plan) == []
    assert result.bound <= result.objective + 1e-6
    for rule in RULES:
        naive = dispatch(problem, rule)
        assert violations(problem, naive.plan) == []
        assert result.objective <= naive.objective + 1e-6


def test_one_machine_with_setups_matches_brute_force() -> None:
    setups = {("x", "y"): 9, ("y", "x"): 3, ("x", "x"): 1}
    data = [("a", 10, "x", 12, 2.0), ("b", 6, "y", 20, 5.0), ("c", 8, "x", 25, 1.0), ("d", 5, "y", 18, 3.0)]
    jobs = tuple(Job(n, (Operation(1, {"M": d}, f),), due=due, late_cost=w) for n, d, f, due, w in data)
    problem = JobShopProblem(jobs, ("M",), {"M": [(15, 20)]}, {"M": setups}, {"M": "x"})
    best = float("inf")
    for order in permutations(data):
        clock, family, cost = 0, "x", 0.0  # in open minutes
        for _, minutes, after, due, weight in order:
            clock += setups.get((family, after), 0) + minutes
            end = clock if clock <= 15 else clock + 5
            cost, family = cost + weight * max(0, end - due), after
        best = min(best, cost)
    result = solve(problem, SHORT)
    assert (result.status, result.objective) == ("optimal", pytest.approx(best))


def test_money_for_setups_is_weighed_against_lateness() -> None:
    money = {("", "x"): 10.0, ("", "y"): 10.0, ("x", "y"): 30.0, ("y", "x"): 4.0}
    data = [("a", 10, "x", 10, 0.5), ("b", 6, "y", 17, 5.0), ("c", 8, "x", 25, 1.0), ("d", 5, "y", 30, 3.0)]
    jobs = tuple(Job(n, (Operation(1, {"M": d}, f),), due=due, late_cost=w) for n, d, f, due, w in data)
    problem = JobShopProblem(jobs, ("M",), setup_cost={"M": money})
    best = float("inf")
    for order in permutations(data):
        clock, family, cost = 0, "", 0.0
        for _, minutes, after, due, weight in order:
            clock += minutes
            cost, family = cost + weight * max(0, clock - due) + money.get((family, after), 0.0), after
        best = min(best, cost)
    result = solve(problem, SHORT)
    assert (result.status, result.objective) == ("optimal", pytest.approx(best))
    assert result.bound == pytest.approx(best, rel=1e-3) and result.bound <= best + 1e-9
    assert sum(setup_money(problem, result.plan).values()) == pytest.approx(best - result.lateness["late_cost"].sum())
    assert best < dispatch(problem, "earliest_due_date").objective


def test_what_is_frozen_ahead_leaves_the_machine_free_before_it() -> None:
    """A lot frozen for minute 100 keeps its place; the setup before it is still to come, and there is room for a rush."""
    setups = {("x", "y"): 20, ("y", "x"): 20}
    kept = Job("kept", (Operation(1, {"M": 50}, "x"),), due=150)
    rush = Job("rush", (Operation(1, {"M": 30}, "y"),), due=60, late_cost=10.0)
    problem = JobShopProblem((kept, rush), ("M",), setup_minutes={"M": setups}, first_family={"M": "x"})
    previous = solve(JobShopProblem((replace(kept, release=100),), ("M",)), SHORT).plan
    result = solve(problem, SHORT, Replanning(previous, frozen_until=240, earliest=0))
    at = {r["job"]: r["start"] for r in result.plan.iter_rows(named=True)}
    assert at == {"kept": 100, "rush": 20} and violations(problem, result.plan) == []
    # A rush that leaves no time for the setup has to wait behind what is frozen.
    longer = replace(rush, operations=(Operation(1, {"M": 70}, "y"),))
    problem = replace(problem, jobs=(kept, longer))
    result = solve(problem, SHORT, Replanning(previous, frozen_until=240, earliest=0))
    at = {r["job"]: r["start"] for r in result.plan.iter_rows(named=True)}
    assert at == {"kept": 100, "rush": 170} and violations(problem, result.plan) == []


def test_only_what_is_in_the_way_loses_its_frozen_place() -> None:
    jobs = tuple(Job(n, (Operation(1, {"M": 10}),), due=due) for n, due in (("a", 10), ("b", 20)))
    first = solve(JobShopProblem(jobs, ("M",)), SHORT)
    grown = (Job("a", (Operation(1, {"M": 15}),), due=10), jobs[1])
    result = solve(JobShopProblem(grown, ("M",)), SHORT, Replanning(first.plan, frozen_until=30, earliest=0))
    assert result.status == "relaxed"
    assert result.relaxation["constraint"].to_list() == ["frozen operation 1 of b"]
    at = {r["job"]: (r["start"], r["end"]) for r in result.plan.iter_rows(named=True)}
    assert at == {"a": (0, 15), "b": (15, 25)}


def test_an_operation_pauses_over_closed_time_or_waits() -> None:
    closed = {"M": [(10, 30)]}
    for may_pause, start, end in ((True, 0, 35), (False, 30, 45)):
        job = Job("j", (Operation(1, {"M": 15}, may_pause=may_pause),), due=0)
        row = solve(JobShopProblem((job,), ("M",), closed), SHORT).plan.row(0, named=True)
        assert (row["start"], row["end"]) == (start, end)


def test_replanning_keeps_what_is_frozen_and_moves_less_the_dearer_it_is() -> None:
    problem = random_shop(2)
    first = solve(problem, SHORT)
    rush = Job("rush", (Operation(1, {"A": 10, "B": 12}, "y"),), release=25, due=40, late_cost=50.0)
    later = JobShopProblem(
        (*problem.jobs, rush), problem.machines, problem.closed, problem.setup_minutes, problem.first_family,
        problem.transport_minutes, problem.objective,
    )  # fmt: skip
    followed = Replanning(first.plan, frozen_until=25)
    curve = cost_of_change(later, followed, [0.0, 20.0, 1e4], SHORT)
    moved, cost = curve["moved_jobs"].to_list(), curve["schedule_cost"].to_list()
    assert cost == sorted(cost) and moved == sorted(moved, reverse=True)
    again = solve(later, SHORT, followed)
    before = first.plan.filter(first.plan["start"] < 25).select("job", "operation", "machine", "start").rows()
    assert set(before) <= set(again.plan.select("job", "operation", "machine", "start").rows())
    assert violations(later, again.plan) == []


def test_a_frozen_operation_that_cannot_stay_is_named() -> None:
    job = Job("j", (Operation(1, {"M": 10}),), due=10)
    first = solve(JobShopProblem((job,), ("M",)), SHORT)
    down = JobShopProblem((job,), ("M",), {"M": [(0, 50)]})
    result = solve(down, SHORT, Replanning(first.plan, frozen_until=5))
    assert result.status == "relaxed"
    assert "operation 1 of job j cannot stay" in result.relaxation["message"][0]
    assert violations(down, result.plan) == []


def test_the_same_work_gives_the_same_schedule() -> None:
    problem = random_shop(1)
    params = JobShopParams(seconds=60, work=0.3)
    assert solve(problem, params).plan.equals(solve(problem, params).plan)


def test_bad_data_is_one_readable_line() -> None:
    with pytest.raises(NpqError, match="machine 'Z' is unknown"):
        JobShopProblem((Job("j", (Operation(1, {"Z": 3}),)),), ("M",))
    with pytest.raises(NpqError, match="is there twice"):
        JobShopProblem((Job("j", ()), Job("j", ())), ("M",))


@pytest.mark.parametrize("seed", [18, 20, 36])
def test_a_batch_that_left_before_a_pause_is_there(seed: int) -> None:
    """The first batch leaves before the night if its work is done by then: bound and schedule know it, as the floor does."""
    rng = random.Random(seed)
    jobs = []
    for k in range(2):
        first = Operation(1, {"A": rng.randint(5, 30)}, first_batch=rng.choice([0.1, 0.3, 0.5, 1.0]))
        steps = (first, Operation(2, {"B": rng.randint(5, 30)}))
        jobs.append(Job(f"j{k}", steps, due=rng.randint(5, 60), late_cost=float(rng.randint(1, 5))))
    problem = JobShopProblem(tuple(jobs), ("A", "B"), {"A": [(20, 100), (120, 200)]})
    result = solve(problem, SHORT)
    assert violations(problem, result.plan) == []
    # Every sequence of the two jobs on both machines, each as early as it can be.
    costs = []
    for a, b in product(permutations(("j0", "j1")), repeat=2):
        wished = pl.DataFrame(
            [(job, 1, "A", 2 * k, 2 * k) for k, job in enumerate(a)]
            + [(job, 2, "B", 900 + k, 900 + k) for k, job in enumerate(b)],
            schema=["job", "operation", "machine", "start", "end"], orient="row",
        )  # fmt: skip
        followed = _Kept.of(problem, Replanning(wished))
        rows = _dispatched(problem, "previous", followed)
        if not _broken(problem, rows):
            costs.append(_objective(problem, _Kept.of(problem, None), rows)[0])
    assert result.status == "optimal" and result.objective == pytest.approx(min(costs))
    assert result.bound <= min(costs) + 1e-6
