"""How the senders of requests are known: tokens of jobs, sessions of people, a trusted proxy.

fetch.py    documents of identity providers: bounded, without redirects
keys.py     the keys of an identity provider, kept and read again when they change
signed.py   signed tokens: which are accepted, and what they state
flow.py     OpenID Connect: the authorization code flow, with PKCE
sessions.py sessions of users who have logged in, in the database
tokens.py   tokens that requests have created, in the database
senders.py  the sender of a request, from its headers, cookies and address

What the configuration states about all of them is in `service/providers.py`.
"""
