"""Building several features, one after the other, offline and online."""

import dataclasses
import datetime as dt
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlforge import clock
from mlforge.build import BuildReport, Means, build, look
from mlforge.duration import microseconds
from mlforge.engines import Engine, Engines
from mlforge.errors import MlforgeError, RequestError
from mlforge.features import EngineName, Feature
from mlforge.instant import Moment, instant
from mlforge.memory import as_bytes
from mlforge.online.base import OnlineStore
from mlforge.span import Span
from mlforge.standing import Wanted
from mlforge.store.base import Store
from mlforge.sync import SyncReport, SyncRequest, sync

# How late events are taken to come at most.
LOOK_BACK = "1d"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What a build is asked to do; the attributes are the parameters of `Definitions.build`.

    Raises:
        RequestError: It asks for things that cannot be together.
    """

    online: bool = False
    as_of: Moment | None = None
    start: Moment | None = None
    end: Moment | None = None
    incremental: bool = False
    look_back: str | None = None
    force: bool = False
    full: bool = False
    allow_breaking: bool = False
    dry_run: bool = False
    memory_limit: str | None = None
    engine: Engine | EngineName | None = None

    def __post_init__(self) -> None:
        about_online = {
            "as_of": self.as_of is not None,
            "full": self.full,
            "allow_breaking": self.allow_breaking,
            "dry_run": self.dry_run,
        }
        if not self.online and (given := [name for name, there in about_online.items() if there]):
            raise RequestError(f"{given[0]} is about what goes online: ask for online=True (--online) as well.")
        if self.start is None and self.end is not None:
            raise RequestError("An end alone does not say which events are new: write start as well.")
        if self.incremental and self.start is not None:
            raise RequestError("incremental finds out by itself which events are new: leave start and end out.")
        if self.look_back is not None and not self.incremental:
            raise RequestError("look_back is about what is built incrementally: ask for incremental=True as well.")

    @property
    def wanted(self) -> Wanted:
        """Which events may be new or have changed.

        Raises:
            RequestError: Something is no instant, or the end is not after the start.
            DefinitionError: `look_back` is no duration.
        """
        if self.start is not None:
            end = None if self.end is None else instant(self.end)
            return Wanted(events=Span(start=instant(self.start), end=end))
        if self.incremental:
            length = LOOK_BACK if self.look_back is None else self.look_back
            return Wanted(look_back=dt.timedelta(microseconds=microseconds(length)))
        return Wanted()


def builds(
    features: Sequence[Feature],
    request: BuildRequest,
    store: Store,
    online_store: OnlineStore | None,
    engines: Engines,
    as_of: dt.datetime | None,
) -> Iterator[BuildReport]:
    """Builds features as they are asked for, and those of an online build syncs.

    Args:
        features: Each after those that it reads.
        request: What to do.
        store: Where the tables are.
        online_store: Where to go online; None: nowhere.
        engines: What runs the functions.
        as_of: The instant whose values go online; None: now, or that of what is online.

    Raises:
        RequestError: At once, where the request cannot be right.
    """
    wanted = request.wanted
    limit = None if request.memory_limit is None else as_bytes(request.memory_limit)
    asked = SyncRequest(
        feature_name="",
        as_of=as_of if request.as_of is None else instant(request.as_of),
        # One for all features, so that they hold at the same instant.
        now=clock.now(),
        full=request.full,
        force=request.force,
        allow_breaking=request.allow_breaking,
        dry_run=request.dry_run,
        memory_limit=limit,
    )

    def one_by_one() -> Iterator[BuildReport]:
        for feature in features:
            began = time.perf_counter()
            if asked.dry_run:
                report = look(feature, store, wanted)
            else:
                means = Means(engine=engines.of(feature), memory_limit=limit)
                report = build(feature, store, means, wanted, force=asked.force)
            if online_store is not None:
                named = dataclasses.replace(asked, feature_name=feature.name)
                synced = _sync(named, report.version, store, online_store)
                report = dataclasses.replace(report, online=synced, seconds=time.perf_counter() - began)
            yield report

    return one_by_one()


def _sync(request: SyncRequest, version: str, store: Store, online_store: OnlineStore) -> SyncReport:
    try:
        return sync(request, store, online_store)
    except MlforgeError as error:
        error.add_note(f"(Feature {request.feature_name!r} is built offline as {version}, and not copied online.)")
        raise
