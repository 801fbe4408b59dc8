"""Maps for people: pages that load nothing from anywhere, pictures and tables."""

import base64
import csv
import json
import logging
import re
import shutil
import subprocess
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from mmsearch.atlas import ENDINGS, Map, map_figure_html
from mmsearch.atlas.look import GREY, caption, colours, evenly, line, medians
from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.files import display_path
from mmsearch.types import Item

EVIL = "</script><script>alert(1)</script>"
QUOTES = 'she said "it\'s <b>5 & 6</b>" \u2028 \\ $x$'


@pytest.fixture
def shown(folder):
    """Twelve items: two clusters of five, named, and two in none; the first five have pictures, one of them broken."""
    items = []
    for n in range(12):
        path = folder / f"{n}.png" if n < 5 else None
        if path is not None:
            Image.new("RGB", (300, 200), (40 * n, 90, 200)).save(path)
        items.append(Item(f"item {n}", path, None if n == 3 else f"text {n}", {"price": n}))
    items[1].path.write_bytes(b"no picture")
    angles = np.linspace(0, 6, 12)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return Map(items, points, np.array([7] * 5 + [3] * 5 + [-1] * 2), {7: "red things", 3: "blue things"}, "umap", 0.9)


def one(item, **named):
    return Map([item], np.zeros((1, 2), dtype=np.float32), np.array([0]), **named)


def numbered(n, clusters=9):
    """Many items without pictures, at random."""
    points = np.random.default_rng(0).uniform(-1, 1, (n, 2)).astype(np.float32)
    return Map([Item(f"item {at}", text=f"a text of item {at}") for at in range(n)], points, np.arange(n) % clusters)


def content(page, id="map"):
    """What the page's script reads."""
    data = json.loads(re.search(rf'<script type="application/json" id="{id}-data">(.*?)</script>', page, re.S)[1])
    for name, kind in {"x": "<f4", "y": "<f4", "group": "<i4"}.items():
        data[name] = np.frombuffer(base64.b64decode(data[name]), kind)
    return data


def without_plotly(page):
    scripts = re.findall(r"<script[^>]*>.*?</script>", page, re.S)
    return page.replace(max(scripts, key=len), "")


def test_a_page_holds_every_item_with_its_place_and_cluster(shown, tmp_path):
    shown.write(tmp_path / "made" / "map.html", title="Mine")
    page = (tmp_path / "made" / "map.html").read_text(encoding="utf-8")
    data = content(page)
    assert "<h1>Mine</h1>" in page
    assert "12 items, 2 clusters, umap, trust 0.90" in page
    np.testing.assert_array_equal(np.stack([data["x"], data["y"]], axis=1), shown.points)
    assert data["ids"] == [item.id for item in shown.items]
    assert data["texts"][4] == "text 4"
    assert data["texts"][3] == "price: 3"
    clusters = [data["clusters"][group] for group in data["group"]]
    assert [cluster["id"] for cluster in clusters] == shown.labels.tolist()
    assert [cluster["name"] for cluster in clusters] == ["red things"] * 5 + ["blue things"] * 5 + ["in no cluster"] * 2
    assert data["clusters"][2]["colour"] == GREY
    assert data["clusters"][2]["middle"] is None


