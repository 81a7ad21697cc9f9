"""Layers are parsed in worker processes, which have no credentials and no network.

pool.py         `Workers`: at most N worker processes at a time; passes them blobs, checks answers
slots.py        which layers are unpacked at a time
conversation.py the exchange with one worker that unpacks a layer
contents.py     the contents of a layer's files are received from a worker
fork_server.py  the process that workers are forked from, as its user sees it
server.py       that process itself: imports what unpacking needs, and forks
worker.py       one worker process: unpacks one layer, or has it read again
reading.py      in a worker: reads a staged layer again, and sends the contents of its files
surroundings.py the limits and temporary files of all workers
check.py        the index that a worker wrote is checked
job.py          what is to be unpacked, the result, and the function that unpacks, in any process
answers.py      the result or error of a worker as bytes, and back
frames.py       messages in a stream of bytes
calls.py        copies of this process, which are trusted, read contents for `verify --deep`

A worker process is not trusted: the layer that it parses may have taken it over. docs/security.md
describes what it can do, and which of its claims are checked.
"""
