"""The CVMFS backend: each transaction becomes one stream into one `cvmfs_server ingest`.

repository.py    reading, staging, beginning transactions
transaction.py   what one transaction collects, and its commit
changes.py       a transaction's changes -> the server calls that carry them out   (pure)
sending.py       what a call adds -> its stream
editing.py       changing the mounted tree by hand
visible.py       whether what was published is there
stream.py        entries -> an ordered, self-checked tar stream                    (pure)
header.py        one entry -> the bytes of its tar header                          (pure)
catalogs.py      where nested catalogs start                                       (pure)
pending.py       a transaction on its way, should we die in it
planned.py       flat images between their planning and their sending
spool.py         the bound on what waits to be published
carrying.py      carrying out server calls, and what a dead publisher left of them
server.py        running `cvmfs_server`, and what its failures mean
configuration.py what the server's own files say of the repository
guard.py         our transactions and those of others; recovery after a crash
gate.py          nobody of us looks into the mount while the server replaces it
engine.py        what this backend asks of the layer engine
"""
