"""The summaries of all commands: `--help` and completion show them without loading the commands."""

from __future__ import annotations

SUMMARIES = {
    "adopt": "Take over a repository that DUCC filled: layers and flat images stay and are used",
    "check": 'Find the errors in the wish lists WISHLIST... ("-" reads standard input)',
    "completion": "Print the completion script for SHELL: commands, options, published images, "
    "files",
    "diff": "Show what differs between the published images OLD and NEW: + added, - removed, "
    "~ changed",
    "doctor": "Check that this machine can publish to the repository and reach each REGISTRY",
    "du": "Show how much space published images use, and what their removal would free",
    "expand": "Print the images that the wish lists WISHLIST... request now, one reference per "
    "line",
    "export": "Print a wish list with the published images, or those whose names match the "
    "glob PATTERN",
    "find": "Find the published images that contain a path, or a package",
    "fmt": 'Write the wish lists WISHLIST... in their normal form ("-": standard input to output)',
    "gc": "Collect scheduled images whose grace period is over, and the layers that only they used",
    "harbor": "Make the projects of a Harbor those of the configuration of the service",
    "import": 'Convert LIST to a wish list of version 2, and print it ("-" reads standard input)',
    "ingest": 'Publish the images that the wish lists WISHLIST... request ("-" reads standard '
    "input)",
    "ingest-image": "Publish one image, without a wish list",
    "init": "Prepare REPOSITORY and set its policy: what of images may appear in it, and its mount",
    "inspect": "Show what REFERENCE names: platforms, digests, configs, layers, sizes",
    "list": "List the published images, or those whose names match the glob PATTERN",
    "lock": "Write the digests of the images that WISHLIST... request now to a lock beside "
    "each list",
    "log": "Show the transactions: their time, user and command, and what they changed",
    "login": "Verify a user name and password at REGISTRY, and store them",
    "logout": "Remove what `publisher login REGISTRY` stored",
    "ls": "List what a published IMAGE has at PATH (its root, without one), from the "
    "layers' indexes",
    "modulefile": "Write a module file for a published IMAGE below DIRECTORY, which belongs into "
    "MODULEPATH",
    "notify": "Check the configuration of notifications in FILE, and with --test its receivers",
    "oci-runtime": "Run containers of thin images with runc or crun",
    "packages": "List the packages in a published IMAGE, from the databases of its package "
    "managers",
    "pin": "Keep IMAGE as it is: its tag is not followed, it is never scheduled, and never "
    "collected",
    "plan": "Show what `publisher ingest WISHLIST...` would do now, and change nothing",
    "prune": "Schedule for removal what the wish lists WISHLIST... published and no longer request",
    "reconcile": "Make the repositories of the service, or that of --repository, match its "
    "configuration",
    "remove": "Schedule every published IMAGE for removal, for all its platforms",
    "restore": "Take IMAGE off the remove schedule, or publish an earlier image of its tag again",
    "run": "Run the flat image of a published IMAGE on this machine, to test it",
    "runs": "Show the runs that this machine recorded: when, with which exit code, what they did",
    "sbom": "Print the bill of materials of a published IMAGE: its packages with their "
    "package URLs",
    "schedule": "Show the scheduled images: from when each may be removed, why, and how much "
    "that frees",
    "serve": "Run the service: jobs by schedule, and an HTTP server",
    "show": "Show everything about a published IMAGE: a name as listed, or an image reference",
    "site": "Write web pages about the published images to DIRECTORY: a static site",
    "snapshotter": "Let containerd start published images without downloading their layers",
    "stats": "Show what the repository holds, what sharing saves, and what removals would free",
    "status": "Show the state of each wish: published, failing and why, waiting, scheduled, pinned",
    "tags": "List the tags of the image repository IMAGE, as the patterns of a wish match them",
    "thin": "Make the thin image of a published IMAGE: an image whose only content is a recipe",
    "token": "Create, list and revoke tokens for requests to the service, in its database",
    "trace": "Record which files of a published IMAGE a program opens, so that clients can "
    "prefetch them",
    "unpin": "Remove the pin of IMAGE: its tag is followed again, and it can be scheduled and "
    "collected",
    "verify": "Compare everything published with its records: links, layers, flat images",
    "version": "Print the version of the publisher and of its Python, as --version does",
    "wait": "Wait until an image is published, and with --replica until replicas serve it",
    "worker": "Run a further host of the service, which takes jobs and answers no requests",
}
"""The first sentence of the help of each command."""

GROUPS = {
    "Wish lists": ("check", "plan", "fmt", "expand", "lock", "import", "tags", "inspect"),
    "Publication": (
        *("init", "ingest", "ingest-image", "status", "runs", "wait", "doctor", "login", "logout"),
        "adopt",
    ),
    "Published images": (
        *("list", "show", "ls", "diff", "find", "packages", "sbom", "export", "site"),
        "modulefile",
    ),
    "Running images": ("run", "trace", "thin", "oci-runtime", "snapshotter"),
    "Removal": ("schedule", "remove", "restore", "prune", "gc", "pin", "unpin"),
    "The repository": ("stats", "du", "log", "verify"),
    "The service": ("serve", "worker", "reconcile", "token", "harbor", "notify"),
    "This program": ("completion", "version"),
}
"""The sections in which `publisher --help` lists the commands."""
