"""The model as it is stored: what scores, and the features at the versions that it was trained on."""

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import polars as pl
from definitions import HERE
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import mlforge as mlf

FILE = HERE / "model.pickle"
VISITS = "basket__n_unique__28d"


def inputs(values: pl.DataFrame, at: pl.Expr) -> pl.DataFrame:
    """What the regression is given: the one place where features become inputs, in training and in the service.

    Args:
        values: Rows with the columns of the features.
        at: The instant at which each row is asked about: the time of a label, or now.
    """
    days = (at - pl.col("last_visit")).dt.total_seconds() / 86_400
    # Who came for the first time today is in no window yet: windows end at the last midnight.
    amounts = pl.col("^(basket|spent)__.*$").fill_null(0)
    # Clocks may differ: what has just happened is no time ago, not less.
    return values.select(amounts.log1p(), days.clip(0).log1p().alias("days_since_last_visit"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A regression that was fitted.

    Attributes:
        features: What it was trained on; online another PATCH of these versions is served, and another MINOR refused.
        pipeline: Scaling and regression.
    """

    features: mlf.FeatureSet
    pipeline: Pipeline

    @property
    def versions(self) -> dict[str, str | None]:
        """The versions that it was trained on, by feature."""
        return {ref.name: ref.version for ref in self.features.refs}

    @classmethod
    def fit(cls, features: mlf.FeatureSet, rows: pl.DataFrame) -> Self:
        """Fit to labels with their features.

        Args:
            features: Where the features come from.
            rows: As `get_training_data` gives them.
        """
        pipeline = make_pipeline(StandardScaler(), LogisticRegression())
        pipeline.fit(inputs(rows, pl.col("label_time")).to_numpy(), rows["stays_away"].to_numpy())
        return cls(features=features, pipeline=pipeline)

    def score(self, values: pl.DataFrame, at: pl.Expr) -> list[float | None]:
        """The probability that each household stays away; None for one of which nothing is known.

        Args:
            values: As for `inputs`.
            at: As for `inputs`.
        """
        given = inputs(values, at)
        known = values["last_visit"].is_not_null()
        if not known.any():
            return [None] * len(known)
        scores = iter(self.pipeline.predict_proba(given.filter(known).to_numpy())[:, 1].tolist())
        return [next(scores) if there else None for there in known]

    def save(self, path: Path = FILE) -> None:
        """Write it to a file, which a service that loads it at the same time sees whole."""
        beside = path.with_suffix(".new")
        beside.write_bytes(pickle.dumps(self))
        beside.replace(path)


def load(path: Path = FILE) -> Model:
    """The model in a file; without one the program ends with a line that says how to get it.

    Load only what you have written yourself: a pickle can run code.
    """
    if not path.exists():
        sys.exit(f"There is no model at {path}: run `python train.py` first.")
    try:
        model = pickle.loads(path.read_bytes())  # noqa: S301 -- our own file
    except (pickle.UnpicklingError, ValueError, EOFError):
        model = None
    if not isinstance(model, Model):
        sys.exit(f"{path} holds no model: run `python train.py`.")
    return model
