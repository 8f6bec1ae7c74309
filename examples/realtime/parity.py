"""Whether what is served is what is trained on: python parity.py http://127.0.0.1:8000, where the service listens."""

import sys

import httpx
import polars as pl
from definitions import defs
from labels import visits
from model import Model, load

import mlforge as mlf

# The service scores so many at once.
MANY = 1_000
# A product of matrices rounds the last bits otherwise where it has another number of rows.
ROUNDING = 1e-12


def served(url: str, households: list[int]) -> pl.DataFrame:
    """What the service answers, a row for each household: its score, and the instant that this is of."""
    answers = []
    with httpx.Client(base_url=url, timeout=30) as client:
        for start in range(0, len(households), MANY):
            answer = client.post("/scores", json={"household_ids": households[start : start + MANY]})
            answer.raise_for_status()
            answers += answer.json()
    return pl.DataFrame(answers, infer_schema_length=None).with_columns(pl.col("at").str.to_datetime(time_zone="UTC"))


def compare(model: Model, url: str) -> bool:
    """Compare features value by value, and scores, of every household and of one that does not exist."""
    known = visits().select("household_id").unique().sort("household_id").collect()
    households = pl.concat([known, pl.DataFrame({"household_id": [0]})])

    # The instant of the last sync: what is online holds as of then.
    [as_of] = {each.as_of for each in defs.status(list(model.versions))}
    if as_of is None:
        sys.exit("Nothing is online: run `mlforge build --online` first.")
    labels = households.with_columns(pl.lit(as_of).alias("label_time"))
    history = defs.get_training_data(model.features, labels, timestamp="label_time").drop("label_time")
    online = defs.get_online_features(model.features, households)
    # Bit by bit; a null equals only a null.
    differ = sum(int(online[name].ne_missing(history[name]).sum()) for name in history.columns)
    count = history.height * (history.width - 1)
    print(f"{count:,} values of {known.height:,} households and an unknown one: {differ} differ online from history.")

    answers = served(url, households["household_id"].to_list())
    wanted = pl.Series(model.score(history.with_columns(answers["at"]), pl.col("at")), dtype=pl.Float64)
    got = answers["stays_away"]
    distance = (got - wanted).abs()
    unequal = int((got.is_null() != wanted.is_null()).sum() + (distance > ROUNDING).sum())
    print(
        f"{len(wanted):,} scores over HTTP: {unequal} differ from history; the largest distance: {distance.max():.0e}."
    )
    return differ == unequal == 0


def main() -> None:
    """Compare, and end with 1 where something differs."""
    if len(sys.argv) != 2:
        sys.exit("Say where the service listens: python parity.py http://127.0.0.1:8000")
    try:
        same = compare(load(), sys.argv[1])
    except mlf.MlforgeError as error:
        sys.exit(str(error))
    except httpx.HTTPError as error:
        sys.exit(f"The service at {sys.argv[1]} does not answer: {error}")
    if not same:
        sys.exit("What is served is not what was trained on.")


if __name__ == "__main__":
    main()
