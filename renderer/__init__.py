"""Turns the policies that Insights wants into a snapshot; knows nothing of a live cluster."""
