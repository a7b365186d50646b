"""The source of a Python model: what it must define, and what it must not import.

    def load(folder: Path) -> Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]:
        weights = np.load(folder / "weights.npy")               # `folder` holds the model's files

        def predict(tensor):                                    # (rows, input columns)
            return {"probabilities": tensor @ weights}          # (rows, columns) float32 per output of the signature

        return predict

A Python model is code and runs as such, inside the model server. That it loads no pickle is checked as far as its
imports show; whoever may register one may run code there.
"""

import ast
from collections.abc import Iterator

from skewless.errors import BundleRefused

FUNCTION = "load"
PICKLING = frozenset({"_pickle", "cloudpickle", "cPickle", "dill", "joblib", "marshal", "pickle", "pickle5", "shelve"})
"""Modules that load pickles, or code objects, from bytes."""


def check_source(path: str, data: bytes, *, is_entry: bool) -> None:
    """Raises BundleRefused for source that is none, imports what loads pickles, or, as the entry, defines no `load`."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two from deep nesting
        raise BundleRefused(f"`{path}` is no Python source: {error}") from error
    for line, module in _imported(tree):
        if module.partition(".")[0] in PICKLING:
            raise BundleRefused(
                f"`{path}` imports `{module}` in line {line}; a model loads no pickles",
                hint="keep weights as .npy or .npz without objects, and settings as JSON",
            )
    functions = [each.name for each in tree.body if isinstance(each, ast.FunctionDef)]
    if is_entry and FUNCTION not in functions:
        raise BundleRefused(
            f"`{path}` defines no function `{FUNCTION}`. Its functions: {', '.join(functions) or 'none'}",
            hint=f"define `{FUNCTION}(folder)`, which returns the function from a tensor to the outputs by name",
        )


def _imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and module of every import, wherever it is written, also by a literal name given to an import function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("__import__", "import_module"):
                yield node.lineno, str(node.args[0].value)
