"""What is wrong with a suite's document, for whoever has to correct it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where, what, what is allowed, and what to do."""

    line: int
    field: str
    message: str
    allowed: str = ""
    hint: str = ""

    def told(self, source: str) -> str:
        """One line for a reader: `file:line field: message; allowed: …`."""
        where = f"{source}:{self.line}" + (f" {self.field}" if self.field else "")
        return f"{where}: {self.message}" + (f"; allowed: {self.allowed}" if self.allowed else "")
