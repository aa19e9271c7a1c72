"""A claim of the method as numbers: what `distil theory` prints, and tests assert."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One claim: its section, its words, the formula it rests on, and the numbers that came out.

    holds: whether the numbers bear it out; False is a finding too, and is printed as one.
    """

    section: str
    words: str
    formula: str
    numbers: Mapping[str, float]
    holds: bool
