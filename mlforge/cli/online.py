"""`mlforge read` and `mlforge key`: what is online for an entity, and where."""

import shlex
from typing import TYPE_CHECKING, Any

from cyclopts import App

from mlforge.cli import output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlforge.features import Feature
    from mlforge.online import OnlineStore, Status

READ_EXAMPLES = """Examples:
  mlforge read user_spend user_id=123
  mlforge read basket_size store_id=7 day=2026-01-31 --json"""
KEY_EXAMPLES = "Example: mlforge key user_spend user_id=123"


def register(app: App) -> None:
    """Adds the commands."""
    app.command(read, usage="Usage: mlforge read FEATURE KEY=VALUE... [OPTIONS]", help_epilogue=READ_EXAMPLES)
    app.command(key, usage="Usage: mlforge key FEATURE KEY=VALUE... [OPTIONS]", help_epilogue=KEY_EXAMPLES)


def read(
    feature: str,
    /,
    *entity: str,
    definitions: str | None = None,
    json: bool = False,
) -> int:
    """Show what is online for an entity; the exit code is 1 where there is nothing.

    Args:
        feature: The name of the feature.
        entity: The keys of the entity, as in user_id=123.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON object; its values are null where there is nothing.
    """
    with output.working("reading"):
        store, keys = _asked(feature, entity, definitions)
        values = store.read(feature_name=feature, entity_keys=keys)
        status = store.status(feature)
    if json:
        output.write_json({"feature": feature, "entity": keys, "values": values, **account(status)})
    elif values is None:
        output.write(f"{feature} has nothing online for {shown(keys)}. {hint(feature, store, status)}")
    else:
        rows = [{feature: name, shown(keys): text(value)} for name, value in values.items()]
        output.write_table(rows or [{feature: "", shown(keys): ""}], numbers={shown(keys)})
        output.write(hint(feature, store, status))
    return 1 if values is None else 0


def key(
    feature: str,
    /,
    *entity: str,
    definitions: str | None = None,
    json: bool = False,
) -> int:
    """Show the Redis key of an entity, and the redis-cli line that reads it.

    Args:
        feature: The name of the feature.
        entity: The keys of the entity, as in user_id=123.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON object.
    """
    with output.working("loading the definitions"):
        from mlforge.errors import RequestError
        from mlforge.online import EmbeddedStore, RedisStore
        from mlforge.online.keys import entity_key_hash, redis_key

        store, keys = _asked(feature, entity, definitions)
        if not isinstance(store, RedisStore):
            raise RequestError(f"The online store is a {type(store).__name__}, which has no Redis keys.")
        name = redis_key(store.prefix, feature, entity_key_hash(keys))
        command = shlex.join([*store.redis_cli(), "GET", name])
    if json:
        output.write_json({"feature": feature, "entity": keys, "key": name, "command": command})
    else:
        output.write(f"{name}\n{command}")
    if isinstance(store, EmbeddedStore):
        output.complain("The server of an EmbeddedStore runs only while a program uses it: start one to use redis-cli.")
    return 0


def entity_keys(feature: "Feature", entity: tuple[str, ...]) -> dict[str, str]:
    """The keys of an entity as they are typed; text is right for them, since 123 and "123" are one.

    Raises:
        RequestError: They are not those of the feature.
    """
    from mlforge.errors import RequestError

    name, keys = feature.name, feature.keys
    wanted = f"feature {name!r} is keyed by {', '.join(keys)}, as in {' '.join(f'{k}=...' for k in keys)}"
    given: dict[str, str] = {}
    for part in entity:
        key, equals, value = part.partition("=")
        if not equals:
            raise RequestError(f"{part!r} is no entity key: {wanted}")
        if key not in keys:
            raise RequestError(f"There is no key {key!r}: {wanted}")
        if key in given:
            raise RequestError(f"The key {key!r} is there twice: {wanted}")
        given[key] = value
    if missing := [key for key in keys if key not in given]:
        raise RequestError(f"The key {missing[0]!r} is missing: {wanted}")
    return {key: given[key] for key in keys}


def _asked(feature: str, entity: tuple[str, ...], definitions: str | None) -> "tuple[OnlineStore, dict[str, str]]":
    from mlforge import loader

    defs = loader.find(definitions)
    keys = entity_keys(defs.feature(feature), entity)
    return defs.require_online_store(), keys


def account(status: "Status | None") -> dict[str, Any]:
    """What a status says that is online, for programs."""
    content = status if status is not None and status.synced else None
    return {
        "version": None if content is None else content.version,
        "as_of": None if content is None else content.as_of,
        "state": None if status is None else status.state,
    }


def hint(feature: str, store: "OnlineStore", status: "Status | None") -> str:
    """What the store says about its content as a whole."""
    from mlforge.online import OnlineStore

    if type(store).status is OnlineStore.status:
        return f"A {type(store).__name__} does not say what it holds."
    if status is None:
        return f"Nothing says that it was ever put there: `mlforge build --features {feature} --online` does."
    if not status.synced:
        return "It is written by hand, not by a build."
    version = f"version {status.version} as of {output.moment(status.as_of)}"
    if status.state == "writing":
        return f"A build is writing {version}, or did not finish."
    return f"It holds {version}{', written to by hand since' if status.state == 'dirty' else ''}."


def shown(keys: "Mapping[str, str]") -> str:
    """An entity as it is typed."""
    return " ".join(f"{name}={value}" for name, value in keys.items())


def text(value: Any) -> str:
    """A value for people."""
    return "null" if value is None else str(value)
