"""Whether a bundle can be asked what callers of another one send."""

from skewless.features.contract import FeatureContract
from skewless.serving.instances import InstanceValidator


def misfits(asked: FeatureContract, candidate: FeatureContract) -> tuple[str, ...]:
    """Why instances for `asked` cannot be given to `candidate`, a sentence per field; empty where they can.

    A candidate that needs fewer fields fits. One that needs a field more, of another dtype, or never null where
    callers may send null, does not: its predictions would need other requests.
    """
    given = {field.name: field for field in InstanceValidator.compile(asked).fields}
    found = []
    for field in InstanceValidator.compile(candidate).fields:
        known = given.get(field.name)
        if known is None:
            found.append(f"it needs {field.role} `{field.name}`, which callers do not send")
        elif known.dtype is not field.dtype:
            found.append(f"it takes {field.role} `{field.name}` as `{field.dtype}`, callers send `{known.dtype}`")
        elif known.nullable and not field.nullable:
            found.append(f"it takes no null in {field.role} `{field.name}`, and callers may send one")
    return tuple(found)
