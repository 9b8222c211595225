"""Recommendation: candidates from purchases, features as of a day, a learned ranking, honest evaluation.

The way: `purchases` (data) > `factors` (item-kNN, EASE, implicit ALS) > `candidates` and `features` > `ranking` (LambdaRank) >
`lists` (diverse, stock-aware, explained) and `evaluation`. Dagster, files and messages do not belong here.
"""
