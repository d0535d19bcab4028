"""Data sets of Hugging Face's ``datasets``, by their public interface: neither that package nor its data are needed to import this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedali.data.given.samples import Given, given
from fedali.errors import DataError

_PARTS = ("train", "validation", "test")
_LABELS = ("label", "labels", "y", "target")
_TEXTS = ("input_ids",)
_BESIDE = ("attention_mask", "token_type_ids", "special_tokens_mask")  # of what a tokenizer makes
_NUMBERS = ("int", "uint", "float", "bool")


def is_table(data: Any) -> bool:
    """Whether ``data`` is a ``datasets.Dataset``."""
    return all(hasattr(data, name) for name in ("features", "column_names", "with_format")) and not is_tables(
        data
    )


def is_tables(data: Any) -> bool:
    """Whether ``data`` is a ``datasets.DatasetDict``."""
    return isinstance(data, Mapping) and hasattr(data, "column_names")


def one_table(data: Any) -> tuple[Any, tuple[str, ...]]:
    """The training, validation and test tables of a ``DatasetDict`` as one, since each client's samples are split here; and what was done."""
    names = [name for name in data if name in _PARTS] or list(data)[:1]
    left = [name for name in data if name not in names]
    if len(names) == 1:
        table = data[names[0]]
    else:
        import importlib

        table = importlib.import_module("datasets").concatenate_datasets([data[name] for name in names])
    what = f"of the table{'s' if len(names) > 1 else ''} {', '.join(names)}"
    return table, (what + (f"; not of {', '.join(left)}" if left else ""),)


def from_table(
    table: Any,
    where: str,
    *,
    inputs: str | None = None,
    label: str | None = None,
    client: str | None = None,
) -> Given:
    """Samples and labels of a table's columns.

    Args:
        table: a ``datasets.Dataset``.
        where: what errors call it.
        inputs: the column of samples: pictures, arrays, ids of tokens; without, the one that may be it, or all columns of numbers.
        label: the column of labels; without, the one of classes, or called so.
        client: the column that says whose a sample is.

    Raises ``DataError`` where a column is missing or not certain, with their names.
    """
    features = table.features
    for column in filter(None, (inputs, label, client)):
        if column not in features:
            raise DataError(
                f"{where} has no column {column!r}; its columns are {', '.join(table.column_names)}"
            )
    label = label or _label(features, where)
    rest = [name for name in table.column_names if name not in (label, client, *_BESIDE)]
    columns = [inputs] if inputs else _inputs(features, rest, where)
    shown = table.with_format("numpy")
    if len(columns) == 1 and not _is_number(features[columns[0]]):
        x = _whole(shown[:][columns[0]], where, columns[0])
    else:
        x = np.stack([np.asarray(shown[:][name], np.float32) for name in columns], axis=1)
    whose = None if client is None else np.asarray(table[:][client])
    found = given(x, table[:][label], where, client=whose)
    names = getattr(features[label], "names", None)
    return Given(
        found.x,
        found.y,
        where,
        found.client,
        class_names=tuple(names) if names else None,
        pictures=len(columns) == 1 and type(features[columns[0]]).__name__ == "Image",
    )


def _label(features: Mapping[str, Any], where: str) -> str:
    classes = [name for name, feature in features.items() if getattr(feature, "names", None)]
    likely = classes if len(classes) == 1 else [name for name in features if name in _LABELS]
    if len(likely) != 1:
        raise DataError(
            f"{where}: which column has the labels? Give label=..., one of {', '.join(features)}: as_dataset(data, label=...)"
        )
    return likely[0]


def _inputs(features: Mapping[str, Any], rest: list[str], where: str) -> list[str]:
    pictures = [name for name in rest if type(features[name]).__name__ == "Image"]
    texts = [name for name in rest if name in _TEXTS]
    for likely in (pictures, texts, rest):
        if len(likely) == 1:
            return likely
    if rest and all(_is_number(features[name]) for name in rest):
        return rest
    raise DataError(
        f"{where}: which column has the samples? Give inputs=..., one of {', '.join(rest)}: as_dataset(data, inputs=...)"
    )


def _is_number(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(_NUMBERS) and not hasattr(feature, "shape")


def _whole(column: Any, where: str, name: str) -> Any:
    """A column as one array."""
    array = np.asarray(column)
    if array.dtype == object:
        shapes = sorted({np.shape(value) for value in column})
        if len(shapes) > 1:
            raise DataError(
                f"{where}: column {name!r} has samples of shapes {list(shapes[0])} and {list(shapes[-1])}; make them the same: resize "
                "pictures, pad or cut texts"
            )
        array = np.array([np.asarray(value) for value in column])
    if array.dtype.kind in "US":
        raise DataError(f"{where}: column {name!r} is text; make ids of tokens of it, in a column input_ids")
    return array
