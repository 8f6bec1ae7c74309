"""How redis-py is reached: its import, the parts of a URL, its errors in our words."""

import re
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from mlforge.errors import DefinitionError, StoreError, UnavailableError

if TYPE_CHECKING:
    from redis import Redis

# What redis-py makes of a URL, and the arguments of a `RedisStore` that say the same.
_ARGUMENTS = {name: name for name in ("host", "port", "db", "username", "password")} | {
    "path": "unix_socket_path",
    "socket_timeout": "timeout",
    "socket_connect_timeout": "connect_timeout",
}

# What a server answers that is starting, failing over, or being set up again.
_PASSING = ("LOADING", "NOREPLICAS")


def redis_package() -> ModuleType:
    """The redis package.

    Raises:
        DefinitionError: It is not installed; the message names the extra.
    """
    try:
        return import_module("redis")
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise DefinitionError("A RedisStore needs the redis package: pip install 'mlforge[redis]'.") from None


def settings_from_url(url: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `RedisStore` in a URL (`redis://`, `rediss://` (TLS) or `unix://`) over others beside it.

    Timeouts may stand in the query as `socket_timeout` and `socket_connect_timeout`, TLS as redis-py's `ssl_*`.

    Raises:
        DefinitionError: It is no such URL. The message never quotes it, since it may hold a password.
    """
    redis_package()
    connection = import_module("redis.connection")
    wrong = DefinitionError(
        "That is not the URL of a Redis: write redis://[[user]:password@]host[:port][/db], rediss:// or unix://path, "
        "with every / ? # : @ of a password percent-encoded."
    )
    try:
        parts = urlsplit(url)
        # A password with a raw / ? or # ends the address early; what follows then looks like none of these.
        parse_qsl(parts.query, strict_parsing=bool(parts.query))
        if parts.fragment or (parts.scheme != "unix" and not re.fullmatch(r"(/[0-9]*)?", parts.path)):
            raise wrong
        if not (parts.path if parts.scheme == "unix" else parts.hostname):
            raise wrong
        parsed: dict[str, Any] = connection.parse_url(url)
    except (ValueError, TypeError, AttributeError):
        raise wrong from None
    ssl = parsed.pop("connection_class", None) is connection.SSLConnection
    ssl_options = {name: value for name, value in parsed.items() if name.startswith("ssl_")}
    others = {name: value for name, value in parsed.items() if name not in ssl_options}
    if unknown := [name for name in others if name not in _ARGUMENTS]:
        raise DefinitionError(
            f"{unknown[0]!r} is not an option of a Redis URL here: only socket_timeout, socket_connect_timeout, ssl_*."
        )
    said = {_ARGUMENTS[name]: value for name, value in others.items()}
    options = {**(arguments.get("ssl_options") or {}), **ssl_options}
    return {**arguments, **said, "ssl": ssl, "ssl_options": options}


def store_error(error: Exception, client: "Redis | Mapping[str, Any]") -> StoreError:
    """What went wrong between a client and its server, for whoever runs it; without the client's password.

    Args:
        error: What redis-py has raised.
        client: Whose server it is, or redis-py's settings for it.
    """
    from redis import exceptions

    if isinstance(client, Mapping):
        settings, service = client, None
    else:
        settings = client.connection_pool.connection_kwargs
        service = getattr(client.connection_pool, "service_name", None)
    where = settings.get("path") or service or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
    text = str(error).rstrip(".")
    # Servers echo the arguments of commands that they do not know.
    if password := settings.get("password"):
        text = text.replace(password, "***")
    if isinstance(error, exceptions.AuthenticationError):
        if not settings.get("password"):
            return StoreError(f"Redis at {where} asks for a password, and none was given.")
        return StoreError(f"Redis at {where} refused the user name or the password: check both.")
    if isinstance(error, exceptions.NoPermissionError):
        command = re.search(r"'([a-z|]+)' command", text)
        what = f"the command {command[1]}" if command else "keys of this prefix"
        return StoreError(f"Redis at {where} does not allow this user {what}: extend the user's ACL rule.")
    if isinstance(error, exceptions.TimeoutError):
        waits = f"connect {settings.get('socket_connect_timeout')} s, answer {settings.get('socket_timeout')} s"
        return UnavailableError(f"Redis at {where} did not answer in time ({waits}).")
    passing = (exceptions.ReadOnlyError, exceptions.AskError, exceptions.TryAgainError, exceptions.ClusterDownError)
    if isinstance(error, (*passing, exceptions.MasterDownError)) or text.startswith(_PASSING):
        return UnavailableError(f"Redis at {where} does not take this at the moment: {text}.")
    if isinstance(error, exceptions.ResponseError):
        return StoreError(f"Redis at {where} refused: {text}.")
    return UnavailableError(f"Redis at {where} cannot be reached: {text}.")


def shown(client: "Redis") -> str:
    """Where a client connects to, without its credentials: the beginning of a repr."""
    kwargs = client.connection_pool.connection_kwargs
    if service := getattr(client.connection_pool, "service_name", None):
        return f"service={service!r}, db={kwargs.get('db', 0)}"
    if kwargs.get("path"):
        return f"unix_socket_path={kwargs['path']!r}, db={kwargs.get('db', 0)}"
    return f"host={kwargs.get('host', 'localhost')!r}, port={kwargs.get('port', 6379)}, db={kwargs.get('db', 0)}"


def redis_cli(settings: Mapping[str, Any], *, tls: bool) -> list[str]:
    """The words that make redis-cli talk to a server; a password is asked for, never shown.

    Args:
        settings: redis-py's for the server.
        tls: Whether it speaks TLS.
    """
    words = ["redis-cli"]
    if settings.get("path"):
        words += ["-s", settings["path"]]
    else:
        words += ["-h", settings.get("host", "localhost"), "-p", str(settings.get("port", 6379))]
        words += ["--tls"] if tls else []
    words += ["-n", str(settings.get("db") or 0)]
    words += ["--user", settings["username"]] if settings.get("username") else []
    return [*words, "--askpass"] if settings.get("password") else words
