#!/usr/bin/env bash
# Runs the fast tests on the Python 3.13 of Debian 13, as root. Installs a minimal Debian 13 into the
# user's cache once (tests/debian_root.sh). Needs mmdebstrap and .venv (make lint makes it). Runs the
# rooms that depend on what Python and its libraries do; those that depend on the file system and on
# other programs more than on Python are left out. Properties are tried with fewer examples than on
# the machine's own Python. Arguments are pytest's; with --prepare alone, it only installs.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
. tests/debian_root.sh

tests=(
  tests/unit/browse
  tests/unit/layers
  tests/unit/oci
  tests/unit/policy
  tests/unit/runtimes
  tests/unit/sources
  tests/unit/test_codec.py
  tests/unit/test_durations.py
  tests/unit/test_errors.py
  tests/unit/thin
  tests/unit/tree
  tests/unit/wishlist
  tests/unit/workers/test_compromised_worker.py
  --ignore=tests/unit/layers/test_fuzz.py
  --ignore=tests/unit/layers/test_merge.py
)

make_root trixie 4 trixie bubblewrap busybox-static git iproute2 jq make openssl python3 python3-venv \
  squashfs-tools squashfs-tools-ng strace tcl
make_venv dev
bytecode=/opt/venv/bytecode.tar # of the package and the tests
if [ "${1:-}" = --prepare ]; then
  # Modules are compiled at their first import: here once, not in each process of pytest.
  enter_root memory bash -c 'bytecode=$1 && shift
    python -m pytest --collect-only --quiet -p no:cacheprovider "$@" || true
    find publisher tests -name "*.cpython-313*.pyc" | tar --create --file="$bytecode" --files-from=-' \
    bash "$bytecode" "${tests[@]}"
  exit
fi
unset CI # what is not installed here was tested before
enter_root memory bash -c 'if [ -f "$1" ]; then tar --extract --file="$1"; fi
  shift && exec python -m pytest "$@"' bash "$bytecode" -n auto --dist worksteal -m "not system" \
  -p no:cacheprovider --no-header --hypothesis-profile=few "${tests[@]}" "$@"
