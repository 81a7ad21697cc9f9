"""Jobs of the service: their types, the durable queue, the child processes that do the work.

model.py      the types, and the protocol `Jobs`, on which the REST API and the pages build (pure)
database.py   the tables, and the connections to SQLite or PostgreSQL
store.py      `Jobs` on these tables; a new job is put in the queue of DBOS in the same transaction
worker.py     what a host reads and writes of the jobs that it runs
engine.py     DBOS: takes jobs from the queue, and those of lost hosts again
hosts.py      heartbeats of hosts: which are lost
running.py    a host runs a job, from the queue to its end
command.py    the command of a job, and its environment (pure)
credentials.py the options of a project: credentials, settings, prefix, quota
child.py      the child process of a job; launcher.py runs in it first
output.py     the output of a child becomes events, of bounded number and size
schedule.py   schedules become jobs
pushed.py     jobs for images that were pushed, joined while they wait
lists.py      the lists that the configuration had
history.py    old jobs are removed
"""
