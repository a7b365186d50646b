"""Admission: a bundle is verified again whenever it is registered, deployed or loaded, and nothing unverified serves.

It is a list of named checks. Each has a result, so that a person, the command line and the audit trail see what was
looked at and what was not:

    manifest     canonical, of this format, with the digest asked for
    files        all of them there, nothing else, each of its size and SHA-256
    parts        each file is what its name says
    fit          contract, transform, model, post-processing, baseline and golden vectors belong together
    golden       transform and post-processing reproduce the golden vectors bit for bit
    functions    on-demand functions are there, are what they were, and treat a row alone as in a batch
    transform    the differential check: row = batch = ONNX on generated rows
    model        the model's files are of its format, and none is a pickle
    signature    the model's own tensors are those that the bundle declares
    outputs      the model reproduces its golden outputs
    definitions  the feature contract is what the Feast registry says today

What it takes to run a check is given by `Surroundings`; a check whose means are not there is skipped and says so. A
gateway, for one, has no ONNX tools and lets its model server do `outputs`.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from skewless.bundles.admission_checks import NANOSECONDS, STEPS, NotHere, Step, Subject
from skewless.bundles.bundle import Bundle
from skewless.bundles.surroundings import (
    DIFFERENTIAL_ROWS,
    DIFFERENTIAL_ROWS_LOADING,
    ModelRun,
    ModelTools,
    Surroundings,
)
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, SkewlessError, Unavailable

__all__ = [
    "DIFFERENTIAL_ROWS",
    "DIFFERENTIAL_ROWS_LOADING",
    "Admission",
    "Check",
    "ModelRun",
    "ModelTools",
    "Result",
    "Surroundings",
    "admit",
]

_BUILD_AGAIN = "a bundle is not repaired: build it again, or take the one that was there before"
_SHORT = 12


class Result(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    REFUSED = "refused"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `looked_at` is what it saw; `message` why it refused or did not run, empty where it passed."""

    name: str
    result: Result
    looked_at: str
    message: str
    hint: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "result": self.result.value,
            "looked_at": self.looked_at,
            "message": self.message,
            "hint": self.hint,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True, slots=True)
class Admission:
    """All checks of one bundle, in order. `bundle` is None where it could not even be read."""

    digest: Digest | None
    checks: tuple[Check, ...]
    bundle: Bundle | None

    @property
    def refusals(self) -> tuple[Check, ...]:
        """The checks that refused it."""
        return tuple(check for check in self.checks if check.result is Result.REFUSED)

    @property
    def results(self) -> dict[str, str]:
        """The result of each check by its name, in order: what an audit event keeps."""
        return {check.name: check.result.value for check in self.checks}

    @property
    def admitted(self) -> bool:
        """Whether no check refused it."""
        return not self.refusals

    def require(self) -> Bundle:
        """The admitted bundle. Raises BundleRefused with the first refusal, and how many there are."""
        if not self.refusals:
            assert self.bundle is not None, "what could not be read was refused"
            return self.bundle
        first, *more = self.refusals
        told = f"; {', '.join(f'`{check.name}`' for check in more)} refused it too" if more else ""
        which = "the bundle" if self.digest is None else f"bundle {self.digest[:_SHORT]}"
        raise BundleRefused(f"{which} is refused by the check `{first.name}`: {first.message}{told}", hint=first.hint)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        checks = [check.to_json() for check in self.checks]
        return {"digest": self.digest, "admitted": self.admitted, "checks": checks}


def admit(folder: Path, expected: Digest | None, surroundings: Surroundings) -> Admission:
    """Run every check on the bundle in a folder; `expected` None accepts whatever digest it has.

    Raises nothing for a bundle that is refused (see `Admission.require`), and Unavailable where a part that it takes
    to look does not answer.
    """
    subject = Subject(folder, expected, surroundings)
    results: dict[str, Check] = {}
    for step in STEPS:
        unmet = [name for name in step.after if results[name].result is not Result.PASSED]
        if unmet:
            reason = f"not looked at, because `{unmet[0]}` did not pass"
            results[step.name] = Check(step.name, Result.SKIPPED, "", reason, "", 0.0)
        else:
            results[step.name] = _run(step, subject)
    return Admission(subject.digest, tuple(results.values()), subject.bundle)


def _run(step: Step, subject: Subject) -> Check:
    clock = subject.surroundings.clock
    begun = clock()
    result, looked_at, message, hint = Result.PASSED, "", "", ""
    try:
        looked_at = step.look(subject)
    except NotHere as reason:
        result, message = Result.SKIPPED, str(reason)
    except Unavailable:
        raise  # it says nothing about the bundle
    except SkewlessError as error:
        result, message, hint = Result.REFUSED, error.message, error.hint or _BUILD_AGAIN
    return Check(step.name, result, looked_at, message, hint, (clock() - begun) / NANOSECONDS)
