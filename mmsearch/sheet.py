"""Contact sheets: what was asked and what was found, as one picture (PNG) or one page (HTML)."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mmsearch.errors import InvalidInput, MMSearchError
from mmsearch.files import atomic_write
from mmsearch.images import thumbnail
from mmsearch.types import Hit

SIDE = 176
_PAGES, _KINDS = (".html", ".htm"), {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_COLUMNS = 12
_SHOWN = 300
"""Characters of a text that are shown."""
_GAP, _LABEL, _HEAD = 10, 40, 30
_INK, _SOFT, _PAPER, _CARD = (24, 24, 28), (110, 110, 120), (250, 250, 248), (236, 236, 232)


@dataclass(frozen=True, slots=True)
class Section:
    """One query and its hits; ``picture`` is the query's own picture, if it has one."""

    title: str
    hits: Sequence[Hit]
    picture: Path | None = None


def write_sheet(file: Path, sections: Sequence[Section], *, title: str = "mmsearch") -> None:
    """Write a contact sheet; the ending chooses the kind: ``.html``, or ``.png``, ``.jpg``, ``.webp``.

    Raises
    ------
    InvalidInput
        For another ending, or more than a picture of that kind can hold.
    """
    check_sheet(file)
    kind = _KINDS.get(file.suffix.lower())
    data = _page(sections, title).encode() if kind is None else _bytes(draw_sheet(sections), kind)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, data)


def check_sheet(file: Path) -> None:
    """See that a sheet can be written as this, before the work that it is going to show.

    Raises
    ------
    InvalidInput
        If the ending is another one.
    """
    if file.suffix.lower() not in (*_PAGES, *_KINDS):
        raise InvalidInput(f"expected a sheet as .png, .jpg, .webp or .html, got {file.name!r}")


def draw_sheet(sections: Sequence[Section]) -> Image.Image:
    """Draw each query: its words, then its picture and the hits with score and name, in as many rows as needed."""
    counts = [len(section.hits) + (section.picture is not None) for section in sections]
    columns = min(max([3, *counts]), _COLUMNS)
    row = SIDE + _LABEL + _GAP
    heights = [_HEAD + row * max(1, -(-count // columns)) for count in counts] or [_HEAD + row]
    sheet = Image.new("RGB", (_GAP + columns * (SIDE + _GAP), _GAP + sum(heights)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for section, height in zip(sections, heights, strict=False):
        pen.text((_GAP, top), _fit(pen, section.title, 18, sheet.width - 2 * _GAP), fill=_INK, font=_font(18))
        tiles: list[Path | Hit] = [*([section.picture] if section.picture is not None else []), *section.hits]
        for number, tile in enumerate(tiles):
            left = _GAP + number % columns * (SIDE + _GAP)
            _draw_tile(sheet, pen, tile, left, top + _HEAD + number // columns * row)
        top += height
    return sheet


def _draw_tile(sheet: Image.Image, pen: ImageDraw.ImageDraw, tile: Path | Hit, left: int, top: int) -> None:
    if isinstance(tile, Path):
        _paste(sheet, tile, left, top)
        pen.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), outline=_INK, width=3)
        pen.text((left, top + SIDE + 4), "the query", fill=_SOFT, font=_font(13))
        return
    _paste(sheet, tile.item.path, left, top, _drawable(tile.item.text or ""))
    pen.text((left, top + SIDE + 4), _caption(tile), fill=_INK, font=_font(13))
    pen.text((left, top + SIDE + 20), _fit(pen, tile.item.text or tile.item.id, 13, SIDE), fill=_SOFT, font=_font(13))


def _caption(hit: Hit) -> str:
    copies = f"  +{len(hit.copies)} copies" if hit.copies else ""
    return f"{hit.rank}.  {hit.score:.3f}{copies}"


def _drawable(text: str) -> str:
    """The beginning of a text, which may be a whole book, as one line of valid characters."""
    return " ".join(text[:_SHOWN].encode("utf-8", "backslashreplace").decode().split())


def _fit(pen: ImageDraw.ImageDraw, text: str, size: int, width: int) -> str:
    text = _drawable(text)
    while text and pen.textlength(text, font=_font(size)) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _paste(sheet: Image.Image, path: Path | None, left: int, top: int, text: str = "") -> None:
    """Put a thumbnail into its square; a text, or a picture that cannot be opened any more, gives a card."""
    small = _thumbnail(path)
    sheet.paste(_CARD, (left, top, left + SIDE, top + SIDE))
    if small is not None:
        sheet.paste(small, (left + (SIDE - small.width) // 2, top + (SIDE - small.height) // 2))
        return
    pen = ImageDraw.Draw(sheet)
    words, lines = text.split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font=_font(13)) > SIDE - 12:
            lines.append(word)
        else:
            lines[-1] = longer
    pen.multiline_text((left + 6, top + 6), "\n".join(lines[:10]), fill=_INK, font=_font(13))


def _thumbnail(path: Path | None) -> Image.Image | None:
    if path is None:
        return None
    try:
        return thumbnail(path, SIDE)
    except MMSearchError:
        return None


def _bytes(image: Image.Image, kind: str) -> bytes:
    buffer = BytesIO()
    try:
        image.save(buffer, kind, quality=88)
    except (OSError, ValueError) as error:
        size = f"{image.width} x {image.height}"
        raise InvalidInput(f"a sheet of {size} pixels cannot be a {kind}: take .png or .html, or fewer hits") from error
    return buffer.getvalue()


def _page(sections: Sequence[Section], title: str) -> str:
    body = []
    for section in sections:
        query = _figure(section.picture, "the query", "query") if section.picture else ""
        hits = "".join(
            _figure(hit.item.path, f"{_caption(hit)} {_drawable(hit.item.text or hit.item.id)}") for hit in section.hits
        )
        body.append(f"<section><h2>{html.escape(_drawable(section.title))}</h2><div>{query}{hits}</div></section>")
    style = (
        "body{font:14px system-ui;margin:2rem;background:#fafaf8;color:#18181c}"
        "div{display:flex;flex-wrap:wrap;gap:10px}"
        f"figure{{margin:0;width:{SIDE}px}}img{{width:{SIDE}px;height:{SIDE}px;object-fit:contain;background:#ececE8}}"
        ".query img{outline:3px solid #18181c}figcaption{color:#6e6e78;overflow:hidden}"
    )
    head = f"<!doctype html><meta charset=utf-8><title>{html.escape(_drawable(title))}</title><style>{style}</style>"
    return f"{head}<h1>{html.escape(_drawable(title))}</h1>{''.join(body)}\n"


def _figure(path: Path | None, caption: str, kind: str = "hit") -> str:
    small = _thumbnail(path)
    image = ""
    if small is not None:
        data = base64.b64encode(_bytes(small, "JPEG")).decode()
        image = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    return f'<figure class="{kind}">{image}<figcaption>{html.escape(caption)}</figcaption></figure>'
