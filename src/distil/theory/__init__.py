"""The theory, executable: every claim of the method as a function that returns numbers.

NumPy, float64, and nothing from the rest of the package: what `distil.objectives` computes in torch
is computed here by hand, and tests hold one against the other. `distil theory` prints it all.
"""
