"""Clients for the arguments of a `RedisStore`, checked: a server of its own, or one that Sentinels name."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlforge.errors import DefinitionError

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
    from redis.cluster import RedisCluster

# How often redis-py follows slots that have moved, and looks for a master that has failed over.
CLUSTER_ATTEMPTS = 3


def make_client(config: Mapping[str, Any]) -> "Redis":
    """A client for what is written; it connects when it is first used."""
    client: Redis = _client(config, "redis", replicas=False)
    return client


def make_replica_client(config: Mapping[str, Any]) -> "Redis | None":
    """A client for reads from replicas; None where reads go to the master."""
    return _client(config, "redis", replicas=True) if config["replicas"] else None


def make_async_client(config: Mapping[str, Any]) -> "AsyncRedis":
    """A client for reads in an event loop, from replicas where those are to be read from.

    Raises:
        DefinitionError: redis.asyncio cannot do what is asked for.
    """
    if unknown := [option for option in config["ssl_options"] if "ocsp" in option]:
        raise DefinitionError(f"redis.asyncio knows no {unknown[0]}: read in a thread, as in asyncio.to_thread.")
    client: AsyncRedis = _client(config, "redis.asyncio", replicas=bool(config["replicas"]))
    return client


def _client(config: Mapping[str, Any], package: str, *, replicas: bool) -> Any:
    settings = _settings(config, package)
    if config["sentinels"]:
        seconds = {"socket_timeout": config["timeout"], "socket_connect_timeout": config["connect_timeout"]}
        options = {**seconds, **config["sentinel_options"]}
        sentinel = import_module(f"{package}.sentinel").Sentinel(config["sentinels"], sentinel_kwargs=options)
        return (sentinel.slave_for if replicas else sentinel.master_for)(config["service"], **settings)
    host, port = config["replicas"] if replicas else (config["host"], config["port"])
    path = None if replicas else config["unix_socket_path"]
    return import_module(package).Redis(host=host, port=port, unix_socket_path=path, **settings)


def close_client(client: "Redis") -> None:
    """Close a client's connections, and those to the Sentinels that it asks."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for each in [client] if manager is None else [client, *manager.sentinels]:
        each.close()


def make_cluster_client(
    config: Mapping[str, Any], nodes: Sequence[tuple[str, int]], *, replicas: bool
) -> "RedisCluster":
    """A client for a cluster, which asks one of these nodes for the others at once."""
    from redis.backoff import NoBackoff
    from redis.cluster import ClusterNode, LoadBalancingStrategy, RedisCluster
    from redis.retry import Retry

    settings: dict[str, Any] = _settings(config, "redis") | {"retry": Retry(NoBackoff(), CLUSTER_ATTEMPTS)}
    del settings["db"]
    start: list[Any] = [ClusterNode(host, port) for host, port in nodes]  # type: ignore[no-untyped-call]
    strategy = LoadBalancingStrategy.ROUND_ROBIN if replicas else None
    return RedisCluster(startup_nodes=start, load_balancing_strategy=strategy, **settings)


def _settings(config: Mapping[str, Any], package: str) -> dict[str, Any]:
    from redis.backoff import NoBackoff

    return {
        "db": config["db"],
        "username": config["username"],
        "password": config["password"],
        "ssl": config["ssl"],
        "socket_connect_timeout": config["connect_timeout"],
        "socket_timeout": config["timeout"],
        "max_connections": config["max_connections"],
        # One round trip less for every connection than RESP3, and it is all that older servers have.
        "protocol": 2,
        # A write that is sent again by itself may land on a server that has lost all before it.
        "retry": import_module(f"{package}.retry").Retry(NoBackoff(), 0),
        **config["ssl_options"],
    }


def check(config: Mapping[str, Any]) -> None:
    """Refuses what cannot be right.

    Raises:
        DefinitionError: The message names the argument and shows one that could be.
    """
    host, db = config["host"], config["db"]
    if not isinstance(host, str) or not host or host.count(":") == 1:
        raise DefinitionError(f"{host!r} is not a host: write a name or an address, as in 'localhost', and port=6379.")
    _require_port(config["port"])
    if isinstance(db, bool) or not isinstance(db, int) or db < 0:
        raise DefinitionError(f"{db!r} is not a database: write a number from 0.")
    for name in ("username", "password"):
        if not isinstance(config[name], str | None):
            raise DefinitionError(f"The {name} of a RedisStore is a string, not a {type(config[name]).__name__}.")
    for name in ("connect_timeout", "timeout", "lock_seconds"):
        _require_seconds(name, config[name], above=True)
    for name in ("lock_wait", "retry_seconds"):
        _require_seconds(name, config[name], above=False)
    for name, least in (("wait_replicas", 0), ("max_connections", 1)):
        number = config[name]
        if number is None and name == "max_connections":
            continue
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise DefinitionError(f"{number!r} is not a number for {name}: write a whole number from {least}.")
    odd = [name for name in config["ssl_options"] if not name.startswith("ssl_")]
    if odd or (config["ssl_options"] and not config["ssl"]):
        raise DefinitionError("ssl_options are redis-py's ssl_* settings, and need ssl=True.")
    _check_topology(config)


def _check_topology(config: Mapping[str, Any]) -> None:
    sentinels, replicas = config["sentinels"], config["replicas"]
    for address in sentinels:
        require_address("sentinels", address)
    if bool(sentinels) != bool(config["service"]) or (config["sentinel_options"] and not sentinels):
        raise DefinitionError(
            "Sentinels need the name of what they watch: write sentinels=[('host', 26379)], service='mymaster'."
        )
    if sentinels and config["unix_socket_path"]:
        raise DefinitionError("The Sentinels say where the server is: leave unix_socket_path out.")
    if isinstance(replicas, bool):
        if replicas and not sentinels:
            raise DefinitionError("replicas=True is for Sentinels; else name a replica: replicas=('host', 6379).")
    else:
        if sentinels:
            raise DefinitionError("The Sentinels know the replicas: write replicas=True.")
        require_address("replicas", replicas)


def require_address(name: str, address: Any) -> None:
    """Refuses what is no pair of host and port.

    Raises:
        DefinitionError: The message names the argument.
    """
    if isinstance(address, str) or not isinstance(address, Sequence) or len(address) != 2:
        raise DefinitionError(f"{address!r} is not an address for {name}: write a host and a port, as ('host', 6379).")
    if not isinstance(address[0], str):
        raise DefinitionError(f"{address[0]!r} is not a host: write a name or an address, as in 'localhost'.")
    _require_port(address[1])


def _require_port(port: Any) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise DefinitionError(f"{port!r} is not a port: write a number from 1 to 65535.")


def _require_seconds(name: str, seconds: Any, *, above: bool) -> None:
    right = not isinstance(seconds, bool) and isinstance(seconds, int | float) and 0 <= seconds < math.inf
    if not right or (above and seconds == 0):
        raise DefinitionError(f"{seconds!r} is not a {name}: write seconds {'above' if above else 'from'} 0.")


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
