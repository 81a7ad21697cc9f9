"""Harbor: its projects, members, quotas and robot accounts are made those of the configuration.

model.py     what the configuration wants, what Harbor has, and the actions between them (pure)
parse.py     the key `harbor` of the configuration (pure)
decide.py    the actions that make Harbor match the configuration (pure)
client.py    the requests to Harbor's API, version 2.0
sync.py      reads Harbor, and executes the actions; one that fails does not stop the others
"""
