"""Alarms of known cost, charts that signal what the rules say, capability by hand, and defects found where they were put."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from npq_assets.equipment.learners import beside_known, cross_validated
from npq_assets.equipment.quality import (
    ControlChart,
    any_of,
    blemish_place,
    capability,
    cheapest_alarm,
    classifier,
    f1_alarm,
    held_out_probability,
    individuals_chart,
    learn_defects,
    machining_features,
)
from npq_assets.errors import NpqError


def test_machining_features_are_physics() -> None:
    made = machining_features(*(np.array([v]) for v in (40.0, 1500.0, 100.0, 300.0, 310.0)))
    assert made["power"][0] == pytest.approx(40 * 157.0796, rel=1e-5)
    assert (made["heat_gap"][0], made["strain"][0]) == (10.0, 4000.0)


def test_cheapest_alarm_follows_the_ratio_of_costs_when_probabilities_are_true() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(float)
    assert cheapest_alarm(y, p, miss=10, inspection=2).threshold == pytest.approx(0.2, abs=0.04)
    assert cheapest_alarm(y, p, miss=10, inspection=8).threshold == pytest.approx(0.8, abs=0.04)


def test_cheapest_alarm_is_the_cheapest_of_all_and_may_be_none() -> None:
    y, p = np.array([0, 1, 0, 1, 0.0]), np.array([0.1, 0.4, 0.4, 0.9, 0.2])
    costs = {t: ((p >= t).sum() * 1 + ((p < t) * y).sum() * 3) / 5 for t in p}
    assert cheapest_alarm(y, p, miss=3, inspection=1).value == pytest.approx(min(costs.values()))
    assert cheapest_alarm(y, p, miss=1, inspection=5).threshold == float("inf")


def test_f1_alarm_by_hand() -> None:
    found = f1_alarm(np.array([1, 1, 0, 1, 0.0]), np.array([0.9, 0.8, 0.7, 0.6, 0.1]))
    assert (found.threshold, found.value) == (0.6, pytest.approx(6 / 7))


@pytest.mark.parametrize(
    ("rule", "values", "at"),
    [
        (1, [0, 3.1, 0], [1]),
        (2, [0.5] * 9, [8]),
        (3, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.1], [5]),
        (4, [0.5, -0.5] * 7, [13]),
        (5, [2.1, 0, 2.1], [2]),
        (6, [1.1, 1.1, 0, 1.1, 1.1], [4]),
        (7, [0.5] * 15, [14]),
        (8, [1.5, -1.5] * 4, [7]),
    ],
)
def test_each_rule_signals_its_pattern_and_not_a_point_earlier(rule: int, values: list[float], at: list[int]) -> None:
    assert np.flatnonzero(ControlChart(0.0, 1.0).signals(np.array(values, float))[rule]).tolist() == at


def test_rules_rarely_signal_noise() -> None:
    values = np.random.default_rng(0).normal(size=5_000)
    signals = individuals_chart(values).signals(values)
    assert signals[1].mean() < 0.006  # 0.0027 for normal values
    assert np.any([signals[r] for r in (1, 2, 5, 6)], axis=0).mean() < 0.03


def test_capability_by_hand() -> None:
    values = np.tile([9.0, 11.0], 20)  # mean 10, moving range 2: sigma 2 / 1.128
    found = capability(values, 4.0, 14.0)
    assert found.cp == pytest.approx(10 / (6 * 2 / 1.128))
    assert found.cpk == pytest.approx(4 / (3 * 2 / 1.128))
    assert capability(values, upper=10.0).cp is None
    assert capability(values, 9.5, 20.0).outside == 0.5


def test_a_stuck_sensor_and_an_empty_tolerance_are_refused() -> None:
    with pytest.raises(NpqError, match="stuck"):
        individuals_chart(np.full(30, 5.0))
    with pytest.raises(NpqError, match="empty"):
        capability(np.arange(30.0), 3.0, 3.0)
    with pytest.raises(NpqError, match="without gaps"):
        individuals_chart(np.r_[np.arange(30.0), np.nan])


def test_defects_are_found_where_they_were_put_and_reasons_name_them() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1_200, 3))
    kinds = {"hot": (x[:, 0] > 1.6).astype(float), "worn": (x[:, 1] < -1.6).astype(float), "never": np.zeros(1_200)}
    p = held_out_probability(["heat", "wear", "noise"], x, kinds, count=3, trees=30)
    y = np.maximum(kinds["hot"], kinds["worn"])
    assert f1_alarm(y, p).value > 0.95
    model = learn_defects(["heat", "wear", "noise"], x, kinds, trees=30)
    assert set(model.forests) == {"hot", "worn"}
    asked = np.array([[2.5, 0.0, 0.0], [0.0, -2.5, 0.0], [0.0, 0.0, 2.5]])
    hot, worn, none = model.reasons(asked)
    assert hot[0].startswith("heat 2.5 is above") and worn[0].startswith("wear -2.5 is below") and none == []
    assert np.allclose(model.probability(asked), any_of(model.by_kind(asked)))


def test_nothing_to_learn_is_said() -> None:
    with pytest.raises(NpqError, match="nothing to learn"):
        learn_defects(["a"], np.zeros((5, 1)), {"k": np.zeros(5)})


def seen_by(x: np.ndarray, y: np.ndarray, new: np.ndarray, place: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """What a learner behind `beside_known` gets: rows learned from, and rows asked about."""
    kept: list[np.ndarray] = []

    def learner(a: np.ndarray, b: np.ndarray, c: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        kept.extend([a, c])
        return np.zeros((len(c), int(b.max()) + 1))

    beside_known(learner, place, classes=int(y.max()) + 1)(x, y, new)
    return kept[0], kept[1]


def test_a_row_never_sees_its_own_label_through_its_neighbours() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 4)), rng.integers(0, 3, 60).astype(float)
    before, _ = seen_by(x, y, x[:1], [2, 3])
    for i in range(0, 60, 7):
        other = y.copy()
        other[i] = (other[i] + 1) % 3
        after, _ = seen_by(x, other, x[:1], [2, 3])
        assert np.array_equal(before[i], after[i])
        assert not np.array_equal(before, after)


def test_neighbours_by_hand() -> None:
    """Three known rows of class 0 at 0, 1, 2 and one of class 1 at 10; asked at 1.5. Class 2 is nowhere."""
    x = np.column_stack([[5.0, 6.0, 7.0, 8.0], [0.0, 1.0, 2.0, 10.0]])
    y = np.array([0, 0, 0, 1.0])
    kept: list[np.ndarray] = []

    def learner(a: np.ndarray, b: np.ndarray, c: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        kept.append(c)
        return np.zeros((len(c), 3))

    beside_known(learner, [1], classes=3, count=3)(x, y, np.array([[9.0, 1.5]]))
    [row] = kept[0]
    assert row[0] == 9.0 and len(row) == 7  # its other column; where it lies is not handed on
    assert row[1:4] == pytest.approx(np.log1p([0.5, 8.5, 1000.0]))
    assert row[4:] == pytest.approx([1.0, 0.0, 0.0])


def test_kinds_of_defects_that_come_in_batches_are_found_by_their_neighbours() -> None:
    rng = np.random.default_rng(2)
    batch = rng.integers(0, 30, 400)
    kind = rng.integers(0, 4, 30)[batch].astype(float)
    x = np.column_stack([rng.normal(size=(400, 3)), 100.0 * batch, rng.random(400)])
    groups = np.arange(400)
    near = cross_validated(classifier(4, place=[3, 4], trees=20, forest=40), x, kind, groups).argmax(axis=1)
    assert np.mean(near == kind) > 0.97
    # Of a batch that nobody has looked at, neighbours say nothing.
    fresh = cross_validated(classifier(4, place=[3, 4], trees=20, forest=40), x, kind, batch).argmax(axis=1)
    assert np.mean(fresh == kind) < 0.6


def test_blemishes_of_one_plate_lie_near_and_other_plates_far() -> None:
    frame = pl.DataFrame(
        {"Length_of_Conveyer": [1350, 1350, 1360, 1350], "Steel_Plate_Thickness": [80, 80, 80, 70],
         "TypeOfSteel_A300": [1, 1, 1, 0], "Y_Minimum": [1000, 2000, 1000, 1000]}
    )  # fmt: skip
    at = blemish_place(frame).to_numpy()
    far = np.linalg.norm(at - at[0], axis=1)
    assert 0 < far[1] < 2 and far[2] == pytest.approx(1.0) and far[3] > 20
