"""What callers may ask that show a certificate: a file of the operator's, beside the authorities that sign them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skewless.errors import InvalidDefinition, InvalidSettings
from skewless.registry.api_scopes import ApiRate, ApiScope
from skewless_http.security.callers import Caller
from skewless_http.security.peers import PeerCertificate

CLIENTS_MAX = 10_000


class ClientScopes:
    """Callers by the names in their certificates.

    The file is `{"<name>": {"scopes": [{"endpoints": […], "entities": {…}}], "rate": {"per_s": 50, "burst": 100}}}`, of
    which `entities` and `rate` may be left out; `features`, `events` and `created_time` are as in an API key's scope.
    A name is a URI of the certificate, such as a SPIFFE id, or a DNS name.
    """

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self._callers = callers

    @classmethod
    def read(cls, file: Path, *, default_rate: ApiRate | None = None) -> "ClientScopes":
        """Raises InvalidSettings, naming the entry, for a file that cannot be read or does not say what it must."""
        try:
            listed = _listed(json.loads(file.read_text()))
            return cls({name: _caller(name, data, default_rate) for name, data in listed.items()})
        except (OSError, ValueError, InvalidDefinition) as error:
            raise InvalidSettings(
                f"the scopes of client certificates in `{file}` cannot be read: {error}",
                hint='write {"<name in the certificate>": {"scopes": [{"endpoints": ["<endpoint>"]}]}}',
            ) from error

    def known(self, peer: PeerCertificate) -> Caller | None:
        """The caller of the first name of the certificate that the file knows, None where it knows none."""
        for name in peer.names:
            if (found := self._callers.get(name)) is not None:
                return found
        return None


def _listed(data: object) -> dict[str, Any]:
    if not isinstance(data, dict) or len(data) > CLIENTS_MAX:
        raise InvalidDefinition(f"it is not an object of at most {CLIENTS_MAX} names")
    return data


def _caller(name: str, data: Any, default_rate: ApiRate | None) -> Caller:
    try:
        unknown = sorted(data.keys() - {"scopes", "rate"})
        scopes = tuple(ApiScope.from_json({"endpoints": (), "entities": {}, **scope}) for scope in data["scopes"])
        rate = ApiRate.from_json(data["rate"]) if data.get("rate") is not None else default_rate
    except (AttributeError, KeyError, TypeError) as error:
        raise InvalidDefinition(f"`{name}`: {error!r}") from error
    if unknown:
        raise InvalidDefinition(f"`{name}` has {unknown[0]!r}; allowed: `scopes` and `rate`")
    return Caller(f"cert:{name}", scopes, rate)
