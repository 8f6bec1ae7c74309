"""The loop on a real Redis: define, build, push, read back; and what is served equals what is trained on."""

import datetime as dt
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlforge as mlf
import oracle
from mlforge import Definitions
from mlforge.online import OnlineStore, RedisStore
from mlforge.store import LocalStore
from servers import RedisServer, free_port

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WINDOWS = ["7d", "30d"]
AGGREGATIONS = {"amount": ["sum", "mean", "count", "last"]}
EVENTS = [
    {"user_id": "user_123", "ts": START + dt.timedelta(hours=5), "amount": 10.0},
    {"user_id": "user_123", "ts": START + dt.timedelta(days=3), "amount": 2.5},
    {"user_id": "user_123", "ts": START + dt.timedelta(days=3), "amount": None},
    {"user_id": "user_7", "ts": START + dt.timedelta(days=20), "amount": 1 / 3},
]


def project(folder: Path, online_store: OnlineStore | None) -> Definitions:
    """Three kinds of features over the same events."""
    source = folder / "events.parquet"

    @mlf.feature(
        keys=["user_id"],
        source=source,
        timestamp="ts",
        interval="1d",
        metrics=[mlf.Rolling(windows=WINDOWS, aggregations=AGGREGATIONS)],
    )
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("user_id", "ts", "amount")

    @mlf.feature(keys=["user_id"], source=source, timestamp="ts")
    def newest(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("user_id", "ts", "amount", at=pl.col("ts"))

    @mlf.feature(keys=["user_id"], source=source)
    def profile(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.group_by("user_id").agg(events=pl.len(), first_day=pl.col("ts").min().dt.date())

    store = LocalStore(folder / "store")
    return Definitions(name="shop", features=[spend, newest, profile], store=store, online_store=online_store)


@pytest.fixture
def shop(tmp_path: Path, redis_store: RedisStore) -> Definitions:
    write(tmp_path, EVENTS)
    return project(tmp_path, redis_store)


def write(folder: Path, events: list[dict[str, object]]) -> None:
    schema = {"user_id": pl.String, "ts": pl.Datetime("us", "UTC"), "amount": pl.Float64}
    pl.DataFrame(events, schema=schema).write_parquet(folder / "events.parquet")


def expected(events: list[dict[str, object]], user: str, at: dt.datetime) -> dict[str, object] | None:
    """What the oracle says of `spend`."""
    entity = {"user_id": user}
    return oracle.value_at(
        events, entity, at, timestamp="ts", interval="1d", windows=WINDOWS, aggregations=AGGREGATIONS
    )


def agree(actual: dict[str, object] | None, wanted: dict[str, object] | None) -> bool:
    if actual is None or wanted is None:
        return actual is wanted
    return actual.keys() == wanted.keys() and all(oracle.agrees(actual[name], wanted[name]) for name in wanted)


def test_build_to_online_store(shop: Definitions) -> None:
    at = START + dt.timedelta(days=21)
    reports = shop.build(online=True, as_of=at)
    assert [(r.feature, r.outcome, r.version) for r in reports] == [
        (name, "built", "1.0.0") for name in ("spend", "newest", "profile")
    ]
    assert [r.online.written for r in reports if r.online] == [2, 2, 2]
    store = shop.online_store
    assert store is not None
    for user in ("user_123", "user_7"):
        assert agree(store.read(feature_name="spend", entity_keys={"user_id": user}), expected(EVENTS, user, at))
    assert store.read(feature_name="spend", entity_keys={"user_id": "nobody"}) is None
    status = store.status("spend")
    assert status is not None
    assert (status.state, status.version, status.as_of, status.rows) == ("complete", "1.0.0", at, 2)
    # user_7's event of day 20 enters at day 21 and leaves the seven days at day 28.
    assert status.next_change == START + dt.timedelta(days=28)


def test_online_offline_sync(shop: Definitions, tmp_path: Path) -> None:
    store = shop.online_store
    assert store is not None
    for day in (2, 11, 40):
        shop.build(["spend"], online=True, as_of=START + dt.timedelta(days=day))
        wanted = expected(EVENTS, "user_123", START + dt.timedelta(days=day))
        assert agree(store.read("spend", {"user_id": "user_123"}), wanted)
    more = [*EVENTS, {"user_id": "user_123", "ts": START + dt.timedelta(days=39), "amount": 7.0}]
    write(tmp_path, more)
    (report,) = shop.build(["spend"], online=True, as_of=START + dt.timedelta(days=40))
    assert (report.outcome, report.version) == ("built", "1.0.1")
    wanted = expected(more, "user_123", START + dt.timedelta(days=40))
    assert wanted is not None
    assert wanted["amount__sum__7d"] == 7.0
    assert agree(store.read("spend", {"user_id": "user_123"}), wanted)


def test_a_skipped_build_still_moves_the_windows_online(shop: Definitions) -> None:
    shop.build(["spend"], online=True, as_of=START + dt.timedelta(days=4))
    (report,) = shop.build(["spend"], online=True, as_of=START + dt.timedelta(days=400))
    assert report.outcome == "skipped"
    store = shop.online_store
    assert store is not None
    found = store.read("spend", {"user_id": "user_123"})
    assert found is not None
    assert (found["amount__count__30d"], found["amount__sum__30d"], found["amount__mean__30d"]) == (0, 0.0, None)


def test_the_online_frame_has_the_schema_of_the_training_frame(shop: Definitions) -> None:
    at = START + dt.timedelta(days=21)
    shop.build(online=True, as_of=at)
    names = ["spend", "profile"]
    labels = pl.DataFrame({"user_id": ["user_7", "nobody", None, "user_123"]})
    online = shop.get_online_features(names, labels)
    trained = shop.get_training_data(names, labels.with_columns(t=pl.lit(at)), timestamp="t").drop("t")
    assert online.schema == trained.schema
    assert online.equals(trained)
    assert shop.get_online_features(names, labels.head(2).to_dicts()).equals(online.head(2))
    chosen = shop.get_online_features({"spend": ["amount__sum__7d"]}, [{"user_id": "user_7"}])
    assert chosen.to_dicts() == [{"user_id": "user_7", "amount__sum__7d": 1 / 3}]


def test_several_features_are_read_in_one_round_trip(shop: Definitions, redis_server: RedisServer) -> None:
    shop.build(online=True, as_of=START + dt.timedelta(days=21))
    entities = [{"user_id": "user_7"}, {"user_id": "user_123"}]
    names = ["spend", "newest", "profile"]
    shop.get_online_features(names, entities)
    with RedisStore(redis_server.host, redis_server.port).client as client:
        client.config_resetstat()
        shop.get_online_features(names, entities)
        asked = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
    # One flight, with what the statuses say of the schemas at its end.
    assert (asked["cmdstat_mget"], asked["cmdstat_hmget"]) == (1, 3)


def test_an_unreachable_online_store_leaves_the_offline_build_in_place(tmp_path: Path) -> None:
    write(tmp_path, EVENTS)
    port = free_port()
    shop = project(tmp_path, RedisStore("127.0.0.1", port))
    with pytest.raises(mlf.StoreError, match=f"127.0.0.1:{port}"):
        shop.build(["spend"], online=True)
    snapshot = shop.store.open("spend")
    assert snapshot is not None
    assert snapshot.version == "1.0.0"


def test_an_online_build_without_an_online_store_builds_nothing(tmp_path: Path) -> None:
    write(tmp_path, EVENTS)
    shop = project(tmp_path, None)
    with pytest.raises(mlf.RequestError, match="online store"):
        shop.build(online=True)
    assert shop.store.open("spend") is None


def test_a_store_with_just_the_four_methods_serves_everything(tmp_path: Path) -> None:
    class Dicts(OnlineStore):
        def __init__(self) -> None:
            self.held: dict[tuple[str, str], dict[str, object]] = {}

        def write(self, feature_name: str, entity_keys: dict[str, str], values: dict[str, object]) -> None:
            self.held[feature_name, repr(sorted(entity_keys.items()))] = values

        def write_batch(
            self, feature_name: str, records: list[dict[str, object]], entity_key_columns: list[str]
        ) -> None:
            for record in records:
                keys = {name: str(record[name]) for name in entity_key_columns}
                self.write(feature_name, keys, {n: v for n, v in record.items() if n not in keys})

        def read(self, feature_name: str, entity_keys: dict[str, str]) -> dict[str, object] | None:
            return self.held.get((feature_name, repr(sorted(entity_keys.items()))))

        def read_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, object] | None]:
            return [self.read(feature_name, keys) for keys in entity_keys]

    write(tmp_path, EVENTS)
    shop = project(tmp_path, Dicts())
    at = START + dt.timedelta(days=21)
    shop.build(online=True, as_of=at)
    labels = pl.DataFrame({"user_id": ["user_7", "nobody"]})
    trained = shop.get_training_data(["spend", "newest"], labels.with_columns(t=pl.lit(at)), timestamp="t").drop("t")
    assert shop.get_online_features(["spend"], labels).equals(trained.select("user_id", pl.col("^amount__.*$")))


