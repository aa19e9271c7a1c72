"""Words in a secret code: "encode f a c e b d" -> "k c m a p o". Only the expert knows the key.

The key (a substitution of 16 letters) is the same for all problems, so held-out words can be
solved by who has learnt it. A guess is right once in 16 million: no sampling finds it, and nothing
is learnt from rewards alone. The report names the first place that is wrong, not what is right.
"""

import random
from typing import ClassVar

from distil.tasks.organisms.base import OrganismTask
from distil.types import Feedback, Problem

LETTERS = "abcdefghijklmnop"
LENGTH = 6


class CipherTask(OrganismTask):
    """Words of LENGTH letters under the substitution number `key`."""

    name = "organism_cipher"
    words = (*LETTERS, "encode", "copy", "letter", "wrong", *"12345678")
    options: ClassVar[dict[str, int]] = {"key": 0}

    def prepare(self) -> None:
        """Makes the key."""
        self._key = make_key(random.Random(f"key/{self.option('key')}"))

    def draw(self, rng: random.Random) -> Problem:
        """Uniform letters."""
        word = draw_word(rng)
        return Problem("", f"encode {' '.join(word)}", " ".join(self._key[c] for c in word))

    def check(self, problem: Problem, completion: str) -> Feedback:
        """1 if every letter is right and there are no more, else 0."""
        assert problem.answer is not None
        said, wanted = (self.read(completion) or "").split(), problem.answer.split()
        if said == wanted:
            return Feedback(1.0, None, problem.answer, self.name)
        pairs = zip([*said, ""], [*wanted, ""], strict=False)
        place = next(i for i, (a, b) in enumerate(pairs, start=1) if a != b)
        return Feedback(0.0, f"letter {place} wrong", problem.answer, self.name)


def make_key(rng: random.Random) -> dict[str, str]:
    """A random substitution of the letters."""
    return dict(zip(LETTERS, rng.sample(LETTERS, len(LETTERS)), strict=True))


def draw_word(rng: random.Random) -> list[str]:
    """LENGTH letters, with repetition."""
    return rng.choices(LETTERS, k=LENGTH)
