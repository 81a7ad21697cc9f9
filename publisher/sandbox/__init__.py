"""Confinement of the current process, before it reads bytes of images.

`confinement` is the sequence of the measures, each of which is a module: `root` (root directory),
`capabilities`, `landlock` (files) and `filter` (system calls, with their numbers in `syscalls`).
`abilities` finds out which of them a machine has.
"""

from publisher.sandbox.abilities import Ability as Ability
from publisher.sandbox.abilities import abilities as abilities
from publisher.sandbox.capabilities import Capability as Capability
from publisher.sandbox.capabilities import for_unpacking as for_unpacking
from publisher.sandbox.confinement import Confinement as Confinement
from publisher.sandbox.confinement import Measure as Measure
from publisher.sandbox.confinement import adopt_orphans as adopt_orphans
from publisher.sandbox.confinement import children as children
from publisher.sandbox.confinement import confine as confine
from publisher.sandbox.confinement import end_with_parent as end_with_parent
from publisher.sandbox.confinement import threads as threads
from publisher.sandbox.errors import SandboxError as SandboxError
