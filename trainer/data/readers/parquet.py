"""Encoded images in a column of one parquet file or a folder of shards, as Hugging Face publishes them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import DataError
from ...config.images import ImageOptions
from .arrays import LABEL_KEYS
from .image_files import decode_image
from .labels import NO_LABEL, ClassLabels, checked_groups, class_labels
from .source import BadImages, ImageSource, RawImages, reading, refuse_options

_ROWS = 256
_NAMED_AT_MOST = 8  # columns


class ParquetImages(ImageSource):
    """The encoded images in one column of some files, in their order."""

    def __init__(self, shards: Sequence[Path], options: ImageOptions, path: Path) -> None:
        """Raises DataError if the column of images is not plain, or ConfigError for an option of arrays."""
        from pyarrow import ArrowException
        from pyarrow.parquet import read_metadata, read_schema

        refuse_options(options, path, ("row_shape", "axes"), "it holds image files, not arrays")
        self._shards, self._options, self._path = shards, options, path
        with reading(path, OSError, ArrowException):
            schema = read_schema(shards[0])
            self._column = self._chosen_column(schema)
            label = options.labels_key or next((name for name in LABEL_KEYS if name in schema.names), None)
            if label is not None and label not in schema.names:
                raise DataError(f"{path} has no column {label!r}; it has {', '.join(schema.names)}")
            self.count = sum(read_metadata(shard).num_rows for shard in shards)
            self._labels, notes = None, list[str]()
            if label is not None:
                try:
                    self._labels, self.classes = _labels_in(shards, label, schema)
                except ValueError as error:
                    if options.labels_key is not None:
                        raise DataError(
                            f"{path}: the labels in {label}: {error}; name others with --labels-key"
                        ) from error
                    notes.append(f"the labels in {label} are left out: {error}")
        if options.group_by is not None:
            if options.group_by not in schema.names:
                raise DataError(f"{path} has no column {options.group_by!r}; it has {', '.join(schema.names)}")
            by = options.group_by
            self.groups = checked_groups(lambda: _labels_in(shards, by, schema), options, path)
        if unused := [name for name in schema.names if name not in {self._column, label, options.group_by}]:
            notes.append(f"read as images: {self._column}; not used: {', '.join(unused)} (--key, --labels-key)")
        if len(shards) > 1:
            first, last = (shards[place].relative_to(path) for place in (0, -1))
            notes.append(f"{len(shards):,} parquet files are read as one set, from {first} to {last}")
            if first.parent != last.parent:
                notes.append(f"what their folders are called, such as {first.parent}, is not used as a label")
        self.notes = tuple(notes)

    def _chosen_column(self, schema: Any) -> str:
        from pyarrow.types import is_binary, is_binary_view, is_large_binary, is_struct

        def holds_bytes(kind: Any) -> bool:
            if is_struct(kind):
                return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
            return bool(is_binary(kind) or is_large_binary(kind) or is_binary_view(kind))

        columns: list[str] = [field.name for field in schema if holds_bytes(field.type)]
        wanted, labels = self._options.key, {self._options.labels_key, *LABEL_KEYS}
        if wanted is None:
            columns = [name for name in columns if name not in labels] or columns
        if (wanted is None and len(columns) == 1) or wanted in columns:
            return wanted or columns[0]
        listed = f"columns that hold bytes: {', '.join(columns) or 'none'}"
        if wanted is not None:
            raise DataError(f"{self._path} has no column {wanted!r} of image bytes; {listed}")
        step = "; name the column of image bytes with --key" if columns else self._step_to_arrays(schema)
        raise DataError(f"{self._path}: {listed}{step}")

    def _step_to_arrays(self, schema: Any) -> str:
        """What to do about a file without encoded images."""
        from pyarrow.types import is_fixed_size_list, is_floating, is_integer, is_large_list, is_list

        shown = [f"{field.name} ({field.type})" for field in schema][:_NAMED_AT_MOST]
        kinds = ", ".join(shown) + (", ..." if len(schema) > len(shown) else "")
        lists = [
            each.name
            for each in schema
            if any(of(each.type) for of in (is_list, is_large_list, is_fixed_size_list))
        ]
        values = [each.name for each in schema if is_integer(each.type) or is_floating(each.type)]
        values = [name for name in values if name not in LABEL_KEYS]
        if lists:
            save = f"np.save('images.npy', np.array(t[{lists[0]!r}].to_pylist()))"
        elif len(values) > _NAMED_AT_MOST:  # a column for each pixel
            label = next((f", labels=t[{name!r}]" for name in LABEL_KEYS if name in schema.names), "")
            columns = "[t[c] for c in t.column_names if c not in ('labels', 'label', 'y')]"
            save = f"np.savez('images.npz', images=np.column_stack({columns}){label})"
        else:
            return f"; it has {kinds}. If those are paths of images, name the folder that holds them"
        code = f"t = pq.read_table({str(self._path)!r}); {save}"
        return f'; it has {kinds}. Save pixels with python -c "import numpy as np, pyarrow.parquet as pq; {code}"'

    def chunks(self, bad: BadImages) -> Iterator[RawImages]:
        """Every image by itself."""
        for row, cell in enumerate(self._cells()):
            try:
                yield self._decoded(cell, row)
            except ValueError as error:
                bad.note(f"row {row}", str(error))

    def _cells(self) -> Iterator[Any]:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        for shard in self._shards:
            with reading(shard, OSError, ArrowException, KeyError), ParquetFile(shard) as file:
                if self._column not in file.schema_arrow.names:
                    raise DataError(f"{shard} has no column {self._column!r}, as {self._shards[0].name} has")
                for batch in file.iter_batches(_ROWS, columns=[self._column]):
                    yield from batch.column(0).to_pylist()

    def _decoded(self, cell: Any, row: int) -> RawImages:
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is None and isinstance(cell, dict) and cell.get("path"):
            raise ValueError(
                f"only its path is kept, {cell['path']}, not the image; name the folder that holds the images"
            )
        pixels = decode_image(content or b"", self._options.channels)
        labels = None if self._labels is None else self._labels[row : row + 1]
        return RawImages(pixels[np.newaxis], labels, row, f"row {row}")


def _labels_in(shards: Sequence[Path], label: str, schema: Any) -> ClassLabels:
    """The labels in a column. Raises ValueError if it holds none."""
    import pyarrow
    from pyarrow.parquet import read_table

    columns = [read_table(shard, columns=[label]).column(0) for shard in shards]
    kinds = [
        column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type for column in columns
    ]
    if pyarrow.types.is_nested(kinds[0]):
        raise ValueError(f"they are of type {kinds[0]}, not one for each image")
    chunks = [chunk for column in columns for chunk in column.cast(kinds[0]).chunks]
    encoded = pyarrow.chunked_array(chunks, kinds[0]).combine_chunks().dictionary_encode()
    distinct = encoded.dictionary.to_numpy(zero_copy_only=False)
    values, names = class_labels(distinct, len(distinct))
    if names is None and (names := _names_in(schema, label)) is not None:
        values = np.where(values < 0, NO_LABEL, values)  # -1 in the splits whose labels are kept secret
        names = names if values.max(initial=0) < len(names) else None
    labels = np.append(values, NO_LABEL)[encoded.indices.fill_null(len(values)).to_numpy()]
    if (labels == NO_LABEL).all():
        raise ValueError("none of the images has one")
    return labels, names


def _names_in(schema: Any, label: str) -> tuple[str, ...] | None:
    """The names of the classes that Hugging Face's datasets write into the schema, by label."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        return tuple(map(str, feature["names"])) if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None
