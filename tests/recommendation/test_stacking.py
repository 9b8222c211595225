"""Choices made once: every part hidden once, nothing recommended twice, taste and time found."""

import numpy as np
import polars as pl

from npq_assets.recommendation import stacking
from npq_assets.recommendation.evaluation import ranking_scores
from npq_assets.recommendation.stacking import Choices, Settings

SMALL = Settings(parts=3, candidates=20, trees=20, models=1, threads=1)


def invented(users: int = 150, items: int = 60, each: int = 14) -> Choices:
    rng = np.random.default_rng(3)
    taste, kind = rng.integers(0, 4, users), np.arange(items) % 4
    rows = []
    for user in range(users):
        weight = np.where(kind == taste[user], 8.0, 1.0) / (1 + np.arange(items) / 10)
        rows += [(user, item) for item in rng.choice(items, each, replace=False, p=weight / weight.sum())]
    user, item = np.array(rows).T
    return Choices(user, item, rng.uniform(0, 100, len(user)), rng.integers(1, 6, len(user)) * 1.0, (users, items))


def test_parts_share_out_the_choices_of_every_customer() -> None:
    choices = invented()
    number = stacking.parts_of(choices, 3)
    count = np.bincount(choices.user * 3 + number).reshape(-1, 3)
    assert np.ptp(count, axis=1).max() <= 1


def test_what_was_chosen_is_not_recommended_and_taste_beats_popularity() -> None:
    choices = invented()
    hidden = stacking.parts_of(choices, 4, seed=9) == 0
    known = choices.where(~hidden)
    lists = stacking.recommend(known, SMALL)
    keys = known.user * known.shape[1] + known.item
    assert not np.isin(lists["user"] * known.shape[1] + lists["item"], keys).any()
    assert lists.equals(stacking.recommend(known, SMALL))
    actual = pl.DataFrame({"user": choices.user[hidden], "item": choices.item[hidden]})
    score = stacking.base_scores(known)["popularity"].astype(float)
    score[known.user, known.item] = -np.inf
    best = np.argsort(-score, axis=1, kind="stable")[:, :10]
    popular = pl.DataFrame(
        {"user": np.repeat(np.arange(150), 10), "item": best.ravel(), "rank": np.tile(np.arange(1, 11), 150)}
    )
    assert ranking_scores(lists, actual)["ndcg"] > ranking_scores(popular, actual)["ndcg"]


def test_without_times_there_are_no_columns_of_nearness() -> None:
    choices = invented()
    still = Choices(choices.user, choices.item, np.zeros(len(choices.user)), choices.strength, choices.shape)
    assert not any(name.startswith("near") for name in stacking.base_scores(still))
    assert stacking.recommend(still, SMALL).height == 1500
