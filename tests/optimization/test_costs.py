"""One cost object prices plans, simulations and ledgers: the same numbers from arrays and from CVXPY."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npq_assets.optimization.costs import InventoryCost
from npq_assets.optimization.inventory import carrying_periods, project_stock, step

units = st.lists(st.floats(0, 50), min_size=3, max_size=3).map(np.array)


@given(available=units, demand=units, h=units, p=units)
def test_arrays_and_cvxpy_agree(available: np.ndarray, demand: np.ndarray, h: np.ndarray, p: np.ndarray) -> None:
    cost = InventoryCost.of(h, p)
    stock = cp.Variable(3)
    stock.value = available
    assert np.allclose(cost.expression(stock, demand).value, cost.value(available, demand))


def test_critical_ratio_of_snyder_and_shen() -> None:
    # Fundamentals of Supply Chain Theory, example 4.3: h = 0.18, p = 0.70.
    assert InventoryCost.of(0.18, 0.70).critical_ratio == pytest.approx(0.7955, abs=5e-5)


def test_rates_go_with_items_also_over_scenarios() -> None:
    cost = InventoryCost.of(np.array([1.0, 2.0]), np.array([10.0, 20.0]))
    value = cost.value(np.array([[3.0, 0.0], [3.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 1.0]]))
    assert value.tolist() == [[2.0, 10.0], [4.0, 20.0]]


@given(on_hand=units, arrivals=units, demand=units)
def test_units_balance(on_hand: np.ndarray, arrivals: np.ndarray, demand: np.ndarray) -> None:
    sold, lost, left = step(on_hand, arrivals, demand)
    assert np.allclose(on_hand + arrivals, sold + left)
    assert np.allclose(demand, sold + lost)
    assert (np.minimum.reduce([sold, lost, left]) >= 0).all()


def test_projection_loses_sales_on_the_way() -> None:
    # Lead time 2: 5 on hand, 3 arrive in period 1, 4 in period 2 beside the order.
    paths = np.array([[[7.0, 1.0, 6.0], [2.0, 2.0, 2.0]]])
    stock, demand = project_stock([5.0], [[0.0, 3.0, 4.0]], paths, [2])
    assert stock.tolist() == [[6.0, 8.0]]
    assert demand.tolist() == [[6.0, 2.0]]


def test_projection_with_mixed_lead_times() -> None:
    paths = np.ones((3, 1, 4))
    stock, demand = project_stock([5.0, 5.0, 5.0], np.zeros((3, 4)), paths, [0, 1, 3])
    assert stock[:, 0].tolist() == [5.0, 4.0, 2.0]
    assert demand[:, 0].tolist() == [1.0, 1.0, 1.0]


def test_paths_shorter_than_the_lead_time_are_refused() -> None:
    with pytest.raises(ValueError, match="longest lead time needs 4"):
        project_stock([1.0], [[0.0] * 4], np.ones((1, 1, 3)), [3])


def test_a_leftover_is_paid_for_until_an_order_that_knows_of_it_arrives() -> None:
    # Lead time 2; 10 wanted at first, then 1 a period; the newsvendor orders 10 of 10, so nothing is left over.
    steady = np.array([[[0.0, 0.0, 10.0, 1.0, 1.0]] * 4])
    x, _ = project_stock([0.0], np.zeros((1, 3)), steady, [2])
    assert carrying_periods(x, steady, [2], [0.2], [1.0]).tolist() == [1.0]
    # Half of the scenarios want nothing at all: 10 units lie for all three period-ends.
    idle = np.array([[[0.0, 0.0, 10.0, 0.0, 0.0]] * 2 + [[0.0, 0.0, 0.0, 0.0, 0.0]] * 2])
    x, _ = project_stock([0.0], np.zeros((1, 3)), idle, [2])
    assert carrying_periods(x, idle, [2], [0.2], [1.0]).tolist() == [3.0]
    # With a lead time of none the next order knows at once.
    assert carrying_periods(np.zeros((1, 4)), idle[:, :, 2:], [0], [0.2], [1.0]).tolist() == [1.0]
