"""Files that are never half-written: they are made beside their place and then renamed into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A name to write a file under; when the block ends well, it takes the place of `path`, else it is removed.

    Args:
        path: where the file shall be; its folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")  # one name: what a kill leaves, the next attempt overwrites
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> Path:
    """Write a text file in UTF-8."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return Path(path)
