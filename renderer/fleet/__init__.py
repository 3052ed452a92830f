"""The snapshots of many clusters: a file that lists them, processes that write them, and git for all of them."""
