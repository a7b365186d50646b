"""Everything that a reader needs of one project's Feast registry at one moment, as plain data: no Feast to read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from skewless.canonical_json import Digest, digest
from skewless.errors import InvalidDefinition, NotFound
from skewless.features.contract import FeatureContract


@dataclass(frozen=True, slots=True)
class CompiledRegistry:
    """Each registered feature service is in `contracts`, or in `refusals` with why it cannot be read."""

    project: str
    contracts: Mapping[str, FeatureContract]
    """By feature service. Without policies and nullable keys; request fields are those of its request sources."""
    refusals: Mapping[str, str]
    """By feature service: message and hint."""
    hash_sizes: Mapping[tuple[str, ...], int]
    """How many fields a full hash of each entity has, event times included, by stored join keys in order."""

    def contract(self, feature_service: str) -> FeatureContract:
        """The contract of a service. Raises NotFound, or InvalidDefinition with the reason of its refusal."""
        if feature_service in self.refusals:
            raise InvalidDefinition(
                f"feature service `{feature_service}` cannot be read: {self.refusals[feature_service]}"
            )
        if feature_service not in self.contracts:
            known = tuple(sorted({*self.contracts, *self.refusals}))
            raise NotFound("feature service", feature_service, known=known, hint="run `skewless apply` first")
        return self.contracts[feature_service]

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`, in an order of its own."""
        return {
            "project": self.project,
            "contracts": {name: contract.to_json() for name, contract in sorted(self.contracts.items())},
            "refusals": dict(sorted(self.refusals.items())),
            "hash_sizes": [[list(entity), size] for entity, size in sorted(self.hash_sizes.items())],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for data that is no compiled registry."""
        try:
            return cls(
                project=data["project"],
                contracts={name: FeatureContract.from_json(each) for name, each in data["contracts"].items()},
                refusals={name: str(reason) for name, reason in data["refusals"].items()},
                hash_sizes={tuple(entity): int(size) for entity, size in data["hash_sizes"]},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidDefinition(f"this is not a compiled registry: {error!r}") from error

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON."""
        return digest(self.to_json())
