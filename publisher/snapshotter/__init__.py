"""What runs on the machines that mount a tree: a snapshotter for containerd.

Layers of published trees become lower directories of overlay mounts without being downloaded. The
room reads trees only; it never changes one.
"""
