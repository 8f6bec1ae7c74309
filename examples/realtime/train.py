"""Trains the model on the history of the features: python train.py. Build them first: mlforge build --online."""

import sys
from datetime import UTC, datetime

import polars as pl
from definitions import defs, stays_away
from labels import HORIZON, labels
from model import FILE, VISITS, Model
from sklearn.metrics import roc_auc_score

import mlforge as mlf

# What is later judges the model. What it learns from was known by then: a label takes 28 days.
JUDGED_FROM = datetime(2017, 10, 2, tzinfo=UTC)


def split(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is learned from, and what the result is judged by."""
    time = pl.col("label_time")
    return rows.filter(time + HORIZON <= JUDGED_FROM), rows.filter(time >= JUDGED_FROM)


def auc(model: Model, rows: pl.DataFrame) -> float:
    """How well it tells those that stay away from those that come: 0.5 is a coin, 1 is always right."""
    return float(roc_auc_score(rows["stays_away"], model.score(rows, pl.col("label_time"))))


def auc_of_counting(rows: pl.DataFrame) -> float:
    """The same without a model: the fewer visits in 28 days, the likelier."""
    return float(roc_auc_score(rows["stays_away"], -rows[VISITS].cast(pl.Int64)))


def train() -> tuple[Model, pl.DataFrame]:
    """A model of the first part of the labels, and the rows of the other part to judge it by."""
    features = defs.pin(stays_away)
    learned, judged = split(defs.get_training_data(features, labels(), timestamp="label_time"))
    return Model.fit(features, learned), judged


def main() -> None:
    """Train, judge, save."""
    try:
        model, judged = train()
    except mlf.MlforgeError as error:
        sys.exit(str(error))
    model.save()
    print(f"AUC {auc(model, judged):.3f} on {judged.height:,} labels from {JUDGED_FROM:%Y-%m-%d} on;", end=" ")
    print(f"counting visits alone: {auc_of_counting(judged):.3f}.")
    trained_on = ", ".join(f"{name} {version}" for name, version in model.versions.items())
    print(f"Trained on {trained_on}; saved as {FILE.name}.")


if __name__ == "__main__":
    main()
