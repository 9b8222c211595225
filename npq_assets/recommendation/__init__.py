"""Recommendation: candidates from purchases, features as of a day, a learned ranking, honest evaluation.

The way: `purchases` (data) > `factors` (item-kNN, EASE, implicit ALS) > `candidates` and `features` > `ranking` (LambdaRank) >
`lists` (the method that nothing clearly beats, for everybody), judged by `evaluation`; `stacking` is for choices made once.
Dagster, files and messages do not belong here.
"""