def test_a_page_loads_nothing_from_anywhere(shown, tmp_path):
    shown.write(tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    own = without_plotly(page)
    assert not re.search(r"(src|href|srcset|action|data)\s*=\s*[\"']?\s*(https?:)?//", page[: page.index("<script")])
    assert "http:" not in own
    assert "https:" not in own
    assert not re.search(r"<link|<iframe|@import|\bimport\s*\(|url\(|fetch\(|XMLHttpRequest", own)
    assert not re.search(r"<script[^>]+src", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src &#x27;none&#x27;;")
    assert "http" not in policy
    assert len(page) - len(own) > 1_000_000  # Plotly itself is inside


def test_thumbnails_are_small_pictures_of_the_items_that_have_one(shown, tmp_path):
    shown.write(tmp_path / "map.html")
    thumbnails = content((tmp_path / "map.html").read_text(encoding="utf-8"))["thumbnails"]
    assert set(thumbnails) == {"0", "2", "3", "4"}  # 1 is broken, the others have none
    start, data = thumbnails["3"].split(",")
    assert start == "data:image/webp;base64"
    with Image.open(BytesIO(base64.b64decode(data))) as image:
        assert max(image.size) == 96
        assert abs(image.convert("RGB").getpixel((48, 32))[0] - 120) < 12


def test_so_many_thumbnails_are_embedded_and_no_more(shown, tmp_path):
    for n, expected in ((0, 0), (1, 1)):
        shown.write(tmp_path / "map.html", thumbnails=n)
        assert len(content((tmp_path / "map.html").read_text(encoding="utf-8"))["thumbnails"]) == expected


def test_no_text_can_leave_its_place(tmp_path):
    evil = Item(EVIL, text=QUOTES)
    shown = one(evil, names={0: f"<!--{EVIL}"}, method=f"<i>{EVIL}")
    shown.write(tmp_path / "map.html", title=EVIL)
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "alert(1)<" not in page
    assert "<!--<" not in page
    data = content(page)
    assert data["ids"] == [EVIL]
    assert data["texts"] == [" ".join(QUOTES.split())]
    assert data["clusters"][0]["name"] == f"<!--{EVIL}"
    assert without_plotly(page).count("<script") == 2


def test_metadata_and_half_characters_are_shown_as_text(tmp_path):
    item = Item("a\ud800b", metadata={'k"<': QUOTES, "n": None})
    one(item).write(tmp_path / "map.html")
    data = content((tmp_path / "map.html").read_text(encoding="utf-8"))
    assert data["ids"] == ["a\\ud800b"]
    assert data["texts"][0].startswith('k"<: she said')
    assert data["texts"][0].endswith("n: None")


def test_several_maps_fit_into_one_page(shown):
    first = map_figure_html(shown, id="first")
    second = map_figure_html(shown, id="second", library=False)
    assert len(second) < 100_000 < len(first)
    np.testing.assert_array_equal(content(second, "second")["x"], content(first, "first")["x"])
    assert 'id="second"' in second
    with pytest.raises(InvalidInput, match="letters"):
        map_figure_html(shown, id='a"b')


STUBS = """
const made = {};
const nodes = {};
const node = (key) => nodes[key] ??= {
  key, hidden: true, style: {}, offsetWidth: 10, offsetHeight: 10,
  querySelector: (part) => node(key + part), textContent: DATA[key], getContext: () => WEBGL,
};
const document = { getElementById: node, createElement: node };
const window = { innerWidth: 500, innerHeight: 500 };
const Plotly = {
  relayout: (plot, change) => { made.change = change; },
  newPlot: (root, traces, layout, config) => {
    Object.assign(made, { traces, layout, config, handlers: {} });
    return { then: (go) => go({ data: traces, on: (event, call) => { made.handlers[event] = call; } }) };
  },
};
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no JavaScript engine here")
@pytest.mark.parametrize("webgl", ["true", "null"])
def test_the_script_draws_what_the_page_holds(shown, webgl):
    page = map_figure_html(Map(shown.items, shown.points, shown.labels, {7: EVIL, 3: "blue"}), library=False)
    data = re.search(r'id="map-data">(.*?)</script>', page, re.S)[1]
    draw = re.search(r'id="map-data">.*?</script><script>(.*?)</script>', page, re.S)[1]
    after = """
    made.handlers.plotly_hover({points: [{customdata: 4}], event: {clientX: 499, clientY: 3}});
    const card = { hidden: nodes["map.map-card"].hidden, left: nodes["map.map-card"].style.left,
      id: nodes["map.map-card.map-id"].textContent, cluster: nodes["map.map-card.map-cluster"].textContent,
      picture: nodes["map.map-cardimg"].src.slice(0, 22) };
    made.traces[0].visible = "legendonly";
    made.handlers.plotly_restyle();
    made.handlers.plotly_unhover();
    console.log(JSON.stringify({traces: made.traces, layout: made.layout, card, change: made.change,
      gone: nodes["map.map-card"].hidden}));
    """
    program = f"const WEBGL = {webgl}; const DATA = {{'map-data': {json.dumps(data)}}}; {STUBS}\n{draw};\n{after}"
    done = subprocess.run(["node", "-"], input=program, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    drawn = json.loads(done.stdout)
    assert {trace["type"] for trace in drawn["traces"]} == {"scattergl" if webgl == "true" else "scatter"}
    assert [trace["customdata"] for trace in drawn["traces"]] == [
        np.flatnonzero(shown.labels == label).tolist() for label in (3, 7, -1)
    ]
    for trace in drawn["traces"]:
        points = np.stack([trace["x"], trace["y"]], axis=1).astype(np.float32)
        np.testing.assert_array_equal(points, shown.points[trace["customdata"]])
    assert drawn["traces"][1]["name"] == EVIL.replace("<", "&lt;").replace(">", "&gt;") + " (5)"
    assert [label["visible"] for label in drawn["layout"]["annotations"]] == [True, True]
    assert [label["visible"] for label in drawn["change"]["annotations"]] == [False, True]
    assert drawn["card"] == {
        "hidden": False, "left": "473px", "id": "item 4", "cluster": EVIL, "picture": "data:image/webp;base64",
    }  # fmt: skip
    assert drawn["gone"] is True


@pytest.mark.parametrize(("ending", "kind"), [(".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP")])
def test_a_picture_is_drawn(shown, tmp_path, ending, kind):
    shown.write(tmp_path / f"map{ending}", title=QUOTES)
    with Image.open(tmp_path / f"map{ending}") as image:
        assert (image.format, image.size) == (kind, (1440, 1200))


def test_a_picture_shows_points_in_the_clusters_colours(shown, tmp_path):
    shown.write(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for colour in colours(shown.clusters()).values():
        expected = [255 - 0.7 * (255 - int(colour[at : at + 2], 16)) for at in (1, 3, 5)]
        assert (np.abs(pixels - expected).max(axis=2) < 4).sum() > 50


def test_a_picture_can_show_thumbnails(shown, tmp_path):
    def red(n):
        """Pixels of the colour of item 4's picture."""
        shown.write(tmp_path / "map.png", thumbnails=n)
        with Image.open(tmp_path / "map.png") as image:
            return (np.abs(np.asarray(image.convert("RGB")).astype(int) - [160, 90, 200]).max(axis=2) < 4).sum()

    assert red(0) == 0
    assert red(12) > 1_000


def test_names_without_room_are_counted(tmp_path, monkeypatch):
    points = np.zeros((300, 2), dtype=np.float32)
    crowded = Map([Item(str(n)) for n in range(300)], points, np.arange(300))
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.text", lambda self, x, y, text, **rest: drawn.append(text))
    crowded.write(tmp_path / "map.png")
    (left_out,) = re.findall(r"(\d+) names left out", drawn[1])
    assert 200 < int(left_out) < 300


def test_signs_that_the_font_lacks_and_formulas_are_no_trouble(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        one(Item("a"), names={0: "$\\frac{1}$ 自転車 \ud800"}).write(tmp_path / "map.png", title="$\\bad 自")
    assert (tmp_path / "map.png").stat().st_size > 1_000
    assert not caplog.records


def rows_of(file):
    if file.suffix == ".parquet":
        return parquet.read_table(file).to_pylist()
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_table_holds_every_item(shown, tmp_path, ending):
    shown.write(tmp_path / f"map{ending}")
    rows = rows_of(tmp_path / f"map{ending}")
    assert list(rows[0]) == ["id", "x", "y", "cluster", "name", "text", "path"]
    assert [row["id"] for row in rows] == [item.id for item in shown.items]
    np.testing.assert_allclose([[float(row["x"]), float(row["y"])] for row in rows], shown.points, rtol=1e-6)
    assert [int(row["cluster"]) for row in rows] == shown.labels.tolist()
    assert rows[0]["name"] == "red things"
    assert rows[-1]["name"] == "in no cluster"
    assert rows[0]["path"] == display_path(shown.items[0].path)
    assert rows[3]["text"] in (None, "")
    assert rows[-1]["path"] in (None, "")


def test_a_parquet_file_has_the_columns_that_embedding_atlas_reads(shown, tmp_path):
    shown.write(tmp_path / "map.parquet")
    kinds = {field.name: str(field.type) for field in parquet.read_schema(tmp_path / "map.parquet")}
    assert (kinds["x"], kinds["y"], kinds["text"], kinds["name"]) == ("float", "float", "string", "string")


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_map_can_be_written(tmp_path, ending):
    empty = Map([], np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int64))
    empty.write(tmp_path / f"map{ending}", thumbnails=5)
    assert len(empty) == 0
    assert (tmp_path / f"map{ending}").stat().st_size > 0


@pytest.mark.parametrize("ending", ENDINGS)
def test_items_at_one_point_can_be_written(tmp_path, ending):
    crowd = Map([Item("a"), Item("b")], np.zeros((2, 2), dtype=np.float32), np.array([-1, -1]))
    crowd.write(tmp_path / f"map{ending}", thumbnails=2)
    assert (tmp_path / f"map{ending}").stat().st_size > 0


class Lazy(Sequence):
    """Items that are made when they are asked for, and counted."""

    def __init__(self, n):
        self.n, self.asked = n, 0

    def __len__(self):
        return self.n

    def __getitem__(self, at):
        if not 0 <= at < self.n:
            raise IndexError
        self.asked += 1
        return Item(str(at))


def test_items_are_read_only_when_they_are_needed(tmp_path):
    items = Lazy(50)
    shown = Map(items, np.zeros((50, 2), dtype=np.float32), np.zeros(50, dtype=np.int64))
    shown.write(tmp_path / "map.png")
    assert items.asked == 0
    shown.write(tmp_path / "map.csv")
    assert items.asked <= 51


def test_a_hundred_thousand_items_make_a_file_of_less_than_40_mb(tmp_path):
    many = numbered(100_000, clusters=80)
    for ending in (".html", ".parquet", ".csv", ".png"):
        many.write(tmp_path / f"map{ending}")
        assert (tmp_path / f"map{ending}").stat().st_size < 40_000_000
    assert len(content((tmp_path / "map.html").read_text(encoding="utf-8"))["ids"]) == 100_000


def test_another_ending_and_a_negative_number_are_refused(shown, tmp_path):
    for name in ("map.svg", "map", "map.html.gz"):
        with pytest.raises(InvalidInput, match="expected a map as"):
            shown.write(tmp_path / name)
    with pytest.raises(InvalidInput, match="at least 0"):
        shown.write(tmp_path / "map.html", thumbnails=-1)
    assert list(tmp_path.iterdir()) == [tmp_path / "photos"]


def test_what_does_not_fit_together_is_refused(shown):
    with pytest.raises(InvalidInput, match="12 items"):
        Map(shown.items, shown.points[:3], shown.labels)
    with pytest.raises(InvalidInput, match="12 items"):
        Map(shown.items, shown.points, shown.labels[:3])
    with pytest.raises(InvalidInput, match="finite"):
        Map(shown.items, np.full((12, 2), np.nan, dtype=np.float32), shown.labels)


@pytest.mark.parametrize(
    ("ending", "package"), [(".html", "plotly"), (".png", "matplotlib"), (".parquet", "pyarrow"), (".csv", "none")]
)
def test_a_missing_package_says_which_extra_brings_it(shown, tmp_path, monkeypatch, ending, package):
    import builtins

    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name.split(".")[0] in ("plotly", "matplotlib", "pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    if package == "none":
        shown.write(tmp_path / "map.csv")
    else:
        with pytest.raises(MissingDependency, match=r"mmsearch\[analysis\]"):
            shown.write(tmp_path / f"map{ending}")
    assert (tmp_path / "map.csv").exists() == (package == "none")


def test_clusters_are_listed_by_size_and_the_rest_last():
    labels = np.array([-1] * 9 + [4] * 2 + [2] * 2 + [8] * 5)
    shown = Map([Item(str(n)) for n in range(18)], np.zeros((18, 2), dtype=np.float32), labels, {4: "", 2: "two"})
    assert shown.clusters() == [8, 2, 4, -1]
    assert [shown.name(id) for id in shown.clusters()] == ["cluster 8", "two", "cluster 4", "in no cluster"]
    assert shown.heading() == "18 items, 3 clusters"


def test_many_clusters_have_colours_of_their_own():
    chosen = colours([*range(100), -1])
    assert len(set(chosen.values())) == 101
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in chosen.values())


def test_a_name_goes_to_a_member_in_the_middle():
    ring = np.stack([np.cos(np.arange(60)), np.sin(np.arange(60))], axis=1).astype(np.float32)
    shown = Map([Item(str(n)) for n in range(60)], ring, np.zeros(60, dtype=np.int64))
    assert list(medians(shown)[0]) in ring.tolist()


def test_thumbnails_are_shared_out_evenly_and_cover_each_cluster():
    labels = np.array([0] * 900 + [1] * 90 + [2] * 9 + [-1])
    points = np.random.default_rng(0).uniform(size=(1_000, 2)).astype(np.float32)
    chosen = evenly(labels, points, 100)
    counts = {label: int((labels[chosen] == label).sum()) for label in (0, 1, 2, -1)}
    assert len(set(chosen.tolist())) == 100
    assert counts[-1] == 1
    assert 85 <= counts[0] <= 90
    assert 8 <= counts[1] <= 11
    assert counts[2] >= 1
    spread = np.sort(points[chosen[labels[chosen] == 0], 0])
    assert np.diff(spread).max() < 0.05
    assert evenly(labels, points, 2).tolist() == sorted(evenly(labels, points, 2).tolist())
    assert set(labels[evenly(labels, points, 2)]) == {0, 1}
    assert len(evenly(labels, points, 0)) == 0
    assert len(evenly(labels[:0], points[:0], 5)) == 0


def test_a_caption_is_one_line_of_bounded_length():
    assert caption(Item("a", text="one\n two\tthree"), 100) == "one two three"
    assert caption(Item("a", text="x" * 300), 50) == "x" * 49 + "…"
    assert caption(Item("a", metadata={"colour": "red", "n": 5}), 50) == "colour: red, n: 5"
    assert caption(Item("a"), 50) == ""
    assert len(line("word " * 1_000, 20)) <= 20
