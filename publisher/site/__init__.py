"""Pages about the published images: a static site, and the same pages for a service.

survey.py      what the pages are about, read from a repository once
pages.py       the contents of each page (pure)
facts.py       a survey arranged by name
compose.py     the contents of the pages about single images
overview.py    the contents of the pages about all images, wishes and removals, and about a layer
details.py     which images have pages about their contents; files.py divides files into pages
compare.py     which images are compared, and the contents of the pages about that
space.py       the contents of the page about space; treemap.py divides its picture
commands.py    the commands that run an image, for each runtime (pure)
addresses.py   the paths of pages (pure)
rendering.py   pages become HTML, by templates/
directory.py   the directory of a static site: what it has, and changes of it
write.py       write the static site: the use case behind `publisher site`

Nothing but `rendering.py` knows HTML, and nothing but `directory.py` and `write.py` writes files.
"""
