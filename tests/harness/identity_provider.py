"""An OpenID provider over real HTTPS, with keys that a test can change, and tokens that it can spoil."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from harness.certificates import Authority

AUDIENCE = "skewless"
JSON = "application/json"
DISCOVERY = "/realms/shop/.well-known/openid-configuration"
KEYS = "/realms/shop/keys"


class SigningKey:
    """One private key of a provider, and the public half as it publishes it."""

    def __init__(self, key_id: str | None, algorithm: str = "ES256", *, bits: int = 2_048) -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        self.private: Any
        if algorithm[:2] in {"RS", "PS"}:
            self.private = rsa.generate_private_key(65_537, bits)
            public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        elif algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
            public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        else:
            self.private = ec.generate_private_key(ec.SECP256R1())
            public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.public: dict[str, Any] = {**public, "use": "sig", "alg": algorithm}
        if key_id is not None:
            self.public["kid"] = key_id

    def token(self, claims: dict[str, Any], **header: Any) -> str:
        """A signed token. `header` replaces members of its header; None leaves one out."""
        members = {"kid": self.key_id, **header}
        algorithm = members.pop("alg", self.algorithm)
        return jwt.encode(
            claims,
            self.private,
            algorithm=algorithm,
            headers={name: value for name, value in members.items() if value is not None},
        )


def claims(issuer: str, **changes: Any) -> dict[str, Any]:
    """Claims of a token that is good for ten minutes; a change to None leaves one out."""
    now = int(time.time())
    made = {
        "iss": issuer, "aud": AUDIENCE, "sub": "shop", "iat": now, "nbf": now, "exp": now + 600,
        "scope": "openid predict:flight-delay", **changes,
    }  # fmt: skip
    return {name: value for name, value in made.items() if value is not None}


def encoded(value: object) -> str:
    """A part of a token, from data or from text that is no JSON anybody would write."""
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def key_set(*keys: SigningKey) -> bytes:
    """What a provider publishes."""
    return json.dumps({"keys": [key.public for key in keys]}).encode()


@dataclass
class Answer:
    """What the provider answers on one path. `stall`: after the first byte it sends nothing until the test ends."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stall: bool = False


@dataclass
class IdentityProvider:
    """One that runs. `answers` may be changed at any time; `asked` counts requests by path."""

    url: str
    ca: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"{self.url}/realms/shop"

    def publish(self, *keys: SigningKey) -> None:
        """Answer with these keys, and a discovery document that names them."""
        self.answers[KEYS] = Answer(key_set(*keys))
        document = {"issuer": self.issuer, "jwks_uri": f"{self.url}{KEYS}"}
        self.answers[DISCOVERY] = Answer(json.dumps(document).encode())


@contextmanager
def running_provider(folder: Path) -> Iterator[IdentityProvider]:
    """A provider on a free loopback port, with a certificate of an authority of its own."""
    authority = Authority(folder)
    files = authority.issue_for_loopback("provider")
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked[self.path] = provider.asked.get(self.path, 0) + 1
            answer = provider.answers.get(self.path, Answer(b"nothing here", 404))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if answer.stall:
                self.wfile.write(answer.body[:1])
                self.wfile.flush()
                over.wait()
                return
            self.wfile.write(answer.body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    provider = IdentityProvider(f"https://127.0.0.1:{server.server_port}", authority.ca)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
