"""Names of the classes: COCO's, a user's file, or numbers."""

from __future__ import annotations

from pathlib import Path

from dyninfer.errors import ConfigError
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through
from dyninfer.plain_text import counted
from dyninfer.results.class_lists import names_from

_EXPECTED = "expected a text file with one name on each line, or a data set's YAML"
LARGEST_NAMES = 16 << 20  # bytes

COCO = tuple(
    """person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|
stop sign|parking meter|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|
umbrella|handbag|tie|suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|
skateboard|surfboard|tennis racket|bottle|wine glass|cup|fork|knife|spoon|bowl|banana|apple|
sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed|
dining table|toilet|tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|
refrigerator|book|clock|vase|scissors|teddy bear|hair drier|toothbrush""".replace("\n", "").split(
        "|"
    )
)
COCO_IDS = tuple(n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
"""The numbers of COCO's 80 classes in its annotations."""


def class_names_for(classes: int, path: Path | None) -> tuple[str, ...]:
    """The class names of a model: those of :func:`read_names` where a file is given.

    Else COCO's for 80 classes, and ``class_0``, ``class_1``, ... for any other number.

    Raises:
        ConfigError: the file cannot be read or holds another number of names.
    """
    if path is None:
        return COCO if classes == len(COCO) else tuple(f"class_{i}" for i in range(classes))
    names = read_names(path)
    if len(names) != classes:
        raise ConfigError(
            f"{path} holds {counted(len(names), 'class name')}, but the model has "
            f"{counted(classes, 'class')}; {_EXPECTED}"
        )
    return names


def read_names(path: Path) -> tuple[str, ...]:
    """Names from a text file, one per line, or from ``names`` in a data set's YAML.

    Raises:
        ConfigError: the file cannot be read or holds no such names.
    """
    try:
        text = read_file(path, LARGEST_NAMES).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"the file of class names {path} does not exist; {_EXPECTED}") from None
    except (OSError, ValueError) as error:
        let_through(error)
        raise ConfigError(f"class names cannot be read from {path}: {error}") from None
    if path.suffix.lower() not in (".yaml", ".yml"):
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    from dyninfer.safe_yaml import load_yaml  # not installed without the extra

    try:
        document = load_yaml(text, words=True)
    except ValueError as error:
        raise ConfigError(f"class names cannot be read from {path}: {error}") from None
    if not isinstance(document, dict) or "names" not in document:
        raise ConfigError(f"{path} has no 'names'; expected a list or a mapping of index to name")
    return names_from(document["names"], str(path))
