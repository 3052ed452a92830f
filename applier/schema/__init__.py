"""What the schemas of a cluster say of a policy: its defaults, its mistakes, and what of it is deprecated."""
