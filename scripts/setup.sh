#!/usr/bin/env bash
# Makes .venv hold exactly what requirements.lock says, and the project itself in editable form.
# Needs a Python >= 3.11 with venv and nothing else; PYTHON=… chooses the interpreter, VENV=… another folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv}

refuse() {
    printf 'setup: %s\n\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

# Newest first. 3.14 and later come last: the Triton wheel has Python stubs up to 3.13.
CANDIDATES=(python3.13 python3.12 python3.11 python3 python3.14)
PROBE='import sys
if sys.version_info < (3, 11):
    sys.exit(f"is Python {sys.version_info[0]}.{sys.version_info[1]}")
try:
    import ensurepip, venv
except ImportError as error:
    sys.exit(f"has no module {error.name} (Debian: the package python3-venv)")'

find_python() {
    local candidate reason seen=""
    for candidate in ${PYTHON:-"${CANDIDATES[@]}"}; do
        if ! command -v "$candidate" >/dev/null; then
            continue
        elif reason=$("$candidate" -c "$PROBE" 2>&1); then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
        seen+="; $candidate ${reason##*$'\n'}"
    done
    refuse "no Python >= 3.11 with venv among: ${PYTHON:-${CANDIDATES[*]}}$seen" \
        "install one (Debian: python3-venv), or name it: make setup PYTHON=/path/to/python3"
}

# An empty or read-only home is no reason to fail: caches then stay inside the checkout.
use_a_writable_cache() {
    local cache="${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}"
    if [ -z "${UV_CACHE_DIR:-}" ] && ! { mkdir -p "$cache/uv" && [ -w "$cache/uv" ]; } 2>/dev/null; then
        export UV_CACHE_DIR="$PWD/.boot/cache/uv" PIP_CACHE_DIR="$PWD/.boot/cache/pip"
    fi
}

# uv does not read pip's configuration; a package mirror that is set up for pip is meant for uv too.
use_the_index_of_pip() {
    local index
    if [ -z "${UV_DEFAULT_INDEX:-}" ] && index=$("$VENV/bin/python" -m pip config get global.index-url 2>/dev/null); then
        export UV_DEFAULT_INDEX="$index"
    fi
}

# uv itself comes by pip, from the same lock and checked against the same hashes.
install_uv() {
    awk '/^[a-zA-Z0-9]/ { wanted = /^uv==/ } wanted' requirements.lock >.boot/uv.txt
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r .boot/uv.txt
}

main() {
    use_a_writable_cache
    mkdir -p .boot
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        local python
        python=$(find_python)
        echo "setup: making $VENV with $python"
        "$python" -m venv --clear "$VENV"
    fi
    echo "setup: installing uv"
    install_uv
    use_the_index_of_pip
    echo "setup: installing $(grep -c '^[a-zA-Z0-9]' requirements.lock) locked packages (about 1 GB the first time)"
    "$VENV/bin/uv" pip sync --require-hashes --python "$VENV/bin/python" requirements.lock
    echo "setup: installing skewless itself"
    "$VENV/bin/uv" pip install --quiet --no-deps --no-build-isolation --python "$VENV/bin/python" --editable .
}

main
