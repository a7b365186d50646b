"""Every error Skewless raises on purpose.

::

    SkewlessError
    ├── InvalidRequest            the caller's body is wrong; the same body will fail again
    │   └── LimitExceeded         it is well-formed but larger than this server accepts
    ├── NotFound                  an endpoint, bundle or model of that name does not exist
    ├── Unauthenticated           nobody that this server knows has asked
    ├── Forbidden                 whoever asked is known, and may not do this
    ├── Rejected                  a feature is missing or stale and its policy is `reject`
    ├── BatchRefused              a batch of feature rows does not pass its quality suite
    ├── VerificationFailed        what was written is not what it was written from
    ├── InvalidDefinition         a feature, transform, model or contract is declared wrongly
    ├── InvalidSettings           an environment variable or settings value is wrong
    ├── BundleRefused             an artifact does not verify; it must not serve
    ├── Conflict                  someone else changed or holds the thing first
    ├── Unavailable               a part is away; trying again later can succeed
    │   ├── Overloaded            more is asked than can be answered; refused before work was spent on it
    │   ├── RateLimited           this caller has asked more often than it may
    │   └── DeadlineExceeded      the request's own deadline ran out
    └── StackFailed               a process of the embedded stack cannot start or stay up

No class knows a transport: each edge has one table from class to status.
"""

from typing import ClassVar


class SkewlessError(Exception):
    """Base of the tree. `message` says what, where, the value seen and what is allowed; `hint` what to do."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n\nhint: {self.hint}" if self.hint else self.message


class InvalidRequest(SkewlessError):
    """The request is wrong at `path` (a JSON path such as `$.instances[3].origin`)."""

    code = "invalid_request"

    def __init__(self, message: str, *, path: str, allowed: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.allowed = allowed
        if code:
            self.code = code  # type: ignore[misc]  # an instance may narrow its class's code


class LimitExceeded(InvalidRequest):
    """The request is larger than a limit of `limits.py`."""

    code = "limit_exceeded"


class NotFound(SkewlessError):
    """Nothing of that kind has that name; `known` lists what exists, None where that would be too long a list."""

    code = "not_found"

    def __init__(self, kind: str, name: str, *, known: tuple[str, ...] | None = None, hint: str = "") -> None:
        listed = "" if known is None else f". Known: {', '.join(f'`{each}`' for each in known) or 'none'}"
        super().__init__(f"{kind} `{name}` does not exist{listed}", hint=hint)
        self.kind = kind
        self.name = name
        self.known = known


class Unauthenticated(SkewlessError):
    """Nobody that this server knows has asked. `was_given`: whether there was a credential, and it was wrong."""

    code = "unauthenticated"

    def __init__(self, message: str, *, was_given: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.was_given = was_given


class Forbidden(SkewlessError):
    """Whoever asked is known, and may not ask for this; `path` is where in the request, empty: for all of it."""

    code = "forbidden"

    def __init__(self, message: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class Rejected(SkewlessError):
    """A feature's policy is `reject` and the store had no usable value for it."""

    code = "feature_rejected"

    def __init__(self, message: str, *, path: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class BatchRefused(SkewlessError):
    """A batch of feature rows does not pass its view's quality suite; nothing of it was written."""

    code = "batch_refused"


class VerificationFailed(SkewlessError):
    """What was written does not compare equal with what it was written from.

    `examples` name entities and values, for whoever looks on: they are kept nowhere, where no deletion would find them.
    """

    code = "verification_failed"

    def __init__(self, message: str, *, examples: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.examples = examples


class InvalidDefinition(SkewlessError):
    """Something declared in a feature repository, or stored by an older version, is wrong."""

    code = "invalid_definition"


class InvalidSettings(SkewlessError):
    """A settings variable has a value that is not allowed, or is not known at all."""

    code = "invalid_settings"


class BundleRefused(SkewlessError):
    """A bundle, or one file of it, is not what its manifest says; it never serves."""

    code = "bundle_refused"


class Conflict(SkewlessError):
    """Another writer or process got there first."""

    code = "conflict"


class Unavailable(SkewlessError):
    """`part` cannot answer now. `retry_after_s` is when trying again is worth it, in seconds."""

    code = "unavailable"

    def __init__(self, part: str, reason: str, *, retry_after_s: float = 1.0, hint: str = "") -> None:
        super().__init__(f"{part} is unavailable: {reason}", hint=hint)
        self.part = part
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """`part` has as much to do as it can bear; the request was refused before any work was spent on it."""

    code = "overloaded"


class RateLimited(Unavailable):
    """`caller` has used up what it may ask for: `quota` at once, and as much again in `window_s` seconds."""

    code = "rate_limited"

    def __init__(self, caller: str, *, retry_after_s: float, quota: int, window_s: float) -> None:
        SkewlessError.__init__(
            self,
            f"`{caller}` may ask {quota} times at once and as often again in {window_s:g} s, and has done so",
            hint="wait as long as Retry-After says, or have its rate raised",
        )
        self.part = "gateway"
        self.retry_after_s = retry_after_s
        self.quota = quota
        self.window_s = window_s


class DeadlineExceeded(Unavailable):
    """The request's deadline ran out before `part` answered."""

    code = "deadline_exceeded"


class StackFailed(SkewlessError):
    """A process of the embedded stack cannot start or does not stay up; the message names it and its log."""

    code = "stack_failed"
