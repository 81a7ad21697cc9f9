"""Publish the images that wishes request: ingest, plan and check.

wanted.py       compares what a wish requests with what is published; for all commands
run.py          process many wishes                            `publisher ingest`, `ingest-image`
shared.py       what all images of one run share
work.py         share the images of all wishes among threads; for all commands
wish.py         process one wish
image.py        bring one image up to date; new_image.py: publish it, if it is not current
layers.py       download each layer once; space.py: which images may use the disk; stopping.py
publish.py      prepare the transaction of one image; commit.py: commit it, or several together
group.py        which images are committed together; bookkeeping.py: their records
plan.py         show what an ingest would do                   `publisher plan`
check.py        check wish lists, and that their images exist `publisher check`
check_lists.py  compare lists with earlier ones; check_image.py: one image; findings.py
admission.py    apply a policy file; signatures.py, identities.py: signatures that it requires
thin_images.py  build thin images of published images; thin_push.py: push them;
                thin_pushes.py: those of one run
memory.py       put failing images off, remember outcomes; causes.py: why an image failed
selection.py    the part of the wishes that a run works on: --only, --changed
report.py       outcomes and progress; notices.py: what the file system cannot store
"""
