"""Scores a data set with an ONNX model, in chunks that a retry does not compute again."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarrow import Context, Operator, __version__, param, urls
from yarrow.dataset import DatasetManifest, DatasetXCom, Part, open_dataset, publish
from yarrow.errors import Fail
from yarrow.jsontypes import Json
from yarrow_operators.ducks import (
    connect,
    literal,
    quote,
    readable_parts,
    relation,
    require_columns,
    rows_of,
    schema_of,
    write_part,
)
from yarrow_operators.fingerprint import fingerprint, fingerprints
from yarrow_operators.onnx_model import OnnxModel, OutputColumn

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows [start, stop) of one part of the input. Their result is a file, whose existence is the checkpoint."""

    number: int
    source: str  # the part, as DuckDB reads it
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"part-{self.number:06d}.parquet"


@dataclass(slots=True)
class Latencies:
    """The time of each batch, told for a row of it."""

    batches: list[tuple[float, int]] = field(default_factory=list)  # seconds, rows

    def percentile(self, share: float) -> float:
        """Microseconds a row, such that this share of the rows took at most as long."""
        wanted = share * sum(rows for _, rows in self.batches)
        reached = 0
        for latency, rows in sorted((seconds / rows * 1e6, rows) for seconds, rows in self.batches):
            reached += rows
            if reached >= wanted:
                return latency
        return 0.0


