"""Plug-ins for other engines: the same objectives, at that engine's own seams.

verl        what verl loads and calls: the losses, registered (docs/verl.md)
verlbatch   what they are computed from: verl's layout of a batch, and checks of its settings
"""
