"""Where an online store is: its URL, read once into parts. No refusal and no text made here shows a password."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote, unquote

from skewless.errors import InvalidSettings

PORT = 6379
SENTINEL_PORT = 26379
PORT_MAX = 65_535
_ALLOWED = (
    "allowed: redis://[user:password@]host:port[/db], unix://[user:password@]/path[?db=n], "
    "redis+cluster://host:port,host:port, redis+sentinel://host:port,host:port/service[?db=n]; rediss instead of redis "
    "for TLS, with the options ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_check_hostname"
)
_ENCODE = "percent-encode the characters @ / ? , : and % of a user name or password"


class Topology(StrEnum):
    """How the servers of a store share its data."""

    SINGLE = "single"
    CLUSTER = "cluster"
    """Each master holds some of the hash slots."""
    SENTINEL = "sentinel"
    """One master holds everything; sentinels know which it is now."""


@dataclass(frozen=True, slots=True)
class Node:
    """One server: a host and port, or (port 0) the path of a unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An ACL user; without a name the server's default user, without both nobody."""

    username: str = ""
    password: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.password)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) of a TLS connection; where empty, the system's authorities and no certificate of our own."""

    ca_certs: str = ""
    certfile: str = ""
    keyfile: str = ""
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """The files, read now. Raises InvalidSettings where one cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_certs or None)
            if self.certfile:
                context.load_cert_chain(self.certfile, self.keyfile or None)
        except OSError as error:
            raise InvalidSettings(
                f"the online store's TLS files cannot be used: {error}",
                hint="ssl_ca_certs, ssl_certfile and ssl_keyfile must be PEM files that this process may read",
            ) from error
        context.check_hostname = self.check_hostname
        return context


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Everything a URL says. `nodes` are the server, the cluster's first nodes to ask, or the sentinels."""

    topology: Topology
    nodes: tuple[Node, ...]
    service: str = ""
    """What the sentinels call the master."""
    database: int = 0
    credentials: Credentials = Credentials()
    sentinel_credentials: Credentials = Credentials()
    tls: Tls | None = None


_FEAST_OPTIONS = frozenset({"db", "password", "ssl", "username"})
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"})
_SCHEMES: Mapping[str, tuple[Topology, frozenset[str]]] = {
    "redis": (Topology.SINGLE, frozenset({"db"})),
    "unix": (Topology.SINGLE, frozenset({"db"})),
    "rediss": (Topology.SINGLE, _TLS_OPTIONS | {"db"}),
    "redis+cluster": (Topology.CLUSTER, frozenset()),
    "rediss+cluster": (Topology.CLUSTER, _TLS_OPTIONS),
    "redis+sentinel": (Topology.SENTINEL, frozenset({"db", "sentinel_username", "sentinel_password"})),
    "rediss+sentinel": (Topology.SENTINEL, _TLS_OPTIONS | {"db", "sentinel_username", "sentinel_password"}),
}
"""Scheme → what it means and which options it takes."""


def connection_string_url(text: str) -> str:
    """The URL of what Feast takes for a connection string: one `host:port`, then options behind commas.

    Raises InvalidSettings, never with the password in it, for several hosts and for options that have no URL.

    >>> connection_string_url("store:6379,password=p@ss,ssl=true,db=2")
    'rediss://:p%40ss@store:6379/2'
    """
    host, *rest = text.split(",")
    options = dict(each.partition("=")[::2] for each in rest)
    if odd := sorted(set(options) - _FEAST_OPTIONS):
        raise _refused(f"Feast's option `{odd[0]}` is not known here", hint=f"allowed: {', '.join(_FEAST_OPTIONS)}")
    username, password = (quote(options.get(name, ""), safe="") for name in ("username", "password"))
    login = f"{username}:{password}@" if username or password else ""
    database = f"/{options['db']}" if "db" in options else ""
    scheme = "rediss" if options.get("ssl", "false").lower() == "true" else "redis"
    return f"{scheme}://{login}{host}{database}"


