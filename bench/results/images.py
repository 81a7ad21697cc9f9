"""The images: built, pushed to a registry, published; each step is left out if it is done."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.measure import run_once
from bench.results.build import Builder
from bench.results.recipes import RECIPES, Recipe
from bench.results.sif import make_sif_files, sif_file
from bench.results.state import State, progress
from tests.components import Registry, docker_registry
from tests.layer_builder import file, image, layer, write_layout
from tests.probe import probe_image

HOST = "registry.example.org"
"""The registry in the names of the images. Requests for it go to one on this machine."""

PUBLISHER = (sys.executable, "-m", "publisher")


@dataclass(frozen=True, slots=True)
class World:
    """The images, in a registry on this machine and in a published tree.

    Attributes:
        recipes: The images in the order in which they are published.
    """

    state: State
    registry: Registry
    recipes: tuple[Recipe, ...]

    @property
    def tree(self) -> Path:
        """The repository with all images."""
        return self.state.folder / "tree"

    @property
    def configuration(self) -> Path:
        """The registry settings that direct requests to the registry on this machine."""
        path = self.state.folder / "config.yaml"
        settings = {HOST: {"mirror": f"http://{self.registry.host}"}}
        path.write_text(json.dumps({"registries": settings}))
        return path

    def reference(self, recipe: Recipe) -> str:
        """Return the name under which the image is published."""
        return f"{HOST}/field/{recipe.name}"

    def flat(self, recipe: Recipe) -> Path:
        """Return the directory of the published flat image."""
        return (self.tree / self.reference(recipe)).resolve()

    def sif(self, recipe: Recipe) -> Path:
        """Return the SIF file of the image."""
        return sif_file(self.state.folder, recipe.name)

    def manifest(self, recipe: Recipe) -> Any:
        """Return the manifest of the published image."""
        metadata = self.tree / ".metadata" / self.reference(recipe) / "manifest.json"
        return json.loads(metadata.read_bytes())

    def ingest(self, recipe: Recipe, tree: Path, reference: str = "") -> Sequence[str | Path]:
        """Return the command that publishes an image to `tree`."""
        words = ("ingest-image", "--quiet", "--config", self.configuration, "--repository", tree)
        return (*PUBLISHER, *words, reference or self.reference(recipe))


@contextmanager
def made_world(state: State, *, quick: bool) -> Iterator[World]:
    """Yield all images: built, pushed, and as SIF files.

    `quick` has three small ones, which are made by tests, without SIF files.
    """
    os.environ["PUBLISHER_STATE"] = str(state.folder / "publisher-state")
    recipes = QUICK if quick else RECIPES
    with docker_registry(state.folder / "registry") as registry:
        world = World(state, registry, recipes)
        if quick:
            _push_quick(world)
        else:
            _build_and_push(world)
            make_sif_files(state.folder, [recipe.name for recipe in recipes])
        yield world


def _build_and_push(world: World) -> None:
    """Build and push what is missing: first the bases, then what is above them.

    Images with the same image above the base are a group; several groups are built at a time.
    """
    by_name = {recipe.name: recipe for recipe in RECIPES}
    (world.state.folder / "pushed").mkdir(exist_ok=True)
    bases = [recipe for recipe in RECIPES if not recipe.parent]
    groups: dict[str, list[Recipe]] = {}
    for recipe in RECIPES:
        if recipe.parent:
            groups.setdefault((*parents_of(recipe, by_name), recipe)[1].name, []).append(recipe)
    missing = {
        name: [each for each in group if not _pushed(world, each).exists()]
        for name, group in groups.items()
    }
    if not any(missing.values()):
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # A group that waits for its base is behind it in the queue.
        ready = {base.name: pool.submit(_build_base, world, base) for base in bases}
        done = [
            pool.submit(_build_group, world, name, each, by_name, ready)
            for name, each in missing.items()
        ]
    for finished in done:
        finished.result()
    for base in bases:
        _builder(world, base.name).forget()


def _builder(world: World, name: str) -> Builder:
    return Builder(world.state.folder / "build" / name.replace(":", "-"))


def _pushed(world: World, recipe: Recipe) -> Path:
    """Return the file that shows that an image is in the registry."""
    return world.state.folder / "pushed" / recipe.name


def _build_base(world: World, base: Recipe) -> None:
    builder = _builder(world, base.name)
    builder.build(base, [])
    if any(recipe.parent == base.name for recipe in RECIPES):
        builder.update_lists(base)
    _push(world, builder, base)


def _build_group(
    world: World,
    name: str,
    missing: Sequence[Recipe],
    by_name: dict[str, Recipe],
    bases: dict[str, Future[None]],
) -> None:
    builder = _builder(world, name)
    for number, recipe in enumerate(missing, 1):
        progress(f"image {number} of {len(missing)} with {name}: {recipe.name}")
        parents = parents_of(recipe, by_name)
        bases[parents[0].name].result()
        builder.begin_with(_builder(world, parents[0].name))
        for each in (*parents, recipe):
            builder.build(each, parents_of(each, by_name))
        _push(world, builder, recipe)
    builder.forget()


def _push(world: World, builder: Builder, recipe: Recipe) -> None:
    if not _pushed(world, recipe).exists():
        world.registry.push(builder.source(recipe), f"field/{recipe.name}", "--preserve-digests")
        _pushed(world, recipe).touch()


def parents_of(recipe: Recipe, by_name: dict[str, Recipe]) -> list[Recipe]:
    """Return the images below one, the lowest first."""
    below: list[Recipe] = []
    while recipe.parent:
        recipe = by_name[recipe.parent]
        below.insert(0, recipe)
    return below


_QUICK_COMMAND = ("sh", "-c", "cat /data/0 >/dev/null; echo started")
QUICK = tuple(Recipe(f"made:{tag}", "", (), _QUICK_COMMAND) for tag in "123")


def _push_quick(world: World) -> None:
    """Push images of busybox, data that all share, and a file of each version."""
    layout = world.state.folder / "layout"
    base = probe_image().layers
    data = layer(*(file(f"data/{n}", b"%d" % n * 5000) for n in range(200)))
    for number, recipe in enumerate(QUICK):
        own = layer(file("own", b"%d" % number * 9000))
        config = {"Cmd": list(recipe.command), "Env": ["PATH=/bin"]}
        write_layout(image(*base, data, own, config=config), layout, recipe.name[5:])
        world.registry.push(f"oci:{layout}:{recipe.name[5:]}", f"field/{recipe.name}")
    shutil.rmtree(layout)


def publish(world: World) -> list[dict[str, Any]]:
    """Publish all images one after the other; return what each cost and has."""
    rows: list[dict[str, Any]] = []
    shutil.rmtree(world.tree, ignore_errors=True)
    known: set[str] = set()
    for recipe in world.recipes:
        os.sync()
        cost = run_once(world.ingest(recipe, world.tree))
        layers = [(each["digest"], each["size"]) for each in world.manifest(recipe)["layers"]]
        new = {digest: size for digest, size in layers if digest not in known}
        known |= new.keys()
        rows.append(
            {
                "name": recipe.name,
                "parent": recipe.parent,
                "layers": len(layers),
                "newLayers": len(new),
                "compressed": sum(size for _, size in layers),
                "newCompressed": sum(new.values()),
                **asdict(cost),
            }
        )
        progress(f"  published {recipe.name}: {cost.wall:.1f} s")
    return rows
