"""Brings a snapshot of policies to a cluster: plans, validates, applies all or nothing."""
