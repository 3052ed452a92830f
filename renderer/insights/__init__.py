"""Insights' API: its settings, the transport, and one module for each family of endpoints."""
