"""Where everything lies in the published tree, and the records in it. Pure."""
