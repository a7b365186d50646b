"""What one stack consists of: its ports, chosen once, and its processes in order of dependency."""

from skewless.settings import Settings, StackSettings, variable_name
from skewless.stack.gateway import gateway_spec
from skewless.stack.ports import LOOPBACK, choose_ports, prefer_port
from skewless.stack.process import ProcessSpec
from skewless.stack.state import StackAddresses
from skewless.stack.triton import TritonPorts, triton_spec
from skewless.stack.valkey import valkey_spec


def plan_stack(settings: Settings, stack: StackSettings) -> tuple[StackAddresses, tuple[ProcessSpec, ...]]:
    """Addresses and processes of a stack; a process comes after those it depends on.

    Raises StackFailed where a configured port is taken or something to start is not installed.
    """
    home = settings.folders
    fields = ("valkey_port", "triton_http_port", "triton_grpc_port", "triton_metrics_port")
    configured = {variable_name(StackSettings, field): getattr(stack, field) for field in fields}
    valkey, *triton_ports = choose_ports(configured)
    gateway, triton = prefer_port(stack.gateway_port), TritonPorts(*triton_ports)
    addresses = StackAddresses(
        gateway_url=f"http://{LOOPBACK}:{gateway}",
        valkey_url=f"redis://{LOOPBACK}:{valkey}",
        triton_grpc=f"{LOOPBACK}:{triton.grpc}",
        triton_http=f"{LOOPBACK}:{triton.http}",
        triton_metrics=f"{LOOPBACK}:{triton.metrics}",
    )
    environment = {
        "ONLINE_STORE": addresses.valkey_url,
        "TRITON": addresses.triton_grpc,
        "DATABASE_URL": settings.registry_url,
        "ARTIFACTS": settings.artifacts_address,
        "TARGET": settings.target.value,
        "PREDICTION_LOG": str(home.predictions),
        "ALLOW_AS_OF": str(stack.allow_as_of).lower(),
    }
    backends = home.triton / "backends"
    return addresses, (
        valkey_spec(port=valkey, data=home.valkey, logs=home.logs),
        triton_spec(ports=triton, models=home.triton_models, backends=backends, logs=home.logs),
        gateway_spec(port=gateway, environment=environment, logs=home.logs),
    )
