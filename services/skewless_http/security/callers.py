"""Whoever asks, as the rest of the gateway knows them: a name, what they may ask, and how often."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from skewless.dtypes import Column
from skewless.errors import Forbidden
from skewless.registry.api_scopes import ANY, ANY_ENDPOINT, ApiRate, ApiScope

ENDPOINTS_REMEMBERED_MAX: Final = 256
"""Endpoints of which one caller's answer is kept; names that do not exist are asked for, too."""
_ANYTHING: Final = (ApiScope((ANY_ENDPOINT,), features=(ANY,), events=(ANY,), created_time=True),)
_Limits = tuple[tuple[str, tuple[str, ...]], ...]
"""Of one scope: join keys, each with the prefixes that its values may begin with."""


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """One caller. `id` is `anonymous`, `key:<name>`, `jwt:<subject>` or `cert:<name>`; it holds no secret.

    `rate` None: as often as they like. A caller lives as long as its credential is known, so that what is worked out
    from the scopes is worked out once.
    """

    id: str
    scopes: tuple[ApiScope, ...]
    rate: ApiRate | None = None
    _limits: dict[str, tuple[_Limits, ...] | None] = field(default_factory=dict, repr=False)
    """By endpoint: None where it may not be asked; () where it may be asked about anything; else one per scope."""

    def allows(self, endpoint: str) -> bool:
        """Whether the endpoint may be asked at all."""
        return self._limits_of(endpoint) is not None

    def may_ask(self, endpoint: str) -> None:
        """Raises Forbidden where no scope covers the endpoint, whether it exists or not."""
        if self._limits_of(endpoint) is None:
            raise Forbidden(
                f"`{self.id}` may not ask the endpoint `{endpoint[:100]}`",
                hint="have a key made whose scopes name the endpoint",
            )

    def may_tell_outcomes(self) -> None:
        """Raises Forbidden for a caller that may ask nothing.

        Outcomes name predictions, not endpoints: whoever knows the id of one, 74 random bits, was told it.
        """
        if not any(scope.endpoints for scope in self.scopes):
            raise Forbidden(f"`{self.id}` may ask nothing here, so it has no outcomes to tell")

    def may_bring_features(self, view: str) -> "Brought":
        """What it may bring of a feature view. Raises Forbidden where no scope covers it, whether it exists or not."""
        covering = [scope for scope in self.scopes if scope.takes_features(view)]
        if not covering:
            raise Forbidden(
                f"`{self.id}` may not bring rows of the feature view `{view[:100]}`",
                hint="have a key made whose scopes name it: `skewless api-key create NAME --features VIEW`",
            )
        return Brought(self.id, view, covering)

    def may_bring_events(self, stream: str) -> "Brought":
        """What it may bring of a stream. Raises as `may_bring_features`."""
        covering = [scope for scope in self.scopes if scope.takes_events(stream)]
        if not covering:
            raise Forbidden(
                f"`{self.id}` may not bring events of the stream `{stream[:100]}`",
                hint="have a key made whose scopes name it: `skewless api-key create NAME --events STREAM`",
            )
        return Brought(self.id, stream, covering)

    def may_ask_raw(self, endpoint: str) -> None:
        """Raises Forbidden where not everything of the endpoint may be asked: bare tensors name no entity."""
        self.may_ask(endpoint)
        if self._limits_of(endpoint) != ():
            raise Forbidden(
                f"`{self.id}` may ask `{endpoint[:100]}` about some entities only, so not its model without any",
                hint="ask the endpoint itself, with the join keys of its instances",
            )

    def check_entities(self, endpoint: str, columns: Mapping[str, Column], rows: int) -> None:
        """Raises Forbidden at the first of `rows` about an entity that no scope allows.

        `columns` are the request's, (rows,) each. Costs one look-up where no scope of the endpoint names entities,
        else a comparison per row and join key.
        """
        limits = self._limits_of(endpoint)
        if not limits and limits is not None:
            return
        allowed = _any_of([_rows_within(each, columns, rows) for each in limits or ()], rows)
        if all(allowed):
            return
        row = allowed.index(False)
        named = sorted({key for each in limits or () for key, _ in each})
        raise Forbidden(
            f"`{self.id}` may not ask `{endpoint[:100]}` about the entity of instance {row}",
            path=f"$.instances[{row}]" + (f".{named[0]}" if len(named) == 1 else ""),
            hint=f"its scopes limit the values of {', '.join(f'`{key}`' for key in named)}",
        )

    def _limits_of(self, endpoint: str) -> tuple[_Limits, ...] | None:
        try:
            return self._limits[endpoint]
        except KeyError:
            if len(self._limits) >= ENDPOINTS_REMEMBERED_MAX:
                self._limits.clear()
            self._limits[endpoint] = found = _limits(self.scopes, endpoint)
            return found


