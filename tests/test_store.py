"""The offline store on disk: what others read there, what a commit records, and what damage looks like."""

import json
import resource
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, Field, QueryBuilder, TableFeatures, write_deltalake
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction

import mlforge as mlf
from mlforge import Definitions
from mlforge.errors import DefinitionError, RequestError, StoreError
from mlforge.store import LocalStore
from mlforge.store.record import FIELD, BuildRecord

GOLDEN = json.loads((Path(__file__).parent / "golden" / "commit.json").read_text())
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
EVENTS = pl.DataFrame({"user_id": ["a", "a", "b"], "ts": [NOON, NOON + timedelta(1), NOON], "amount": [1.0, 2.0, 4.0]})
SUM = mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum"]})


class Project:
    """A source file, a store, and a windowed and a snapshot feature."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "x.parquet"
        EVENTS.write_parquet(self.source)
        self.store = LocalStore(folder / "store")
        spend = mlf.feature(keys=["user_id"], source=self.source, timestamp="ts", interval="1d", metrics=[SUM])
        user = mlf.feature(keys=["user_id"], source=self.source)
        self.features = [spend(user_spend), user(users)]

    def definitions(self, **arguments: Any) -> Definitions:
        return Definitions(features=self.features, store=self.store, **arguments)

    def build(self, **arguments: Any) -> None:
        self.definitions().build(**arguments)

    def table(self, name: str = "user_spend") -> Path:
        return self.store.path / name


def user_spend(df: pl.LazyFrame) -> pl.LazyFrame:
    return df


def users(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.group_by("user_id").agg(pl.col("amount").max())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_anybody_who_reads_delta_reads_the_history(project: Project) -> None:
    project.build()
    table = DeltaTable(project.table())
    assert table.metadata().partition_columns == ["mlforge_month"]
    assert (table.protocol().min_reader_version, table.protocol().min_writer_version) == (1, 2)
    rows = pl.read_delta(str(project.table())).sort("user_id", "ts")
    assert dict(rows.schema) == {
        "user_id": pl.String,
        "ts": pl.Datetime("us", "UTC"),
        "amount__sum__7d": pl.Float64,
        "amount__sum__30d": pl.Float64,
        "mlforge_month": pl.String,
    }
    day = datetime(2026, 2, 1, tzinfo=UTC)
    assert rows.filter(user_id="b").rows() == [
        ("b", day, 4.0, 4.0, "2026-02"),
        ("b", day + timedelta(7), 0.0, 4.0, "2026-02"),
        ("b", day + timedelta(30), 0.0, 0.0, "2026-03"),
    ]


def test_a_table_is_partitioned_by_the_month_of_the_timestamp(project: Project) -> None:
    project.build()
    folders = sorted(path.name for path in project.table().iterdir() if path.is_dir())
    assert folders == ["_delta_log", "mlforge_month=2026-02", "mlforge_month=2026-03"]
    assert (project.table("users") / "mlforge_month=all").is_dir()


def test_history_is_kept_for_a_century(project: Project) -> None:
    project.build()
    for amount in (5.0, 6.0):
        EVENTS.with_columns(amount=pl.lit(amount)).write_parquet(project.source)
        project.build(force=True)
    table = DeltaTable(project.table())
    assert table.version() == 2
    assert table.metadata().configuration == {"delta.logRetentionDuration": "interval 36500 days"}


def test_earlier_versions_can_be_read(project: Project) -> None:
    project.build()
    before = pl.read_delta(str(project.table("users"))).sort("user_id")
    EVENTS.with_columns(amount=pl.lit(9.0)).write_parquet(project.source)
    project.build()
    assert pl.read_delta(str(project.table("users")), version=0).sort("user_id").equals(before)


def test_a_commit_records_the_build_in_the_frozen_format(project: Project) -> None:
    assert BuildRecord.from_commit(GOLDEN["commit"]) == BuildRecord(
        major=2,
        minor=1,
        base=7,
        definition_hash="0123456789abcdef0123456789abcdef",
        fingerprint="00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        keys=("user_id", "shop"),
        timestamp="ts",
        rows=6,
    )
    record = BuildRecord.from_commit(GOLDEN["commit"])
    assert record is not None
    assert record.to_metadata() == GOLDEN["commit"]
    assert record.version(9) == GOLDEN["version_at_delta_version_9"]


def test_what_a_build_writes_is_the_frozen_format(project: Project) -> None:
    project.build()
    written = json.loads(DeltaTable(project.table()).history(1)[0][FIELD])
    frozen = json.loads(GOLDEN["commit"][FIELD])
    assert len(written.pop("source")) == 16, "which earlier releases do not have"
    assert list(written) == list(frozen)
    assert {name: type(value) for name, value in written.items()} == {n: type(v) for n, v in frozen.items()}
    varying = {name: written[name] for name in ("definition_hash", "fingerprint")}
    assert [len(value) for value in varying.values()] == [32, 64]
    assert written == {
        **varying,
        "format": 1,
        "kind": "full",
        "major": 1,
        "minor": 0,
        "base": 0,
        "keys": ["user_id"],
        "timestamp": "ts",
        "rows": 9,
    }
    snapshot = json.loads(DeltaTable(project.table("users")).history(1)[0][FIELD])
    assert (snapshot["timestamp"], snapshot["rows"]) == (None, 2)


def test_a_snapshot_is_read_at_any_instant(project: Project) -> None:
    project.build()
    spend, user = project.store.open("user_spend"), project.store.open("users")
    assert spend is not None
    assert user is not None
    day = datetime(2026, 2, 1, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    assert spend.at(day - tick).rows() == []
    assert spend.at(day).rows() == [("a", day, 1.0, 1.0), ("b", day, 4.0, 4.0)]
    late = spend.at(datetime(2100, 1, 1, tzinfo=UTC))
    assert late["amount__sum__7d"].to_list() == [0.0, 0.0]
    assert spend.next_change(day - tick) == day
    assert spend.next_change(day) == day + timedelta(1)
    assert spend.next_change(late["ts"].max()) is None  # type: ignore[arg-type]
    assert user.at(day).rows() == user.at(datetime(1970, 1, 1, tzinfo=UTC)).rows() == [("a", 2.0), ("b", 4.0)]
    assert user.next_change(day) is None
    assert dict(spend.value_schema) == {"amount__sum__7d": pl.Float64, "amount__sum__30d": pl.Float64}


def test_a_snapshot_stays_at_its_version(project: Project) -> None:
    project.build()
    opened = project.store.open("users")
    assert opened is not None
    EVENTS.with_columns(amount=pl.lit(9.0)).write_parquet(project.source)
    project.build()
    assert (opened.version, opened.at(NOON)["amount"].to_list()) == ("1.0.0", [2.0, 4.0])
    newer = project.store.open("users")
    assert newer is not None
    assert (newer.version, newer.table_id) == ("1.0.1", opened.table_id)


def test_upkeep_by_others_changes_neither_rows_nor_record(project: Project) -> None:
    project.build()
    before = project.store.open("user_spend")
    table = DeltaTable(project.table())
    for number in range(12):
        table.alter.set_table_properties({"delta.checkpointInterval": str(number + 5)})
    table.optimize.compact()
    after = project.store.open("user_spend")
    assert before is not None
    assert after is not None
    assert after.record == before.record
    assert after.at(NOON + timedelta(9)).equals(before.at(NOON + timedelta(9)))
    assert [report.outcome for report in project.definitions().build()] == ["skipped", "skipped"]
    assert [report.outcome for report in project.definitions().build(force=True)] == ["unchanged", "unchanged"]


def test_a_column_of_another_kind_is_read_back_after_the_schema_changed(project: Project) -> None:
    project.build()
    EVENTS.with_columns(amount=pl.lit("x")).write_parquet(project.source)
    Definitions(features=project.features[1:], store=project.store).build()
    assert pl.read_delta(str(project.table("users")))["amount"].to_list() == ["x", "x"]


@pytest.mark.parametrize("name", ["feature store", "späße", "a{b}c", "a'b\"c", "a*b", "🎈", ".hidden", "a+b&c;d,e"])
def test_a_store_may_be_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    source = tmp_path / name / "table"
    source.parent.mkdir()
    write_deltalake(source.as_uri(), EVENTS)
    store = LocalStore(tmp_path / name / "store")
    feature = mlf.feature(keys=["user_id"], source=source)(users)
    definitions = Definitions(features=[feature], store=store)
    assert [definitions.build(force=force)[0].outcome for force in (False, False, True)] == [
        "built",
        "skipped",
        "unchanged",
    ]
    frame = definitions.get_training_data(["users"], pl.DataFrame({"user_id": ["b"]}))
    assert frame.rows() == [("b", 4.0)]
    assert (tmp_path / name / "store" / "users" / "_delta_log").is_dir()


@pytest.mark.parametrize("character", "%=[]^|#?\\\n")
def test_a_folder_that_delta_cannot_deal_with_is_refused_at_once(character: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        LocalStore(tmp_path / f"a{character}b")
    assert f"because of the {character!r}: rename the folder" in str(caught.value)


def test_a_relative_store_is_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore("store")
    monkeypatch.chdir("/")
    assert store.path == tmp_path / "store"
    assert repr(store) == f"LocalStore(path={str(tmp_path / 'store')!r})"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LocalStore("~/x").path == tmp_path / "x"


def test_a_store_where_nothing_can_be_written_says_so(project: Project, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        definitions = Definitions(features=project.features, store=LocalStore(path))
        with pytest.raises(StoreError, match=f"The store '{path}' cannot be written: "):
            definitions.build()


def test_a_feature_that_is_not_built_is_an_error_with_the_command(project: Project) -> None:
    with pytest.raises(RequestError, match="Feature 'users' has not been built: run `mlforge build --features users`"):
        project.definitions().get_training_data(["users"], pl.DataFrame({"user_id": ["a"]}))


def test_a_table_of_somebody_else_is_left_alone(project: Project) -> None:
    write_deltalake(project.table(), EVENTS)
    asks: list[Callable[[], object]] = [project.build, lambda: project.store.open("user_spend")]
    for ask in asks:
        with pytest.raises(
            StoreError, match=f"'{project.table()}' is a Delta table that mlforge did not write: move it"
        ):
            ask()
    assert DeltaTable(project.table()).version() == 0


def test_a_folder_that_is_no_table_becomes_one(project: Project) -> None:
    project.table("users").mkdir(parents=True)
    (project.table("users") / "notes.txt").write_text("mine")
    project.build()
    assert (project.table("users") / "notes.txt").read_text() == "mine"


def log_of(table: Path) -> Path:
    return table / "_delta_log" / "00000000000000000000.json"


def spoil(old: str, new: str) -> Callable[[Path], object]:
    def change(table: Path) -> None:
        text = log_of(table).read_text()
        assert old in text
        log_of(table).write_text(text.replace(old, new))

    return change


def replace_by_file(table: Path) -> None:
    shutil.rmtree(table)
    table.touch()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda table: log_of(table).write_text("no json"), "cannot be read: "),
        (lambda table: log_of(table).write_text(""), "cannot be read: "),
        (replace_by_file, "cannot be read: "),
        (spoil('\\"format\\":1', '\\"format\\":2'), "cannot be read: it was written by a later mlforge"),
        (spoil('\\"format\\":1', '\\"form\\":1'), "no record of a build"),
        (spoil('\\"major\\":1', '\\"mayor\\":1'), "no record of a build"),
        (spoil('"mlforge":"{', '"mlforge":"{{'), "no record of a build"),
        (spoil('"mlforge":"{', '"mlforge":"[1]{'), "no record of a build"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_named_and_left_alone(damage: Callable[[Path], object], says: str, project: Project) -> None:
    project.build()
    damage(project.table("users"))
    definitions = project.definitions()
    asks: list[Callable[[], object]] = [
        lambda: definitions.build(["users"]),
        lambda: definitions.get_training_data(["users"], pl.DataFrame({"user_id": ["a"]})),
    ]
    for ask in asks:
        with pytest.raises(StoreError) as caught:
            ask()
        assert f"The table '{project.table('users')}' of feature 'users' {says}"[:60] in str(caught.value)
        assert says in str(caught.value)


def test_a_file_that_is_gone_is_an_error_with_the_way_out(project: Project) -> None:
    project.build()
    for file in project.table("users").rglob("*.parquet"):
        file.unlink()
    snapshot = project.store.open("users")
    assert snapshot is not None
    asks: list[Callable[[], object]] = [
        lambda: project.definitions().get_training_data(["users"], pl.DataFrame({"user_id": ["a"]})),
        lambda: snapshot.at(NOON),
    ]
    for ask in asks:
        with pytest.raises(StoreError) as caught:
            ask()
        assert "Version 1.0.0 of feature 'users' cannot be read from the table" in str(caught.value)
        assert "`mlforge build --features users --force`" in str(caught.value)
    project.build(features=["users"], force=True)
    assert project.store.open("users") is not None
    assert project.definitions().get_training_data(["users"], pl.DataFrame({"user_id": ["a"]}))["amount"][0] == 2.0


def test_the_engine_of_delta_reads_every_kind_of_column(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "user": ["a", "b", "ü"],
            "ts": [NOON, NOON + timedelta(40), NOON + timedelta(microseconds=1)],
            "text": ["x", None, ""],
            "whole": [1, None, -(2**63)],
            "half": [0.5, None, -0.0],
            "yes": [True, None, False],
            "day": [NOON.date(), None, NOON.date()],
            "price": pl.Series(["1.25", None, "-3.00"], dtype=pl.String).cast(pl.Decimal(20, 2)),
            "list": [[1, None], None, []],
            "struct": [{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}],
        }
    )
    rows.write_parquet(tmp_path / "x.parquet")
    feature = mlf.feature(keys=["user"], source=tmp_path / "x.parquet", timestamp="ts")(user_spend)
    store = LocalStore(tmp_path)
    Definitions(features=[feature], store=store).build()
    query = QueryBuilder().register("t", DeltaTable(store.table_uri("user_spend")))
    read = pl.DataFrame(query.execute("select * from t")).drop("mlforge_month").sort("user")
    assert read.equals(rows)
    snapshot = store.require("user_spend")
    assert snapshot.collect(snapshot.scan()).sort("user").equals(rows)


def test_columns_in_another_order_are_the_same_columns(project: Project) -> None:
    events = {"user_id": ["a", "a"], "ts": [NOON, NOON + timedelta(40)], "m": [1.0, 2.0], "n": [3, 4]}
    pl.DataFrame(events).write_parquet(project.source)

    def built(order: list[str]) -> list[tuple[Any, ...]]:
        @mlf.feature(keys=["user_id"], source=project.source, timestamp="ts")
        def f(df: pl.LazyFrame) -> pl.LazyFrame:
            return df.select("user_id", "ts", *order)

        Definitions(features=[f], store=project.store).build()
        snapshot = project.store.require("f")
        return snapshot.collect(snapshot.scan().sort("ts").select("m", "n")).rows()

    assert built(["m", "n"]) == [(1.0, 3), (2.0, 4)]
    pl.DataFrame(events | {"m": [1.0, 5.0]}).write_parquet(project.source)
    # Only one month is written, and the other one's columns are in the order from before.
    assert built(["n", "m"]) == [(1.0, 3), (5.0, 4)]
    assert DeltaTable(project.table("f")).get_add_actions().num_rows == 2


def test_a_table_that_others_have_upgraded_is_read(project: Project) -> None:
    project.build()
    table = DeltaTable(project.table())
    table.alter.add_feature(TableFeatures.DeletionVectors, allow_protocol_versions_increase=True)
    snapshot = project.store.require("user_spend")
    assert snapshot.table.protocol().min_reader_version == 3
    assert snapshot.collect(snapshot.scan()).height == snapshot.row_count


def test_a_disk_that_is_full_is_one_line_and_leaves_no_file_behind(project: Project) -> None:
    days = pl.select(user_id=pl.lit("a"), ts=pl.lit(NOON) + pl.duration(days=pl.int_range(3)), n=1)
    many = pl.select(user_id=pl.int_range(20_000).hash().cast(pl.String), ts=pl.lit(NOON + timedelta(40)), n=2)
    days.write_parquet(project.source)
    feature = mlf.feature(keys=["user_id"], source=project.source, timestamp="ts")(user_spend)
    definitions = Definitions(features=[feature], store=project.store)
    definitions.build()
    before = sorted(project.table().rglob("*.parquet"))
    pl.concat([days.head(1), many]).write_parquet(project.source)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(
            StoreError, match=r"The table '.*' of feature 'user_spend' cannot be written: .*File too large"
        ):
            definitions.build()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(project.table().rglob("*.parquet")) == before
    assert definitions.build()[0].rows == 20_001


def test_what_others_note_about_a_column_and_ask_of_it_stays(project: Project) -> None:
    project.build()
    path = str(project.table())
    DeltaTable(path).alter.set_column_metadata("amount__sum__7d", {"comment": "money"})
    EVENTS.with_columns(pl.col("amount") + (pl.col("user_id") == "b").cast(float)).write_parquet(project.source)
    project.build()
    (column,) = [field for field in DeltaTable(path).schema().fields if field.name == "amount__sum__7d"]
    assert column.metadata == {"comment": "money"}
    DeltaTable(path).alter.add_constraint({"not_too_much": "amount__sum__7d < 100"})
    project.build()
    EVENTS.write_parquet(project.source)
    project.build()
    assert set(pl.read_delta(path).filter(user_id="b")["amount__sum__30d"]) == {4.0, 0.0}
    EVENTS.with_columns(pl.col("amount") * 100).write_parquet(project.source)
    with pytest.raises(StoreError, match=r"cannot be written: .*validation check"):
        project.build()
    assert set(pl.read_delta(path).filter(user_id="b")["amount__sum__30d"]) == {4.0, 0.0}


def test_a_column_that_others_have_added_is_null_where_it_was_not_yet(project: Project) -> None:
    project.build()
    table = DeltaTable(project.table())
    table.alter.add_columns([Field("note", PrimitiveType("string"), nullable=True)])
    snapshot = project.store.require("user_spend")
    assert snapshot.collect(snapshot.scan())["note"].null_count() == snapshot.row_count
    # The feature does not have it: a build takes it away again.
    assert project.definitions().build(["user_spend"], force=True)[0].version == "2.0.0"
    assert "note" not in project.store.require("user_spend").schema


def test_times_that_others_have_written_in_another_unit_are_the_same_times(project: Project) -> None:
    project.build()
    table = DeltaTable(project.table())
    before = project.store.require("user_spend")
    rows = before.collect(before.scan())
    rows.with_columns(pl.col("ts").dt.cast_time_unit("ms")).write_parquet(project.table() / "theirs.parquet")
    size = (project.table() / "theirs.parquet").stat().st_size
    theirs = AddAction("theirs.parquet", size, {"mlforge_month": "2026-02"}, 0, True, json.dumps({"numRecords": 9}))
    table.create_write_transaction([theirs], "overwrite", table.schema(), "mlforge_month")
    after = project.store.require("user_spend")
    assert after.collect(after.scan()).equals(rows)
