"""Images in parquet files, as Hugging Face publishes them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import DataError
from ...config.images import ImageOptions
from .arrays import LABEL_KEYS
from .image_files import decode_image
from .source import BadImages, ImageSource, RawImages, not_readable

_ROWS = 256


class ParquetImages(ImageSource):
    """The encoded images in one column of a parquet file."""

    def __init__(self, path: Path, options: ImageOptions, files: ExitStack) -> None:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        try:
            self._file = files.enter_context(ParquetFile(path))
        except (OSError, ArrowException) as error:
            raise not_readable(path, error) from error
        self._path = path
        self._options = options
        schema = self._file.schema_arrow
        self._column = self._chosen_column(schema)
        self._labels = options.labels_key or next((name for name in LABEL_KEYS if name in schema.names), None)
        if self._labels is not None and self._labels not in schema.names:
            raise DataError(f"{path} has no column {self._labels!r}; it has {', '.join(schema.names)}")
        self.count = self._file.metadata.num_rows

    def _chosen_column(self, schema: Any) -> str:
        from pyarrow.types import is_binary, is_large_binary, is_struct

        def holds_bytes(kind: Any) -> bool:
            if is_struct(kind):
                return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
            return bool(is_binary(kind) or is_large_binary(kind))

        columns: list[str] = [field.name for field in schema if holds_bytes(field.type)]
        wanted = self._options.key
        if (wanted is None and len(columns) == 1) or wanted in columns:
            return wanted or columns[0]
        listed = f"columns that hold bytes: {', '.join(columns) or 'none'}"
        if wanted is None:
            raise DataError(f"{self._path}: {listed}; name the column of image bytes with --key")
        raise DataError(f"{self._path} has no column {wanted!r} of image bytes; {listed}")

    def chunks(self, bad: BadImages) -> Iterator[RawImages]:
        """Every image by itself."""
        from pyarrow import ArrowException

        columns = [self._column] + ([] if self._labels is None else [self._labels])
        try:
            batches = self._file.iter_batches(_ROWS, columns=columns)
            for row, record in enumerate(record for batch in batches for record in batch.to_pylist()):
                try:
                    yield self._decoded(record, row)
                except ValueError as error:
                    bad.note(f"row {row}", str(error))
        except (OSError, ArrowException) as error:
            raise not_readable(self._path, error) from error

    def _decoded(self, record: dict[str, Any], row: int) -> RawImages:
        cell = record[self._column]
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        pixels = decode_image(content or b"", self._options.channels)
        label = None if self._labels is None else record[self._labels]
        if self._labels is not None and not isinstance(label, int):
            raise ValueError(f"its label is {label!r}, not an integer")
        labels = None if label is None else np.array([label], np.int64)
        return RawImages(pixels[np.newaxis], labels, row, f"row {row}")
