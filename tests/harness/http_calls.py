"""Calls over plain HTTP, as `httpx` makes them, but for the certificates that it reads for each in 22 ms."""

import ssl
from typing import Any

import httpx

_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: a call over TLS fails, where a test wants one it says whom to trust."""


def get(url: str, **options: Any) -> httpx.Response:
    """As `httpx.get`: on a connection of its own."""
    return httpx.get(url, verify=_TLS, **options)


def post(url: str, **options: Any) -> httpx.Response:
    """As `httpx.post`: on a connection of its own."""
    return httpx.post(url, verify=_TLS, **options)


def delete(url: str, **options: Any) -> httpx.Response:
    """As `httpx.delete`: on a connection of its own."""
    return httpx.delete(url, verify=_TLS, **options)


def client(**options: Any) -> httpx.Client:
    """As `httpx.Client`: keeps connections."""
    return httpx.Client(verify=_TLS, **options)
