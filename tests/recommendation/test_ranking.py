"""Recommendations: known answers of the parts, nothing from the future, and better than chance on invented customers."""

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from npq_assets.errors import NpqError
from npq_assets.recommendation.candidates import candidates
from npq_assets.recommendation.evaluation import group_ndcg, ranking_scores, top_lists
from npq_assets.recommendation.factors import ease, implicit_factors, item_neighbours
from npq_assets.recommendation.features import Settings, feature_names, know
from npq_assets.recommendation.lists import rank_products
from npq_assets.recommendation.purchases import Purchases, purchases_of
from npq_assets.recommendation.ranking import Training, examples, rank, train

SMALL = Settings(factors=8, sweeps=3, neighbours=20, per_source=10, again=20, min_buyers=1)


def invented(seed: int = 0, users: int = 120, items: int = 60, days: int = 120) -> Purchases:
    rng = np.random.default_rng(seed)
    family = np.arange(items) % 6
    taste = rng.integers(0, 6, users)
    rows = []
    for day in range(days):
        who = np.flatnonzero(rng.random(users) < 0.15)
        for user in who:
            for _ in range(3):
                mine = np.flatnonzero(family == taste[user]) if rng.random() < 0.8 else np.arange(items)
                rows.append((user, int(rng.choice(mine)), day))
    frame = pl.DataFrame(rows, schema=["user", "item", "day"], orient="row").with_columns(pl.lit(2.0).alias("amount"))
    return purchases_of(frame, pl.DataFrame({"item": np.arange(items), "family": family}))


def test_ndcg_of_a_known_list() -> None:
    lists = pl.DataFrame({"user": [1, 1, 1], "item": [7, 8, 9], "rank": [1, 2, 3]})
    actual = pl.DataFrame({"user": [1, 1, 2], "item": [7, 9, 7]})
    found = ranking_scores(lists, actual)
    ideal = 1 + 1 / np.log2(3)
    assert found["ndcg"] == pytest.approx(((1 + 1 / np.log2(4)) / ideal + 0) / 2)
    assert found["recall"] == pytest.approx(0.5)
    assert found["map"] == pytest.approx((1 + 2 / 3) / 2 / 2)


def test_top_lists_break_ties_by_item() -> None:
    lists = top_lists(np.array([0, 0, 0]), np.array([5, 3, 4]), np.array([1.0, 1.0, 2.0]), 2)
    assert lists["item"].to_list() == [4, 3]


def test_similarity_is_the_shrunk_cosine() -> None:
    bought = sparse.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1]], np.float32))
    similarity = item_neighbours(bought, shrink=1.0).similarity.toarray()
    assert similarity[1, 0] == pytest.approx(2 / (np.sqrt(3) * np.sqrt(2) + 1))
    assert similarity[2, 1] == 0 and (np.diag(similarity) == 0).all()


def test_ease_solves_its_constrained_least_squares() -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((40, 6)) < 0.4).astype(np.float32)
    weights = ease(sparse.csr_matrix(x), 3.0).weights.astype(float)
    assert (np.diag(weights) == 0).all()
    # Off the diagonal the gradient of |X - XB|^2 + lambda |B|^2 vanishes.
    gradient = -x.T @ (x - x @ weights) + 3.0 * weights
    gradient[np.diag_indices(6)] = 0
    assert np.abs(gradient).max() < 1e-3


def test_implicit_factors_solve_the_normal_equations() -> None:
    rng = np.random.default_rng(1)
    r = (rng.random((15, 10)) < 0.3) * 1.0
    found = implicit_factors(sparse.csr_matrix(r.astype(np.float32)), 4, 2.0, 5.0, sweeps=30)
    confidence = 1 + 5.0 * r
    item = found.item.astype(float)
    for j in range(10):
        weighted = found.user.astype(float) * confidence[:, j : j + 1]
        left = found.user.T.astype(float) @ weighted + 2.0 * np.eye(4)
        if r[:, j].any():
            np.testing.assert_allclose(item[j], np.linalg.solve(left, weighted.T @ r[:, j]), atol=1e-3)


