"""Set-ups kept from period to period, against brute force over sequences and the general form in CVXPY."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from npq_assets.errors import NpqError
from npq_assets.optimization.linear import solve_linear
from npq_assets.optimization.lot_sizing import (
    LotSizingProblem,
    Params,
    Production,
    economic_lots,
    flow,
    price,
    solve,
    violations,
    worth_of_capacity,
)
from npq_assets.optimization.lot_sizing.decomposition import generate
from npq_assets.optimization.lot_sizing.general_form import solve_general
from npq_assets.optimization.lot_sizing.link_cuts import solve_tightened
from npq_assets.optimization.lot_sizing.linking import cheapest_links
from npq_assets.optimization.lot_sizing.pure import build_pure, is_pure
from npq_assets.optimization.lot_sizing.tight import build
from tests.optimization.plans import random_plan

HERE = Params(seconds=20, watchdog=False, gap=1e-6, nodes=5_000)


def one_machine(
    seed: int, items: int, periods: int, families: tuple[str, ...] = (), **more: object
) -> LotSizingProblem:
    """Items on one machine, with set-ups worth saving and overtime."""
    rng = np.random.default_rng(seed)
    demand = np.where(rng.random((items, periods)) < 0.7, rng.integers(2, 9, (items, periods)), 0).astype(float)
    base = {
        "items": tuple("abcd"[:items]), "machines": ("M",), "periods": tuple(str(t) for t in range(periods)),
        "demand": demand, "run_time": rng.uniform(0.8, 1.2, (items, 1)),
        "setup_time": rng.integers(1, 6, (items, 1)).astype(float),
        "setup_cost": rng.integers(2, 20, (items, 1)).astype(float),
        "capacity": np.where(rng.random((1, periods)) < 0.2, 0.0, rng.uniform(8, 20, (1, periods))),
        "holding_cost": rng.uniform(0.2, 1.5, items), "overtime_limit": 30.0, "overtime_cost": rng.uniform(0.5, 3.0),
        "families": families, "family_setup_time": {"f": 4.0, "g": 2.0}, "family_setup_cost": {"f": 9.0, "g": 5.0},
        "carry_over": True, "initial_setup": (("", *"abcd"[:items])[int(rng.integers(items + 1))],),
    }  # fmt: skip
    return LotSizingProblem(**{**base, **more})  # type: ignore[arg-type]


def sequences(problem: LotSizingProblem, on: np.ndarray) -> set[tuple[tuple[float, ...], float]]:
    """Set-up minutes by period, and money, of every way to run a machine's lots (n, T), lived through as on a shop floor.

    Within a period an item may come first and again last.
    """
    families = problem.families

    def ways(lots: list[int]) -> list[tuple[int, ...]]:
        orders = list(itertools.permutations(lots))
        return orders + [(*order, order[0]) for order in orders if len(order) > 1]

    found = set()
    for days in itertools.product(*(ways(list(np.flatnonzero(on[:, t]))) for t in range(on.shape[1]))):
        at, money, minutes = int(problem.standing_at_start[0]), 0.0, []
        for day in days:
            minutes.append(0.0)
            for i in day:
                if i != at:
                    money += problem.setup_cost[i, 0]
                    minutes[-1] += problem.setup_time[i, 0]
                    if families[i] and (at < 0 or families[at] != families[i]):
                        money += problem.family_setup_cost[families[i]]
                        minutes[-1] += problem.family_setup_time[families[i]]
                at = i
        found.add((tuple(minutes), money))
    return found


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from([(), ("f", "f", "g"), ("f", "", "f"), ("", "f", "f")]))
def test_links_are_the_cheapest_sequence(seed: int, families: tuple[str, ...]) -> None:
    problem = one_machine(seed, 3, 3, families)
    rng = np.random.default_rng(seed)
    on = rng.random((3, 1, 3)) < 0.6
    run = rng.uniform(0, 25, (1, 3))

    def cost(setup_minutes: np.ndarray, money: float) -> float:
        over = np.maximum(0.0, run[0] + setup_minutes - problem.capacity[0])
        return money + float(problem.overtime_cost[0] @ over) + 1e5 * np.maximum(0.0, over - 30.0).sum()

    linked = cheapest_links(problem, on, run)
    times, costs, _ = problem.family_arrays()
    minutes = problem.setup_time[:, 0] @ linked.setup[:, 0]
    money = float(problem.setup_cost[:, 0] @ linked.setup[:, 0].sum(axis=1))
    if len(times):
        minutes = minutes + times[:, 0] @ linked.family_setup[:, 0]
        money += float(costs[:, 0] @ linked.family_setup[:, 0].sum(axis=1))
    ways = sequences(problem, on[:, 0])
    # Money and minutes are those of a sequence; none is cheaper (beyond the limit minutes count above all).
    assert any(np.allclose(m, minutes) and np.isclose(c, money) for m, c in ways)
    ours, best = cost(minutes, money), min(cost(np.array(m), c) for m, c in ways)
    assert ours == pytest.approx(best, rel=1e-9) or best > 1e4


def brute_force(problem: LotSizingProblem) -> float:
    """The optimum of a plan on one machine without lateness: every set of lots, every sequence, quantities by a linear program."""
    n, _, periods = problem.shape
    best: dict[tuple[bytes, tuple[float, ...]], float] = {}
    for bits in itertools.product((False, True), repeat=n * periods):
        on = np.array(bits).reshape(n, periods)
        for minutes, money in sequences(problem, on):
            key = (on.tobytes(), minutes)
            best[key] = min(best.get(key, np.inf), money)
    value = np.inf
    # Columns: quantities (n, T), overtime (T).
    upto = np.tril(np.ones((periods, periods)))
    hold = problem.holding_cost[:, None] * upto.sum(axis=0)[None, :]
    cost = np.concatenate([(problem.variable_cost[:, 0] + hold).ravel(), problem.overtime_cost[0]])
    sunk = float((problem.holding_cost[:, None] * np.cumsum(problem.demand, axis=1)).sum())
    served = np.hstack([np.kron(np.eye(n), -upto), np.zeros((n * periods, periods))])
    load = np.hstack([np.kron(problem.run_time[:, 0], np.eye(periods)), -np.eye(periods)])
    need = -np.cumsum(problem.demand, axis=1).ravel()
    for (lots, minutes), money in sorted(best.items(), key=lambda entry: entry[1]):
        if money >= value:
            break  # quantities cost nothing less than nothing
        allowed = np.frombuffer(lots, bool)
        bounds = [(0, None if yes else 0) for yes in allowed] + [(0, limit) for limit in problem.overtime_limit[0]]
        right = np.concatenate([need, problem.capacity[0] - np.array(minutes)])
        answer = linprog(cost, np.vstack([served, load]), right, bounds=bounds)
        if answer.status == 0:
            value = min(value, money + answer.fun - sunk)
    return value


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from([(2, 3, ()), (2, 3, ("f", "f")), (3, 2, ("f", "f", "g")), (3, 2, ())]))
def test_a_plan_is_the_best_of_all_lots_and_sequences(seed: int, shape: tuple[int, int, tuple[str, ...]]) -> None:
    problem = one_machine(seed, *shape)
    best, result = brute_force(problem), solve(problem, HERE)
    if not np.isfinite(best):
        assert result.status == "relaxed"
        return
    assert violations(problem, result.production) == []
    assert (result.objective, result.bound) == (pytest.approx(best, rel=1e-5), pytest.approx(best, rel=1e-5))
    assert is_pure(problem)
    assert generate(problem, seconds=5, gap=1e-7).bound <= best * (1 + 1e-6)
    # No row that tightens a relaxation cuts off the best plan.
    form = build_pure(problem)
    loose = solve_linear(form.model).bound
    tightened, _ = solve_tightened(problem, form, seconds=5)
    assert loose <= tightened.bound + 1e-6 and tightened.bound + form.constant <= best * (1 + 1e-6) + 1e-6
    assert solve_tightened(problem, build(problem), seconds=5)[0].bound <= best * (1 + 1e-6) + 1e-6


# "everything" would take as long as these together.
@pytest.mark.parametrize("kind", ["late", "bill", "families", "minimum lots"])
def test_never_dearer_than_with_every_set_up_and_as_the_general_form(kind: str) -> None:
    without = random_plan(1, kind)
    start = tuple(without.items[int(np.flatnonzero(able)[0])] if able.any() else "" for able in without.eligible.T)
    problem = replace(without, carry_over=True, initial_setup=start)
    reference = solve_general(problem)
    assert reference is not None
    assert price(problem, reference[1]).total <= reference[0] * (1 + 1e-5)
    result, dear = solve(problem, HERE), solve(without, HERE)
    assert result.objective == pytest.approx(reference[0], rel=1e-5)
    assert result.bound <= reference[0] * (1 + 1e-5)
    assert violations(problem, result.production) == []
    assert result.objective <= dear.objective * (1 + 1e-9)
    # The same lots cost no more where set-ups are kept, and keep every limit that they kept.
    assert price(problem, dear.production).total <= dear.objective * (1 + 1e-9)
    assert violations(problem, dear.production) == []
    rule = economic_lots(problem)
    assert (flow(problem, rule).used <= problem.capacity + problem.overtime_limit + 1e-6).all()
    worth = worth_of_capacity(problem, result.production)
    assert (worth["worth_per_hour"] >= 0).all() and worth.height == 10


def test_an_hour_of_a_day_on_which_nothing_is_set_up_is_worth_nothing() -> None:
    """The dual of a closed day is degenerate: it was the penalty of the elastic program, more than the whole plan costs."""
    problem = LotSizingProblem(
        ("a", "b"), ("M",), tuple("12345"), np.array([[9.0, 9.0, 0.0, 9.0, 9.0], [2.0] * 5]), np.ones((2, 1)),
        np.full((2, 1), 2.0), np.full((2, 1), 7.0), np.array([[16.0, 16.0, 0.0, 16.0, 16.0]]), np.array([5.0, 5.0]),
        families=("f", "f"), family_setup_cost={"f": 3.0}, carry_over=True, initial_setup=("",),
    )  # fmt: skip
    result = solve(problem, HERE)
    assert violations(problem, result.production) == []
    worth = worth_of_capacity(problem, result.production)
    idle = ~result.production.setup.any(axis=0)[0]
    assert idle[2]
    assert (worth["worth_per_hour"].to_numpy()[idle] == 0).all()


@pytest.mark.parametrize("start", ["", "a", "b"])
def test_one_item_all_week_is_set_up_once(start: str) -> None:
    """A closed day in between changes nothing; a machine that stands set up for it needs no set-up at all."""
    problem = LotSizingProblem(
        ("a", "b"), ("M",), tuple("12345"), np.array([[9.0, 9.0, 0.0, 9.0, 9.0], [0.0] * 5]), np.ones((2, 1)),
        np.full((2, 1), 2.0), np.full((2, 1), 7.0), np.array([[12.0, 12.0, 0.0, 12.0, 12.0]]), np.array([5.0, 5.0]),
        families=("f", "f"), family_setup_cost={"f": 3.0}, carry_over=True, initial_setup=(start,),
    )  # fmt: skip
    result = solve(problem, HERE)
    cost = {"": 10.0, "a": 0.0, "b": 7.0}[start]  # b's family stands ready, if not the item
    assert (result.status, result.objective) == ("optimal", pytest.approx(cost))
    assert result.flow.setup.sum() == (start != "a")
    assert result.plan["setup_minutes"].sum() == pytest.approx(2.0 * (start != "a"))
    assert result.plan.height == 4
    # Without links each of the four days pays.
    assert solve(replace(problem, carry_over=False), HERE).objective == pytest.approx(40.0)


def test_another_item_in_between_ends_what_is_kept() -> None:
    """a, b, a on three days: whatever the order, b's day costs a set-up of b and one of a."""
    problem = one_machine(0, 2, 3, initial_setup=("a",), capacity=100.0)
    quantity = np.array([[[5.0, 0.0, 5.0]], [[0.0, 5.0, 0.0]]])
    made = flow(problem, Production(quantity, quantity > 0)).setup
    assert made[:, 0].tolist() == [[False, False, True], [False, True, False]]
    # Both on the second day: b first or last, a is kept on one side only.
    quantity[0, 0, 1] = 5.0
    f = flow(problem, Production(quantity, quantity > 0))
    assert f.setup.sum() == 2
    assert f.linked.kept[0].tolist()[0] == 0


