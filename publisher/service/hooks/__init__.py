"""Webhooks of registries: a push becomes an ingest of the wishes that request the image.

model.py          hooks, and pushes, as values (pure)
parse.py          the key `hooks` of the configuration (pure)
authentication.py whether a request was sent by the registry (pure)
payloads.py       the payload of each kind of registry -> pushes (pure)
matching.py       which wishes a push is about (pure)
replays.py        signed requests that are sent again

A payload is a hint: the job asks the registry itself. Of a payload only the path of the image, its
tag and its digest are used; the registry is the one that the configuration names for the hook.
"""
