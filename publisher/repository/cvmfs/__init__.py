"""The CVMFS backend: each transaction becomes one stream into one `cvmfs_server ingest`.

repository.py    the backend's `Repository`: reading, staging, beginning transactions
transaction.py   collect the changes of one transaction, and commit them
changes.py       convert the changes of a transaction to server calls               (pure)
execution.py     execute server calls, and complete interrupted transactions
pending.py       the file that describes a transaction during its server calls
union.py         change the union mount
sending.py       write the content of one call as its stream
stream.py        convert entries to an ordered, checked tar stream                   (pure)
sparse.py        decide which files are sent as sparse members                       (pure)
tar_header.py    convert one entry to the bytes of its tar header                    (pure)
layer_stage.py   one layer during its download
spool.py         layers between download and publication, and the limit of their size
mirror.py        the metadata mirror beside the repository
mount.py         read the published tree through the mount
guard.py         wait for other server transactions, and abort interrupted ones
progress.py      detect whether a server command makes progress, and what blocks it
server.py        run `cvmfs_server`, and explain its failures
configuration.py the server's configuration of a repository
machine.py       the checks of `publisher doctor`
"""
