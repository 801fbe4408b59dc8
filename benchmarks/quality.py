"""Recall of text to picture and picture to text on a captioned dataset folder, by vectors alone, through the engine.

::

    python benchmarks/quality.py --data ../shared/data/flickr8k-dev

Every caption is a query whose answer is its picture; every picture is a query that any of its captions answers.
Nothing is tuned here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmsearch import Engine, Item
from mmsearch.sources import Entry, open_source

DEPTHS = (1, 5, 10)
CARD = {"text to picture": (29.9, 61.1, 72.5), "picture to text": (38.7, 70.2, 80.3)}
"""What the embedded model's card says for Flickr8k dev."""


def main() -> None:
    """Index pictures in one store and captions in another, ask both ways, print R@1/5/10."""
    parser = argparse.ArgumentParser(description="recall on a captioned dataset folder")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default="mini")
    options = parser.parse_args()
    entries = [entry for entry in open_source(options.data).entries() if entry.metadata.get("captions")]
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "text to picture": text_to_picture(Path(folder) / "pictures", options.encoder, entries),
            "picture to text": picture_to_text(Path(folder) / "captions", options.encoder, entries),
        }
    n_captions = sum(len(entry.metadata["captions"]) for entry in entries)
    print(f"{options.data.name}: {len(entries)} pictures, {n_captions} captions, encoder {options.encoder}")
    for name, recalls in results.items():
        shown = " / ".join(f"{100 * recall:.1f}" for recall in recalls)
        card = " / ".join(str(value) for value in CARD[name])
        print(f"  {name}: R@1/5/10 {shown}   (the embedded model's card for Flickr8k dev: {card})")
    print(json.dumps({"data": options.data.name, "encoder": options.encoder, "recall": results}))


def text_to_picture(store: Path, encoder: str, entries: Sequence[Entry]) -> list[float]:
    """Each caption's own picture among the first k pictures."""
    with Engine.open(store, encoder, spaces=["picture"]) as engine:
        engine.add(Item(id=entry.id, path=entry.path) for entry in entries)
        queries = [(caption, entry.id) for entry in entries for caption in entry.metadata["captions"]]
        found = engine.search_many([caption for caption, _ in queries], max(DEPTHS), field="picture", rerank=False)
        # Identical pictures are one hit; either of them is the answer.
        answers = [[{hit.item.id, *(copy.id for copy in hit.copies)} for hit in hits] for hits in found]
        return recalls(answers, [right for _, right in queries])


def picture_to_text(store: Path, encoder: str, entries: Sequence[Entry]) -> list[float]:
    """Any of a picture's captions among the first k captions."""
    with Engine.open(store, encoder, spaces=["text"]) as engine:
        engine.add(
            Item(id=f"{entry.id}#{number}", text=caption, metadata={"of": entry.id})
            for entry in entries
            for number, caption in enumerate(entry.metadata["captions"])
        )
        pictures = [entry.path for entry in entries if entry.path]
        found = engine.search_many(pictures, max(DEPTHS), field="text", rerank=False)
        answers = [[{str(hit.item.metadata["of"])} for hit in hits] for hits in found]
        return recalls(answers, [entry.id for entry in entries])


def recalls(answers: Sequence[Sequence[set[str]]], right: Sequence[str]) -> list[float]:
    """Share of queries whose right answer is among the first k, for each depth."""
    return [
        sum(any(one in ids for ids in hits[:depth]) for hits, one in zip(answers, right, strict=True)) / len(right)
        for depth in DEPTHS
    ]


if __name__ == "__main__":
    main()
