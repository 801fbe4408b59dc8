"""``eval``, ``tune`` and ``bank``: how good the answers are, and how to make them better."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from mmsearch.cli import options

if TYPE_CHECKING:
    from mmsearch.engine import Engine
    from mmsearch.evaluation import Evaluation
    from mmsearch.judged import Judged
    from mmsearch.types import AddReport, Report

Dataset = Annotated[
    Path, typer.Argument(help="A dataset folder: items.jsonl with captions (or labels) beside its pictures.")
]
Task = Annotated[str, typer.Option("--task", help="text-to-image, image-to-text or image-to-image.", show_default=True)]
BankOption = Annotated[
    Path | None,
    typer.Option(
        "--bank",
        help="Queries of the kind that people ask, for hubness: a text file, one a line, or another dataset folder.",
        show_default=False,
    ),
]
Qrels = Annotated[
    Path | None,
    typer.Option("--qrels", help="Judgements instead of captions: query, item id, grade.", show_default=False),
]
Label = Annotated[
    str | None,
    typer.Option("--label", help="For image-to-image: the metadata that must be equal.", show_default=False),
]
Queries = Annotated[
    int | None, typer.Option("--queries", min=1, help="At most so many queries, drawn at random.", show_default=False)
]


def evaluate(
    dataset: Dataset,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="Search this store; without it, a temporary one.", show_default=False),
    ] = None,
    task: Task = "text-to-image",
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="Vectors alone.")] = False,
    stages: options.Stages = None,
    bank: BankOption = None,
    qrels: Qrels = None,
    label: Label = None,
    queries: Queries = None,
    encoder: options.Encoder = None,
    second: options.Second = None,
    run_file: Annotated[
        Path | None, typer.Option("--run", help="Write the answers as a TREC run file.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure how good the answers are on judged queries: R@1, R@5, R@10, MRR@10 and nDCG@10 with 95% intervals.

    Each caption asks for its own picture (or each picture for its captions, or for others with the same label). Only
    pictures are searched for captions, and a bank never holds the evaluated queries. A query without an answer
    counts as 0.
    """
    from mmsearch.cli.output import print_json, progress, show_evaluation
    from mmsearch.evaluation import check_fair, run
    from mmsearch.judged import read_judged
    from mmsearch.testbed import place

    names = options.names_of(no_rerank, stages)
    rerank = options.rerank_of(no_rerank, stages, second)
    _check_file(run_file)
    judged = read_judged(dataset.expanduser(), task, qrels=qrels, label=label).sampled(queries)
    check_fair(names, judged)
    queries_like = _bank_of(judged, bank)
    needed = [] if no_rerank else names or None
    with (
        progress(quiet=json) as bar,
        place(judged, store, encoder=encoder, stages=needed, report=bar) as (engine, added),
    ):
        if not no_rerank:
            _use_banks(engine, judged, queries_like, bank, bar)
        found = run(engine, judged, rerank, report=bar)
    if added.failed:
        found = replace(found, notes=(_unread(added), *found.notes))
    if run_file is not None:
        _write_run(run_file, found)
    if json:
        print_json(found.to_json())
    else:
        show_evaluation(found)


def tune(
    dataset: Annotated[
        Path | None, typer.Argument(help="A dataset folder with captions or labels.", show_default=False)
    ] = None,
    store: options.Store = None,
    forget: Annotated[bool, typer.Option("--forget", help="Forget what was chosen; use the default stages.")] = False,
    task: Task = "text-to-image",
    stages: options.Stages = None,
    bank: BankOption = None,
    qrels: Qrels = None,
    label: Label = None,
    queries: Queries = None,
    second: options.Second = None,
    json: options.Json = False,
) -> None:
    """Choose stages and their weights on judged queries, and use them for this store from then on.

    A stage is kept only if it makes the answers better on pictures that its weights were not fitted on. The bank, if
    one is given, is kept in the store as well.
    """
    from mmsearch.cli.output import print_json, progress, show_tuned
    from mmsearch.errors import InvalidInput
    from mmsearch.evaluation import check_fair
    from mmsearch.judged import read_judged
    from mmsearch.judgedbanks import read_bank, without
    from mmsearch.testbed import place
    from mmsearch.tuning import tune as fit

    if forget or dataset is None:
        if not forget or dataset is not None:
            raise InvalidInput("expected a dataset to tune on, or --forget")
        _forget(store, json)
        return
    names = options.names_of(False, stages)
    options.rerank_of(False, stages, second)  # refused here if it is wrong, before anything is indexed
    _check_tuned(task, names, bank)
    judged = read_judged(dataset.expanduser(), task, qrels=qrels, label=label).sampled(queries)
    judged.halves()  # refused here if there are too few, before anything is indexed
    check_fair(names, judged)
    texts = without(read_bank(bank), judged) if bank is not None else None
    with (
        progress(quiet=json) as bar,
        place(judged, options.place_of(store), stages=names or None, complete=True, report=bar) as (engine, _),
    ):
        if texts is not None:
            engine.set_bank(texts, source=str(bank), progress=bar)
        else:
            _use_banks(engine, judged, None, None, bar)
        tuned = fit(engine, judged, names or _possible(engine, judged), options=_options(second), report=bar)
        engine.set_profile(tuned.profile)
    if json:
        print_json({"stages": list(tuned.profile.stages), "weights": tuned.profile.weights, **tuned.profile.figures})
    else:
        show_tuned(tuned)


