"""Known wear is found, nothing later is looked at, and answers stay inside what can be told."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from npq_assets.equipment import useful_life
from npq_assets.equipment.learners import boosted, folds
from npq_assets.equipment.useful_life import CAP, QUANTILES, features, informative, nasa_score, predict, wear_indices
from npq_assets.errors import NpqError


def engines(count: int, seed: int, *, cut: bool = False) -> tuple[pl.DataFrame, np.ndarray]:
    """Engines whose hidden wear grows to 1 at failure and shows in two of three noisy sensors; remaining lives when cut."""
    rng = np.random.default_rng(seed)
    rows, left = [], []
    for unit in range(1, count + 1):
        life = int(rng.integers(120, 220))
        end = int(rng.integers(40, life)) if cut else life
        left.append(life - end)
        cycle = np.arange(1, end + 1)
        wear = (cycle / life) ** 3
        rows.append(
            pl.DataFrame(
                {
                    "unit": np.full(end, unit),
                    "cycle": cycle,
                    "heat": 600 + 10 * wear + rng.normal(0, 1, end),
                    "flow": 40 - 3 * wear + rng.normal(0, 0.3, end),
                    "noise": rng.normal(0, 1, end),
                    "constant": np.full(end, 7.0),
                }
            )
        )
    return pl.concat(rows), np.array(left, float)


def test_features_of_a_cycle_do_not_change_with_later_cycles() -> None:
    train, _ = engines(12, 0)
    columns = informative(train)
    indices = wear_indices(train, columns)
    whole = features(train, columns, indices).filter(pl.col("cycle") <= 60)
    early = features(train.filter(pl.col("cycle") <= 60), columns, indices)
    assert whole["unit"].equals(early["unit"])
    assert np.allclose(whole.to_numpy(), early.to_numpy(), equal_nan=True)


def test_sensors_that_never_move_are_left_out_and_the_first_index_is_the_wear() -> None:
    train, _ = engines(12, 0)
    columns = informative(train)
    assert columns == ["heat", "flow", "noise"]
    weight = np.abs(wear_indices(train, columns).weights[:, 0]) * [1.0, 0.3, 1.0]  # in units of noise
    assert weight[2] < 0.3 * weight[:2].min()


def test_remaining_life_is_found_within_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    small = boosted("regression", trees=80, leaves=8, rate=0.08, least=30)
    monkeypatch.setattr(useful_life, "candidates", lambda: {"a": small, "their mean": small})
    train, _ = engines(40, 1)
    asked, left = engines(30, 2, cut=True)
    found = predict(train, asked)
    truth = np.minimum(left, CAP)
    error = found.prediction["rul_pred"].to_numpy() - truth
    assert np.sqrt(np.mean(error**2)) < 0.5 * truth.std()
    edges = found.prediction.select(f"q{q:g}" for q in QUANTILES).to_numpy()
    assert (np.diff(edges, axis=1) >= 0).all() and edges.min() >= 0 and edges.max() <= CAP
    assert np.mean((truth >= edges[:, 0]) & (truth <= edges[:, -1])) > 0.7
    assert found.prediction["unit"].to_list() == list(range(1, 31))


def test_one_reading_that_is_none_changes_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap in the fifth cycle left the sensor unknown for the rest of the machine's life, and its answer a guess by age."""
    small = boosted("regression", trees=80, leaves=8, rate=0.08, least=30)
    monkeypatch.setattr(useful_life, "candidates", lambda: {"a": small, "their mean": small})
    train, _ = engines(14, 1)
    asked, _ = engines(6, 2, cut=True)
    whole = predict(train, asked)
    fifth = pl.when(pl.col("cycle") == 5)
    for gap in (float("nan"), float("inf"), None):
        holed = [
            frame.with_columns(fifth.then(pl.lit(gap)).otherwise("heat").alias("heat")) for frame in (train, asked)
        ]
        found = predict(*holed)
        assert found.prediction["rul_pred"].to_numpy() == pytest.approx(whole.prediction["rul_pred"].to_numpy(), abs=6)
        assert found.rmse == pytest.approx(whole.rmse, rel=0.1)
    mute = asked.with_columns(pl.when(pl.col("unit") == 3).then(None).otherwise("flow").alias("flow"))
    with pytest.raises(NpqError, match="flow of machine 3 was never read"):
        predict(train, mute)


def test_nasa_score_by_hand() -> None:
    assert nasa_score(np.array([50.0, 50.0]), np.array([60.0, 37.0])) == pytest.approx(2 * (np.e - 1))


def test_folds_never_share_a_machine() -> None:
    units = np.repeat(np.arange(11), 7)
    judged = []
    for learn, judge in folds(units, 5):
        assert not set(units[learn]) & set(units[judge])
        judged += judge.tolist()
    assert sorted(judged) == list(range(77))


def test_too_few_machines_and_missing_sensors_are_named() -> None:
    train, _ = engines(12, 0)
    with pytest.raises(NpqError, match="5 machines"):
        predict(train.filter(pl.col("unit") <= 5), train)
    with pytest.raises(NpqError, match="no flow"):
        predict(train, train.drop("flow"))


def test_answers_lean_to_the_early_side_only_where_it_pays_and_costs_little() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 120, 2000)
    wide = useful_life._lean(truth, truth + rng.normal(0, 10, 2000))
    assert 0 < wide <= 0.5  # two in a thousand more squared error allow half a cycle at a spread of ten
    assert useful_life._lean(truth, truth - 8 + rng.normal(0, 10, 2000)) == 0.0
    assert useful_life._lean(truth, truth) == 0.0