def test_what_is_known_as_of_a_day_ignores_later_purchases() -> None:
    purchases = invented()
    full = know(purchases, 80, SMALL)
    cut = know(purchases.before(80), 80, SMALL)
    np.testing.assert_array_equal(full.pair_values, cut.pair_values)
    for one, other in zip(
        candidates(full, np.arange(120), "both"), candidates(cut, np.arange(120), "both"), strict=True
    ):
        np.testing.assert_array_equal(one.x, other.x)


def test_lists_of_again_and_new_hold_what_they_say_and_only_what_is_sellable() -> None:
    purchases = invented()
    known = know(purchases, 100, SMALL)
    sellable = np.ones((1, purchases.shape[1]), bool)
    sellable[0, ::2] = False
    for kind in ("again", "new"):
        for part in candidates(known, np.arange(120), kind, sellable):
            bought = np.isin(part.user * purchases.shape[1] + part.item, known.pair_keys)
            assert (bought == (kind == "again")).all()
            assert (part.item % 2 == 1).all()
            assert (part.new == (kind == "new")).all()
    assert known.recent.any() and len(feature_names(known)) == next(candidates(known, np.arange(9))).x.shape[1]


def test_the_learned_ranking_beats_popularity_and_is_repeatable() -> None:
    purchases = invented()
    training = Training(horizon=20, cutoffs=2, trees=30, min_leaf=10, threads=1)
    model = train(examples(purchases, 100, "new", training, SMALL), training)
    again = train(examples(purchases, 100, "new", training, SMALL), training)
    assert model.boosters == again.boosters
    known = know(purchases, 100, SMALL)
    lists = rank(model, known, np.arange(120), "new")
    assert lists.group_by("user").len()["len"].max() <= 10
    truth = purchases.between(100, 120).pairs()
    truth = truth[~np.isin(truth, known.pair_keys)]
    actual = pl.DataFrame({"user": truth // 60, "item": truth % 60})
    parts = list(candidates(known, np.arange(120), "new"))
    popular = pl.concat([top_lists(p.user, p.item, known.popularity[p.item]) for p in parts])
    assert ranking_scores(lists, actual)["ndcg"] > ranking_scores(popular, actual)["ndcg"]


def test_missing_columns_are_named() -> None:
    with pytest.raises(NpqError, match="column day"):
        purchases_of(pl.DataFrame({"user": [1], "item": [1]}))


def test_ndcg_of_groups_is_that_of_their_lists() -> None:
    label = np.array([0.0, 1, 0, 1, 0, 0])
    score = np.array([3.0, 2, 1, 1, 2, 2])
    found = group_ndcg(score, label, np.array([3, 3]), k=2)
    assert found.tolist() == pytest.approx([1 / np.log2(3), 0.0])
    assert group_ndcg(-score, label, np.array([3, 3]), k=2)[1] == 1.0


def test_lists_for_everybody_do_not_look_ahead_and_name_their_method() -> None:
    purchases = invented(users=200)
    full = rank_products(purchases, 100, horizon=20)
    cut = rank_products(purchases.before(100), 100, horizon=20)
    assert full.lists.equals(cut.lists) and full.facts == cut.facts
    known = purchases.before(100).pairs()
    key = full.lists["user"].cast(pl.Int64) * 60 + full.lists["item"]
    assert (np.isin(key, known) == (full.lists["kind"] == "again").to_numpy()).all()
    judged = full.facts["ranking of new"]["nDCG@10 among candidates"]
    assert set(judged) == {"popularity", "item-kNN", "implicit ALS", "LambdaRank"}
    # Taste is all there is here: popularity must not be what wins.
    assert full.facts["ranking of new"]["method"] != "popularity"


def test_too_few_purchases_are_ranked_by_habit() -> None:
    found = rank_products(invented(users=12, days=40), 40, horizon=20)
    assert found.facts["ranking of again"]["method"] == "repeat purchase"
    assert set(found.lists["kind"].cast(pl.String)) == {"again", "new"}
