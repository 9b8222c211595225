"""Settings with which a model is trained in a second."""

from npq_assets.forecasting.forms import Boosting
from npq_assets.forecasting.model import Settings


def small_settings(trees: int, rows: int) -> Settings:
    """Few trees on few rows."""
    return Settings(boosting=Boosting(trees=trees, min_leaf=50), max_rows=rows)
