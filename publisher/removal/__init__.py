"""Removal: images are scheduled, stay for their grace period, and are collected.

release.py           which content is removed with an image: the decision, pure
reference_counts.py  the records, decreased image by image
gc.py                collect what is due                            `publisher gc`
schedule.py          put on the schedule by hand, list              `publisher remove`, `schedule`
restore.py           take off the schedule, publish again           `publisher restore`
withdrawal.py        which images the lists withdraw: the decision, pure
prune.py             schedule what no wish list requests any more   `publisher prune`
pins.py              keep an image as it is                         `publisher pin`, `unpin`
thin.py              delete the thin images of collected originals
names.py             names of images on the command line
"""
