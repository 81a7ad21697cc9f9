"""Unpack layer blobs into trees and indexes, and merge the indexes of layers into flat images.

unpack.py        unpack one blob: blob.py, decompress.py, stream.py, tar.py, headers.py, sparse.py
builder.py       the entries of one layer; ledger.py, rows.py: their state while it is unpacked
policy.py        which properties of entries are published; names.py: which names
index.py         the layer index; index_lines.py: its lines, one for each entry
merge.py         merge indexes into a flat image; side_by_side.py: read indexes together
fixups.py        the changes of a layer's tree that lower layers require
opaque.py        the attributes of opaque directories in a layer's tree
links.py         hard links to files of lower layers
catalogs.py      the nested catalogs of CVMFS
replay.py        read a layer again from its blob and its index
"""
