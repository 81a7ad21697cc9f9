"""The documentation site and the man pages: what is generated, and how the pages become one site.

commands.py  the reference of the commands, from their options and help
schemas.py   tables of keys, from JSON Schemas
tables.py    metrics, exit codes and environment variables
pages.py     which page of the checkout is which page of the site, and its links
staging.py   the directory that Sphinx reads
links.py     the links of the built site
"""
