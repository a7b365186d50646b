"""Redis as it is deployed: one server, a cluster, sentinels, behind TLS; real Valkey processes on loopback."""

import datetime as dt
import ipaddress
import signal
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.servers import running, wait_until
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.probes import valkey_probe
from skewless.stack.process import ProcessSpec, RunningProcess
from skewless.stack.valkey import binary, valkey_spec

SLOTS = 16_384
SERVICE = "features"
READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running Valkey and its process."""

    port: int
    process: RunningProcess

    @property
    def url(self) -> str:
        """What Redis clients call it."""
        return f"redis://{LOOPBACK}:{self.port}"

    @contextmanager
    def client(self) -> Iterator["redis.Redis"]:
        """A client to prepare and look at it with."""
        with redis.Redis(host=LOOPBACK, port=self.port, socket_timeout=READY_S) as client:
            yield client

    def run(self, *command: object) -> object:
        """The answer to one command."""
        with self.client() as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]  # untyped in the client


def server_spec(folder: Path, port: int, *options: str) -> ProcessSpec:
    """How the stack would start a Valkey, with further options."""
    spec = valkey_spec(port=port, data=folder / f"valkey-{port}", logs=folder / "logs")
    return replace(spec, command=(*spec.command, *options), log_file=folder / "logs" / f"valkey-{port}.log")


@contextmanager
def running_server(folder: Path, *options: str, port: int | None = None) -> Iterator[Server]:
    """A Valkey with further options, stopped on leaving."""
    port = port or free_ports(1)[0]
    with running(server_spec(folder, port, *options)) as process:
        yield Server(port, process)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Masters without replicas, each with an equal share of the slots."""

    servers: tuple[Server, ...]

    @property
    def url(self) -> str:
        """The cluster by its first two nodes; the third is to be found."""
        return f"redis+cluster://{','.join(f'{LOOPBACK}:{server.port}' for server in self.servers[:2])}"

    @contextmanager
    def client(self) -> Iterator["redis.RedisCluster"]:
        """A client to prepare and look at it with."""
        client = redis.RedisCluster(host=LOOPBACK, port=self.servers[0].port)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def stopped(self, server: Server) -> Iterator[Callable[[], object]]:
        """Kills a node, and gives what starts it again; what was started is stopped on leaving."""
        server.process.signal_group(signal.SIGKILL)
        wait_until(lambda: server.process.exit_status() is not None, "the node is gone")
        with ExitStack() as stack:
            yield lambda: stack.enter_context(running(server.process.spec))

    def move_slot(self, slot: int, source: Server, target: Server) -> None:
        """Give a slot without keys to another master."""
        owner = _text(target.run("CLUSTER", "MYID"))
        for server in (target, source, *self.servers):
            server.run("CLUSTER", "SETSLOT", slot, "NODE", owner)


