"""How redis-py is reached: its import, the parts of a URL, a client, its errors in our words."""

import datetime as dt
import math
import re
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from mlforge.errors import DefinitionError, StoreError

if TYPE_CHECKING:
    from redis import Redis

# What redis-py makes of a URL, and the arguments of a `RedisStore` that say the same.
_ARGUMENTS = {name: name for name in ("host", "port", "db", "username", "password")} | {
    "path": "unix_socket_path",
    "socket_timeout": "timeout",
    "socket_connect_timeout": "connect_timeout",
}


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


def settings_from_url(url: str) -> dict[str, Any]:
    """The arguments of a `RedisStore` in a URL: `redis://`, `rediss://` (TLS) or `unix://`.

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
    return {"ssl": ssl, "ssl_options": ssl_options} | {_ARGUMENTS[name]: value for name, value in others.items()}


def store_error(error: Exception, client: "Redis") -> StoreError:
    """What went wrong between a client and its server, for whoever runs it; without the client's password."""
    from redis import exceptions

    settings = client.connection_pool.connection_kwargs
    where = settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
    text = str(error).rstrip(".")
    # Servers echo the arguments of commands that they do not know.
    if password := settings.get("password"):
        text = text.replace(password, "***")
    if isinstance(error, exceptions.AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS")):
        return StoreError(f"Redis at {where} refused the user name or the password: check both.")
    if isinstance(error, exceptions.NoPermissionError):
        command = re.search(r"'([a-z|]+)' command", text)
        what = f"the command {command[1]}" if command else "keys of this prefix"
        return StoreError(f"Redis at {where} does not allow this user {what}: extend the user's ACL rule.")
    if isinstance(error, exceptions.TimeoutError):
        waits = f"connect {settings.get('socket_connect_timeout')} s, answer {settings.get('socket_timeout')} s"
        return StoreError(f"Redis at {where} did not answer in time ({waits}).")
    if isinstance(error, exceptions.ResponseError):
        return StoreError(f"Redis at {where} refused: {text}.")
    return StoreError(f"Redis at {where} cannot be reached: {text}.")


def shown(client: "Redis") -> str:
    """Where a client connects to, without its credentials: the beginning of a repr."""
    kwargs = client.connection_pool.connection_kwargs
    if kwargs.get("path"):
        return f"unix_socket_path={kwargs['path']!r}, db={kwargs.get('db', 0)}"
    return f"host={kwargs.get('host', 'localhost')!r}, port={kwargs.get('port', 6379)}, db={kwargs.get('db', 0)}"


def whole_seconds(ttl: int | dt.timedelta | None) -> int | None:
    """A time to live in seconds.

    Raises:
        DefinitionError: It is not a whole number of seconds from 1.
    """
    seconds = ttl.total_seconds() if isinstance(ttl, dt.timedelta) else ttl
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != int(seconds) or seconds < 1:
        raise DefinitionError(f"{ttl!r} is not a ttl: write whole seconds from 1, as in ttl=86400.")
    return int(seconds)


def make_client(config: Mapping[str, Any]) -> "Redis":
    """A client for the arguments of a `RedisStore`; it connects when it is first used.

    Raises:
        DefinitionError: An argument cannot be right.
    """
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    socket, host, port, db = (config[name] for name in ("unix_socket_path", "host", "port", "db"))
    if not isinstance(host, str) or not host:
        raise DefinitionError(f"{host!r} is not a host: write a name or an address, as in 'localhost'.")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise DefinitionError(f"{port!r} is not a port: write a number from 1 to 65535.")
    if isinstance(db, bool) or not isinstance(db, int) or db < 0:
        raise DefinitionError(f"{db!r} is not a database: write a number from 0.")
    for name in ("username", "password"):
        if not isinstance(config[name], str | None):
            raise DefinitionError(f"The {name} of a RedisStore is a string, not a {type(config[name]).__name__}.")
    for name in ("connect_timeout", "timeout"):
        seconds = config[name]
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise DefinitionError(f"{seconds!r} is not a {name}: write seconds above 0.")
    odd = [name for name in config["ssl_options"] if not name.startswith("ssl_")]
    if odd or (config["ssl_options"] and not config["ssl"]):
        raise DefinitionError("ssl_options are redis-py's ssl_* settings, and need ssl=True.")
    return Redis(
        host=host,
        port=port,
        unix_socket_path=socket,
        db=db,
        username=config["username"],
        password=config["password"],
        ssl=config["ssl"],
        socket_connect_timeout=config["connect_timeout"],
        socket_timeout=config["timeout"],
        # One round trip less for every connection than RESP3, and it is all that older servers have.
        protocol=2,
        # A write that is sent again by itself may land on a server that has lost all before it.
        retry=Retry(NoBackoff(), 0),
        **config["ssl_options"],
    )
