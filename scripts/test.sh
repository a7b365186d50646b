#!/usr/bin/env bash
# Runs every test: those that need no server on all cores, then those with real servers one after another.
# Arguments go to pytest both times; one that selects tests of one half only is no failure of the other.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTEST=${VENV:-.venv}/bin/pytest
readonly NO_TESTS=5

run() {
    "$PYTEST" "$@"
    local status=$?
    [ $status -ne $NO_TESTS ] || [ $arguments -eq 0 ] || return 0
    return $status
}

arguments=$#
failed=0
run -n auto tests/unit "$@" || failed=1
run tests/contract tests/integration tests/e2e "$@" || failed=1
exit $failed
