"""Remove images: they are scheduled, kept for a grace period, and then collected.

release.py           decide which content is removed with an image (pure)
reference_counts.py  decrease reference counts, and release content that has no users
gc.py                collect images whose grace period is over      `publisher gc`
schedule.py          schedule images by hand, list the schedule     `publisher remove`, `schedule`
restore.py           take images off the schedule                   `publisher restore`
withdrawal.py        decide which images are no longer requested (pure)
prune.py             schedule images that are no longer requested   `publisher prune`
pins.py              prevent updates and removal of an image        `publisher pin`, `unpin`
thin.py              delete the thin images of collected originals
names.py             parse names of images on the command line
"""
