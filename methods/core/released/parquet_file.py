"""PNG files and their labels as one Parquet file that Hugging Face `datasets` reads as images with class names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FILE = "data/train-00000-of-00001.parquet"
# Rows of one row group: what a reader holds in memory at a time.
_ROWS = 1000


def features(class_names: Sequence[str]) -> dict[str, dict[str, object]]:
    """Returns what `datasets.Features` writes of a column `image` and a column `label`."""
    return {"image": {"_type": "Image"}, "label": {"names": list(class_names), "_type": "ClassLabel"}}


def write_parquet(
    path: Path, folder: Path, names: Sequence[str], labels: np.ndarray, class_names: Sequence[str]
) -> None:
    """Writes the PNG files `names` under `folder`, byte by byte, with labels int64 [N], in their order."""
    # Slow to import, and needed by no other command.
    import pyarrow as pa
    from pyarrow import parquet

    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    metadata = {"huggingface": json.dumps({"info": {"features": features(class_names)}})}
    schema = pa.schema({"image": image, "label": pa.int64()}, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(names), _ROWS):
            part = names[start : start + _ROWS]
            rows = [{"bytes": (folder / name).read_bytes(), "path": name} for name in part]
            columns = [pa.array(rows, image), pa.array(labels[start : start + _ROWS], pa.int64())]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
