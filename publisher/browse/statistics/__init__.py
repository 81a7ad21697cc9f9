"""How much space published images use, how much they share, and what their removal would free.

`holdings` reads the records and the headers of layer indexes; `shares`, `charges`, `growth` and
`totals` compute from these without further reading; `contents` reads all entries of the indexes,
by `counted_layers` and `image_sizes`; `collect` does all of it for the whole repository, and
`usage` for single images; `values` has the results as JSON. `quota` refuses images of a run by what
`charges` computes.
"""
