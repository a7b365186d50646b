"""A gateway of two workers that wants credentials: who gets in, who does not, and what it writes down."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness import http_calls
from harness.bundles import flights_at, instance
from harness.gateways import ENDPOINT
from harness.machines import AS_OF, NOW, Machine, running_machine
from harness.servers import wait_until
from skewless.registry.api_scopes import ApiRate, ApiScope

REVOKED_WITHIN_S = 2.0
SLACK_S = 58.0
"""Of a machine that runs all other tests at once."""
WRONG_KEY = "skw_" + "x" * 43


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("guarded")
    own = {"DEVELOPMENT": "false", "RATE_PER_S": "100000", "WORKERS": "2"}
    with running_machine(folder, tritons=0, TRITON="in-process", **own) as running:
        built = running.build(0)
        running.registry.create_endpoint(ENDPOINT, description="", bundle=built.digest, actor="test", reason="test")
        running.fill(flights_at(NOW))
        running.wait_until_ready()
        secret = running.registry.add_api_key("starting", [ApiScope(("*",))])
        running.wait_until_answered(lambda: _ask(running, secret))
        yield running


def _ask(machine: Machine, secret: str | None, *, endpoint: str = ENDPOINT, **changes: object) -> httpx.Response:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return _post(machine, headers, endpoint=endpoint, **changes)


def _statuses(machine: Machine, secret: str) -> set[int]:
    """Of as many connections as will have met every worker."""
    return {_ask(machine, secret).status_code for _ in range(8)}


def _post(machine: Machine, headers: dict[str, str], *, endpoint: str = ENDPOINT, **changes: object) -> httpx.Response:
    body = {"instances": [instance(), instance(**changes)], "options": {"as_of": AS_OF}}
    return http_calls.post(f"{machine.url}/v1/endpoints/{endpoint}/predict", json=body, headers=headers, timeout=30)


def test_whoever_is_not_known_is_told_how_to_ask(machine: Machine) -> None:
    nobody = _ask(machine, None)
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthenticated")
    assert nobody.headers["www-authenticate"] == 'Bearer realm="skewless"'
    wrong = _ask(machine, WRONG_KEY)
    assert wrong.status_code == 401
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    for path in ("/v1/endpoints", f"/v1/endpoints/{ENDPOINT}", "/v1/endpoints/no-such-endpoint"):
        assert http_calls.get(f"{machine.url}{path}", timeout=30).status_code == 401, path
    outcomes = http_calls.post(f"{machine.url}/v1/outcomes", json={"outcomes": []}, timeout=30)
    assert outcomes.status_code == 401


def test_a_credential_is_looked_at_before_the_body(machine: Machine) -> None:
    refused = http_calls.post(
        f"{machine.url}/v1/endpoints/{ENDPOINT}/predict", content=b"no JSON at all", timeout=30,
        headers={"Authorization": f"Bearer {WRONG_KEY}", "Content-Type": "text/plain"},
    )  # fmt: skip
    assert refused.status_code == 401


def test_a_key_opens_by_either_header_what_its_scopes_name(machine: Machine) -> None:
    secret = machine.registry.add_api_key("narrow", [ApiScope((ENDPOINT,), {"origin": ("J", "L")})])
    for headers in ({"Authorization": f"Bearer {secret}"}, {"X-API-Key": secret}):
        assert _post(machine, headers, origin="LGA").status_code == 200
    entity = _ask(machine, secret, origin="EWR")
    assert (entity.status_code, entity.json()["code"]) == (403, "forbidden")
    assert entity.json()["path"] == "$.instances[1].origin"
    assert "EWR" not in entity.text
    other = _ask(machine, secret, endpoint="other")
    assert other.status_code == 403, "whether it exists is none of its business"
    headers = {"X-API-Key": secret}
    listed = http_calls.get(f"{machine.url}/v1/endpoints", headers=headers, timeout=30).json()
    assert [each["endpoint"] for each in listed["endpoints"]] == [ENDPOINT]
    elsewhere = machine.registry.add_api_key("elsewhere", [ApiScope(("other",))])
    seen = http_calls.get(f"{machine.url}/v1/endpoints", headers={"X-API-Key": elsewhere}, timeout=30).json()
    assert seen["endpoints"] == []


def test_a_revoked_key_opens_nothing_within_two_seconds(machine: Machine) -> None:
    secret = machine.registry.add_api_key("leaked", [ApiScope(("*",))])
    wait_until(lambda: _ask(machine, secret).status_code == 200, "the new key opens", timeout_s=30)
    machine.registry.revoke_api_key("leaked", reason="leaked")
    begun_s = time.monotonic()
    wait_until(lambda: _statuses(machine, secret) == {401}, "the key opens nothing at any worker")
    assert time.monotonic() - begun_s < REVOKED_WITHIN_S + SLACK_S


def test_a_caller_beyond_its_rate_is_told_when_to_ask_again_also_by_a_gateway_started_anew(machine: Machine) -> None:
    secret = machine.registry.add_api_key("slow", [ApiScope(("*",))], rate=ApiRate(0.01, 3))
    answers: list[httpx.Response] = []

    def are_four() -> bool:
        # A worker that has not heard of the new key yet knows nobody by it.
        answers.extend(each for each in [_ask(machine, secret)] if each.status_code != 401)
        return len(answers) == 4

    wait_until(are_four, "the new key opens")
    assert [each.status_code for each in answers] == [200, 200, 200, 429]
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 100
    assert refused.headers["ratelimit-policy"] == '"caller";q=3;w=300'
    assert refused.headers["ratelimit"].startswith('"caller";r=0;t=')
    machine.stop("gateway", kill=True)
    machine.start("gateway")
    machine.wait_until_ready()
    wait_until(lambda: _ask(machine, secret).status_code != 401, "the key is known again")
    assert _ask(machine, secret).status_code == 429


def test_what_everybody_may_know_is_open_and_no_more(machine: Machine) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        answer = http_calls.get(f"{machine.url}{path}", timeout=30)
        assert answer.status_code == 200, (path, answer.text)
    ready = http_calls.get(f"{machine.url}/readyz", timeout=30).text
    assert "127.0.0.1" not in ready
    assert http_calls.get(f"{machine.url}/metrics", timeout=30).status_code in (401, 404)


def test_every_answer_keeps_browsers_and_caches_from_misusing_it(machine: Machine) -> None:
    secret = machine.registry.add_api_key("browser", [ApiScope(("*",))])
    answers = {
        "200": _ask(machine, secret), "401": _ask(machine, None), "404": _ask(machine, secret, endpoint="other"),
        "405": http_calls.delete(f"{machine.url}/healthz", timeout=30),
        "nowhere": http_calls.get(f"{machine.url}/x", timeout=30),
        "health": http_calls.get(f"{machine.url}/healthz", timeout=30),
    }  # fmt: skip
    for name, answer in answers.items():
        assert answer.headers.get("x-content-type-options") == "nosniff", name
        assert answer.headers.get("cache-control") == "no-store", name
        assert "server" not in answer.headers, name
        assert "access-control-allow-origin" not in answer.headers, name
    docs = http_calls.get(f"{machine.url}/docs", timeout=30)
    assert "frame-ancestors 'none'" in docs.headers["content-security-policy"]
    preflight = httpx.options(
        f"{machine.url}/v1/endpoints/{ENDPOINT}/predict", timeout=30,
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    )  # fmt: skip
    assert "access-control-allow-origin" not in preflight.headers


def test_no_secret_stands_in_anything_that_the_gateway_wrote_or_tells(machine: Machine) -> None:
    secret = machine.registry.add_api_key("quiet", [ApiScope(("*",))])
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzM2NyM3QifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
    for each in (secret, WRONG_KEY, token, f"{token}=="):
        answers = [_ask(machine, each), _post(machine, {"X-API-Key": each}), _post(machine, {"Authorization": each})]
        assert not any(each in answer.text + str(answer.headers) for answer in answers)
    told = machine.metrics() + http_calls.get(f"{machine.admin_url}/readyz", timeout=30).text
    found = [
        str(path.relative_to(machine.folder))
        for path in machine.folder.rglob("*")
        if path.is_file()
        for each in (secret, secret.removeprefix("skw_"), WRONG_KEY, token, token.split(".")[2])
        if each.encode() in path.read_bytes()
    ]
    assert found == []
    assert not any(each in told for each in (secret, WRONG_KEY, token))
    assert any(path.stat().st_size for path in machine.folder.rglob("gateway.log")), "there is a log to look into"


def _started(folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """A gateway that ends at once, with these settings over ones that are good."""
    settings = {
        "ONLINE_STORE": "redis://127.0.0.1:1", "TRITON": "127.0.0.1:1", "DATABASE_URL": f"sqlite:///{folder}/none.db",
        "ARTIFACTS": str(folder), "PREDICTION_LOG": str(folder / "log"), **given,
    }  # fmt: skip
    environment = {**os.environ, **{f"SKEWLESS_GATEWAY_{name}": value for name, value in settings.items()}}
    asked = [sys.executable, "-m", "skewless_gateway"]
    return subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"DEVELOPMENT": "true", "HOST": "0.0.0.0"}, "SKEWLESS_GATEWAY_DEVELOPMENT lets anyone in"),  # noqa: S104  # refused
        ({"TLS_CERTIFICATE": "no-such.pem", "TLS_KEY": "no-such.key"}, "cannot be used"),
        ({"CREDENTIALS": "jwt"}, "SKEWLESS_GATEWAY_JWT_ISSUER"),
    ],
)
def test_a_gateway_that_would_let_strangers_in_does_not_start(tmp_path: Path, given: dict[str, str], told: str) -> None:
    ended = _started(tmp_path, **given)
    assert ended.returncode == 2, ended.stderr
    lines: list[dict[str, Any]] = [json.loads(line) for line in ended.stderr.splitlines()]
    assert any(told in line["message"] for line in lines), ended.stderr


def test_metrics_tell_refusals_by_their_code_and_how_old_the_keys_are(machine: Machine) -> None:
    refused = 'skewless_refused_callers_total{code="unauthenticated"}'
    before = sum(_metrics(machine, refused))
    assert _ask(machine, WRONG_KEY).status_code == 401
    wait_until(lambda: sum(_metrics(machine, refused)) > before, "the refusal is counted", timeout_s=30)
    age = "skewless_api_keys_age_seconds"
    wait_until(lambda: 0 < max(_metrics(machine, age), default=0) < 60, "keys are fresh", timeout_s=60)


def _metrics(machine: Machine, series: str) -> list[float]:
    """The values of a series, one for each worker that has it."""
    name, _, labels = series.partition("{")
    lines = [line for line in machine.metrics().splitlines() if line.startswith(name) and labels.strip("}") in line]
    return [float(line.rpartition(" ")[2]) for line in lines]
