"""Builds the features of this example, puts them online, and reads them back. Run it in this folder: python demo.py."""

import os
import shlex
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from definitions import HERE, TRANSACTIONS, defs, purchases

END = datetime(2018, 1, 2, tzinfo=UTC)


def mlforge(*arguments: str) -> None:
    """Runs the command line, as a process of its own, and shows what it was and what it said."""
    print(f"$ {shlex.join(['mlforge', *arguments])}", flush=True)
    program = Path(sysconfig.get_path("scripts")) / "mlforge"
    ended = subprocess.run([program, *arguments], cwd=HERE, check=False)  # noqa: S603
    # `mlforge read` of an entity that is not online says so, and ends with 1.
    if ended.returncode and arguments[0] != "read":
        sys.exit(ended.returncode)
    print(flush=True)


def say(text: str) -> None:
    """What the next thing is about."""
    print(f"# {text}")


def from_raw_events(user_id: int, end: datetime, window: timedelta) -> tuple[float, int]:
    """Sum and count by hand: the events with end - window <= event < end, and nothing else."""
    begin = end - window
    naive = [moment.replace(tzinfo=None) for moment in (begin, end)]
    inside = (pl.col("user_id") == user_id) & pl.col("ts").is_between(*naive, closed="left")
    amounts = purchases(pl.scan_parquet(TRANSACTIONS)).filter(inside).collect()["amount"]
    return float(amounts.sum()), len(amounts)


def main() -> None:
    """The whole loop, once."""
    where = "MLFORGE_REDIS_URL" if os.environ.get("MLFORGE_REDIS_URL") else "examples/transactions/online_store"
    say("1,469,307 purchases become three features: offline as Delta tables, online in Redis")
    say(f"(here: {where}). Run it again: what has not changed is skipped.")
    mlforge("build", "--online")

    say("What holds now for a household. 'Now' is the end of the data: Definitions(as_of=...).")
    mlforge("read", "user_spend", "user_id=1")
    say("One that has not shopped since summer: its windows have emptied, although no event said so.")
    mlforge("read", "user_spend", "user_id=10")
    say("One that does not exist.")
    mlforge("read", "user_spend", "user_id=9999")
    say("Where Redis has it, for a look without mlforge.")
    mlforge("key", "user_spend", "user_id=1")

    pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, tbl_cols=-1, tbl_width_chars=100)
    pl.Config(tbl_formatting="NOTHING", float_precision=2)
    say("The same in Python, defs.online_store.read(...): one entity, as a dict.")
    values = defs.online_store.read(feature_name="user_spend", entity_keys={"user_id": "1"}) or {}
    print(f"{values['amount__sum__7d'] = }\n{values['amount__sum__30d'] = }\n")

    say("read_batch(...): many in one round trip.")
    several = [{"user_id": "1"}, {"user_id": "10"}, {"user_id": "9999"}]
    for keys, found in zip(several, defs.online_store.read_batch("user_spend", several), strict=True):
        print(f"{keys['user_id']:>5}: {'None' if found is None else found['amount__sum__30d']}")
    print()

    say("get_online_features(...): several features in one round trip, as a frame in the offline dtypes.")
    wanted = {"user_spend": ["amount__sum__7d"], "user_spend_30d_interval": ["amount__sum__90d"]}
    print(defs.get_online_features(wanted, [{"user_id": 1}, {"user_id": 10}, {"user_id": 9999}]), "\n")

    say("get_training_data(...): for every label what was known at its time, never what came later.")
    times = [datetime(2017, 1, 1), datetime(2017, 6, 1), datetime(2017, 8, 5), datetime(2017, 12, 1)]
    labels = pl.DataFrame({"user_id": [1, 1, 10, 10], "label_time": times})
    spend = {"user_spend": ["amount__sum__30d", "amount__count__30d"]}
    print(defs.get_training_data(spend, labels, timestamp="label_time"), "\n")

    say("The same numbers by hand, from the raw purchases with end - window <= time < end.")
    for window in (7, 30):
        total, count = from_raw_events(1, END, timedelta(days=window))
        served = values[f"amount__sum__{window}d"], values[f"amount__count__{window}d"]
        agrees = abs(served[0] - total) < 1e-9 * max(1.0, total) and served[1] == count
        print(f"{window:>2} days: {total:.2f} in {count} purchases; served {served[0]:.2f} in {served[1]}", end="")
        print(f": {'agrees' if agrees else 'DIFFERS'}")
        if not agrees:
            sys.exit("What is served is not what the raw events say.")

    print()
    say("Next: definitions.py in this folder, which is all that was written for this; then, in this folder,")
    program = os.path.relpath(Path(sys.executable).parent / "mlforge", HERE)
    say(f"`{program} list` and `{program} read store_sales store_id=367 --json`.")


if __name__ == "__main__":
    main()
