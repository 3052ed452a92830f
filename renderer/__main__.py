"""Runs the renderer with `python -m renderer`."""

from renderer.cli import main

main()
