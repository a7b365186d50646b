"""Why a served value is not the offline one: every cause by name, in the order in which they are asked for.

A mismatch has exactly one cause, the first in the order of `Cause` that applies to it. Definitions come first, because
nothing else can be judged across a change of meaning; then what the whole row tells (which key, which row, written
when), then what the value tells, and last what was computed from equal values. docs/parity.md explains each one with
an example.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """The causes, in order of precedence."""

    DEFINITION_CHANGED = "definition_changed"
    STALE_SERVING = "stale_serving"
    ENTITY_KEY_TYPE = "entity_key_type"
    FUTURE_LEAK = "future_leak"
    RESTATED_ROW = "restated_row"
    EQUAL_TIMESTAMP_CORRECTION = "equal_timestamp_correction"
    TTL = "ttl"
    LATE_ROW = "late_row"
    MATERIALIZATION_LAG = "materialization_lag"
    MISSING_ONLINE = "missing_online"
    EXTRA_ONLINE = "extra_online"
    DECLARED_PRECISION = "declared_precision"
    COERCION = "coercion"
    DEFAULT_FILLED = "default_filled"
    ON_DEMAND_CODE = "on_demand_code"
    PIPELINES_DIFFER = "pipelines_differ"
    TRANSFORM = "transform"
    MODEL = "model"
    UNKNOWN = "unknown"


CAUSES: tuple[Cause, ...] = tuple(Cause)
"""Arrays of causes hold indexes into this, so that of several causes the least index goes first."""
CAUSE_CODE: Mapping[Cause, int] = {cause: code for code, cause in enumerate(CAUSES)}
NO_CAUSE = 255
"""Stands in an array of causes where nothing differs."""
PENDING = 254
"""Stands in an array of causes where the offline store has not got so far yet that it could be asked."""


class Kind(StrEnum):
    """What a cause says about the system."""

    TIMING = "timing"
    """As declared: rows take time to arrive, and policies say what is served meanwhile. It passes by itself."""
    FAULT = "fault"
    """Somebody has to do something, or it stays wrong."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a cause means, and what helps. `repair` is a command, empty where no command can repair it."""

    kind: Kind
    meaning: str
    advice: str
    repair: str = ""


_MATERIALIZE = "skewless materialize"
_REPAIR = "skewless features repair --view VIEW"

ACCOUNTS: Mapping[Cause, Account] = {
    Cause.DEFINITION_CHANGED: Account(
        Kind.FAULT,
        "the view is defined otherwise today than when the bundle was built",
        "train and deploy a bundle on the present definitions, or take the change back",
        "skewless train MODEL",
    ),
    Cause.STALE_SERVING: Account(
        Kind.TIMING,
        "it was answered on a lower rung of the bundle's degrade ladder, as the bundle allows while a part is away",
        "see why the part was away; docs/degrading.md",
    ),
    Cause.ENTITY_KEY_TYPE: Account(
        Kind.FAULT,
        "the online store has the entity under a key of another type, so that nobody finds it",
        "have whoever writes use the declared type of the join key, then write again",
        _REPAIR,
    ),
    Cause.FUTURE_LEAK: Account(
        Kind.FAULT,
        "the online store held a row that could not be known yet at that moment",
        "look for a writer that ignores created_time, for event times of the future, and at the clocks",
        _REPAIR,
    ),
    Cause.RESTATED_ROW: Account(
        Kind.TIMING,
        "the source row was written anew after it had been served, and what was served is no longer in it",
        "have the source keep its versions: a correction is a further row with a created time of its own",
    ),
    Cause.EQUAL_TIMESTAMP_CORRECTION: Account(
        Kind.FAULT,
        "a correction under the same event time did not reach the online store, which keeps the older version",
        "Feast drops a write whose event time is not later; empty and write again, or correct under a later time",
        _REPAIR,
    ),
    Cause.TTL: Account(
        Kind.FAULT,
        "one side holds the row for too old and the other does not",
        "make the ttl of the reader and of the view one, and let no key_ttl of the store be shorter",
    ),
    Cause.LATE_ROW: Account(
        Kind.FAULT,
        "the row became known after its time had been materialized, and no later run wrote it",
        "an incremental materialization never comes back to it; this one searches the whole history",
        _MATERIALIZE,
    ),
    Cause.MATERIALIZATION_LAG: Account(
        Kind.TIMING,
        "the row was known, and no materialization had written it yet",
        "the next run writes it; materialize more often where that is too late",
        _MATERIALIZE,
    ),
    Cause.MISSING_ONLINE: Account(
        Kind.FAULT,
        "the online store lacks what was there to be written",
        "look for failed or partial writes, evicted keys and a key_ttl; then write again",
        _REPAIR,
    ),
    Cause.EXTRA_ONLINE: Account(
        Kind.FAULT,
        "the online store had a row or a value that the source does not have",
        "a deleted source row stays online, and so does a push that never reached the source; empty and write again",
        _REPAIR,
    ),
    Cause.DECLARED_PRECISION: Account(
        Kind.FAULT,
        "both are equal once rounded: a narrower number type, fewer digits or coarser time on the way",
        "declare the width that the whole way keeps, and look at integers that pass through floating point",
    ),
    Cause.COERCION: Account(
        Kind.FAULT,
        "both are equal once cast: spelling, spaces, case, a number cut to an integer, or bytes of another type",
        "make source and writer agree on the type and the spelling",
        _REPAIR,
    ),
    Cause.DEFAULT_FILLED: Account(
        Kind.FAULT,
        "a stand-in was served where offline has none or has a value",
        "let the contract's policy be the only one that fills in",
    ),
    Cause.ON_DEMAND_CODE: Account(
        Kind.FAULT,
        "the on-demand function gives another result for the very inputs that were served",
        "run the same version of the function's module, and of what it imports, everywhere",
        "skewless apply",
    ),
    Cause.PIPELINES_DIFFER: Account(
        Kind.FAULT,
        "both sides have the row of that event time, with another value in it: it was computed in two ways",
        "compare the job that writes the online store with the one that writes the source; mind units",
    ),
    Cause.TRANSFORM: Account(
        Kind.FAULT,
        "the bundle's transform makes another model input of the very features that were served",
        "the gateway ran another engine or another step than this one; replay the prediction",
        "skewless replay PREDICTION_ID",
    ),
    Cause.MODEL: Account(
        Kind.FAULT,
        "the bundle's model gives another output for the very input that was served",
        "the server ran another model or another precision; replay the prediction",
        "skewless replay PREDICTION_ID",
    ),
    Cause.UNKNOWN: Account(
        Kind.FAULT,
        "none of the known causes explains it",
        "`skewless parity explain PREDICTION_ID` shows both sides with their times and versions",
    ),
}

assert len(CAUSES) < PENDING, "codes of causes fit beside the marks"
assert ACCOUNTS.keys() == set(CAUSES), "every cause has an account"
