"""Bundles written as Triton models. The target here is the CPU server of the embedded stack.

    <models>/bundle_<16 hex>/config.pbtxt    tensors, batching, warm-up
    <models>/bundle_<16 hex>/1/model.py      runs ONNX Runtime inside Triton's python backend
    <models>/bundle_<16 hex>/1/model.onnx    the bundle's model, unchanged

Another target (a GPU server's onnxruntime backend, say) differs in these files only; names, tensors and all that
the gateway does stay the same.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from skewless.bundles.bundle import MODEL, LoadSteps, load_bundle
from skewless.canonical_json import Digest
from skewless.limits import MODEL_BATCH_ROWS_MAX
from skewless.serving.ports import ModelSignature

VERSION = "1"
"""A bundle is immutable, so its model has one version for ever; another bundle is another model."""
CONFIG = "config.pbtxt"
_DIGEST_CHARACTERS = 16
_TEMPLATES = "skewless_triton"
"""The package that holds the model templates, named and not imported: the library must not depend on services."""
_INCOMING = ".incoming-"

_CONFIG_TEMPLATE = """\
name: "{model}"
backend: "python"
max_batch_size: {batch_rows_max}
{input}
{outputs}
version_policy {{ latest {{ num_versions: 1 }} }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{
  # No delay: what arrives while a batch runs forms the next one.
  # No queue policy either: with one, Triton 2.51 stops prefetching, and a request that arrives just as a batch
  # ends can sleep for 500 ms (docs/adr/0004). The gateway bounds what is in flight and for how long.
  max_queue_delay_microseconds: 0
}}
# ONNX Runtime plans its memory at the first run of a shape; callers must not wait for that.
model_warmup [
{warmup}
]
"""


def model_name(digest: str) -> str:
    """What a bundle is called at the model server.

    >>> model_name("0123456789abcdef" * 4)
    'bundle_0123456789abcdef'
    """
    return f"bundle_{digest[:_DIGEST_CHARACTERS]}"


def deploy(bundle_folder: Path, digest: str, models_folder: Path, *, steps: LoadSteps | None = None) -> str:
    """Write a bundle's model into a model repository and return its name there; nothing is loaded yet.

    The model is there completely or not at all, and deploying again changes nothing. `steps` as for `load_bundle`.
    Raises BundleRefused for a bundle that does not verify.
    """
    bundle = load_bundle(bundle_folder, Digest(digest), steps=steps)
    name = model_name(digest)
    target = models_folder / name
    content = {
        CONFIG: render_config(name, bundle.signature).encode(),
        f"{VERSION}/model.py": (files(_TEMPLATES) / "embedded_cpu" / "model.py").read_bytes(),
        f"{VERSION}/model.onnx": (bundle_folder / MODEL).read_bytes(),
    }
    if _is_deployed(target, content):
        return name
    models_folder.mkdir(parents=True, exist_ok=True)
    incoming = models_folder / f"{_INCOMING}{name}-{uuid.uuid4().hex}"
    outgoing = models_folder / f"{_INCOMING}{name}-{uuid.uuid4().hex}"
    try:
        for path, data in content.items():
            _write(incoming / path, data)
        with _alone_in(models_folder):
            if _is_deployed(target, content):
                return name
            if target.exists():
                # Left by another version of the templates. The server keeps what it has loaded until it loads again.
                target.rename(outgoing)
            incoming.rename(target)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
        shutil.rmtree(outgoing, ignore_errors=True)
    return name


def render_config(model: str, signature: ModelSignature) -> str:
    """Triton's configuration of a bundle's model for a CPU."""
    return _CONFIG_TEMPLATE.format(
        model=model,
        batch_rows_max=MODEL_BATCH_ROWS_MAX,
        input=_tensors("input", ((signature.input_name, signature.input_columns),)),
        outputs=_tensors("output", signature.outputs),
        warmup=",\n".join(
            f'  {{ name: "{rows} rows" batch_size: {rows} inputs {{ key: "{signature.input_name}" '
            f"value {{ data_type: TYPE_FP32 dims: [ {signature.input_columns} ] zero_data: true }} }} }}"
            for rows in (1, 64)
        ),
    )


def _tensors(kind: str, tensors: tuple[tuple[str, int], ...]) -> str:
    lines = (f'  {{ name: "{name}" data_type: TYPE_FP32 dims: [ {columns} ] }}' for name, columns in tensors)
    return f"{kind} [\n" + ",\n".join(lines) + "\n]"


def _is_deployed(target: Path, content: dict[str, bytes]) -> bool:
    try:
        return all((target / path).read_bytes() == data for path, data in content.items())
    except OSError:
        return False


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that one process at a time looks at what is there and replaces it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
