"""The CVMFS backend: each transaction becomes one stream into one `cvmfs_server ingest`.

repository.py    the backend's `Repository`: reading, staging, beginning transactions
transaction.py   collecting the changes of one transaction, and its commit
changes.py       the changes of a transaction -> server calls                       (pure)
execution.py     executing server calls; recovery of a transaction between two of them
pending.py       the file that describes a transaction during its server calls
union.py         changing the union mount by hand
sending.py       the content of one call, written as its stream
stream.py        entries -> an ordered, checked tar stream                          (pure)
sparse.py        which files are sent as sparse members                              (pure)
tar_header.py    one entry -> the bytes of its tar header                           (pure)
spool.py         layers between download and publication, and the limit on their size
mirror.py        the metadata mirror beside the repository
mount.py         reading the published tree through the mount
guard.py         which server transactions are this publisher's, and recovery of them
progress.py      whether a server command makes progress, and what it waits for
server.py        running `cvmfs_server`, and the meaning of its failures
configuration.py the server's configuration of a repository
machine.py       the checks of `publisher doctor`
"""
