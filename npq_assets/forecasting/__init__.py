"""Probabilistic demand forecasts for every system: one global LightGBM model over a robust seasonal baseline.

`forecast`, `cumulative` and `sample_paths` train and predict in one call; `train` gives a model that is saved, loaded
and asked again with fresher data. Cost of decisions, orders and plans do not belong here.
"""

from npq_assets.forecasting.api import cumulative, forecast, sample_paths
from npq_assets.forecasting.distribution import ForecastDistribution
from npq_assets.forecasting.model import FittedModel, load, train

__all__ = ["FittedModel", "ForecastDistribution", "cumulative", "forecast", "load", "sample_paths", "train"]
