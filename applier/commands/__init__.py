"""The applier's commands: one module each; what they share is in options, wiring, terminal and applying."""