class Brought:
    """What one caller may bring of one feature view or stream: of which entities, and with which times."""

    def __init__(self, caller: str, name: str, covering: list[ApiScope]) -> None:
        self._caller = caller
        self._name = name
        timed = [scope for scope in covering if scope.created_time]
        self._limits = _limits_of_all(covering)
        """() where it may bring rows of any entity."""
        self._timed_limits = _limits_of_all(timed)
        """The same of rows that say when they became known: other scopes say nothing about those."""
        self.created_time = bool(timed)
        """Whether rows may say themselves when they became known, of the entities of the scopes that allow it."""

    @property
    def is_limited(self) -> bool:
        """Whether `check` can refuse anything."""
        return bool(self._limits or self._timed_limits)

    def check(self, columns: Mapping[str, Column], rows: int, gives_created_time: bool) -> None:
        """Raises Forbidden at the first of `rows` of an entity that no scope allows; `columns` are the join keys.

        `gives_created_time` says whether any of the rows does: all of them are then held against the scopes that allow
        that.
        """
        limits = self._timed_limits if gives_created_time else self._limits
        if not limits:
            return
        allowed = _any_of([_rows_within(each, columns, rows) for each in limits], rows)
        if all(allowed):
            return
        row = allowed.index(False)
        named = sorted({key for each in limits for key, _ in each})
        told = " with created times" if gives_created_time else ""
        raise Forbidden(
            f"`{self._caller}` may not bring rows{told} of `{self._name[:100]}` of the entity of row {row}",
            path=f"$.rows[{row}]",
            hint=f"its scopes limit the values of {', '.join(f'`{key}`' for key in named)}",
        )


def anonymous(rate: ApiRate | None = None) -> Caller:
    """Whoever asks a service in development mode."""
    return Caller("anonymous", _ANYTHING, rate)


def _limits_of_all(scopes: list[ApiScope]) -> tuple[_Limits, ...]:
    """One per scope; () where one of them limits nothing, or there is none."""
    limits = [tuple(scope.entities.items()) for scope in scopes]
    return tuple(limits) if all(limits) else ()


def _limits(scopes: tuple[ApiScope, ...], endpoint: str) -> tuple[_Limits, ...] | None:
    covering = [scope for scope in scopes if scope.covers(endpoint)]
    if not covering:
        return None
    if any(not scope.entities for scope in covering):
        return ()
    return tuple(tuple(scope.entities.items()) for scope in covering)


def _rows_within(limits: _Limits, columns: Mapping[str, Column], rows: int) -> list[bool]:
    """Per row, whether every join key's value begins as one scope says; the meaning of `ApiScope.allows`."""
    allowed = [True] * rows
    for key, prefixes in limits:
        column = columns.get(key)
        if column is None:
            return [False] * rows
        known, begins = column.valid.tolist(), _begins_with(prefixes)
        allowed = [
            before and is_known and begins(value)
            for before, is_known, value in zip(allowed, known, column.values.tolist(), strict=True)
        ]
    return allowed


def _begins_with(prefixes: tuple[str, ...]) -> Callable[[object], bool]:
    return lambda value: str(value).startswith(prefixes)


def _any_of(answers: list[list[bool]], rows: int) -> list[bool]:
    if len(answers) == 1:
        return answers[0]
    return [any(row) for row in zip(*answers, strict=True)] if answers else [False] * rows
