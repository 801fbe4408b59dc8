"""A report is one page that shows what was found out, and loads nothing from anywhere."""

import base64
import math
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.atlas import Map
from mmsearch.clusters import Branch, Change, Cluster, Clustering, Exemplars, Quality
from mmsearch.errors import InvalidInput, MissingDependency
from mmsearch.findings import DuplicateGroup, Flaw, Outlier, Suspect
from mmsearch.info import Info
from mmsearch.report import Portrait, write_report
from mmsearch.report.album import Album
from mmsearch.types import Item

VOID = {"meta", "img", "br", "link", "hr", "input"}
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200), "grey": (120, 120, 120)}


class Page(HTMLParser):
    """What a browser without scripts sees: text by section, ids, attributes, styles."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.attributes, self.scripts, self.styles = [], [], [], [], []
        self.words, self.sections = [], {}
        self.feed(text)
        self.close()
        assert self.open == [], "some tags are not closed"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in VOID:
            self.open.append((tag, found.get("id")))

    def handle_endtag(self, tag):
        assert self.open, f"nothing to close with </{tag}>"
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        inside = self.open[-1][0] if self.open else ""
        if inside in ("script", "style"):
            (self.scripts if inside == "script" else self.styles).append(data)
            return
        self.words.append(data)
        for _, id in self.open:
            if id:
                self.sections[id] = self.sections.get(id, "") + " " + data

    def section(self, id):
        return " ".join(self.sections.get(id, "").split())

    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, name):
        return [value for _, its, value in self.attributes if its == name]

    def picture(self, label):
        """The picture that a card with this label shows."""
        cards = dict(zip(self.values("aria-label")[1:], self._shown(), strict=True))
        (data,) = re.findall(rf"\.{cards[label]}{{background-image:url\(data:image/webp;base64,([^)]*)\)}}", self.style)
        return Image.open(BytesIO(base64.b64decode(data)))

    def _shown(self):
        return [value.split()[1] for value in self.values("class") if re.fullmatch(r"pic p\d+", value)]

    @property
    def style(self):
        return "".join(self.styles)


@pytest.fixture
def draw(tmp_path):
    """Draws an item: a plain picture of a colour, or of noise."""

    def draw_one(id, colour="red", **options):
        path = tmp_path / f"{len(list(tmp_path.glob('*.png')))}.png"
        if colour == "noise":
            pixels = np.random.default_rng(len(id)).integers(0, 255, (90, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        else:
            Image.new("RGB", (60, 40), COLOURS[colour]).save(path)
        return Item(id, path, **options)

    return draw_one


@pytest.fixture
def write(tmp_path):
    """Writes a report and reads it again."""

    def write_one(portrait):
        file = tmp_path / "reports" / "page.html"
        write_report(file, portrait)
        return Page(file.read_text(encoding="utf-8"))

    return write_one


def info(items=0, **facts):
    known = {"encoder": "mini", "fingerprint": "f00", "licence": "research only", "runtime": None, "dim": 256}
    return Info("/data/shop", items, **(known | facts))


def cluster(id, title, items, *, central=None, quality=None, keywords=(), **exemplars):
    shown = Exemplars(tuple(items[:8] if central is None else central), **exemplars)
    return Cluster(id, title, (title, *keywords), 0.84, items, shown, quality or Quality(0.3, 0.7, 0.4, 0.9), title)


def clustering(*clusters, noise=(), **more):
    labels = {item.id: one.id for one in clusters for item in one.items} | {item.id: -1 for item in noise}
    return Clustering(tuple(clusters), labels, "kmeans", more.pop("quality", Quality(0.3, 0.7, 0.4, 0.82)), **more)


def portrait(found, **more):
    return Portrait(more.pop("title", "The shop"), more.pop("info", info(len(found.labels))), found, **more)


@pytest.fixture
def shop(draw):
    """Ten pictures in two clusters, one item in none."""
    boats = [draw(f"boat {n}.png", "blue", text=f"a boat, number {n}") for n in range(6)]
    trees = [draw(f"tree {n}.png", "green", text=f"a tree, number {n}") for n in range(4)]
    odd = Item("poem", text="Roses are not blue")
    return clustering(
        cluster(3, "boats", boats, central=boats[:3], border=(boats[4],), odd=(boats[5],), keywords=["water", "sails"]),
        cluster(7, "trees", trees),
        noise=[odd],
        hierarchy=(Branch("outdoors", ("nature",), (3, 7)),),
        tried={2: 0.31, 3: 0.28},
    )


def test_a_report_tells_what_the_collection_is_and_what_made_it(write, shop):
    page = write(portrait(shop))
    for told in ("The shop", "11 items", "/data/shop", "mini, vectors of 256 numbers", "research only"):
        assert told in page.text()
    assert "1 in no cluster 9% of them" in page.text()


def test_a_report_shows_each_cluster_with_its_words_size_and_members(write, shop):
    page = write(portrait(shop))
    boats = page.section("cluster-3")
    assert boats.startswith("boats Cluster 3: 6 items; the name suits 84% of them. Stability 0.90, silhouette 0.30")
    assert all(
        word in boats for word in ("water", "sails", "boat 0.png", "On the border to another cluster", "Odd ones")
    )
    assert "boat" not in page.section("cluster-7")
    assert "outdoors (2 clusters) nature" in page.section("hierarchy")
    assert "boats (6 items)" in page.section("hierarchy")
    assert "2: 0.310" in page.section("clusters")


def test_a_card_shows_the_picture_of_its_item(write, shop):
    page = write(portrait(shop))
    assert np.abs(np.subtract(page.picture("a boat, number 0").getpixel((30, 20)), COLOURS["blue"])).max() < 12
    assert np.abs(np.subtract(page.picture("a tree, number 3").getpixel((30, 20)), COLOURS["green"])).max() < 12


def test_trust_is_told_in_words(write, shop):
    trusted = write(portrait(shop)).text()
    assert "stability 0.82 most clusters come back when half of the items is clustered anew" in trusted
    doubtful = clustering(*shop.clusters, quality=Quality(-0.1, 0.2, 0.1, 0.3))
    page = write(portrait(doubtful)).text()
    assert "stability 0.30 many clusters change" in page
    assert "silhouette -0.10 clusters overlap" in page


def test_every_link_leads_to_one_place_of_the_page(write, shop):
    found = Outlier(shop.clusters[0].items[0], 0.99)
    page = write(portrait(shop, outliers=[found], notes=["a note"], agreement={"kind": {"nmi": 0.9}}))
    links = page.values("href")
    assert {"#cluster-3", "#cluster-7", "#hierarchy", "#notes", "#agreement"} <= set(links)
    assert {Counter(page.ids)[link.removeprefix("#")] for link in links} == {1}


def test_the_page_loads_nothing_from_anywhere(write, shop):
    points = np.zeros((10, 2), dtype=np.float32)
    items = [item for one in shop for item in one.items]
    page = write(portrait(shop, map=Map(items, points, np.zeros(10, dtype=np.int64))))
    assert all(value.startswith("#") for value in page.values("href"))
    assert [value for value in page.values("src") if not value.startswith("data:")] == []
    assert not re.search(r"@import|url\((?!data:image/webp;base64,[A-Za-z0-9+/=]*\))", page.style)
    assert {tag for tag, *_ in page.attributes} & {"link", "iframe", "object", "embed", "base", "form"} == set()
    (policy,) = [value for value in page.values("content") if "default-src" in value]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_a_picture_is_embedded_once_however_often_it_is_shown(write, draw):
    item, copy = draw("a.png", "red", text="one"), draw("b.png", "red", text="the same file elsewhere")
    found = clustering(cluster(0, "reds", [item, copy], border=(item,), odd=(item,)))
    page = write(
        portrait(found, outliers=[Outlier(item, 0.9)], duplicates=[DuplicateGroup((item, copy), "exact", (1.0, 1.0))])
    )
    assert page.style.count("data:image/webp") == 1
    assert sum(value == "pic p0" for value in page.values("class")) == 7


def test_what_people_wrote_cannot_become_html(write, draw):
    evil = "</style></script><script>alert('1')</script><img src=x onerror=\"alert(2)\">"
    item = draw(evil, "red", text=evil, metadata={evil: evil})
    change = Change("split", 0, evil, 1, 1, (5,))
    found = clustering(
        cluster(0, evil, [item], keywords=[evil]),
        hierarchy=(Branch(evil, (evil,), (0,)),),
        changes=(change,),
        notes=(evil,),
    )
    page = write(
        portrait(
            found,
            title=evil,
            info=Info(evil, 1, evil, evil, evil, None, 3),
            map=Map([item], np.zeros((1, 2), dtype=np.float32), np.zeros(1, dtype=np.int64), {0: evil}),
            outliers=[Outlier(item, 0.9, {evil: 0.5})],
            flaws=[Flaw(item, evil, 0.1, 0.2)],
            suspects={evil: [Suspect(item, evil, evil, 0.9, 0.8)]},
            agreement={evil: {"nmi": 0.5}},
            duplicates=[DuplicateGroup((item, item), evil, (1.0, 0.9))],
            notes=[evil],
        )
    )
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []
    assert not any("alert(" in script for script in page.scripts if "</" in script or script.startswith("alert"))
    assert "x" not in page.values("src")
    assert evil in page.section("notes")


def test_names_that_no_encoding_knows_and_direction_marks_do_no_harm(write, tmp_path):
    items = [
        Item("caf\udce9.jpg", Path("caf\udce9.jpg")),
        Item("\u202egpj.exe"),
        Item("nul\x00\x1b[31m", text="a\x00\u202eb"),
    ]
    page = write(
        portrait(
            clustering(cluster(0, "\udce9", items)),
            title="\ud800\u202e",
            notes=["\udce9\x07"],
            suspects={"\udc80": [Suspect(items[0], "\u2066x", "\udc80", 0.9, 0.8)]},
            map=Map(items, np.zeros((3, 2), dtype=np.float32), np.zeros(3, dtype=np.int64), {0: "\udce9"}),
        )
    )
    assert "caf\\udce9.jpg" in page.section("cluster-0")
    assert "\\u202egpj.exe" in page.section("cluster-0")
    shown = page.text() + "".join(page.values("title")) + "".join(page.values("aria-label"))
    assert not re.search("[\x00-\x08\x1b\u202a-\u202e\u2066-\u2069]", shown)


def test_items_without_a_picture_show_their_text_and_lost_pictures_their_id(write, draw):
    lost = draw("lost.png", "red", text="a lost one")
    lost.path.unlink()
    page = write(portrait(clustering(cluster(0, "mixed", [Item("poem", text="Roses are red"), lost, Item("bare")]))))
    assert "Roses are red" in page.section("cluster-0")
    assert page.section("cluster-0").count("lost.png") == 2
    assert "1 picture could not be opened any more" in page.section("notes")
    assert page.style.count("data:image") == 0


def test_a_picture_in_memory_is_shown(write):
    item = Item("memory", text="from memory", image=Image.new("RGB", (30, 30), COLOURS["blue"]))
    page = write(portrait(clustering(cluster(0, "one", [item]))))
    assert page.picture("from memory").size == (30, 30)


def test_an_empty_store_has_a_report(write):
    page = write(portrait(clustering(), info=info(0, encoder=None, dim=None)))
    assert "There are no clusters." in page.section("clusters")
    assert "None were found." in page.section("duplicates")
    assert not {"map", "hierarchy", "changes", "suspects", "trust"} & set(page.ids)


def test_one_item_and_clusters_without_exemplars_have_a_report(write, draw):
    one = write(portrait(clustering(cluster(0, "one", [draw("a.png", text="alone")]))))
    assert "alone" in one.section("cluster-0")
    bare = write(portrait(clustering(cluster(0, "", [], central=[]))))
    assert "cluster 0" in bare.section("clusters")


def test_a_map_without_items_is_left_out(write, shop):
    nothing = Map([], np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int64))
    assert "map" not in write(portrait(shop, map=nothing)).ids


def test_numbers_that_are_not_known_never_show_as_nan(write, draw):
    nan, item = math.nan, draw("a.png")
    page = write(
        portrait(
            clustering(
                cluster(0, "one", [item], quality=Quality(nan, nan, math.inf, nan)),
                quality=Quality(nan, nan, nan, nan),
                tried={2: nan},
            ),
            outliers=[Outlier(item, nan, {"lof": nan})],
            flaws=[Flaw(item, "dark", nan, nan)],
            suspects={"kind": [Suspect(item, "a", "b", nan, nan)]},
            agreement={"kind": {"nmi": nan, "ari": -math.inf}},
            duplicates=[DuplicateGroup((item, item), "near", (1.0, nan))],
        )
    )
    assert not re.search(r"\b(nan|inf)\b", page.text(), re.IGNORECASE)
    assert "stability n/a not known" in page.text()


def test_findings_are_shown_with_their_scores(write, draw):
    good, poor = draw("good.png", text="the good"), draw("poor.png", "grey", text="the poor")
    page = write(
        portrait(
            clustering(cluster(0, "all", [good, poor])),
            duplicates=[DuplicateGroup((good, poor), "near", (1.0, 0.93))],
            outliers=[Outlier(poor, 0.987, {"lof": 0.9})],
            flaws=[Flaw(poor, "dark", 0.12, 0.35), Flaw(poor, "small", 40, 64), Flaw(good, "dark", 0.3, 0.35)],
            suspects={"kind": [Suspect(poor, "cup", "mug", 0.9, 0.8)], "colour": []},
            agreement={"kind": {"nmi": 0.85, "ari": 0.7, "purity": 0.9}},
        )
    )
    assert "2 items, nearly the same best copy the good good.png 0.93 the poor poor.png" in page.section("duplicates")
    assert page.values("class").count("best") == 1
    assert "0.987 the poor poor.png lof 0.90" in page.section("outliers")
    assert "dark 2 Measured: how bright the bright parts are; below 0.35 it counts as a flaw." in page.section("flaws")
    assert "small 1 Measured: pixels on the shorter side; below 64" in page.section("flaws")
    assert "cup → mug the poor poor.png 90% against, 80% for the other" in page.section("suspects")
    assert "0.85 0.70 0.90 clusters are nearly the same thing as this field" in page.section("agreement")
    assert "2 flawed pictures" in page.text()


def test_changes_since_the_last_time_are_told_as_sentences(write, shop):
    changes = (
        Change("grew", 3, "boats", 4, 6),
        Change("merged", 7, "trees", 2, 4, (9, 1)),
        Change("merged", 9, "bushes", 1, 0, (7,)),
        Change("vanished", 8, "cars", 5, 0),
        Change("new", 3, "boats", 0, 6),
        Change("split", 7, "trees", 9, 4, (3,)),
    )
    told = write(portrait(clustering(*shop.clusters, changes=changes))).section("changes")
    for sentence in (
        "boats grew from 4 to 6 items",
        "trees took in bushes and cluster 1, from 2 to 4 items",
        "bushes went into trees; it had 1 item",
        "cars is gone; it had 5 items",
        "boats is new, with 6 items",
        "trees was split: the rest of its 9 items is now in boats",
    ):
        assert sentence in told


def test_the_rest_of_many_clusters_is_a_table_and_all_links_hold(write):
    clusters = [cluster(id, f"kind {id}", [Item(f"{id}", text=f"text {id}")]) for id in range(1_100)]
    found = clustering(*clusters, hierarchy=(Branch("all", (), tuple(range(1_100))),))
    page = write(portrait(found))
    assert "text 59" in page.section("clusters")
    assert "kind 60" in page.section("cluster-60")
    assert "text 60" not in page.text()
    assert "… and 40 more." in page.section("clusters")
    assert "… and 40 clusters more" in page.section("hierarchy")
    assert {Counter(page.ids)[link.removeprefix("#")] for link in page.values("href")} == {1}


def test_long_lists_say_how_much_more_there_is(write):
    items = [Item(f"n{n}", text=f"text {n}") for n in range(70)]
    page = write(
        portrait(
            clustering(cluster(0, "all", items, central=[])),
            duplicates=[DuplicateGroup(tuple(items[:11]), "exact", (1.0,) * 11)] * 53,
            outliers=[Outlier(item, 0.5) for item in items],
            flaws=[Flaw(item, "dark", 0.1, 0.35) for item in items],
            suspects={"kind": [Suspect(item, "a", "b", 0.9, 0.8) for item in items]},
            notes=[f"note {n}" for n in range(120)],
        )
    )
    told = {id: re.findall(r"… and (\d+) more", page.section(id)) for id in page.ids}
    assert told["duplicates"] == ["3"] * 51
    assert (told["outliers"], told["flaws"], told["suspects"], told["notes"]) == (["10"], ["46"], ["22"], ["20"])
    assert len(re.findall(r"text \d+", page.section("cluster-0"))) == 32


def test_pictures_beyond_the_room_there_is_are_left_out_and_counted(draw):
    items = [draw("x" * n, "noise") for n in range(1, 6)]
    whole = Album(items)
    assert whole.left_out == 0
    room = len(whole.style()) // 2
    half = Album(items, budget=room)
    assert (half.left_out, half.class_of(items[0]), half.class_of(items[-1])) == (3, "p0", "")
    assert len(half.style()) < room + 200


def test_a_map_is_drawn_to_be_explored_and_a_large_one_is_thinned_out(write, shop):
    n = 12_500
    items = [Item(f"i{n}", text="some words") for n in range(n)]
    points = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    shown = Map(items, points, np.repeat([3, 7], [n - 10, 10]), {3: "boats", 7: "trees"}, "pca", 0.8)
    page = write(portrait(shop, map=shown))
    assert "12,500 items, 2 clusters, pca, trust 0.80; 12,000 of them are shown" in page.section("map")
    (data,) = [script for script in page.scripts if script.startswith('{"clusters"')]
    assert data.count("some words") == 12_000
    assert any("Plotly.newPlot" in script for script in page.scripts)


def test_without_plotly_the_map_is_a_picture(write, shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    shown = Map([Item("a")], np.zeros((1, 2), dtype=np.float32), np.zeros(1, dtype=np.int64), {}, "pca")
    page = write(portrait(shop, map=shown))
    assert "To explore it, maps as pages need an extra: pip install 'mmsearch[analysis]'" in page.section("map")
    assert [value for value in page.values("src") if value.startswith("data:image/png;base64,")]
    assert page.scripts == []
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    without = write(portrait(shop, map=shown))
    assert "It is not drawn" in without.section("map")
    assert without.values("src") == []


def test_without_jinja_the_error_names_the_extra_and_nothing_is_written(tmp_path, shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    file = tmp_path / "page.html"
    file.write_text("what was there")
    with pytest.raises(MissingDependency, match=r"pip install 'mmsearch\[analysis\]'"):
        write_report(file, portrait(shop))
    assert file.read_text() == "what was there"


def test_another_ending_is_refused(tmp_path, shop):
    with pytest.raises(InvalidInput, match=r"expected a report as .html or .htm, got 'page.pdf'"):
        write_report(tmp_path / "page.pdf", portrait(shop))
    assert not (tmp_path / "page.pdf").exists()


def test_the_same_portrait_gives_the_same_page(tmp_path, shop):
    for name in ("a.html", "b.HTM"):
        write_report(tmp_path / name, portrait(shop))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.HTM").read_bytes()
