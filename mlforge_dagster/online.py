"""Where a step goes online, and how it does."""

import dagster as dg

from mlforge.core import Definitions
from mlforge.errors import DefinitionError, RequestError
from mlforge.features import Feature
from mlforge.memory import as_bytes
from mlforge.online import OnlineStore
from mlforge.sync import SyncReport, SyncRequest, sync
from mlforge_dagster.resources import RedisStoreResource

# What the resource with the online store is called.
ONLINE_STORE = "online_store"
Context = dg.OpExecutionContext | dg.AssetExecutionContext | dg.SensorEvaluationContext


def online_store_of(given: OnlineStore | RedisStoreResource, context: Context) -> OnlineStore:
    """The store itself; a resource is taken from the context of the step or sensor, which has configured it."""
    if isinstance(given, OnlineStore):
        return given
    resource: RedisStoreResource = getattr(context.resources, ONLINE_STORE)
    return resource.get_store()


def resource_keys(store: OnlineStore | RedisStoreResource) -> set[str]:
    """The resources that a step or a sensor needs for it."""
    return {ONLINE_STORE} if isinstance(store, RedisStoreResource) else set()


def keeps_status(store: OnlineStore | RedisStoreResource) -> bool:
    """Whether a store says what it holds; one that has just the four methods does not."""
    return isinstance(store, RedisStoreResource) or type(store).status is not OnlineStore.status


class OnlineConfig(dg.Config):
    """How a run goes online, to be given in the launchpad or as run config.

    Attributes:
        allow_breaking: Also where columns that are there went away or have other types (another MAJOR version).
        full: Every entity, not only those whose values differ.
        force: Also back to an earlier version or instant, and over what another project has written.
    """

    allow_breaking: bool = False
    full: bool = False
    force: bool = False


CONFIG_FIELDS = OnlineConfig.to_fields_dict()


def written(
    defs: Definitions, feature: Feature, store: OnlineStore, config: OnlineConfig, memory_limit: str | None = None
) -> SyncReport:
    """Makes a store hold what holds now of a feature.

    Args:
        defs: The project.
        feature: The feature.
        store: The store.
        config: How.
        memory_limit: How much memory it may take; None: what the project says.

    Raises:
        dg.Failure: What is online is of a later version or instant, or going online has to be allowed first.
    """
    limit = memory_limit or defs.memory_limit
    request = SyncRequest(
        feature_name=feature.name,
        as_of=defs.as_of,
        allow_breaking=config.allow_breaking,
        full=config.full,
        force=config.force,
        memory_limit=None if limit is None else as_bytes(limit),
    )
    try:
        report = sync(request, defs.store, store)
    except (DefinitionError, RequestError) as error:
        # Somebody has to decide; trying again does not help.
        raise dg.Failure(str(error), allow_retries=False) from error
    if report.mode == "stale":
        raise dg.Failure(f"Feature {feature.name!r} is not written: {report.reason}.", allow_retries=False)
    return report
