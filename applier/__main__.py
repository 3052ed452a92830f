"""Runs the applier with `python -m applier`."""

from applier.cli import main

main()
