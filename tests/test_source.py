"""Sources: files of every format, and what a user makes."""

import http.server
import json
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

import mlforge as mlf
from computing import rows_of
from mlforge.errors import DataError
from mlforge.source import FileSource
from mlforge.store import LocalStore

FRAME = pl.DataFrame({"k": ["a", "b"], "n": [1, 2]})


def write(path: Path, frame: pl.DataFrame = FRAME) -> Path:
    match path.suffix:
        case ".parquet" | ".pq":
            frame.write_parquet(path)
        case ".csv":
            frame.write_csv(path)
        case ".gz":
            frame.write_csv(path, compression="gzip")
        case ".ndjson" | ".jsonl":
            frame.write_ndjson(path)
        case _:
            write_deltalake(path, frame)
    return path


def refused(source: FileSource, says: str) -> None:
    """Neither a build nor `mlforge list sources`, which look at different things, takes it for one that can be read."""
    for look in (source.scan, source.fingerprint):
        with pytest.raises(DataError, match=says):
            look()


FILES = ["x.parquet", "x.pq", "x.csv", "x.csv.gz", "x.ndjson", "x.jsonl", "X.PARQUET", "table", "a b.csv"]


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write(path.with_suffix(path.suffix.lower())).rename(path)
    assert FileSource(path).scan().collect().equals(FRAME)
    assert FileSource(str(path)).scan().select("n").collect()["n"].to_list() == [1, 2]


@pytest.mark.parametrize("name", ["x[1].parquet", "x*.csv", "x?.ndjson"])
def test_a_file_whose_name_looks_like_a_glob_is_that_file(name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    write(tmp_path / f"xz{Path(name).suffix}", FRAME.head(1))
    assert FileSource(tmp_path / name).scan().collect().equals(FRAME)


def test_a_glob_is_all_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("2", "1", "3"):
        write(tmp_path / f"{name}.parquet", pl.DataFrame({"k": [name]}))
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "4.parquet", pl.DataFrame({"k": ["4"]}))
    assert FileSource(tmp_path / "*.parquet").scan().collect()["k"].to_list() == ["1", "2", "3"]
    assert FileSource(tmp_path / "**" / "*.parquet").scan().collect()["k"].sort().to_list() == ["1", "2", "3", "4"]


def test_a_list_may_mix_formats_and_globs(tmp_path: Path) -> None:
    write(tmp_path / "1.csv")
    write(tmp_path / "2.parquet")
    write(tmp_path / "table")
    source = FileSource([str(tmp_path / "*.csv"), tmp_path / "2.parquet", tmp_path / "table"])
    assert source.scan().collect()["n"].to_list() == [1, 2] * 3


def test_dates_and_times_in_csv_are_parsed(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("day,at\n2026-01-31,2026-01-31T12:00:00\n")
    assert FileSource(tmp_path / "x.csv").scan().collect_schema() == {"day": pl.Date, "at": pl.Datetime("us")}


def test_a_relative_path_starts_at_the_working_directory_and_a_tilde_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FileSource("x.parquet").scan().collect().equals(FRAME)
    assert FileSource("~/x.parquet").scan().collect().equals(FRAME)
    assert FileSource("*.parquet").fingerprint() == FileSource("~/x.parquet").fingerprint()


def test_a_missing_file_is_named_with_the_place_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for read in (FileSource("no/x.parquet").scan, FileSource("no/x.parquet").fingerprint):
        with pytest.raises(DataError) as caught:
            read()
        assert str(caught.value) == (
            f"The source 'no/x.parquet' does not exist (looked for '{tmp_path / 'no' / 'x.parquet'}')."
        )


def test_a_glob_that_finds_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No file matches the source '.*x\*\.csv'"):
        FileSource(tmp_path / "x*.csv").scan()


@pytest.mark.parametrize("name", ["x.txt", "x", "x.xlsx", "parquet"])
def test_an_unknown_ending_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("k\n1\n")
    refused(FileSource(tmp_path / name), rf"The ending of the source '.*{name}' is none of \.parquet, \.csv")
    refused(FileSource(f"https://host/{name}"), rf"The ending of the source 'https://host/{name}' is none of")


@pytest.mark.parametrize("name", ["x.csv", "x.ndjson", "x.parquet"])
def test_a_file_of_no_bytes_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    refused(FileSource(tmp_path / name), rf"The source '.*{name}' is an empty file")


def test_a_folder_that_is_no_table_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    refused(FileSource(tmp_path), r"is a folder but no Delta table: write a glob such as '.*/\*\.parquet'")


def without_log(table: Path) -> None:
    for commit in (table / "_delta_log").iterdir():
        commit.unlink()


def cut(table: Path) -> None:
    (commit,) = (table / "_delta_log").glob("*.json")
    commit.write_text(commit.read_text()[:200])


def future(table: Path) -> None:
    (commit,) = (table / "_delta_log").glob("*.json")
    lines = [json.loads(line) for line in commit.read_text().splitlines()]
    features = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["new"], "writerFeatures": ["new"]}
    lines = [{"protocol": features} if "protocol" in line else line for line in lines]
    commit.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("damage", [without_log, cut, future])
