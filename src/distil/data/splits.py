"""The split into train and test, as `datasets.Dataset.train_test_split` makes it.

Written out, so that preparing a table doesn't load `datasets`; a test compares the two. Left out:
who is split (the rows that the filters left, in the order of the file).
"""

import math

import numpy as np

SHARE, SEED = 0.1, 42
"""What the published runs held out, and by which seed."""


def train_test_split(count: int, share: float = SHARE, seed: int = SEED) -> list[str]:
    """'train' or 'test' for each of `count` rows: ceil(share * count) of them are 'test'."""
    held_out = math.ceil(share * count)
    order = np.random.default_rng(seed).permutation(count)
    test = set(order[:held_out].tolist())
    return ["test" if place in test else "train" for place in range(count)]
