"""A suite from its document, or everything that is wrong with it: by line and field, with what is allowed.

A suite that cannot fail is worse than none, because people rely on it. So a document is refused as well where it would
pass a batch without rows, or one whose columns hold nothing but nulls (`vacuity.py`).
"""

import contextlib
import datetime
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from skewless.canonical_json import encode
from skewless.errors import InvalidDefinition
from skewless.monitor_limits import QUALITY_EXPECTATIONS_MAX, QUARANTINE_SHARE_MAX
from skewless.quality.arguments import check_arguments
from skewless.quality.catalogue import CATALOGUE, Judged
from skewless.quality.faults import Fault
from skewless.quality.suite import DEFAULT_ON_FAILURE, Expectation, OnFailure, Severity, Suite
from skewless.quality.vacuity import vacuous
from skewless.quality.view_schema import ViewSchema

Path = tuple[str | int, ...]
Choice = TypeVar("Choice", OnFailure, Severity)
_FIELDS = ("name", "view", "meta", "quarantine_share_max", "expectations")
_META = ("owner", "reviewed")
_EXPECTATION = ("type", "kwargs", "severity", "on_failure", "meta")


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed suite file: plain data, and the line of each path into it."""

    source: str
    """What the file is called."""
    data: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of a path, or of the nearest thing around it that has one."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


def suite_of(document: Document, schema: ViewSchema | None) -> Suite:
    """The suite of a document, checked against its view; None for a view that is not known here.

    Raises InvalidDefinition that lists every fault with its line and field, what is allowed and a hint.
    """
    reader = _Reader(document, schema)
    suite = reader.suite()
    if reader.faults:
        told = "\n".join(each.told(document.source) for each in sorted(reader.faults, key=lambda each: each.line))
        raise InvalidDefinition(
            f"suite `{document.source}` is refused, {len(reader.faults)} fault(s):\n{told}",
            hint=next(
                (each.hint for each in reader.faults if each.hint), "correct the file, then run the command again"
            ),
        )
    assert suite is not None, "no faults, so there is a suite"
    return suite


class _Reader:
    """Goes through a document once and keeps what is wrong."""

    def __init__(self, document: Document, schema: ViewSchema | None) -> None:
        self._document = document
        self._schema = schema
        self.faults: list[Fault] = []

    def suite(self) -> Suite | None:
        data = self._document.data
        if not isinstance(data, dict):
            self._fault((), "the file holds no suite", allowed=f"a mapping of {', '.join(_FIELDS)}")
            return None
        self._known(data, _FIELDS, ())
        name, view = self._text(data, "name", ()), self._text(data, "view", ())
        if self._schema is not None and view and view != self._schema.view:
            self._fault(("view",), f"the suite is of view `{view}`", allowed=f"`{self._schema.view}`")
        owner, reviewed = self._meta(data)
        share = self._share(data)
        expectations = tuple(self._expectations(data))
        suite = Suite(name, view, expectations, owner, reviewed, share)
        if self._schema is not None and not self.faults:
            self.faults += vacuous(suite, self._schema)
        return suite

    def _meta(self, data: Mapping[str, Any]) -> tuple[str, str | None]:
        meta = data.get("meta")
        if not isinstance(meta, dict):
            self._fault(("meta",), "meta is missing", allowed="{owner: who answers for it, reviewed: YYYY-MM-DD or no}")
            return "", None
        self._known(meta, _META, ("meta",))
        owner, reviewed = self._text(meta, "owner", ("meta",)), meta.get("reviewed")
        if isinstance(reviewed, str):
            with contextlib.suppress(ValueError):
                reviewed = datetime.date.fromisoformat(reviewed)
        if reviewed is None or reviewed is False:
            return owner, None
        if isinstance(reviewed, datetime.date) and not isinstance(reviewed, datetime.datetime):
            return owner, reviewed.isoformat()
        self._fault(
            ("meta", "reviewed"), f"reviewed is {reviewed!r}", allowed="the day of the review as YYYY-MM-DD, or no"
        )
        return owner, None

    def _share(self, data: Mapping[str, Any]) -> float:
        share = data.get("quarantine_share_max", QUARANTINE_SHARE_MAX)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            self._fault(("quarantine_share_max",), f"it is {share!r}", allowed="a number from 0 to 1")
            return QUARANTINE_SHARE_MAX
        return float(share)

    def _expectations(self, data: Mapping[str, Any]) -> Iterator[Expectation]:
        listed = data.get("expectations")
        if not isinstance(listed, list) or not 0 < len(listed) <= QUALITY_EXPECTATIONS_MAX:
            allowed = f"a list of 1 to {QUALITY_EXPECTATIONS_MAX:,} expectations"
            self._fault(("expectations",), "there are no expectations", allowed=allowed)
            return
        seen: dict[bytes, int] = {}
        for place, item in enumerate(listed):
            path: Path = ("expectations", place)
            expectation = self._expectation(item, path)
            if expectation is None:
                continue
            same = encode({"type": expectation.type, "kwargs": _comparable(expectation.kwargs)})
            if same in seen:
                self._fault(path, f"it is the same as the one in line {seen[same]}", allowed="each expectation once")
            seen.setdefault(same, expectation.line)
            yield expectation

    def _expectation(self, item: object, path: Path) -> Expectation | None:
        if not isinstance(item, dict):
            self._fault(path, "it is no expectation", allowed=f"a mapping of {', '.join(_EXPECTATION)}")
            return None
        self._known(item, _EXPECTATION, path)
        name = self._text(item, "type", path)
        kind = CATALOGUE.get(name)
        if kind is None:
            if name:
                self._fault((*path, "type"), f"`{name}` is no known expectation", allowed=_nearest(name, CATALOGUE))
            return None
        kwargs = item.get("kwargs", {})
        if not isinstance(kwargs, dict):
            self._fault((*path, "kwargs"), "kwargs are no mapping", allowed=", ".join(kind.arguments))
            return None
        severity = self._choice(item, "severity", path, Severity.CRITICAL)
        on_failure = self._choice(item, "on_failure", path, DEFAULT_ON_FAILURE[severity])
        meta = item.get("meta") or {}
        if not isinstance(meta, dict):
            self._fault((*path, "meta"), "meta is no mapping", allowed="a mapping, such as {why: …}")
            meta = {}
        for field, message, allowed in check_arguments(kind, kwargs, self._schema):
            self._fault((*path, "kwargs", *field), message, allowed=allowed)
        made = Expectation(name, _plain(kwargs), severity, on_failure, _plain(meta), self._document.line(path))
        if on_failure is OnFailure.QUARANTINE:
            self._quarantinable(made, kind.judged, path)
        return made

    def _quarantinable(self, expectation: Expectation, judged: Judged, path: Path) -> None:
        if judged is not Judged.ROWS:
            told = f"`{expectation.type}` is about the batch as a whole, which has no failing rows to set aside"
            self._fault((*path, "on_failure"), told, allowed="pass, warn, stop")
        if expectation.kwargs.get("mostly", 1.0) != 1.0:
            told = "`mostly` lets rows fail that quarantine would set aside"
            self._fault((*path, "kwargs", "mostly"), told, allowed="no `mostly`; quarantine_share_max bounds the share")

    def _choice(self, item: Mapping[str, Any], field: str, path: Path, default: Choice) -> Choice:
        given = item.get(field, default.value)
        choices = type(default)
        if given in [each.value for each in choices]:
            return choices(given)
        allowed = ", ".join(each.value for each in choices)
        self._fault((*path, field), f"{field} is {given!r}", allowed=allowed)
        return default

    def _text(self, item: Mapping[str, Any], field: str, path: Path) -> str:
        given = item.get(field)
        if isinstance(given, str) and given.strip():
            return given
        self._fault((*path, field), f"{field} is {'missing' if given is None else repr(given)}", allowed="some text")
        return ""

    def _known(self, item: Mapping[Any, Any], fields: tuple[str, ...], path: Path) -> None:
        for field in item:
            if field not in fields:
                self._fault((*path, str(field)), f"`{field}` is no field here", allowed=", ".join(fields))

    def _fault(self, path: Path, message: str, *, allowed: str = "") -> None:
        self.faults.append(Fault(self._document.line(path), _field(path), message, allowed))


def _plain(value: Any) -> Any:
    """YAML's own dates as the text that they were written as."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).isoformat()
    return value.isoformat() if isinstance(value, datetime.date) else value


def _comparable(kwargs: Mapping[str, Any]) -> Any:
    return {name: str(value) if isinstance(value, float) else value for name, value in kwargs.items()}


def _field(path: Path) -> str:
    told = ""
    for each in path:
        told += f"[{each}]" if isinstance(each, int) else f".{each}" if told else str(each)
    return told


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return ", ".join(f"`{each}`" for each in near) if near else "those listed in docs/quality.md"
