"""Every set that `distil data prepare` knows, by name; a domain's first one is its default."""

from distil.data.champ import CHAMP
from distil.data.coding import HUMANEVAL
from distil.data.dataset import DataSet
from distil.data.livecodebench import LIVECODEBENCH
from distil.data.mathematics import AIME24, AIME25, AMC23, GSM8K, HARD_MATH, HMMT25, MINERVA
from distil.data.science import MMLU, SCIKNOWEVAL
from distil.errors import DataError, known_names

_ALL = (
    SCIKNOWEVAL, MMLU,
    LIVECODEBENCH, HUMANEVAL,
    HARD_MATH, AIME24, AIME25, HMMT25, AMC23, MINERVA, GSM8K, CHAMP,
)  # fmt: skip
SETS: dict[str, DataSet] = {each.name: each for each in _ALL}


def find_set(domain: str, name: str | None = None) -> DataSet:
    """The domain's set of that name, or its default. Raises DataError."""
    of_domain = [each for each in SETS.values() if each.domain == domain]
    if not name:
        return of_domain[0]
    if name not in SETS:
        raise DataError(
            f"There is no set {name!r}.{known_names(name, [e.name for e in of_domain])}"
        )
    if SETS[name].domain != domain:
        right = SETS[name].domain
        raise DataError(f"The set {name!r} is one of {right}: distil data prepare {right} ...")
    return SETS[name]