def _forget(store: Path | None, json: bool) -> None:
    from mmsearch.cli.output import out, print_json

    with options.open_engine(store) as engine:
        engine.set_profile(None)
    if json:
        print_json({"stages": None})
    else:
        out.print("searches use the default stages again")


def bank(
    source: Annotated[
        Path | None,
        typer.Argument(help="A text file, one query a line, or a dataset folder with captions.", show_default=False),
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Forget the store's bank.")] = False,
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Tell the store what people ask, a thousand queries or more, so that pictures near to everything stand back."""
    from mmsearch.cli.output import out, print_json, progress
    from mmsearch.errors import InvalidInput
    from mmsearch.judgedbanks import read_bank

    if (source is None) is not forget:
        raise InvalidInput("expected a file or dataset with queries, or --forget")
    with options.open_engine(store) as engine, progress(quiet=json) as bar:
        n = engine.set_bank(read_bank(source) if source else None, source=str(source or ""), progress=bar)
    if json:
        print_json({"queries": n})
    else:
        out.print(f"{n} queries in the bank" if n else "no bank any more")


def _check_tuned(task: str, names: list[str], bank: Path | None) -> None:
    """Refuse what a store could not keep or what would try nothing."""
    from mmsearch.errors import InvalidInput
    from mmsearch.judged import IMAGE_TO_IMAGE, TEXT_TO_IMAGE

    if bank is not None and task != TEXT_TO_IMAGE:
        raise InvalidInput(f"expected --bank with {TEXT_TO_IMAGE} only, got {task!r}: stores keep banks of texts")
    if task == IMAGE_TO_IMAGE and not names:
        raise InvalidInput(f"expected --stages to try for {IMAGE_TO_IMAGE}, for which none was measured to help")


def _check_file(file: Path | None) -> None:
    from mmsearch.errors import InvalidInput

    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        raise InvalidInput(f"expected a file in a folder that is there after --run, got {file}")


def _bank_of(judged: Judged, source: Path | None) -> Sequence[str] | Sequence[Path] | None:
    """What is left of a bank without what is evaluated; refused if that is nothing, before anything is indexed."""
    from mmsearch.judged import TEXT_TO_IMAGE
    from mmsearch.judgedbanks import bank_pictures, read_bank, without

    if source is None:
        return None
    return without(read_bank(source), judged) if judged.task == TEXT_TO_IMAGE else bank_pictures(judged, source)


def _options(second: str | None) -> dict[str, Any]:
    return {"second": second} if second else {}


def _possible(engine: Engine, judged: Judged) -> list[str]:
    """The default stages that this collection has what they need for."""
    from mmsearch.profile import default_cascade

    return list(default_cascade(engine.ranker.collection, judged.kind).names)


def _use_banks(
    engine: Engine,
    judged: Judged,
    bank: Sequence[str] | Sequence[Path] | None,
    source: Path | None,
    report: Report,
) -> None:
    """The bank that is named; else the store's own, without the evaluated queries."""
    from mmsearch.bank import encode_bank
    from mmsearch.judgedbanks import encode_for, left_of

    if bank is not None and source is not None:
        engine.ranker.use_banks(encode_for(engine, bank, source, report))
        return
    texts = engine.ranker.collection.bank_texts() if judged.task == "text-to-image" else []
    kept = left_of(texts, judged)
    if len(kept) < len(texts):
        name = "the store's, without the evaluated queries"
        engine.ranker.use_banks({"text": encode_bank(kept, engine.encoder, name, report)} if kept else {})


def _unread(added: AddReport) -> str:
    path, reason = added.failed[0]
    return f"{len(added.failed)} items could not be read and are not in the store, such as {path}: {reason}"


def _write_run(file: Path, found: Evaluation) -> None:
    """As TREC's tools read it: they know no ids with white space, so that is written as in addresses (``%20``)."""
    from mmsearch.trec import write_run

    write_run(
        file,
        {
            _one_word(query): {_one_word(id): 1.0 / rank for rank, id in enumerate(ids, 1)}
            for query, ids in found.run.items()
        },
    )


def _one_word(id: str) -> str:
    return re.sub(r"[\s%\ufeff]", lambda found: quote(found[0]), id)
