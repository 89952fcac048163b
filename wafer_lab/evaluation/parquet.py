"""Tables that a run leaves, as Parquet: written whole or not at all, checked when read.

What is not a column (class names, digests) is JSON in the schema's metadata, so any Parquet reader can use the files.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.files import replacing

_MAGIC = b"PAR1"
_T = TypeVar("_T")


@dataclass(frozen=True)
class TableFile:
    """A kind of table on disk.

    Attributes:
        what: its name in messages, such as ``predictions table``.
        name: its file in a run's folder.
        version: of its layout; a newer one is refused.
    """

    what: str
    name: str
    version: int

    @property
    def _key(self) -> bytes:
        return f"wafer_lab.{self.name.partition('.')[0]}".encode()

    @property
    def _hint(self) -> str:
        return f"name the {self.name} that a run left in its folder"

    def write(self, path: Path, table: pa.Table, facts: Mapping[str, Any]) -> Path:
        """Write a table, beside its place and then renamed into it.

        Args:
            path: of the file.
            table: the columns.
            facts: what is not a column; fit for JSON.

        Raises:
            UserError: the folder cannot be written.
        """
        meta = {self._key: json.dumps({"version": self.version, **facts}).encode()}
        try:
            with replacing(path) as beside:
                known = table.replace_schema_metadata(meta)
                pq.write_table(known, beside, compression="zstd", write_page_checksum=True)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error}; free space or use another folder") from error
        return path

    def read(self, path: Path, build: Callable[[pa.Table, dict[str, Any]], _T]) -> _T:
        """Read a table that `write` wrote.

        Args:
            path: of the file.
            build: columns and facts -> what they stand for. A ValueError, LookupError, TypeError or AttributeError
                in it means that the file is damaged.

        Raises:
            UserError: the file is missing, incomplete, another kind of table or of a newer version.
        """
        table = self._columns(path)
        try:
            meta = json.loads((table.schema.metadata or {}).get(self._key, b"null"))
            if meta is None:
                raise UserError(f"{path} is not a {self.what}; {self._hint}")
            if meta["version"] > self.version:
                raise UserError(f"{path} was written by a newer wafer_lab; update this one to read it")
            return build(table, meta)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _damaged(path) from error

    def _columns(self, path: Path) -> pa.Table:
        if not path.is_file():
            raise UserError(f"there is no {self.what} at {path}; {self._hint}")
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
            file.seek(max(0, path.stat().st_size - len(_MAGIC)))
            tail = file.read()
        if head != _MAGIC:
            raise UserError(f"{path} is not a {self.what}, nor any Parquet file; {self._hint}")
        if tail != _MAGIC:
            raise _damaged(path)
        try:
            return pq.read_table(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path) from error


def strings(column: pa.ChunkedArray) -> NDArray[np.str_]:
    """A column of strings, decoded through a dictionary: a few distinct strings, then one numpy gather."""
    plain = column.cast(pa.string()).combine_chunks().dictionary_encode()
    names = np.array(plain.dictionary.to_pylist() or [""], dtype=np.str_)
    return np.asarray(names[plain.indices.to_numpy()])


def fixed_lists(matrix: NDArray[Any], kind: pa.DataType) -> pa.FixedSizeListArray:
    """An (N, width) array as a column of lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1), kind), matrix.shape[1])


def to_matrix(column: pa.ChunkedArray, width: int) -> NDArray[Any]:
    """A column of lists as an (N, width) array."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(chunks) if chunks else np.empty(0, column.type.value_type.to_pandas_dtype())
    return flat.reshape(-1, width)


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is cut short or damaged; copy it again, or train again to make it anew")
