"""The registry as one thing: everything that is kept about bundles, endpoints, experiments, keys and their past."""

from skewless.registry.api_keys import ApiKeys
from skewless.registry.audit import AuditTrail
from skewless.registry.bundles import Bundles
from skewless.registry.endpoints import Endpoints
from skewless.registry.evaluations import Evaluations
from skewless.registry.experiments import Experiments
from skewless.registry.transactions import system_clock

__all__ = ["Registry", "system_clock"]


class Registry(Bundles, Endpoints, Experiments, Evaluations, ApiKeys, AuditTrail):
    """The registry on one engine. Threads may share it.

    Every method is one short transaction, and every change is audited in it. Every method raises Unavailable when the
    database does not answer, and Conflict when another writer was first.
    """
