#!/usr/bin/env bash
# Runs the fast tests on the Python 3.13 of Debian 13, as root. Installs a minimal Debian 13 into the
# user's cache (~/.cache/publisher-tests) once, and enters it in a mount namespace of its own, where
# the checkout is read-only. Needs debootstrap and .venv (make lint makes it). Runs the rooms that
# depend on what Python and its libraries do; those that depend on the file system and on other
# programs more than on Python are left out. Arguments are pytest's.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

cache=${XDG_CACHE_HOME:-$HOME/.cache}/publisher-tests
root=$cache/trixie-$(uname -m)-2
tests=(
  tests/unit/browse
  tests/unit/layers
  tests/unit/oci
  tests/unit/runtimes
  tests/unit/sources
  tests/unit/test_codec.py
  tests/unit/test_durations.py
  tests/unit/test_errors.py
  tests/unit/thin
  tests/unit/tree
  tests/unit/wishlist
  --ignore=tests/unit/layers/test_fuzz.py
  --ignore=tests/unit/layers/test_merge.py
)

if [ ! -d "$root" ]; then
  mkdir -p "$cache"
  # The mirror from which this machine's own apt takes its packages: no other may be reachable.
  mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    sed -n "s/^$(. /etc/os-release && echo "$VERSION_CODENAME") //p" | head -n 1)
  building=$(mktemp -d "$cache/trixie.XXXXXX")
  debootstrap --variant=minbase --include=git,jq,make,openssl,python3,python3-venv,strace,tcl \
    trixie "$building" "$mirror" >"$building.log" || { tail -n 20 "$building.log" >&2; exit 1; }
  rm -rf "$building.log" "$building"/var/cache/apt/archives "$building"/var/lib/apt/lists
  chmod 755 "$building"
  mv "$building" "$root"
fi

# Packages are fetched here, where the package index can be reached.
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
pip=(.venv/bin/python -m pip -qq --disable-pip-version-check --no-input)
export PIP_CONSTRAINT=$PWD/constraints.txt
"${pip[@]}" wheel --no-deps --wheel-dir "$wheels" .
"${pip[@]}" download --dest "$wheels" --only-binary=:all: --python-version 3.13 \
  "$wheels"/publisher-*.whl coverage hypothesis jsonschema pyte pytest pytest-timeout pytest-xdist

unshare --mount --fork bash -euo pipefail -c '
  root=$1 wheels=$2 && shift 2
  mount --make-rprivate /
  mount --bind "$root" "$root"
  for folder in proc sys dev; do mount --rbind "/$folder" "$root/$folder"; done
  mount -t tmpfs tmpfs "$root/tmp"
  mkdir "$root/tmp/src" "$root/tmp/wheels"
  mount --bind . "$root/tmp/src" && mount -o remount,bind,ro "$root/tmp/src"
  mount --bind "$wheels" "$root/tmp/wheels"
  cd "$root" && pivot_root . mnt && cd /tmp/src
  umount --lazy /mnt && mount --make-rshared /
  export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1
  unset CI PIP_CONSTRAINT  # what is not installed here was tested before
  python3 -m venv /tmp/venv
  /tmp/venv/bin/pip install -qq --no-index --no-warn-script-location /tmp/wheels/*.whl
  exec /tmp/venv/bin/python -m pytest -n auto --dist worksteal -m "not system" \
    -p no:cacheprovider --no-header "$@"
' python313 "$root" "$wheels" "${tests[@]}" "$@"