class Infer(Operator):
    """Scores every row of a data set with an ONNX model.

    The rows are worked off in chunks of `checkpoint_rows`, each of which ends in a file of the task's work folder. A
    retry goes on after the last file, unless the input, the model or a parameter has changed: then it begins anew.
    Killed at any moment, it loses at most the chunk it was at, and the result is the same.

    A model that takes one matrix names its features in its metadata (`yarrow.features`, a JSON list), or the task does.
    A null of a floating-point feature reaches the model as NaN.
    """

    input: dict[str, Json] | str = param(doc="The data set: the XCom of a task, or the address of a data set's folder.")
    model: str = param(doc="The ONNX file: a path in the DAG folder, an absolute path or an fsspec URL.")
    features: list[str] | None = param(
        default=None, doc="The columns that the model takes, in the order of the training; by default it names them."
    )
    outputs: dict[str, str] = param(
        default={},
        doc="The columns to make: `probability: probabilities[1]` takes the second column of an output. By default all"
        " that the model names or has.",
        examples=({"probability": "probabilities[1]"},),
    )
    keep: list[str] | None = param(default=None, doc="The input's columns that the result keeps; by default all.")
    batch_rows: int = param(default=4096, minimum=1, doc="Rows that the model is given at once.")
    checkpoint_rows: int = param(default=50_000, minimum=1, doc="Rows between two checkpoints.")
    threads: int = param(default=0, minimum=0, doc="Threads of the model; 0: the share of this worker slot.")

    Outputs = DatasetXCom

    def execute(self, context: Context) -> DatasetXCom:
        started = time.perf_counter()
        dataset = open_dataset(self.input)
        content = self._read_model(context)
        model = OnnxModel(content, threads=self.threads or context.cpus)
        with connect(context) as connection:
            # One thread writes the same bytes every time; the model, which is the work, has its own threads.
            connection.execute("SET threads = 1")
            scorer = self._scorer(connection, context, dataset, model)
            folder = self._checkpoints(context, dataset, hashlib.sha256(content).hexdigest(), scorer)
            parts, resumed = _score_all(
                context, scorer, _plan(connection, dataset, self.checkpoint_rows), folder, dataset.rows
            )
            if sum(part.rows for part in parts) != dataset.rows:
                raise Fail(f"The input has {dataset.rows:,} rows, {sum(part.rows for part in parts):,} were scored.")
            schema = schema_of(connection, f"SELECT * FROM read_parquet({literal(str(parts[0].path))})")
        manifest = publish(context.output_uri(), parts, schema)
        self._tell(context, dataset, scorer.latencies, resumed, time.perf_counter() - started)
        return manifest.to_json()

    def cache_inputs(self, context: Context) -> Json:
        model = fingerprint(urls.resolve(self.model, str(context.dags_folder)))
        return {"operator": super().cache_inputs(context), "model": model, "datasets": fingerprints(self.input)}

    def _read_model(self, context: Context) -> bytes:
        address = urls.resolve(self.model, str(context.dags_folder))
        try:
            return urls.read_bytes(address)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise Fail(
                f"There is no model at {address}.", hint="A relative path is looked for in the worker's DAG folder."
            ) from error

    def _scorer(
        self, connection: DuckDBPyConnection, context: Context, dataset: DatasetManifest, model: OnnxModel
    ) -> Scorer:
        schema = dict(schema_of(connection, f"SELECT * FROM {relation(connection, dataset)}"))
        features = model.features(self.features)
        outputs = model.outputs(self.outputs)
        keep = list(schema) if self.keep is None else self.keep
        require_columns(keep, list(schema), "keep")
        twice = [column.column for column in outputs if column.column in keep]
        if twice:
            raise Fail(
                f"The input already has the column `{twice[0]}`.",
                hint="Call the model's output differently in `outputs`, or leave the column out of `keep`.",
            )
        return Scorer(
            connection, context, model, features, model.select(features, schema), outputs, keep, self.batch_rows
        )

    def _checkpoints(self, context: Context, dataset: DatasetManifest, model_digest: str, scorer: Scorer) -> Path:
        """The folder of this very work. Files of other work (another input, model or parameter) are removed."""
        fingerprint = {
            "input": dataset.digest,
            "model": model_digest,
            "features": scorer.features,
            "outputs": [[column.column, column.output, column.index] for column in scorer.outputs],
            "keep": scorer.keep,
            "batch_rows": self.batch_rows,
            "checkpoint_rows": self.checkpoint_rows,
            "threads": self.threads or context.cpus,  # other threads add the same numbers in another order
            "yarrow": __version__,
        }
        digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
        root = context.work_dir / "infer"
        folder = root / digest[:16]
        folder.mkdir(parents=True, exist_ok=True)
        for other in root.iterdir():
            if other != folder:
                context.log.info("the input, the model or a parameter has changed: starting anew")
                shutil.rmtree(other)
        return folder

    @staticmethod
    def _tell(context: Context, dataset: DatasetManifest, latencies: Latencies, resumed: int, seconds: float) -> None:
        context.log.info("%s rows scored in %.2f s", f"{dataset.rows - resumed:,}", seconds)
        context.metric("rows_in", dataset.rows)
        context.metric("rows_out", dataset.rows)
        context.metric("rows_rejected", 0)
        context.metric("rows_resumed", resumed)
        context.metric("seconds", seconds)
        if latencies.batches:
            for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
                context.metric(f"latency_us_{name}", latencies.percentile(share))


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores one chunk after the other."""

    connection: DuckDBPyConnection
    context: Context
    model: OnnxModel
    features: Sequence[str]
    selected: str  # SQL of the features
    outputs: Sequence[OutputColumn]
    keep: Sequence[str]
    batch_rows: int
    latencies: Latencies = field(default_factory=Latencies)

    def score(self, chunk: Chunk, path: Path) -> Part:
        """Scores a chunk into a file, which appears when it is complete."""
        rows = (
            f"read_parquet({literal(chunk.source)}, file_row_number = true)"
            f" WHERE file_row_number >= {chunk.start} AND file_row_number < {chunk.stop}"
        )
        columns = self.connection.execute(f"SELECT {self.selected} FROM {rows}").fetchnumpy()
        predictions = {
            f"c{index}": array for index, array in enumerate(self._predict(columns, chunk.stop - chunk.start))
        }
        self.connection.register("predictions", predictions)
        kept = ", ".join(quote(name) for name in self.keep)
        made = ", ".join(f"c{index} AS {quote(column.column)}" for index, column in enumerate(self.outputs))
        table = f"(SELECT {kept} FROM {rows}) POSITIONAL JOIN predictions" if kept else "predictions"
        part = write_part(self.connection, f"SELECT {', '.join(filter(None, [kept, made]))} FROM {table}", path)
        self.connection.unregister("predictions")
        return part

    def _predict(self, columns: dict[str, Any], rows: int) -> list[Any]:
        import numpy as np

        if rows and not self.latencies.batches:
            # The first call also prepares the session, once. That is no row's latency.
            self.model.run({name: columns[name][:1] for name in self.features}, self.features, self.outputs)
        batches = []
        for start in range(0, rows, self.batch_rows):
            self.context.check_interrupted()
            stop = min(start + self.batch_rows, rows)
            began = time.perf_counter()
            batch = {name: columns[name][start:stop] for name in self.features}
            batches.append(self.model.run(batch, self.features, self.outputs))
            self.latencies.batches.append((time.perf_counter() - began, stop - start))
        if not batches:
            return self.model.empty(self.outputs)
        return [np.concatenate(pieces) for pieces in zip(*batches, strict=True)]


def _plan(connection: DuckDBPyConnection, dataset: DatasetManifest, size: int) -> list[Chunk]:
    """The chunks of a data set, the same for every try. A data set without rows has one empty chunk."""
    chunks: list[Chunk] = []
    if dataset.format != "parquet":
        raise Fail("Only a data set of Parquet parts can be scored.", hint="Let `preprocess` make one of it.")
    sources = readable_parts(connection, dataset)
    for source, rows in zip(sources, rows_of(connection, sources), strict=True):
        chunks.extend(
            Chunk(len(chunks) + index, source, start, stop) for index, (start, stop) in enumerate(_ranges(rows, size))
        )
    return chunks or [Chunk(0, sources[0], 0, 0)]


def _ranges(rows: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, rows)) for start in range(0, rows, size))


def _score_all(
    context: Context, scorer: Scorer, chunks: Sequence[Chunk], folder: Path, total: int
) -> tuple[list[Part], int]:
    """Scores the chunks that are not done yet. Answers with all parts, and how many rows earlier tries had scored."""
    parts: list[Part] = []
    resumed = done = 0
    for chunk in chunks:
        path = folder / chunk.name
        if path.exists():
            part = Part(path, chunk.stop - chunk.start)
            resumed += part.rows
        else:
            if resumed == done > 0:
                context.log.info("going on after row %s of %s", f"{done:,}", f"{total:,}")
            part = scorer.score(chunk, path)
        parts.append(part)
        done += part.rows
        context.progress(done, total, "rows")
    return parts, resumed
