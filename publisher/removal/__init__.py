"""How images leave: they are put on the schedule, stay for their grace period, and are collected.

release.py   what goes with one image: the decision, pure
books.py     the repository's records, as they are and as they will be
gc.py        collect what is due                          `publisher gc`
schedule.py  put on the schedule by hand, list            `publisher remove`, `schedule`
restore.py   take off the schedule, publish again         `publisher restore`
prune.py     schedule what no wish list wishes any more   `publisher prune`
pins.py      keep an image as it is                       `publisher pin`, `unpin`
thin.py      delete thin images of what is gone
names.py     which image an administrator means
"""
