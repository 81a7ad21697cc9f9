"""The packages in an image: databases of package managers are found and read, versions compared.

Modules: `model` (packages and databases), `places` (which files are databases), `reading` (the
bytes of one database become packages), with `stanzas` (dpkg, apk), `rpm` and `rpm_files`,
`metadata` (Python, Conda, R, npm, os-release); `versions` (the order of versions of each package
manager), `query` (the text of a search).

Everything here comes from images, and is hostile: sizes and counts are limited, and what cannot be
read is skipped with a reason. Only the bytes of files are read, never a file system.
"""
