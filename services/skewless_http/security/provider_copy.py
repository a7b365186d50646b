"""The gateway's own copy of the identity provider's public keys, from which it starts while the provider is away."""

from dataclasses import dataclass
from pathlib import Path

from skewless.timestamps import Micros
from skewless_http.local_copy import LocalCopy

FILE = "identity_provider_keys.json"


@dataclass(frozen=True, slots=True)
class CopiedKeys:
    """A key set as it was fetched, and when."""

    document: bytes
    fetched_time: Micros


class ProviderCopy:
    """One file in a folder that outlives the process. A copy that cannot be kept or read is logged, never fatal.

    It says whose keys it holds: those of another issuer, from before the settings were changed, are nobody's.
    """

    def __init__(self, folder: Path, issuer: str) -> None:
        self._copy = LocalCopy(folder / FILE, what="identity provider's keys")
        self._issuer = issuer

    def save(self, copied: CopiedKeys) -> None:
        """Replace the copy in one step."""
        document = copied.document.decode("utf-8", "replace")
        self._copy.save({"issuer": self._issuer, "fetched_time": copied.fetched_time, "document": document})

    def load(self) -> CopiedKeys | None:
        """The keys last saved; None where there are none, or they are of another issuer or version."""
        data = self._copy.load()
        if not isinstance(data, dict) or data.get("issuer") != self._issuer:
            return None
        document, fetched_time = data.get("document"), data.get("fetched_time")
        if not isinstance(document, str) or not isinstance(fetched_time, int):
            return None
        return CopiedKeys(document.encode(), Micros(fetched_time))
