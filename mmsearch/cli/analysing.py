"""``clusters``, ``map``, ``report``: what is in a collection as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli import FOUND_NOTHING, options

if TYPE_CHECKING:
    from mmsearch.clusters import Clustering
    from mmsearch.lexicon import Vocabulary

Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same answer.")]
Words = Annotated[
    str | None,
    typer.Option(
        "--vocabulary",
        help="What names are chosen from: general, collection, or a text file with a word a line; both by default.",
        show_default=False,
    ),
]
Number = Annotated[
    int | None,
    typer.Option("--n", min=1, help="How many clusters; as many as fit best by default.", show_default=False),
]
Method = Annotated[str, typer.Option("--method", help="auto, kmeans, minibatch, hdbscan or agglomerative.")]


def clusters(
    n: Number = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="A metadata field to measure the clusters against.", show_default=False),
    ] = None,
    method: Method = "auto",
    where: options.Where = None,
    vocabulary: Words = None,
    seed: Seed = 0,
    json: options.Json = False,
    sheet: options.Sheet = None,
    store: options.Store = None,
) -> None:
    """Group the items and name the groups; a group that is still there the next time keeps its number and name."""
    from mmsearch.cli.output import print_json, progress

    with options.open_engine(store) as engine:
        if labels is not None:
            engine.check_field(labels)
        with progress(quiet=json) as bar:
            found = engine.clusters(
                n, method=method, where=where, vocabulary=words_of(vocabulary), seed=seed, progress=bar
            )
        measures = engine.cluster_agreement(found, labels) if labels is not None else None
        if sheet is not None:
            _write_sheet(sheet, found)
    if json:
        print_json(_json(found, measures))
    else:
        _show(found, measures)
    if not found.labels:
        raise typer.Exit(FOUND_NOTHING)


def map(
    file: Annotated[Path, typer.Argument(help="Where to: .html, .png, .jpg, .webp, .parquet or .csv.")],
    method: Annotated[str, typer.Option("--method", help="auto, pca, umap or pacmap.")] = "auto",
    where: options.Where = None,
    refit: Annotated[bool, typer.Option("--refit", help="Make the map anew; else new items are placed on it.")] = False,
    seed: Seed = 0,
    json: options.Json = False,
    store: options.Store = None,
) -> None:
    """Draw a map of the items, coloured by the latest clusters; they are made if there are none."""
    from mmsearch.atlas import ENDINGS
    from mmsearch.cli.output import out, print_json, progress
    from mmsearch.errors import InvalidInput

    if file.suffix.lower() not in ENDINGS:  # before the work, not after it
        raise InvalidInput(f"expected a map as {', '.join(ENDINGS)}, got {file.name!r}")
    with options.open_engine(store) as engine, progress(quiet=json) as bar:
        drawn = engine.map(method=method, where=where, refit=refit, seed=seed, progress=bar)
        if len(drawn) and not drawn.names:
            groups = engine.clusters(where=where, seed=seed, progress=bar)
            drawn = engine.map(method=method, where=where, clusters=groups, seed=seed)
        drawn.write(file.expanduser())
    facts = {"file": str(file), "items": len(drawn), "method": drawn.method, "trust": drawn.trust}
    if json:
        print_json(facts)
    else:
        out.print(f"{file}: {len(drawn)} items by {drawn.method}, trust {drawn.trust:.2f}", markup=False)


def report(
    file: Annotated[Path, typer.Argument(help="Where to: an .html file.")],
    n: Number = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            help="A metadata field to check for wrong labels; several times for several.",
            show_default=False,
        ),
    ] = None,
    where: options.Where = None,
    vocabulary: Words = None,
    seed: Seed = 0,
    store: options.Store = None,
) -> None:
    """Write one page on what is in the collection: groups with pictures, map, duplicates, outliers, flaws, figures."""
    from mmsearch.cli.output import out, progress

    with options.open_engine(store) as engine, progress() as bar:
        engine.report(
            file.expanduser(), n=n, labels=labels or (), where=where, vocabulary=words_of(vocabulary), seed=seed,
            progress=bar,
        )  # fmt: skip
    out.print(f"{file}: open it in a browser, no server is needed", markup=False)


def words_of(vocabulary: str | None) -> Vocabulary:
    """What ``--vocabulary`` means."""
    from mmsearch.errors import InvalidInput
    from mmsearch.lexicon import COLLECTION, GENERAL

    if vocabulary is None or vocabulary in (GENERAL, COLLECTION):
        return vocabulary
    try:
        lines = Path(vocabulary).expanduser().read_text("utf-8-sig").splitlines()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: the home of nobody
        raise InvalidInput(
            f"expected --vocabulary as general, collection or a text file with a word a line, got {vocabulary!r}"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _json(found: Clustering, measures: dict[str, float] | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "n": len(found),
        "noise": found.n_noise,
        "clusters": [
            {
                "id": cluster.id,
                "name": cluster.name,
                "title": cluster.title,
                "size": len(cluster),
                "keywords": list(cluster.keywords),
                "confidence": cluster.confidence,
                "quality": _quality(cluster.quality),
                "exemplars": [item.id for item in cluster.exemplars],
            }
            for cluster in found
        ],
        "method": found.method,
        "quality": _quality(found.quality),
        "changes": [
            {"kind": one.kind, "id": one.id, "name": one.name, "before": one.before, "after": one.after,
             "others": list(one.others)}
            for one in found.changes
        ],
        "notes": list(found.notes),
    }  # fmt: skip
    if measures is not None:
        told["measures"] = measures
    return told


def _quality(quality: Any) -> dict[str, float]:  # noqa: ANN401 a Quality, which must not be imported for --help
    from dataclasses import asdict

    return asdict(quality)


def _show(found: Clustering, measures: dict[str, float] | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mmsearch.cli.output import err, out

    table = Table("id", "name", "items", "sure", "what it shows", box=None, pad_edge=False)
    for cluster in found:
        keywords = ", ".join(cluster.keywords[1:])
        sure = f"{100 * cluster.confidence:.0f}%"
        table.add_row(str(cluster.id), escape(cluster.title), str(len(cluster)), sure, f"[dim]{escape(keywords)}[/dim]")
    out.print(table)
    good = found.quality
    out.print(
        f"{len(found)} clusters of {len(found.labels)} items by {found.method}, {found.n_noise} in none; silhouette "
        f"{good.silhouette:.2f}, stability {good.stability:.2f}",
        soft_wrap=True,
    )
    if measures is not None:
        out.print(", ".join(f"{name} {value:.3f}" for name, value in measures.items()))
    for one in found.changes:
        others = f" ({', '.join(str(id) for id in one.others)})" if one.others else ""
        out.print(f"{one.kind}: {one.id} {one.name}{others}, {one.before} -> {one.after} items", markup=False)
    for note in found.notes:
        err.print(f"note: {note}", markup=False, soft_wrap=True)


def _write_sheet(sheet: Path, found: Clustering) -> None:
    from mmsearch.cli.curating import section
    from mmsearch.sheet import write_sheet

    sections = [
        section(f"{one.id}  {one.title}: {len(one)} items", [(item, one.confidence) for item in one.exemplars])
        for one in found
    ]
    write_sheet(sheet, sections, title="clusters")
