"""The decision matrix on one's own data: vectors alone, a joint model alone, the cascade; and encoders side by side.

Each encoder gets a temporary store that grows in steps, and each arm is timed at every step. A joint model that reads
every pair is far dearer than the rest, so it may be asked fewer queries among fewer items; at the very step at which
the store holds just those items, every arm answers the same queries among the same items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mmsearch.comparing.bench import PROBED, TIMED, Bench, Settings, gain
from mmsearch.comparing.plotting import check_plot, plot
from mmsearch.comparing.values import CASCADE, EMBEDDING, JOINT, MEASURE, Comparison, Growth, Row, duration
from mmsearch.errors import InvalidInput
from mmsearch.evaluation import DEPTH, Evaluation
from mmsearch.judged import TEXT_TO_IMAGE, Judged, read_judged
from mmsearch.protocols import Encoder
from mmsearch.rerank.stage import Stage
from mmsearch.searchspace import CROSSOVER
from mmsearch.types import Report

__all__ = [
    "CASCADE",
    "EMBEDDING",
    "JOINT",
    "MEASURE",
    "Comparison",
    "Growth",
    "Row",
    "check_plot",
    "compare",
    "duration",
    "plot",
]


def compare(
    source: Judged | Path,
    *,
    task: str = TEXT_TO_IMAGE,
    encoders: Sequence[str | Encoder] = ("mini",),
    bank: Path | None = None,
    joint: Stage | bool = True,
    seconds: float = 120.0,
    queries: int | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> Comparison:
    """Measure vectors alone, the cascade and a joint model alone on judged queries, for each encoder.

    Parameters
    ----------
    source
        A dataset folder or table, read for ``task``; or judged queries.
    bank
        Queries for the cascade's hubness correction; see ``mmsearch.judgedbanks.bank_for``.
    joint
        True: the encoder's own joint model where it has one; False: none; or a stage that scores pairs, which is asked
        once, with the first encoder.
    seconds
        For the pairs of the joint model, with each encoder. Where all take longer, first the queries become fewer,
        then the items, among which the right answers always stay.
    queries
        At most so many, drawn at random.

    Raises
    ------
    InvalidInput
        For no encoder or no time, if no item can be read, and for what ``read_judged`` and ``bank_for`` refuse.
    """
    if isinstance(encoders, str) or not encoders:
        raise InvalidInput(f"expected a list of at least one encoder, got {encoders!r}")
    if not seconds > 0:
        raise InvalidInput(f"expected more than 0 seconds for the joint model, got {seconds!r}")
    judged = (source if isinstance(source, Judged) else read_judged(source, task)).sampled(queries, seed)
    notes = [_on_times(judged)]
    rows: list[Row] = []
    first: tuple[str, Evaluation] | None = None
    for n, encoder in enumerate(encoders):
        asked = joint if n == 0 or isinstance(joint, bool) else False
        with TemporaryDirectory(prefix="mmsearch-") as folder:
            bench = Bench(Settings(judged, bank, asked, seconds, seed, report), Path(folder), encoder)
            label = _label(bench.encoder.name, [row.encoder for row in rows])
            its = bench.measure(label)
        if first is None:
            first = label, bench.full[EMBEDDING]
        else:
            its[0] = replace(its[0], against={first[0]: gain(first[1], bench.full[EMBEDDING])})
        rows += its
        notes += [f"{label}: {note}" if len(encoders) > 1 else note for note in bench.notes]
    if not isinstance(joint, bool) and len(encoders) > 1:
        notes.append(f"{joint.name} reads pictures and queries themselves: it is asked once, beside {rows[0].encoder}")
    return Comparison(judged.task, len(judged.items), len(judged.queries), tuple(rows), tuple(dict.fromkeys(notes)))


def _label(name: str, taken: Sequence[str]) -> str:
    """The encoder's name, numbered if another has it."""
    n, label = 1, name
    while label in taken:
        n += 1
        label = f"{name} #{n}"
    return label


def _on_times(judged: Judged) -> str:
    timed, probed = min(TIMED, len(judged.queries)), min(PROBED, len(judged.items))
    return (
        f"ms a query: median of {timed} single queries for the best {DEPTH}, warm; of the joint model its own over "
        f"all items. One-time ms an item: indexing {probed} items into a new store with only the spaces that the arm "
        "needs, warm. Growth: a straight line through the sizes that were measured; what lies beyond is extrapolated, "
        f"and from {CROSSOVER:,} rows on, where a graph searches the vectors, an upper bound for embedding and cascade"
    )
