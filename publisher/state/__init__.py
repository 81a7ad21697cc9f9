"""What the publisher remembers about wishes and runs, outside of the published file system.

model.py      the values: what is known of one image, and of one run
backoff.py    when an image that fails is tried again (pure)
outbox.py     notifications that are not delivered yet
database.py   the file of the database: its place, its schema, opening and replacing it
store.py      what is in the database of one repository
overlap.py    at most one run at a time works on one list

The state never decides what is published: that is always read from the repository itself.
"""

from publisher.state.model import Cause, News, RunRecord, Tries

__all__ = ["Cause", "News", "RunRecord", "Tries"]
