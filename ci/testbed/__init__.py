"""The test bed: the pinned tools, and a real control plane without containers, on the loopback."""
