"""The history of a cluster: the sets of policies that runs put in place, so that any kept one can be put back."""