def test_four_online_builds_at_once_all_end_well_and_leave_one_complete_content(
    shop: Definitions, tmp_path: Path, redis_server: RedisServer, redis_prefix: str
) -> None:
    definitions = tmp_path / "definitions.py"
    definitions.write_text(
        "import mlforge as mlf\n"
        "from mlforge.online import RedisStore\n"
        "from mlforge.store import LocalStore\n"
        f"@mlf.feature(keys=['user_id'], source={str(tmp_path / 'events.parquet')!r}, timestamp='ts')\n"
        "def latest(df):\n"
        "    return df.select('user_id', 'ts', 'amount')\n"
        f"online = RedisStore({redis_server.host!r}, {redis_server.port}, prefix={redis_prefix!r})\n"
        f"defs = mlf.Definitions(store=LocalStore({str(tmp_path / 'store')!r}), online_store=online)\n"
    )
    command = [sys.executable, "-m", "mlforge.cli.main", "build", "--online", "--definitions", str(definitions)]
    builds = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(4)]
    ended = [(build.communicate()[0], build.returncode) for build in builds]
    assert [code for _, code in ended] == [0] * 4, ended
    assert shop.online_store is not None
    status = shop.online_store.status("latest")
    assert status is not None
    assert (status.state, status.rows) == ("complete", 2)


