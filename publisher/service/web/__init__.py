"""The HTTP interface of the service: REST below /api/v1, and the pages of the site, live.

context.py      what the interface reads: published trees, jobs, the clock
snapshots.py    what is published at one moment, read again after each change, for all requests
routes.py       a route, its parameters, and how they are parsed (pure)
login.py        the routes with which people log in and out
projects.py     the projects, what they use, and their quotas
tokens.py       the routes that create, list and revoke tokens
guard.py        the one check of every request: what its sender may do
problems.py     errors as answers (application/problem+json)
answers.py      answers with ETag, which are kept as long as the snapshot
trees.py        the routes about published trees
jobs.py         the routes about jobs, with live logs; identifiers.py: which texts may name one
submissions.py  the routes that queue and cancel jobs
bodies.py       the bodies of requests, bounded and typed
job_pages.py    the pages about jobs, and their forms
forms.py        what all forms of pages have
rates.py        how often clients may send requests
audit.py        requests that change something are recorded
threads.py      threads for calls of the database
clients.py      where requests come from
wish_pages.py   the page that checks a new wish, and shows where to add it
hooks.py        the webhooks of registries
paging.py       pages of a list, with stable cursors (pure)
openapi.py      the description of all routes, for programs (pure)
pages.py        the pages of `publisher.site`, made when they are requested
connections.py  connections of bounded number and time
application.py  all of it as one Starlette application

Nothing here imports the command line: `cli/` opens the repositories and hands them over.
"""