def test_a_damaged_table_is_one_line_with_its_name(damage: Callable[[Path], None], tmp_path: Path) -> None:
    damage(write(tmp_path / "table"))
    refused(FileSource(tmp_path / "table"), rf"^The source '{tmp_path}/table' cannot be read: [^\n]*\.$")


def test_a_link_that_leads_nowhere_is_one_line_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.csv").symlink_to("gone.csv")
    refused(
        FileSource(tmp_path / "*.csv"), rf"^The source '{tmp_path}/x.csv' cannot be read: No such file or directory\.$"
    )


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "1.parquet")
    source = FileSource(tmp_path / "*.parquet")
    first = source.fingerprint()
    assert source.fingerprint() == first
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    touched = source.fingerprint()
    write(tmp_path / "2.parquet")
    more = source.fingerprint()
    (tmp_path / "2.parquet").rename(tmp_path / "3.parquet")
    assert len({first, touched, more, source.fingerprint()}) == 4


def test_the_fingerprint_of_a_delta_table_is_its_version(tmp_path: Path) -> None:
    source = FileSource(write(tmp_path / "table"))
    first = source.fingerprint()
    assert source.fingerprint() == first
    write_deltalake(tmp_path / "table", FRAME, mode="append")
    assert source.fingerprint() != first
    assert source.scan().collect().height == 4


def test_a_url_has_no_fingerprint_and_is_not_looked_for_here() -> None:
    source = FileSource("s3://bucket/*.parquet")
    assert source.fingerprint() is None
    assert isinstance(source.scan(), pl.LazyFrame)


def test_a_source_of_ones_own_needs_only_scan() -> None:
    class Fixed(mlf.Source):
        def scan(self) -> pl.LazyFrame:
            return FRAME.lazy()

    assert Fixed().fingerprint() is None
    assert Fixed().scan().collect().equals(FRAME)


def test_a_source_without_scan_says_what_it_lacks() -> None:
    class Nothing(mlf.Source):
        pass

    with pytest.raises(TypeError, match=r"Nothing has to define scan\(\), which returns a polars\.LazyFrame"):
        Nothing().scan()


def test_the_password_in_a_url_does_not_show() -> None:
    shown = repr(FileSource("https://user:s3cr3t@host/x.parquet"))
    assert shown == "FileSource('https://***@host/x.parquet')"


class Files(http.server.BaseHTTPRequestHandler):
    """Serves one file, in parts as object stores do, to those who sign for it."""

    content = b""

    def do_GET(self) -> None:
        if "sig=s3cretsig" not in self.path:
            self.send_error(403)
            return
        first, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
        size = len(self.content)
        start, end = (
            (max(0, size - int(last)), size - 1) if not first else (int(first), min(int(last or size), size - 1))
        )
        part = self.content[start : end + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    FRAME.write_parquet(tmp_path / "two.parquet")
    handler = type("Two", (Files,), {"content": (tmp_path / "two.parquet").read_bytes()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_signed_url_is_read(address: str) -> None:
    assert FileSource(f"http://{address}/two.parquet?sig=s3cretsig").scan().collect().equals(FRAME)


@pytest.mark.parametrize("url", ["http://ann:s3cret@{}/a/two.parquet", "http://{}/two.parquet?sig=s3cret&z=/b.parquet"])
def test_what_a_url_hides_is_not_in_what_is_said_when_it_cannot_be_read(url: str, address: str, tmp_path: Path) -> None:
    @mlf.feature(keys=["k"], source=url.format(address))
    def f(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    definitions = mlf.Definitions("p", features=[f], store=LocalStore(tmp_path / "store"))
    with pytest.raises(DataError, match=r"Feature 'f', which reads .*: ") as caught:
        definitions.build()
    said = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in said
    (report,) = definitions.validate()
    assert report.problem
    assert "s3cret" not in report.problem
    with pytest.raises(DataError, match="labels") as caught:
        definitions.get_training_data([], url.format(address))
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))

    @mlf.feature(keys=["k"], source=url.format(address))
    def eager(df: pl.LazyFrame) -> pl.DataFrame:
        return df.collect()

    with pytest.raises(DataError, match="Feature 'eager'") as caught:
        mlf.Definitions("p", features=[eager], store=LocalStore(tmp_path / "store")).build()
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("length", range(240, 300, 7))
def test_a_secret_is_hidden_where_a_line_is_cut_off_in_it(length: int) -> None:
    url = "https://host/x.parquet?sig=S3CRETS1GNATURE"

    @mlf.feature(keys=["user"], source=url)
    def user(df: pl.LazyFrame) -> pl.LazyFrame:
        raise OSError("e" * length + url + " and more")

    with pytest.raises(DataError) as raised:
        rows_of(user, FileSource(url))
    assert "S3" not in str(raised.value)
