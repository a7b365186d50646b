"""Functions of definitions by name: which of them can be named, what pins them, and how they are loaded.

What pins a function is the text of its own definition and of everything in its module that it uses, directly or
through others: functions, classes, constants, imports. Other modules are pinned by their import statement alone.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

from skewless.canonical_json import Digest, digest_bytes
from skewless.errors import InvalidDefinition

OWN_MODULE = (
    "write it as a plain function at the top of a module that does not import Feast, such as "
    "`feature_repo/computed.py`, and give that function to `on_demand_feature_view(…)(computed.function)`"
)


def function_name(function: Any) -> str:
    """`module:name` of a function at the top of an importable module; InvalidDefinition for any other.

    Feast's decorator renames a function's module to `__main__`, so the module is taken from its globals.
    """
    if not isinstance(function, FunctionType):
        raise InvalidDefinition(f"{function!r} is not a function", hint=OWN_MODULE)
    module, qualified = str(function.__globals__.get("__name__")), function.__qualname__
    if not qualified.isidentifier():
        kind = "a lambda" if "<lambda>" in qualified else "nested in something else"
        raise InvalidDefinition(f"function `{module}:{qualified}` is {kind} and cannot be named", hint=OWN_MODULE)
    if module == "__main__":
        raise InvalidDefinition(f"function `{qualified}` lives in a script and cannot be imported", hint=OWN_MODULE)
    return f"{module}:{qualified}"


def load_function(name: str, expected: Digest, load: Callable[[str], ModuleType]) -> Callable[[Any], Any]:
    """The function `module:name`. Raises InvalidDefinition where it is away, or its source is not as expected."""
    module, function = _resolve(name, load)
    if (found := source_digest(module, function.__name__)) != expected:
        raise InvalidDefinition(
            f"function `{name}` is not the one that was registered: the digest of its source is {found[:12]}…, "
            f"expected {expected[:12]}…",
            hint="install the version of the definitions that the bundle was built with, or apply and train again",
        )
    return function


def digest_of(name: str, load: Callable[[str], ModuleType]) -> Digest:
    """What pins the function `module:name` now. Raises InvalidDefinition where it is away."""
    module, function = _resolve(name, load)
    return source_digest(module, function.__name__)


def source_digest(module: ModuleType, function: str) -> Digest:
    """SHA-256 of what pins a function of a module. Raises InvalidDefinition where there is no source to read."""
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError) as error:
        raise InvalidDefinition(
            f"the source of module `{module.__name__}` cannot be read, so its function `{function}` cannot be verified",
            hint="install it with its .py files",
        ) from error
    return digest_bytes(pinned_text(source, function).encode())


def pinned_text(source: str, function: str) -> str:
    """The statements at the top of a module's source that define a function and all it uses, in their order.

    >>> print(pinned_text("LIMIT = 3\\nOTHER = 4\\ndef clip(x):\\n    return min(x, LIMIT)", "clip"))
    LIMIT = 3
    def clip(x):
        return min(x, LIMIT)
    """
    statements = ast.parse(source).body
    binders: dict[str, list[int]] = {}
    for number, statement in enumerate(statements):
        for name in _bound(statement):
            binders.setdefault(name, []).append(number)
    # What a star import brings cannot be told from the text, so each of them counts as used.
    wanted, queue = set(binders.get("*", ())), [function]
    seen = {function}
    while queue:
        for number in binders.get(queue.pop(), ()):
            wanted.add(number)
            used = {node.id for node in ast.walk(statements[number]) if isinstance(node, ast.Name)} - seen
            seen |= used
            queue.extend(used)
    lines = source.splitlines()
    return "\n".join("\n".join(lines[slice(*_span(statements[number]))]) for number in sorted(wanted))


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top of a module gives a meaning."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]


def _span(statement: ast.stmt) -> tuple[int, int]:
    """Lines of a statement with its decorators, as a half-open range from 0."""
    decorators = getattr(statement, "decorator_list", [])
    first = min(statement.lineno, *(each.lineno for each in decorators)) if decorators else statement.lineno
    return first - 1, statement.end_lineno or statement.lineno


def _resolve(name: str, load: Callable[[str], ModuleType]) -> tuple[ModuleType, FunctionType]:
    module_name, _, qualified = name.partition(":")
    try:
        module = load(module_name)
    except Exception as error:  # the boundary to someone else's module, which may raise anything
        raise InvalidDefinition(
            f"module `{module_name}` of function `{name}` cannot be imported: {type(error).__name__}: {error}",
            hint="install the repository's package where the function runs; it must not need Feast",
        ) from error
    function = getattr(module, qualified, None)
    if not isinstance(function, FunctionType):
        seen = "nothing" if function is None else f"a {type(function).__name__}"
        raise InvalidDefinition(f"`{name}` is {seen}, not a function", hint=OWN_MODULE)
    return module, function
