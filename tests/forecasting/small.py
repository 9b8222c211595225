"""Settings with which a model is trained in a second."""

from npq_assets.forecasting.model import Settings


def small_settings(trees: int, rows: int) -> Settings:
    """Few trees on few rows."""
    try:
        return Settings(trees=trees, models=2, max_rows=rows, min_leaf=50)
    except TypeError:
        from npq_assets.forecasting.forms import Boosting

        return Settings(boosting=Boosting(trees=trees, min_leaf=50), max_rows=rows)