def parse_store_url(url: str) -> StoreAddress:
    """The parts of an online store's URL. Raises InvalidSettings, never with the password in it.

    >>> address = parse_store_url("redis+sentinel://reader:p%40ss@one,two:26380/features?db=2")
    >>> [str(node) for node in address.nodes], address.service, address.database
    (['one:26379', 'two:26380'], 'features', 2)
    >>> address.credentials
    Credentials(username='reader')
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        # What has no known scheme may be anything, also a password pasted into the wrong variable: it is not shown.
        raise _refused(f"it must begin with one of {', '.join(f'{each}://' for each in _SCHEMES)}")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    if "@" in path or ("@" in query and not at):
        raise _refused("there is an `@` behind the host", hint=_ENCODE)
    topology, known = _SCHEMES[scheme]
    options = _options(query, scheme, known)
    username, _, password = login.partition(":")
    return StoreAddress(
        topology=topology,
        nodes=_nodes(scheme, topology, hosts, path),
        service=_service(topology, path),
        database=_database(scheme, topology, path, options),
        credentials=Credentials(unquote(username), unquote(password)),
        sentinel_credentials=Credentials(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
        tls=_tls(options) if scheme.startswith("rediss") else None,
    )


def _options(query: str, scheme: str, known: frozenset[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in known or name in options:
            allowed = ", ".join(sorted(known)) or "none"
            raise _refused(f"after the `?` is an option that {scheme}:// does not take, or one twice. Taken: {allowed}")
        options[name] = unquote(value)
    return options


def _nodes(scheme: str, topology: Topology, hosts: str, path: str) -> tuple[Node, ...]:
    if scheme == "unix":
        if hosts or not path:
            raise _refused("unix:// takes the absolute path of a socket and no host")
        return (Node("/" + unquote(path), 0),)
    listed = hosts.split(",")
    if topology is Topology.SINGLE and len(listed) > 1:
        raise _refused(f"{scheme}:// takes one host", hint="several hosts: redis+cluster:// or redis+sentinel://")
    return tuple(_node(each, SENTINEL_PORT if topology is Topology.SENTINEL else PORT) for each in listed)


def _node(text: str, default_port: int) -> Node:
    if text.startswith("["):
        host, _, tail = text[1:].partition("]")
        colon, port = tail[:1], tail[1:]
    else:
        host, colon, port = text.partition(":")
    if not host or colon not in ("", ":"):
        raise _refused("a host is missing")
    if not colon:
        return Node(host, default_port)
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= PORT_MAX):
        raise _refused(f"a port is not a number from 1 to {PORT_MAX}", hint=f"an IPv6 host stands in [ ]; {_ENCODE}")
    return Node(host, int(port))


def _service(topology: Topology, path: str) -> str:
    service = unquote(path) if topology is Topology.SENTINEL else ""
    if topology is Topology.SENTINEL and not service:
        raise _refused("the name of the sentinels' service is missing behind the hosts")
    return service


def _database(scheme: str, topology: Topology, path: str, options: Mapping[str, str]) -> int:
    in_path = path if topology is not Topology.SENTINEL and scheme != "unix" else ""
    if in_path and "db" in options:
        raise _refused("the database is given twice, behind the host and as `db`")
    text = options.get("db", in_path) or "0"
    if not (text.isascii() and text.isdigit()):
        raise _refused("the database is not a number")
    if topology is Topology.CLUSTER and int(text):
        raise _refused("a cluster has one database, 0")
    return int(text)


def _tls(options: Mapping[str, str]) -> Tls:
    check = options.get("ssl_check_hostname", "true").lower()
    if check not in ("true", "false"):
        raise _refused("ssl_check_hostname is neither true nor false")
    certfile, keyfile = options.get("ssl_certfile", ""), options.get("ssl_keyfile", "")
    if keyfile and not certfile:
        raise _refused("ssl_keyfile is given without ssl_certfile")
    return Tls(options.get("ssl_ca_certs", ""), certfile, keyfile, check == "true")


def _refused(reason: str, *, hint: str = _ALLOWED) -> InvalidSettings:
    return InvalidSettings(f"the online store's URL cannot be used: {reason}", hint=hint)
