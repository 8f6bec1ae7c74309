"""The offline store in a bucket: a real S3 API, and what a folder gives as the measure."""

import multiprocessing
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mlforge as mlf
from buckets import Buckets
from mlforge import DefinitionError, Definitions
from mlforge.engines import spilled
from mlforge.errors import RequestError, StoreError
from mlforge.store import LocalStore, ObjectStore, Store

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 1, tzinfo=UTC)
SUM = mlf.Rolling(windows=["7d", "60d"], aggregations={"amount": ["sum", "count"]})


@pytest.fixture(scope="module")
def buckets() -> Iterator[Buckets]:
    with Buckets() as buckets:
        yield buckets


@pytest.fixture
def store(buckets: Buckets, request: pytest.FixtureRequest) -> ObjectStore:
    return ObjectStore(f"s3://features/{request.node.name}", buckets.options())


def events(folder: Path, days: int = 90, changed: int = 0) -> Path:
    at = [START + timedelta(days=day, hours=day % 24) for day in range(days)]
    amounts = [float(day + (1000 if day < changed else 0)) for day in range(days)]
    path = folder / "events.parquet"
    pl.DataFrame({"user": [day % 3 for day in range(days)], "ts": at, "amount": amounts}).write_parquet(path)
    return path


def project(source: Path | str, store: Store) -> Definitions:
    @mlf.feature(keys=["user"], source=source, timestamp="ts", interval="1d", metrics=[SUM])
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    @mlf.feature(keys=["user"], source=source)
    def user(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.group_by("user").agg(pl.col("amount").max())

    return Definitions("shop", features=[spend, user], store=store)


def rows(defs: Definitions, name: str = "spend") -> pl.DataFrame:
    snapshot = defs.store.require(name)
    return snapshot.collect(snapshot.scan()).sort(snapshot.record.index)


def test_a_bucket_holds_what_a_folder_would(tmp_path: Path, store: ObjectStore) -> None:
    there, here = project(events(tmp_path), store), project(events(tmp_path), LocalStore(tmp_path / "store"))
    labels = pl.DataFrame({"user": [0, 1, 2, 9], "at": [START + timedelta(days=day) for day in (3, 40, 80, 80)]})

    def same(what: str) -> None:
        for name in ("spend", "user"):
            assert rows(there, name).equals(rows(here, name)), what
        sets = [
            each.get_training_data(["spend", "user"], labels, timestamp="at", prefix=True) for each in (there, here)
        ]
        assert sets[0].equals(sets[1]), what
        versions = [[version.version for version in each.versions("spend")] for each in (there, here)]
        assert versions[0] == versions[1], what

    for step, arguments in {
        "first": {},
        "skipped": {},
        "changed": {},
        "part": {"start": START, "end": START + timedelta(days=20)},
        "forced": {"force": True},
    }.items():
        events(tmp_path, changed={"changed": 5, "part": 15, "forced": 15}.get(step, 0))
        outcomes = [[report.outcome for report in each.build(**arguments)] for each in (there, here)]
        assert outcomes[0] == outcomes[1], step
        same(step)
    for each in (there, here):
        each.rollback("spend", "1.0.0")
    same("rolled back")
    differences = [each.diff("spend", "1.0.0", "1.0.1") for each in (there, here)]
    assert differences[0].rows_changed == differences[1].rows_changed > 0
    # What no version needs goes away, and a version that lacks files is an error.
    (vacuumed,) = there.vacuum(["spend"], keep=timedelta(0))
    assert vacuumed.files > 0
    with pytest.raises(StoreError, match=r"Version 1\.0\.1 of feature 'spend' cannot be read"):
        there.get_training_data([mlf.FeatureRef("spend", version="1.0.1")], labels, timestamp="at")
    assert rows(there).equals(rows(here))


def build_month(url: str, options: dict[str, str], source: Path, month: int) -> None:
    start = datetime(2026, month, 1, tzinfo=UTC)
    project(source, ObjectStore(url, options)).build(["spend"], start=start, end=start + timedelta(days=28))


def test_processes_that_build_at_once_all_land(tmp_path: Path, buckets: Buckets, store: ObjectStore) -> None:
    url = "s3://features/test_processes_that_build_at_once_all_land"
    project(events(tmp_path), store).build(["spend"])
    context = multiprocessing.get_context("spawn")
    for changed in (10, 70):
        source = events(tmp_path, changed=changed)
        arguments = [(url, buckets.options(), source, month) for month in (1, 2, 3)]
        workers = [context.Process(target=build_month, args=each) for each in arguments]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
        whole = project(source, LocalStore(tmp_path / f"store{changed}"))
        whole.build(["spend"])
        assert rows(project(source, store)).equals(rows(whole))


def test_credentials_are_taken_from_the_environment_and_never_shown(
    tmp_path: Path, buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ObjectStore("s3://features/named", buckets.options())
    assert repr(named) == (
        "ObjectStore('s3://features/named', options: ['aws_access_key_id', 'aws_allow_http', 'aws_endpoint_url', "
        "'aws_region', 'aws_secret_access_key'])"
    )
    for name, value in buckets.environment().items():
        monkeypatch.setenv(name, value)
    source = events(tmp_path)
    buckets.put(source, "events.parquet")
    defs = project("s3://features/events.parquet", ObjectStore("s3://features/environment"))
    assert [report.outcome for report in defs.build()] == ["built", "built"]
    monkeypatch.undo()
    defs = project(source, named)
    defs.build()
    shown = [repr(defs.store.require("spend")), repr(defs.versions("spend")), repr(defs), str(defs.inspect("spend"))]
    shown += [buckets.text(name) for name in buckets.names()]
    assert not [text for text in shown if "S3CRET" in text]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"aws_endpoint_url": "http://127.0.0.1:1"}, "Connection refused"),
        ({"url": "s3://nowhere/x"}, "The specified bucket does not exist"),
    ],
)
def test_what_cannot_be_reached_is_one_line(
    changed: dict[str, str], says: str, tmp_path: Path, buckets: Buckets
) -> None:
    options = buckets.options() | changed
    store = ObjectStore(options.pop("url", "s3://features/x"), options)
    with pytest.raises(StoreError, match=says) as raised:
        project(events(tmp_path), store).build()
    assert "\n" not in str(raised.value)
    assert "S3CRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("/data/store",), "is no place in a bucket: write s3://bucket/prefix"),
        (("s3://",), "is no place in a bucket"),
        (("https://bucket/x",), "is no place in a bucket"),
        (("s3://ann:s3cret@bucket/x",), r"'s3://\*\*\*@bucket/x' has credentials in it"),
        (("s3://bucket/x", {"aws_allow_http": True}), "The storage option 'aws_allow_http' is no text: write 'true'"),
    ],
)
def test_a_place_that_is_none_is_refused(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        ObjectStore(*arguments)


def test_a_file_that_is_gone_is_one_line(tmp_path: Path, buckets: Buckets, store: ObjectStore) -> None:
    defs = project(events(tmp_path), store)
    defs.build(["spend"])
    snapshot = store.require("spend")
    prefix = snapshot.location.removeprefix("s3://features/")
    lost = f"{prefix}/{min(path for paths in snapshot.files.values() for path in paths)}"
    buckets.client.delete_object(Bucket="features", Key=lost)
    labels = pl.DataFrame({"user": [0], "at": [START + timedelta(days=3)]})
    with pytest.raises(
        StoreError, match=r"Version 1\.0\.0 of feature 'spend' cannot be read .*build all of the"
    ) as raised:
        defs.get_training_data(["spend"], labels, timestamp="at")
    assert "\n" not in str(raised.value)
    assert "S3CRET" not in str(raised.value)


def test_a_build_with_a_memory_limit_goes_through_this_machine(
    tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spilled.Spilled, "_at_once", lambda _self, _limit: 20)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    there, here = project(events(tmp_path), store), project(events(tmp_path), LocalStore(tmp_path / "store"))
    part = {"start": START, "end": START + timedelta(days=20)}
    for arguments, changed in (({}, 0), (part, 5), ({"force": True}, 5)):
        events(tmp_path, changed=changed)
        there.build(**arguments, memory_limit="1GB")
        here.build(**arguments)
        assert rows(there).equals(rows(here)), arguments
    assert not [*(tmp_path / "scratch").iterdir()] if (tmp_path / "scratch").exists() else True


def test_a_feature_that_is_not_built_says_so(store: ObjectStore) -> None:
    with pytest.raises(RequestError, match="Feature 'spend' has not been built"):
        project("events.parquet", store).versions("spend")
