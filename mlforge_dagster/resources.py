"""The online store as a Dagster resource, which works without Dagster as well."""

from collections.abc import Collection
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field, PrivateAttr

from mlforge.errors import DefinitionError, did_you_mean
from mlforge.online import RedisStore


class RedisStoreResource(dg.ConfigurableResource[RedisStore]):
    """A `RedisStore` that is configured where Dagster configures things; the same line works in a script.

    Each field is the parameter of `RedisStore` of the same name. `dg.EnvVar` in a text and `dg.EnvVar.int` in a number
    are looked up when the store is made, with Dagster and without. Nothing is connected before it is first used, and
    nothing has to be closed.

    >>> RedisStoreResource(host="redis.internal", ttl=3600).get_store()
    RedisStore(host='redis.internal', port=6379, db=0, ttl=3600, prefix='mlforge')
    """

    host: str = Field(default="localhost", description="Where the server is.")
    port: int = Field(default=6379, description="Its TCP port.")
    db: int = Field(default=0, description="The number of the database.")
    password: str | None = Field(
        default=None, repr=False, description="For servers that want one; write dg.EnvVar(...)."
    )
    ttl: int | None = Field(default=None, description="Seconds after which values go away; left out, they stay.")
    prefix: str = Field(default="mlforge", description="What all keys begin with.")
    username: str | None = Field(default=None, description="For servers with ACL users.")
    ssl: bool = Field(default=False, description="Speak TLS.")
    ssl_options: dict[str, Any] | None = Field(default=None, repr=False, description="redis-py's own ssl_* settings.")
    connect_timeout: float = Field(default=5.0, description="Seconds until an unreachable server is an error.")
    timeout: float = Field(default=5.0, description="Seconds until a server that does not answer is an error.")
    wait_replicas: int = Field(default=0, description="How many replicas have to have everything that was written.")

    def __init__(self, **fields: Any) -> None:
        require_fields("A RedisStoreResource", type(self), fields)
        super().__init__(**fields)

    _store: RedisStore | None = PrivateAttr(default=None)

    def get_store(self) -> RedisStore:
        """The store, which is made at the first call.

        Raises:
            mlforge.DefinitionError: A field cannot be right, or a variable of the environment is not set.
        """
        if self._store is None:
            self._store = RedisStore(**{name: looked_up(getattr(self, name)) for name in type(self).model_fields})
        return self._store

    def read(self, feature_name: str, entity_keys: dict[str, str]) -> dict[str, Any] | None:
        """As `RedisStore.read`."""
        return self.get_store().read(feature_name, entity_keys)

    def read_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
        """As `RedisStore.read_batch`."""
        return self.get_store().read_batch(feature_name, entity_keys)

    def write_batch(
        self, feature_name: str, records: list[dict[str, Any]] | pl.DataFrame, entity_key_columns: list[str]
    ) -> None:
        """As `RedisStore.write_batch`; a frame is written as its rows."""
        rows = records.to_dicts() if isinstance(records, pl.DataFrame) else records
        self.get_store().write_batch(feature_name, rows, entity_key_columns)


def require_fields(what: str, resource: type[dg.ConfigurableResource[Any]], fields: Collection[str]) -> None:
    """Refuses fields that a resource does not have in one line; Dagster takes many."""
    if unknown := [name for name in fields if name not in resource.model_fields]:
        hint = did_you_mean(unknown[0], resource.model_fields)
        raise DefinitionError(f"{what} has no field {unknown[0]!r}{hint}")


def looked_up(value: Any) -> Any:
    """What a field holds; in a run Dagster has looked up the environment already."""
    if isinstance(value, dict):
        return {name: looked_up(each) for name, each in value.items()}
    # EnvVar, and what EnvVar.int makes, a class that Dagster does not export.
    if not hasattr(value, "env_var_name"):
        return value
    try:
        found = value.get_value()
    except ValueError as error:
        raise DefinitionError(f"The environment variable {value.env_var_name!r} is no whole number.") from error
    if found is None:
        raise DefinitionError(f"The environment variable {value.env_var_name!r} is not set.")
    return found
