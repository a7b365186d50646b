"""An entity's state as bytes: MessagePack of plain lists, with the digest of the declaration that it was made by."""

from typing import Any

import msgspec

from skewless.aggregates import exact_sums
from skewless.aggregates.accumulators import Accumulator, Family
from skewless.aggregates.compiled import CompiledAggregates
from skewless.aggregates.entity_state import EntityState, Event
from skewless.errors import Conflict

_FORM = 1
_DIGEST_BYTES = 8


def packed(compiled: CompiledAggregates, state: EntityState) -> bytes:
    """The state's bytes; the same for the same state. Panes and events are in order."""
    panes = [
        [
            [number, [_plain(slot.family, held) for slot, held in zip(series.slots, pane, strict=True)]]
            for number, pane in sorted(by_number.items())
        ]
        for series, by_number in zip(compiled.series, state.panes, strict=True)
    ]
    recent = [[*event.order, event.identity, event.values] for event in state.recent]
    return msgspec.msgpack.encode([_FORM, _digest(compiled), state.known, state.sealed, panes, recent])


def unpacked(compiled: CompiledAggregates, data: bytes) -> EntityState:
    """The inverse of `packed`. Raises Conflict for bytes that another declaration or form made."""
    try:
        form, digest, known, sealed, panes, recent = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise _unlike(compiled, f"it cannot be read ({error})") from error
    if form != _FORM or digest != _digest(compiled):
        raise _unlike(compiled, "it was computed by another declaration")
    return EntityState(
        [
            {
                number: [_held(slot.family, each) for slot, each in zip(series.slots, pane, strict=True)]
                for number, pane in some
            }
            for series, some in zip(compiled.series, panes, strict=True)
        ],
        [Event((moment, since, row), identity, tuple(values)) for moment, since, row, identity, values in recent],
        known,
        sealed,
    )


def _digest(compiled: CompiledAggregates) -> bytes:
    return bytes.fromhex(compiled.declaration.digest)[:_DIGEST_BYTES]


def _unlike(compiled: CompiledAggregates, said: str) -> Conflict:
    name = compiled.declaration.name
    return Conflict(
        f"the state of an entity of stream `{name}` is of no use: {said}",
        hint=f"run `skewless aggregates rebuild {name}`, which makes it anew from the events",
    )


def _plain(family: Family, held: Accumulator | None) -> Any:
    if held is None:
        return None
    if family is Family.REAL:
        return [held[0], exact_sums.to_bytes(held[1]), held[2]]
    if family is Family.WHOLE:
        return [held[0], held[1].to_bytes(held[1].bit_length() // 8 + 1, "little", signed=True)]
    return held


def _held(family: Family, plain: Any) -> Accumulator | None:
    if plain is None:
        return None
    if family is Family.REAL:
        return plain[0], exact_sums.from_bytes(plain[1]), plain[2]
    if family is Family.WHOLE:
        return plain[0], int.from_bytes(plain[1], "little", signed=True)
    if family is Family.LAST:
        return tuple(plain[0]), plain[1]
    return tuple(plain) if family is Family.DISTINCT else plain
