"""``mmsearch demo``: the whole path on the gallery that comes along."""

from __future__ import annotations

import time
from pathlib import Path


def show(folder: Path, store: Path | None) -> None:
    """Index the gallery, ask it the demo's queries, print the best hits and write a contact sheet."""
    from mmsearch.cli.output import out, print_report, progress
    from mmsearch.engine import Engine
    from mmsearch.gallery import PICTURE_QUERIES, TEXT_QUERIES, gallery_folder
    from mmsearch.sheet import Section, write_sheet

    place = store or folder / "store"
    with Engine.open(place) as engine:
        out.print(f"Indexing the gallery with the embedded model into {place}", soft_wrap=True, markup=False)
        start = time.perf_counter()
        with progress() as bar:
            report = engine.add_folder(gallery_folder(), progress=bar)
        print_report(report)
        out.print(f"took {time.perf_counter() - start:.1f} s for {len(engine)} pictures\n")
        sections = [Section(f"“{text}”", engine.search(text, 7, field="picture")) for text in TEXT_QUERIES]
        for id in PICTURE_QUERIES:
            path = engine.get(id).path
            if path is not None:
                sections.append(Section(f"pictures like {id}", engine.similar(id, 6, field="picture"), path))
        for section in sections:
            found = ", ".join(f"{hit.item.text} ({hit.score:.2f})" for hit in section.hits[:3])
            out.print(f"{section.title:50} {found}", soft_wrap=True, markup=False)
        write_sheet(folder / "demo.png", sections, title="mmsearch demo")
        write_sheet(folder / "demo.html", sections, title="mmsearch demo")
        out.print(f"\nLook at {folder / 'demo.png'} (or demo.html beside it).", soft_wrap=True, markup=False)
        out.print(f"The embedded model {engine.encoder.name!r}: {engine.encoder.licence}.", markup=False)
        out.print("The pictures: public domain, CC0, MIT and Apache-2.0; see ATTRIBUTION.md beside them.", markup=False)
