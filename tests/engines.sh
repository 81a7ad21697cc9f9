#!/usr/bin/env bash
# Runs the tests of tests/engines with the container engines of today, as root: installs Debian's
# development release, with the engines, into the user's cache once (tests/debian_root.sh; about
# 1.2 GB and some minutes), and runs pytest there. Needs debootstrap and .venv (make lint makes it).
# Arguments are pytest's; "run COMMAND" in their place runs a command there, such as bash.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/debian_root.sh

packages=(
  apptainer bubblewrap busybox-static ca-certificates charliecloud containerd crun docker-cli
  docker-registry docker.io fuse-overlayfs fuse3 iproute2 podman python3 python3-venv runc skopeo
  squashfs-tools squashfs-tools-ng squashfuse strace uidmap umoci
)

make_root engines 2 sid "${packages[@]}"
make_venv dev
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [ "${1-}" = run ]; then
  enter_root "$scratch" "${@:2}"
else
  # No test may be skipped here: whatever is missing is a failure, as under CI.
  CI=true PUBLISHER_TEST_ENGINES=1 enter_root "$scratch" \
    python -m pytest -p no:cacheprovider --no-header "${@:-tests/engines}" </dev/null
fi