@contextmanager
def running_cluster(folder: Path, masters: int = 3) -> Iterator[Cluster]:
    """A cluster in which a master that is away takes only its own slots with it."""
    with ExitStack() as stack:
        ports = free_ports(2 * masters)
        buses = ports[masters:]
        servers = tuple(
            stack.enter_context(
                running_server(
                    folder,
                    *("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "1000"),
                    *("--cluster-require-full-coverage", "no"),
                    port=port,
                )
            )
            for port, bus in zip(ports, buses, strict=False)
        )
        for index, server in enumerate(servers):
            first, end = index * SLOTS // masters, (index + 1) * SLOTS // masters
            server.run("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            servers[0].run("CLUSTER", "MEET", LOOPBACK, server.port, buses[index])
        wait_until(lambda: all(_knows_all(server, masters) for server in servers), "the cluster is complete")
        yield Cluster(servers)


def _knows_all(server: Server, masters: int) -> bool:
    known = server.run("CLUSTER", "SLOTS")
    assert isinstance(known, list)
    return len(known) == masters and "cluster_state:ok" in _text(server.run("CLUSTER", "INFO"))


@dataclass(frozen=True, slots=True)
class Sentinels:
    """A master, its replica and a sentinel that makes the replica master when the master is away."""

    master: Server
    replica: Server
    sentinel: Server

    @property
    def url(self) -> str:
        """The service by a sentinel that does not exist and the one that does."""
        return f"redis+sentinel://{LOOPBACK}:1,{LOOPBACK}:{self.sentinel.port}/{SERVICE}"

    def wait_until_copied(self) -> None:
        """Return once the replica has everything that was written to the master."""
        assert self.master.run("WAIT", 1, 20_000) == 1, "the replica did not follow"

    def master_port(self) -> int:
        """Where the sentinel says that the master is."""
        answer = self.sentinel.run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        assert isinstance(answer, list | tuple)
        return int(answer[1])


@contextmanager
def running_sentinels(folder: Path) -> Iterator[Sentinels]:
    """A replicated Valkey under one sentinel, which takes half a second to believe that the master is away."""
    with ExitStack() as stack:
        # A master waits five seconds for a second replica to copy to, and at its end ten for one that lags.
        quick = ("--repl-diskless-sync-delay", "0", "--shutdown-timeout", "0")
        master = stack.enter_context(running_server(folder, *quick))
        replica = stack.enter_context(running_server(folder, *quick, "--replicaof", f"{LOOPBACK} {master.port}"))
        wait_until(lambda: "'master_link_status': 'up'" in _text(replica.run("INFO", "replication")), "it is copied")
        sentinel = stack.enter_context(_running_sentinel(folder, master.port))
        # In milliseconds: how often it asks who is whose replica (10 s by default), and a quarter of how long a
        # replaced master may go on believing that it is one (2 s).
        sentinel.run("SENTINEL", "DEBUG", "INFO-PERIOD", 200, "PUBLISH-PERIOD", 200)
        wait_until(lambda: len(_replicas(sentinel)) == 1, "the sentinel knows the replica")
        yield Sentinels(master, replica, sentinel)


def _replicas(sentinel: Server) -> list[object]:
    answer = sentinel.run("SENTINEL", "REPLICAS", SERVICE)
    assert isinstance(answer, list)
    return answer


@contextmanager
def _running_sentinel(folder: Path, master_port: int) -> Iterator[Server]:
    (port,) = free_ports(1)
    configuration = folder / f"sentinel-{port}.conf"
    configuration.write_text(
        f"port {port}\nbind {LOOPBACK}\ndir {folder}\n"
        f"sentinel monitor {SERVICE} {LOOPBACK} {master_port} 1\n"
        f"sentinel down-after-milliseconds {SERVICE} 500\n"
        f"sentinel failover-timeout {SERVICE} 3000\n"
    )
    spec = ProcessSpec(
        name="sentinel",
        command=(str(binary()), str(configuration), "--sentinel"),
        log_file=folder / "logs" / "sentinel.log",
        probe=valkey_probe("sentinel", port),
    )
    with running(spec) as process:
        yield Server(port, process)


def load(client: "redis.Redis | redis.RedisCluster", entities: Mapping[bytes, Mapping[bytes, bytes]]) -> None:
    """Write hashes, by key and field."""
    for key, fields in entities.items():
        client.hset(key, mapping={**fields})  # type: ignore[arg-type]  # its stub wants text for a key


def _text(answer: object) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: an authority, a certificate of loopback signed by it (with its key), and a stranger's authority."""

    authority: Path
    certificate: Path
    key: Path
    stranger: Path

    def server_context(self) -> ssl.SSLContext:
        """TLS of a server that wants its clients to show a certificate of the same authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.authority))
        context.load_cert_chain(self.certificate, self.key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    @property
    def options(self) -> str:
        """The part of a URL behind the `?` with which such a server is reached."""
        return f"ssl_ca_certs={self.authority}&ssl_certfile={self.certificate}&ssl_keyfile={self.key}"


def make_certificates(folder: Path) -> Certificates:
    """Fresh certificates, valid for a day."""
    authority, authority_key = _certificate("an authority", None)
    certificate, key = _certificate(LOOPBACK, (authority, authority_key))
    stranger, _ = _certificate("a stranger", None)
    made = Certificates(*(folder / f"{name}.pem" for name in ("authority", "certificate", "key", "stranger")))
    for path, content in ((made.authority, authority), (made.certificate, certificate), (made.stranger, stranger)):
        path.write_bytes(content.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def _certificate(
    name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate of loopback by its issuer; without one, an authority that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    signing = issuer[1] if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    if issuer is None:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
        builder = builder.add_extension(addresses, critical=False)
    return builder.sign(signing, hashes.SHA256()), key
