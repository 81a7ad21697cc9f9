# Debian releases other than this machine's, as directories: installed once into the user's cache
# (~/.cache/publisher-tests), with the packages that tests need for their Python, and entered in
# namespaces of their own. To be sourced by bash at the top of the checkout, as root, with .venv.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/publisher-tests

# debian_mirror: prints the mirror from which this machine's own apt takes its packages: no other may
# be reachable.
debian_mirror() {
  apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    sed -n "s/^$(. /etc/os-release && echo "$VERSION_CODENAME") //p" | head -n 1
}

# make_root NAME RECIPE SUITE PACKAGE…: sets `root` to the directory, installing it if it is missing.
# RECIPE is a number, to be increased with every change of the packages.
make_root() {
  local name=$1 recipe=$2 suite=$3 mirror building
  shift 3
  root=$cache/$name-$(uname -m)-$recipe
  mkdir -p "$cache"
  exec {lock}>"$cache/$name.lock"
  flock "$lock"
  if [ ! -d "$root" ]; then
    mirror=$(debian_mirror)
    building=$(mktemp -d "$cache/$name.XXXXXX")
    # The Release file of a mirror that keeps a state of sid may have expired.
    mmdebstrap --quiet --variant=minbase --include="$(IFS=, && echo "usr-is-merged,$*")" \
      --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --dpkgopt=force-unsafe-io \
      --aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$building" "$mirror" \
      >"$building.log" 2>&1 || { tail -n 20 "$building.log" >&2; rm -rf "$building"; return 1; }
    rm -rf "$building.log" "$building"/var/cache/apt/archives "$building"/var/lib/apt/lists
    chmod 755 "$building"
    mv "$building" "$root"
  fi
  exec {lock}>&-
}

# make_venv EXTRAS: sets `venv` to a virtual environment for /src in `root`, with the checkout's
# dependencies. Those of each state of pyproject.toml and constraints.txt are kept for a week.
make_venv() {
  local extras=$1 version wheels pip
  venv=$root-venv-$({ echo "$extras"; cat pyproject.toml constraints.txt; } | sha256sum | head -c 12)
  exec {lock}>"$root.lock"
  flock "$lock"
  if [ ! -d "$venv" ]; then
    # Packages are fetched here, where the package index can be reached.
    wheels=$(mktemp -d)
    version=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    pip=(.venv/bin/python -m pip -qq --disable-pip-version-check --no-input)
    export PIP_CONSTRAINT=$PWD/constraints.txt
    "${pip[@]}" wheel --no-deps --wheel-dir "$wheels" .
    "${pip[@]}" download --dest "$wheels" --only-binary=:all: --python-version "$version" \
      "$(echo "$wheels"/publisher-*.whl)[$extras]" hatchling hatch-vcs editables
    unset PIP_CONSTRAINT
    rm "$wheels"/publisher-*.whl
    rm -rf "$venv.new" # an interrupted run made it
    mkdir "$venv.new"
    venv=$venv.new enter_root "$wheels" bash -euo pipefail -c '
      python3 -m venv --clear /opt/venv
      pip=(/opt/venv/bin/pip -qq --disable-pip-version-check --no-input)
      "${pip[@]}" install --no-compile --no-index /scratch/*.whl
      "${pip[@]}" install --no-index --no-deps --no-build-isolation --editable /src'
    rm -rf "$wheels"
    mv "$venv.new" "$venv"
  fi
  touch "$venv"
  find "$cache" -maxdepth 1 -name "$(basename "$root")-venv-*" -mtime +7 -exec rm -rf {} +
  exec {lock}>&-
}

# enter_root SCRATCH COMMAND…: runs COMMAND in `root`, where the checkout is /src and `venv` is
# /opt/venv. What it changes in `root` or the checkout is written below SCRATCH (a directory, or
# "memory") instead. The directory $GIVEN, if it is set, is /given there, and is written to. No process that it starts survives it, and its network is a loopback of its own.
enter_root() {
  unshare --mount --pid --net --ipc --fork --kill-child bash -euo pipefail -c '
    root=$1 venv=$2 scratch=$3 && shift 3
    mount --make-rprivate /
    if [ "$scratch" = memory ]; then
      scratch=/mnt
      mount -t tmpfs tmpfs "$scratch"
    fi
    covered() {
      mkdir -p "$scratch/$2"-{upper,work} "$3"
      mount -t overlay overlay \
        -o "lowerdir=$1,upperdir=$scratch/$2-upper,workdir=$scratch/$2-work" "$3"
    }
    covered "$root" root "$scratch/root"
    root=$scratch/root
    covered "$PWD" src "$root/src"
    mkdir -m 1777 -p "$scratch/tmp"
    mkdir "$root/scratch" "$root/opt/venv"
    for directory in sys dev; do mount --rbind "/$directory" "$root/$directory"; done
    mount -t proc proc "$root/proc"
    mount --bind "$venv" "$root/opt/venv"
    mount --bind "$scratch" "$root/scratch"
    mount --bind "$scratch/tmp" "$root/tmp"
    if [ -n "${GIVEN-}" ]; then
      mkdir "$root/given"
      mount --bind "$GIVEN" "$root/given"
    fi
    cd "$root" && pivot_root . mnt && cd /src
    umount --lazy /mnt && mount --make-rshared /
    export HOME=/root PATH=/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin
    unset "${!PIP_@}" "${!XDG_@}" TMPDIR
    hash -r
    if command -v ip >/dev/null; then ip link set lo up; fi
    # This shell is process 1 here: it stays, to collect the processes that others leave to it.
    "$@" && exit 0 || exit "$?"
  ' enter_root "$root" "$venv" "$@"
}
