#!/usr/bin/env bash
# Runs the tests of workers and of their confinement on aarch64, as root: with the kernel and the Python
# of Debian 13, in a virtual machine whose processor QEMU emulates. Its files are put together once in
# the user's cache, from packages of which nothing is executed here. Needs mmdebstrap, qemu-system-arm
# and .venv (make lint makes it).
#
#   tests/aarch64.sh [ARGUMENT…]
#
# Arguments are pytest's; "run COMMAND" in their place runs a command there.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
. tests/debian_root.sh

packages=(
  base-files base-passwd bash busybox-static coreutils dash iproute2 libseccomp2 linux-image-arm64 mount
  python3 util-linux
)
extras=service,site,sbom,notify,snapshotter,sigstore # the server of commands imports the whole package
tools=(hypothesis jsonschema pytest pytest-cov pytest-timeout pytest-xdist)

# archive DIRECTORY: writes its files as a part of the first root directory of a kernel.
archive() {
  (cd "$1" && find . | busybox cpio -o -H newc)
}

# make_machine: sets `machine` to a directory with a kernel, and an archive of all files but the checkout.
make_machine() {
  local state root wheels platforms installed pip
  state=$(declare -f && declare -p packages extras tools && cat pyproject.toml constraints.txt)
  machine=$cache/aarch64-$(sha256sum <<<"$state" | head -c 12)
  exec {lock}>"$cache/aarch64.lock"
  flock "$lock"
  if [ ! -d "$machine" ]; then
    root=$scratch/root wheels=$scratch/wheels
    mkdir "$scratch/machine"
    mmdebstrap --quiet --arch=arm64 --variant=extract --include="$(IFS=, && echo "${packages[*]}")" \
      trixie "$root" "$(debian_mirror)"
    mv "$root"/boot/vmlinuz-* "$scratch/machine/kernel"
    installed=$root/usr/local/lib/python3.13/dist-packages
    rm -rf "$root"/{boot,tmp} "$root"/usr/{lib/modules,share/{doc,locale,man}} "$root"/var/{cache,lib}/apt
    mkdir -p "$root"/{dev,proc,src,sys} && mkdir -m 1777 "$root/tmp"
    cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
    cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
    (umask 077 && echo 'root:*:20000:0:99999:7:::' >"$root/etc/shadow")
    first_process >"$root/init"
    chmod 755 "$root/init"

    platforms=(--platform=manylinux_2_{17..41}_aarch64)
    export PIP_CONSTRAINT=$PWD/constraints.txt
    pip=(.venv/bin/python -m pip -qq --disable-pip-version-check --no-input)
    "${pip[@]}" wheel --no-deps --wheel-dir "$wheels" .
    "${pip[@]}" install --no-compile --only-binary=:all: "${platforms[@]}" --python-version=3.13 \
      --target "$installed" "$(echo "$wheels"/publisher-*.whl)[$extras]" "${tools[@]}"
    unset PIP_CONSTRAINT
    rm -rf "$installed/publisher" # the package itself is that of the checkout
    echo /src >"$installed/publisher.pth"

    archive "$root" >"$scratch/machine/files"
    rm -rf "$root" "$wheels" "$cache"/aarch64-*
    mv "$scratch/machine" "$machine"
  fi
  exec {lock}>&-
}

first_process() {
  cat <<'INIT'
#!/bin/bash
export HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
exec </dev/null >/dev/console 2>&1
ip link set lo up
cd /src
. /command
echo "ended with $?"
busybox poweroff -f
INIT
}

mkdir -p "$cache"
scratch=$(mktemp -d "$cache/aarch64.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
make_machine
mkdir -p "$scratch/given/src"
git ls-files -z --cached --others --exclude-standard |
  tar --create --null --files-from=- --ignore-failed-read |
  tar --extract --no-same-owner --directory="$scratch/given/src"
if [ "${1-}" = run ]; then
  shift
else
  if [ "$#" = 0 ]; then set -- tests/unit/sandbox tests/unit/workers; fi
  # No test may be skipped here: whatever is missing is a failure, as under CI, but samples suffice.
  set -- env CI=true PUBLISHER_SAMPLE=0.15 python3 -m pytest -p no:cacheprovider --no-header -n 2 \
    --hypothesis-profile=few "$@"
fi
{
  echo "date --set=@$(date +%s) >/dev/null"
  printf '%q ' "$@"
} >"$scratch/given/command"
archive "$scratch/given" | cat "$machine/files" - >"$scratch/files"

nice qemu-system-aarch64 -machine virt -cpu max,pauth-impdef=on -smp 2 -m 4096 -nic none \
  -nographic -no-reboot -kernel "$machine/kernel" -initrd "$scratch/files" \
  -append 'console=ttyAMA0 loglevel=3 panic=-1' |
  sed --unbuffered 's,\r$,,' | tee "$scratch/output"
grep --quiet --text '^ended with 0$' "$scratch/output"
