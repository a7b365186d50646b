"""Errors as `{"error": "…"}`, the form that clients of Triton, KServe and TensorFlow Serving read."""

from collections.abc import Mapping

from skewless.errors import SkewlessError
from skewless_http.http_message import Reply, json_reply
from skewless_http.problems import headers_of, problem_members

_MEMBERS = ("code", "path", "allowed", "hint", "request_id")


def error_reply(error: SkewlessError, request_id: str) -> Reply:
    """The status of a problem document, all that it says in one text, and its members beside it for programs."""
    members = problem_members(error, request_id=request_id)
    body = {"error": error_text(members), **{name: members[name] for name in _MEMBERS if members.get(name)}}
    return json_reply(body, status=members["status"], headers=headers_of(error))


def error_text(members: Mapping[str, str]) -> str:
    """All that the members of a problem say, for clients that show one text: where, what is allowed, what to do."""
    told = {"at": members.get("path"), "allowed": members.get("allowed"), "hint": members.get("hint")}
    return "; ".join([members["detail"], *(f"{name}: {each}" for name, each in told.items() if each)])
