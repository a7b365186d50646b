"""What one stack consists of: its ports, chosen once, and its processes in order of dependency."""

from dataclasses import replace

from skewless.settings import Settings, StackSettings, variable_name
from skewless.stack.gateway import gateway_spec
from skewless.stack.ingest import ingest_spec
from skewless.stack.monitor import monitor_spec
from skewless.stack.ports import LOOPBACK, choose_ports, prefer_port
from skewless.stack.process import ProcessSpec
from skewless.stack.scheduler import run_environment, scheduler_spec
from skewless.stack.shipper import shipper_spec
from skewless.stack.state import StackAddresses
from skewless.stack.triton import TritonPorts, triton_spec
from skewless.stack.valkey import NAME as VALKEY
from skewless.stack.valkey import valkey_spec

IN_PROCESS = "in-process"
"""What the gateway is told where it is to run models itself."""


def plan_stack(settings: Settings, stack: StackSettings) -> tuple[StackAddresses, tuple[ProcessSpec, ...]]:
    """Addresses and processes of a stack; a process comes after those it depends on.

    Where no Triton is to run, its addresses are empty, and the gateway runs the models.
    Raises StackFailed where a configured port is taken or something to start is not installed.
    """
    home = settings.folders
    fields: tuple[str, ...] = ("valkey_port",)
    if stack.runs_triton:
        fields += ("triton_http_port", "triton_grpc_port", "triton_metrics_port")
    configured = {variable_name(StackSettings, field): getattr(stack, field) for field in fields}
    valkey, *triton_ports = choose_ports(configured)
    gateway, admin = prefer_port(stack.gateway_port), prefer_port(stack.gateway_admin_port)
    shipper = prefer_port(stack.shipper_port)
    monitor = prefer_port(stack.monitor_port) if stack.monitor else 0
    scheduler = prefer_port(stack.scheduler_port) if stack.scheduler else 0
    triton = TritonPorts(*triton_ports) if stack.runs_triton else None
    addresses = StackAddresses(
        gateway_url=f"http://{LOOPBACK}:{gateway}",
        valkey_url=f"redis://{LOOPBACK}:{valkey}",
        triton_grpc=f"{LOOPBACK}:{triton.grpc}" if triton else "",
        triton_http=f"{LOOPBACK}:{triton.http}" if triton else "",
        triton_metrics=f"{LOOPBACK}:{triton.metrics}" if triton else "",
        gateway_admin_url=f"http://{LOOPBACK}:{admin}",
        shipper_url=f"http://{LOOPBACK}:{shipper}",
        monitor_url=f"http://{LOOPBACK}:{monitor}" if monitor else "",
        scheduler_url=f"http://{LOOPBACK}:{scheduler}" if scheduler else "",
        **_ingest_addresses(stack),
    )
    environment = {
        "ONLINE_STORE": addresses.valkey_url,
        # Over HTTP a call costs a gateway a quarter of what gRPC's client takes (ADR 26).
        "TRITON": f"http://{addresses.triton_http}?grpc={addresses.triton_grpc}" if triton else IN_PROCESS,
        "DATABASE_URL": settings.registry_url,
        "ARTIFACTS": settings.artifacts_address,
        "TARGET": settings.target.value,
        "PREDICTION_LOG": str(home.predictions),
        "ALLOW_AS_OF": str(stack.allow_as_of).lower(),
        # Whoever can reach loopback on this machine may ask; see docs/security.md for anything else.
        "DEVELOPMENT": "true",
        "ADMIN_HOST": LOOPBACK,
    }
    store = valkey_spec(port=valkey, data=home.valkey, logs=home.logs)
    # Before the gateway, so that it is stopped after it, and ships what the gateway sealed at its end.
    shipping = _shipping(settings, stack, port=shipper, valkey_url=addresses.valkey_url)
    gateway_process = gateway_spec(port=gateway, admin_port=admin, environment=environment, logs=home.logs)
    # They depend on little: they wait for what they need, and the stack answers without them.
    watching = (_monitoring(settings, stack, port=monitor, valkey_url=addresses.valkey_url),) if monitor else ()
    if scheduler:
        watching = (_scheduling(settings, port=scheduler, valkey_port=valkey), *watching)
    if addresses.ingest_url:
        watching = (_ingesting(settings, addresses), *watching)
    if triton is None:
        return addresses, (store, shipping, replace(gateway_process, depends_on=(store.name,)), *watching)
    backends = home.triton / "backends"
    models = triton_spec(ports=triton, models=home.triton_models, backends=backends, logs=home.logs)
    return addresses, (store, models, shipping, gateway_process, *watching)


def _shipping(settings: Settings, stack: StackSettings, *, port: int, valkey_url: str) -> ProcessSpec:
    home = settings.folders
    environment = {"PREDICTION_LOG": str(home.predictions), "LOG_STORE": settings.log_store_address}
    if stack.stream:
        environment["STREAM"] = valkey_url
    return shipper_spec(
        port=port, environment=environment, logs=home.logs, depends_on=(VALKEY,) if stack.stream else ()
    )


def _ingest_addresses(stack: StackSettings) -> dict[str, str]:
    if not stack.ingest:
        return {}
    port, admin = prefer_port(stack.ingest_port), prefer_port(stack.ingest_admin_port)
    return {"ingest_url": f"http://{LOOPBACK}:{port}", "ingest_admin_url": f"http://{LOOPBACK}:{admin}"}


def _ingesting(settings: Settings, addresses: StackAddresses) -> ProcessSpec:
    environment = {
        "ONLINE_STORE": addresses.valkey_url,
        "DATABASE_URL": settings.registry_url,
        "REPO": str(settings.repo.absolute()),
        "HOME": str(settings.folders.root),
        # Whoever can reach loopback on this machine may bring rows; see docs/security.md for anything else.
        "DEVELOPMENT": "true",
        "ADMIN_HOST": LOOPBACK,
    }
    port, admin = (int(each.rpartition(":")[2]) for each in (addresses.ingest_url, addresses.ingest_admin_url))
    return ingest_spec(port=port, admin_port=admin, environment=environment, logs=settings.folders.logs)


def _scheduling(settings: Settings, *, port: int, valkey_port: int) -> ProcessSpec:
    environment = run_environment(settings, online_store=f"{LOOPBACK}:{valkey_port}")
    return scheduler_spec(port=port, environment=environment, logs=settings.folders.logs, depends_on=(VALKEY,))


def _monitoring(settings: Settings, stack: StackSettings, *, port: int, valkey_url: str) -> ProcessSpec:
    home = settings.folders
    environment = {
        "DATABASE_URL": settings.registry_url,
        "ARTIFACTS": settings.artifacts_address,
        "PREDICTION_LOG": str(home.predictions),
        "LOG_STORE": settings.log_store_address,
        "ONLINE_STORE": valkey_url,
        "REPO": str(settings.repo.absolute()),
        "DATA": str(settings.data_folder),
        "FEAST_REGISTRY": settings.feast_registry_url,
        "STEP_PACKAGES": settings.step_packages,
        "HOME": str(home.root),
    }
    if stack.stream:
        environment["STREAM"] = valkey_url
    return monitor_spec(
        port=port, environment=environment, logs=home.logs, depends_on=(VALKEY,) if stack.stream else ()
    )
