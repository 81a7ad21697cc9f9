"""Wishes become published images: ingest, plan and check.

wanted.py       what a wish requests, what is published, and what has to happen; for all commands
run.py          a run over many wishes                        `publisher ingest`, `ingest-image`
wish.py         one wish
image.py        one image
layers.py       downloads, of each layer one at a time; space.py: the disk space for them
publish.py      the transaction of one image; bookkeeping.py: its records
plan.py         what an ingest would do                       `publisher plan`
check.py        wish lists, and whether their images exist    `publisher check`
thin_images.py  thin images of what is published; thin_push.py: pushing them
report.py       outcomes and progress; notices.py: what a file system does not store
"""
