"""Jobs of the service: their types, the durable queue, the child processes that do the work.

model.py    the types, and the protocol `Jobs`, on which the REST API and the pages build (pure)
"""
