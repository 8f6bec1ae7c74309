"""What is online of a feature as an op, for jobs that are composed by hand."""

import dagster as dg

from mlforge.core import Definitions
from mlforge.online import OnlineStore
from mlforge_dagster import metadata
from mlforge_dagster.online import OnlineConfig, online_store_of, resource_keys, written
from mlforge_dagster.resources import RedisStoreResource


def write_batch_op(
    defs: Definitions,
    feature: str,
    *,
    online_store: OnlineStore | RedisStoreResource | None = None,
    name: str | None = None,
) -> dg.OpDefinition:
    """An op that makes the online store hold what holds now of a feature; it reads the offline table itself.

    ```python
    online = RedisStoreResource(host="redis.internal")
    write = write_batch_op(defs, "user_spend", online_store=online)


    @dg.op
    def what_goes_before(): ...


    @dg.job(resource_defs={"online_store": online})
    def publish():
        write(start=what_goes_before())
    ```

    Args:
        defs: The project.
        feature: The name of the feature.
        online_store: Where to write, instead of `defs.online_store`. A resource has to be among those of the job as
            `"online_store"`.
        name: The op's name; `write_{feature}` by default.

    Returns:
        An op with an input `start` that has no value, to be put after others.

    Raises:
        RequestError: There is no such feature, or no online store.
    """
    chosen = defs.feature(feature)
    given = defs.require_online_store() if online_store is None else online_store

    @dg.op(
        name=name or f"write_{feature}",
        description=f"Makes the online store hold what holds now of {feature}.",
        ins={"start": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        required_resource_keys=resource_keys(given),
    )
    def write(context: dg.OpExecutionContext, config: OnlineConfig) -> None:
        report = written(defs, chosen, online_store_of(given, context), config)
        context.add_output_metadata(metadata.of_sync(report))

    return write
