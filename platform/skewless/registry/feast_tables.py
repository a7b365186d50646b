"""Feast's SQL registry looked at without Feast, only to see whether its definitions changed.

Table and column names are those of Feast 0.67 (`feast/infra/registry/sql.py`). Two looks at different prices:

    marks        how many objects each table has, and the newest update of each, to the second: one small query
    fingerprint  SHA-256 over what the objects say, without when they were materialized: reads all of them
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, column, create_engine, func, inspect, literal, make_url, select, table, union_all
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from skewless.canonical_json import Digest
from skewless.errors import InvalidSettings, Unavailable

FEAST_REGISTRY = "Feast registry"
_SPEC, _META = 1, 2
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_MORE = 0x80

Marks = tuple[tuple[str, int, int], ...]
"""(table, objects, newest update in seconds since 1970) of each table that has objects of the project."""


@dataclass(frozen=True, slots=True)
class _Definitions:
    """One table of Feast's registry, and the protobuf numbers of two fields, 0 where objects have none.

    `version_field` of the meta is the version in use, `project_field` of the spec the project's name.
    """

    table: str
    name: str
    proto: str
    version_field: int = 0
    project_field: int = 0
    has_meta: bool = True


_TABLES = (
    _Definitions("entities", "entity_name", "entity_proto"),
    _Definitions("data_sources", "data_source_name", "data_source_proto", has_meta=False),
    _Definitions("feature_views", "feature_view_name", "feature_view_proto", version_field=4, project_field=2),
    _Definitions("stream_feature_views", "feature_view_name", "feature_view_proto", version_field=4, project_field=2),
    _Definitions("on_demand_feature_views", "feature_view_name", "feature_view_proto", version_field=3),
    _Definitions("feature_services", "feature_service_name", "feature_service_proto"),
)


class FeastTables:
    """One Feast SQL registry; nothing is written to it or created. Threads may share it; close it when done.

    Every method raises Unavailable when the database does not answer.
    """

    def __init__(self, url: str) -> None:
        """Connects when first used. Raises InvalidSettings for a URL of no database whose driver is installed."""
        try:
            self._url = make_url(url)
            self._engine = create_engine(self._url)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            # The text itself stays out of the message: it may hold a password.
            raise InvalidSettings(
                f"the URL of Feast's registry cannot be used: {type(error).__name__}",
                hint="it is a SQLAlchemy URL, such as sqlite:///<path>, whose driver is installed",
            ) from error

    def marks(self, project: str) -> Marks:
        """What changes when definitions do, except where two changes come within a second; empty where there are none.

        Materializing changes it too.
        """
        with self._connected() as connection:
            return () if connection is None else _marks(connection, project)

    def fingerprint(self, project: str) -> Digest | None:
        """A digest of the project's definitions; None where it has none."""
        with self._connected() as connection:
            return None if connection is None else _fingerprint(connection, project)

    def close(self) -> None:
        """Close the engine's pooled connections."""
        self._engine.dispose()

    @contextmanager
    def _connected(self) -> Iterator[Connection | None]:
        """A connection to a registry that has Feast's tables, else None."""
        try:
            if self._is_missing_file():
                yield None
                return
            with self._engine.connect() as connection:
                yield connection if inspect(connection).has_table(_TABLES[0].table) else None
        except DBAPIError as error:
            where = self._url.render_as_string(hide_password=True)
            raise Unavailable(FEAST_REGISTRY, f"{str(error.orig).strip()} ({where})") from error

    def _is_missing_file(self) -> bool:
        # Connecting would create it.
        return self._url.get_backend_name() == "sqlite" and not Path(str(self._url.database)).exists()


def _marks(connection: Connection, project: str) -> Marks:
    counted = []
    for each in _TABLES:
        rows = table(each.table, column("project_id"), column("last_updated_timestamp"))
        newest = func.max(rows.c.last_updated_timestamp)
        counted.append(
            select(literal(each.table), func.count().label("objects"), newest).where(rows.c.project_id == project)
        )
    found = connection.execute(union_all(*counted)).all()
    return tuple((name, objects, newest) for name, objects, newest in found if objects)


def _fingerprint(connection: Connection, project: str) -> Digest | None:
    """SHA-256 over every object: table, name, and what it says, each with its length before it."""
    content = hashlib.sha256()
    is_empty = True
    for each in _TABLES:
        rows = table(each.table, column("project_id"), column(each.name), column(each.proto))
        wanted = select(rows.c[each.name], rows.c[each.proto]).where(rows.c.project_id == project)
        for name, stored in connection.execute(wanted.order_by(rows.c[each.name])):
            is_empty = False
            for part in (each.table.encode(), str(name).encode(), _said(bytes(stored), each)):
                content.update(len(part).to_bytes(8, "little"))
                content.update(part)
    return None if is_empty else Digest(content.hexdigest())


def _said(stored: bytes, definitions: _Definitions) -> bytes:
    """The part of a stored object that is its definition: its spec, and the version in use where it has one.

    Its meta also says when it was last materialized and in which state it is, which changes all day long, and the
    first materialization takes the project's name out of a view's spec. What does not parse is taken whole.
    """
    if not definitions.has_meta:
        return stored
    try:
        fields = {field.number: field.value for field in _fields(stored)}
        spec = b"".join(field.whole for field in _fields(fields[_SPEC]) if field.number != definitions.project_field)
        meta = {field.number: field.value for field in _fields(fields.get(_META, b""))}
        return spec + meta.get(definitions.version_field, b"")
    except (IndexError, KeyError, ValueError):
        return stored


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a protobuf message: its value's bytes, and these with the tag and length before them."""

    number: int
    value: bytes
    whole: bytes


def _fields(message: bytes) -> Iterator[_Field]:
    """The fields of a protobuf message in order. Raises IndexError or ValueError for what is none."""
    position = 0
    while position < len(message):
        begin = position
        tag, position = _varint(message, position)
        start = position
        if tag & 7 == _VARINT:
            _, position = _varint(message, position)
        elif tag & 7 == _LENGTH_DELIMITED:
            size, start = _varint(message, position)
            position = start + size
        elif tag & 7 in (_FIXED64, _FIXED32):
            position += 8 if tag & 7 == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {tag & 7} at byte {start}")
        if position > len(message):
            raise ValueError(f"field {tag >> 3} ends after its message")
        yield _Field(tag >> 3, message[start:position], message[begin:position])


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    value = shift = 0
    while message[position] & _MORE:
        value |= (message[position] & ~_MORE) << shift
        position, shift = position + 1, shift + 7
    return value | message[position] << shift, position + 1
