#!/usr/bin/env bash
# The one door: makes the environment if it is missing or stale, then runs what it is told.
#   ./start.sh                   the app, at the URL that it prints
#   ./start.sh test [--slow]     the test suite; --slow adds what takes minutes
#   ./start.sh check             ruff and mypy
#   ./start.sh bench original    a benchmark of bench/; see docs/performance.md
#   ./start.sh analyze song.mp3  any sub-command of the command line
set -euo pipefail
here="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"
venv="$here/.venv"
need_mb=4000

fail() {
    printf 'start.sh: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '          %s\n' "$2" >&2
    exit 2
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ] && ! command -v "$PYTHON" >/dev/null 2>&1; then
        fail "PYTHON=$PYTHON: there is no such program."
    fi
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed, and none was found." \
        "On Debian: sudo apt install python3 python3-venv. Or name one: PYTHON=/path/to/python3.12 ./start.sh"
}

# A list is installed when a stamp with the same checksum and the same Python stands in the environment.
install_list() {
    local list="$here/$1" stamp="$venv/.installed-$1" sum
    sum="$(cksum <"$list") $("$venv/bin/python" -V)"
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ] && return
    printf 'start.sh: installing %s (a few minutes the first time) ...\n' "$1" >&2
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r "$list" >&2 ||
        fail "pip could not install what $1 names; see the lines above." \
            "Check the network and the disk, then run the same command again: it goes on where it stopped."
    printf '%s' "$sum" >"$stamp"
}

make_environment() {
    if ! "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        local python free_mb
        python="$(find_python)"
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "$python has no venv module." "On Debian: sudo apt install python3-venv"
        free_mb="$(df -Pm "$here" | awk 'NR == 2 {print $4}')"
        [ "$free_mb" -ge "$need_mb" ] ||
            fail "only $free_mb MB are free on this disk; about $need_mb MB are needed." "Free some space and try again."
        rm -rf "$venv"
        "$python" -m venv "$venv" || fail "the environment could not be made in $venv." "See the lines above."
    fi
    install_list requirements.txt
}

# Two first starts at once must not build the same environment.
if command -v flock >/dev/null 2>&1 && [ -w "$here" ]; then
    exec 9>"$here/.start.lock"
    flock 9
    make_environment
    exec 9>&-
else
    make_environment
fi
# An installation that this account may only read keeps nothing beside itself: the program then finds another place.
[ ! -w "$here" ] || export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-${ACOUSTIC_CACHE_DIR:-$here/cache}/numba}"
case "${1:-}" in
"")
    cd "$here"
    exec "$venv/bin/python" app_gradio.py
    ;;
test)
    shift
    install_list requirements-train.txt
    install_list requirements-test.txt
    cd "$here"
    slow=(-m "not slow")
    if [ "${1:-}" = "--slow" ]; then
        shift
        slow=()
    fi
    # a file of tests a time in each process; `-n 0` after it runs them all in one
    n="$("$venv/bin/python" -c 'from acoustic.settings import available_cores as n; print(min(n(), 4) if n() > 1 else 0)')"
    exec "$venv/bin/python" -m pytest -n "$n" --dist loadfile ${slow[@]+"${slow[@]}"} "$@"
    ;;
train)
    install_list requirements-train.txt
    PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "$venv/bin/python" -m acoustic "$@"
    ;;
bench)
    [ -n "${2:-}" ] && [ -f "$here/bench/$2.py" ] || fail "which benchmark?" "For example: ./start.sh bench original"
    install_list requirements-train.txt
    cd "$here"
    exec "$venv/bin/python" -m "bench.$2" "${@:3}"
    ;;
check)
    install_list requirements-test.txt
    cd "$here"
    "$venv/bin/python" -m ruff check .
    "$venv/bin/python" -m ruff format --check .
    exec "$venv/bin/python" -m mypy
    ;;
*)
    [ "${1:-} ${2:-}" != "models quantize" ] || install_list requirements-train.txt
    PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "$venv/bin/python" -m acoustic "$@"
    ;;
esac
