#!/usr/bin/env bash
# Runs the tests of tests/engines with the container engines of a Debian release, as root: installs
# the release, with the engines, into the user's cache once (tests/debian_root.sh; about 1.2 GB and
# some minutes), and runs pytest there. Needs mmdebstrap and .venv (make lint makes it).
#
#   tests/engines.sh [--release sid|trixie] [--with DIRECTORY] [ARGUMENT…]
#
# sid, the development release and the default, has the engines of today; trixie, Debian 13, has
# containerd 1.7 and Docker 26. Arguments are pytest's; "run COMMAND" in their place runs a command
# there, such as bash. DIRECTORY is /given there, and what is written to it stays.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/debian_root.sh

release=sid
while [ "${1-}" = --release ] || [ "${1-}" = --with ]; do
  case $1 in
    --release) release=$2 ;;
    --with) export GIVEN=$2 ;;
  esac
  shift 2
done
packages=(
  bubblewrap busybox-static ca-certificates charliecloud containerd crun docker-cli docker-registry
  docker.io fuse-overlayfs fuse3 iproute2 podman python3 python3-venv runc skopeo squashfs-tools
  squashfs-tools-ng squashfuse strace uidmap umoci
)
case $release in
  sid)
    make_root engines 2 sid apptainer "${packages[@]}"
    tests=(tests/engines)
    ;;
  trixie) # which has no Apptainer
    make_root engines-trixie 1 trixie "${packages[@]}"
    tests=(
      tests/engines/test_engines.py
      tests/engines/test_snapshotter.py
      tests/engines/test_thin_image_store.py
      tests/system/test_snapshotter.py
      --deselect tests/engines/test_engines.py::test_apptainer_pulls_an_image_and_runs_it
    )
    ;;
  *)
    echo "no engines of Debian $release are tested" >&2
    exit 2
    ;;
esac
make_venv dev
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PUBLISHER_TEST_ENGINES=$release
if [ "${1-}" = run ]; then
  enter_root "$scratch" "${@:2}"
else
  if [ "$#" = 0 ]; then set -- "${tests[@]}"; fi
  # No test may be skipped here: whatever is missing is a failure, as under CI.
  CI=true enter_root "$scratch" python -m pytest -p no:cacheprovider --no-header "$@" </dev/null
fi
