"""What makes a parity check fail, as somebody asked for it: causes by name, all faults or anything, above a rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.errors import InvalidRequest
from skewless.parity.causes import ACCOUNTS, CAUSES, Kind

ANY = "any"
FAULT = Kind.FAULT.value
ALLOWED = f"`{ANY}`, `{FAULT}` or one of {', '.join(f'`{each}`' for each in CAUSES)}; each may end in `=RATE`"


@dataclass(frozen=True, slots=True)
class Condition:
    """Fails a check in which a view differs for one of `causes` at a rate above `rate`."""

    text: str
    causes: frozenset[str]
    rate: float

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """`cause`, `fault` or `any`, with `=RATE` for a share that is still allowed. Raises InvalidRequest."""
        name, _, share = text.strip().partition("=")
        named = {ANY: frozenset(CAUSES), FAULT: frozenset(each for each in CAUSES if ACCOUNTS[each].kind is Kind.FAULT)}
        causes = named.get(name) or frozenset(each for each in CAUSES if each == name)
        try:
            rate = float(share or 0)
        except ValueError:
            rate = -1.0
        if not causes or not 0 <= rate < 1:
            raise InvalidRequest(f"`{text}` is no condition", path="--fail-on", allowed=ALLOWED)
        return cls(text, frozenset(each.value for each in causes), rate)


def failures(report: Mapping[str, Any], conditions: Sequence[Condition]) -> list[str]:
    """Which conditions a report fails, in words; empty where it passes."""
    return [
        f"{each['view']}: {each['cause']} in {each['differing']:,} of {each['units']:,} ({each['rate']:.4%}), "
        f"--fail-on {condition.text}"
        for condition in conditions
        for each in report["causes"]
        if each["cause"] in condition.causes and each["rate"] > condition.rate
    ]
