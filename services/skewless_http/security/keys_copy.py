"""The gateway's own copy of the API keys, from which it starts while the registry is away.

It holds hashes of secrets, from which nobody gets a secret back, and what each key may ask for. Whoever can write to
the folder can let themselves in, as with the copies of routes and bundles beside it.
"""

from pathlib import Path
from typing import Any

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.registry.api_keys import ApiKeyRecord
from skewless.registry.api_scopes import ApiRate, ApiScope
from skewless.timestamps import Micros
from skewless_http.local_copy import LocalCopy

FILE = "api_keys.json"
_HASH_BYTES = 32


class KeysCopy:
    """One file in a folder that outlives the process. A copy that cannot be kept or read is logged, never fatal."""

    def __init__(self, folder: Path) -> None:
        self._copy = LocalCopy(folder / FILE, what="API keys")

    def save(self, records: tuple[ApiKeyRecord, ...]) -> None:
        """Replace the copy in one step."""
        self._copy.save([_plain(record) for record in records])

    def load(self) -> tuple[ApiKeyRecord, ...] | None:
        """The keys last saved; None where there are none or they are of another version."""
        data = self._copy.load()
        if data is None:
            return None
        try:
            return tuple(_record(each) for each in _listed(data))
        except (InvalidDefinition, AttributeError, KeyError, TypeError, ValueError) as error:
            self._copy.refuse(error)
            return None


def _listed(data: object) -> list[dict[str, Any]]:
    if not isinstance(data, list):
        raise TypeError("it is no list")
    return data


def _plain(record: ApiKeyRecord) -> dict[str, Any]:
    return {
        "hash": record.hash,
        "name": record.name,
        "scopes": [scope.to_json() for scope in record.scopes],
        "created_time": record.created_time,
        "expires_time": record.expires_time,
        "rate": None if record.rate is None else record.rate.to_json(),
    }


def _record(data: dict[str, Any]) -> ApiKeyRecord:
    expires = data["expires_time"]
    if len(bytes.fromhex(data["hash"])) != _HASH_BYTES:
        raise ValueError(f"{data['hash']!r} is no hash of a secret")
    return ApiKeyRecord(
        hash=Digest(data["hash"]),
        name=data["name"],
        scopes=tuple(ApiScope.from_json(scope) for scope in data["scopes"]),
        created_time=Micros(data["created_time"]),
        expires_time=None if expires is None else Micros(expires),
        rate=None if data["rate"] is None else ApiRate.from_json(data["rate"]),
    )
