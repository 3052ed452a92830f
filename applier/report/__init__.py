"""The change model, shown: one module a format."""