@pytest.fixture(scope="module")
def prefixes() -> Iterator[str]:
    return (f"parity{number}" for number in range(10**6))


moments = st.integers(0, 40 * 24 * 4).map(lambda quarter: START + dt.timedelta(minutes=15 * quarter))
amounts = st.none() | st.floats(-1e9, 1e9) | st.sampled_from([0.1, 0.2, math.nan, math.inf])
events_of_users = st.lists(
    st.fixed_dictionaries({"user_id": st.sampled_from(["a", "b", "ü\x00"]), "ts": moments, "amount": amounts}),
    min_size=1,
    max_size=12,
)


@given(events=events_of_users, instants=st.lists(moments, min_size=1, max_size=3))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_served_at_an_instant_equals_what_a_training_set_gives_there(
    events: list[dict[str, object]],
    instants: list[dt.datetime],
    prefixes: Iterator[str],
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("parity")
    write(folder, events)
    users = ["a", "b", "ü\x00", "nobody"]
    for at in instants:
        with RedisStore(redis_server.host, redis_server.port, prefix=next(prefixes)) as online_store:
            shop = project(folder, online_store)
            shop.build(online=True, as_of=at)
            labels = pl.DataFrame(
                {"user_id": users, "t": [at] * len(users)}, schema_overrides={"t": pl.Datetime("us", "UTC")}
            )
            for name in ("spend", "newest", "profile"):
                trained = shop.get_training_data([name], labels, timestamp="t").drop("t")
                assert shop.get_online_features([name], labels.select("user_id")).equals(trained)
            for user in users:
                assert agree(online_store.read("spend", {"user_id": user}), expected(events, user, at))
