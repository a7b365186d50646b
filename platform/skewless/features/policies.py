"""What stands in for a value that is null, missing or stale. The online reader and the offline engine both ask here."""

from skewless.features.contract import Action, FeatureField, Policy
from skewless.features.visibility import Status

_NULL = Policy()


def policy_for(feature: FeatureField, status: Status) -> Policy:
    """The policy that covers a status; a stored null is always handed on as a null.

    A value that cannot be read is as good as none, so `on_missing` covers `invalid` too.
    """
    if status in (Status.MISSING, Status.INVALID):
        return feature.on_missing
    return feature.on_stale if status is Status.STALE else _NULL


def stand_in(feature: FeatureField, status: Status) -> tuple[object, Status]:
    """The value to use instead (None is null) and the status to report.

    `reject` has no value to offer: online the row is refused before this is asked; offline, where nothing is
    refused, the row keeps its null and its status.
    """
    policy = policy_for(feature, status)
    if policy.action is Action.DEFAULT:
        return policy.value, Status.DEFAULT
    return None, status
