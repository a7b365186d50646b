"""A monitoring policy as its owner writes it: a YAML file (JSON is YAML too), read strictly."""

from pathlib import Path

import yaml

from skewless.errors import InvalidRequest
from skewless.monitor_limits import MONITORING_FILE_BYTES_MAX
from skewless.serving.monitoring_policy import MonitoringPolicy


def read_policy(path: Path) -> MonitoringPolicy:
    """The policy in a file; an empty one is that of the defaults.

    Raises InvalidRequest for a file that cannot be read, and InvalidDefinition, with the path in the document, for one
    that is no policy.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MONITORING_FILE_BYTES_MAX + 1)
        if len(text) > MONITORING_FILE_BYTES_MAX:
            allowed = f"at most {MONITORING_FILE_BYTES_MAX:,} bytes"
            raise InvalidRequest(f"`{path}` is too large", path="--monitoring", allowed=allowed)
        document = yaml.safe_load(text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidRequest(f"`{path}` cannot be read: {reason}", path="--monitoring", allowed="a file") from error
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidRequest(
            f"`{path}` is neither YAML nor JSON: {error}", path="--monitoring", allowed="a monitoring policy"
        ) from error
    return MonitoringPolicy.from_json({} if document is None else document)
