"""The service: jobs by schedule and on request, on one or several hosts; `publisher serve`.

configuration.py        the configuration as values (pure)
access.py               identities, and what each may do (pure)
verbs.py                what requests do, and which roles may (pure)
projects.py             members of projects (pure)
providers.py            identity providers, tokens of jobs, the trusted proxy (pure)
kinds.py                the kinds of jobs (pure)
parse_configuration.py  YAML -> the configuration, and all its errors with their places;
                        parse_access.py, parse_database.py, parse_login.py, parse_projects.py
                        and parse_repositories.py read parts of it, fields.py values of many keys
lists.py                the project of each list, by its name in records
reconcile.py            a repository is made to match the configuration
secret_files.py         which files may have secrets (pure)
host.py                 the parts of one host, in threads
audit.py                the audit log
health.py               liveness and readiness over HTTP
wishes.py               a new wish for a list: the lines to add, and where (pure)
harbor/                 Harbor is made to match the configuration
hooks/                  webhooks of registries (pure)
jobs/                   the jobs: types, queue, child processes
login/                  the sender of a request
web/                    the HTTP interface

Only the commands `serve`, `worker`, `token`, `harbor` and `reconcile` in `cli/` import this room.
It needs the extra `service`.
"""