def test_many_items_find_plans_and_a_valid_bound() -> None:
    rng = np.random.default_rng(5)
    n, periods = 12, 5
    without = LotSizingProblem(
        tuple(f"p{i}" for i in range(n)), ("M1", "M2"), tuple("12345"), rng.integers(0, 20, (n, periods)).astype(float),
        np.ones((n, 2)), rng.uniform(1, 4, (n, 2)), rng.uniform(10, 40, (n, 2)), 120.0, rng.uniform(0.2, 1.0, n),
    )  # fmt: skip
    problem = replace(without, carry_over=True)
    params = replace(HERE, nodes=1, seconds=5, gap=0.01, method="decomposition")
    result, dear = solve(problem, params), solve(without, params)
    assert violations(problem, result.production) == []
    assert generate(problem, seconds=2).bound <= min(result.objective, price(problem, dear.production).total)
    assert price(problem, dear.production).total < dear.objective


def test_the_start_must_be_an_item() -> None:
    with pytest.raises(NpqError, match="initial set-up for z"):
        one_machine(0, 2, 3, initial_setup=("z",))
    with pytest.raises(NpqError, match="give one a machine"):
        one_machine(0, 2, 3, initial_setup=("a", "b"))


def test_little_of_every_set_up_is_not_kept_all_the_time() -> None:
    """Without the rows a relaxed plan keeps a quarter of four items' set-ups for ever and makes all of them for nothing."""
    problem = LotSizingProblem(
        tuple("abcd"), ("M",), tuple("123456"), np.full((4, 6), 5.0), np.ones((4, 1)), np.zeros((4, 1)),
        np.full((4, 1), 20.0), 1_000.0, np.full(4, 0.5), initial_stock=np.full(4, 5.0), carry_over=True,
    )  # fmt: skip
    form = build_pure(problem)
    loose = solve_linear(form.model).bound + form.constant
    tightened, windows = solve_tightened(problem, form, seconds=5)
    best = solve(problem, HERE)
    assert best.status == "optimal" and len(windows.rows)
    assert loose < 0.75 * best.objective
    assert 0.9 * best.objective < tightened.bound + form.constant <= best.objective + 1e-6
    # The same rows serve another program of the problem.
    other = build_pure(problem, elastic=True)
    windows.add_to(problem, other)
    assert solve_linear(other.model).bound + other.constant == pytest.approx(tightened.bound + form.constant)
