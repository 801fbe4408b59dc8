"""``mmsearch interactions``: what it prints, what it writes, and how it refuses."""

import json

import pytest

from mmsearch import Engine, Interaction, Item


@pytest.fixture
def shop(engine):
    """The path of a store of 30 items with codes."""
    engine.add([Item(id=f"item {n}", text=f"thing {n}", metadata={"code": n, "half": n // 2}) for n in range(30)])
    return engine.path


@pytest.fixture
def ratings(tmp_path):
    """Writes a CSV table."""

    def write(*lines):
        file = tmp_path / "ratings.csv"
        file.write_text("\n".join(lines) + "\n")
        return file

    return write


def told(store, encoder):
    with Engine.open(store, encoder) as engine:
        return list(engine.interactions())


def test_import_records_and_says_so(ask, shop, ratings, encoder):
    file = ratings("userId,movieId,rating,timestamp,", "1,2,4.5,100,", "1,3,0,101,", "2,99,1,102,", "2,2,x,103,")
    code, shown, said = ask("interactions", "import", file, "--item-field", "code", "--store", shop)
    assert code == 0
    assert "2 added, 0 changed, 0 unchanged, of 1 users; 1 with unknown items, 0 with ambiguous ones, 1 failed" in shown
    assert "user from userId, item from movieId, weight from rating, time from timestamp" in shown
    assert "unknown 99: 1 row\n" in said
    assert "failed row 4: expected a finite number as weight, got 'x'" in said
    assert told(shop, encoder) == [
        Interaction("1", "item 2", weight=4.5, time=100.0),
        Interaction("1", "item 3", weight=0.0, time=101.0),
    ]


def test_import_prints_one_object(ask, shop, ratings):
    file = ratings("who,what,much,when,how", "ann,item 1,2,5,buy", "ann,other,2,5,buy", "ann,item 1,,5,buy")
    options = ["--user", "who", "--item", "what", "--weight", "much", "--time", "when", "--kind", "how"]
    code, shown, said = ask("interactions", "import", file, *options, "--store", shop, "--json")
    assert (code, said) == (0, "")
    assert json.loads(shown) == {
        "added": 1,
        "changed": 0,
        "unchanged": 0,
        "users": 1,
        "unknown": {"other": 1},
        "ambiguous": {},
        "failed": [{"row": "row 3", "reason": "expected a finite number as weight, got nothing"}],
        "columns": {"user": "who", "item": "what", "weight": "much", "time": "when", "kind": "how"},
    }


def test_importing_again_changes_nothing_and_is_no_failure(ask, shop, ratings):
    file = ratings("user,item", "ann,item 1")
    assert ask("interactions", "import", file, "--store", shop)[0] == 0
    code, shown, _ = ask("interactions", "import", file, "--store", shop)
    assert (code, shown.split(";")[0]) == (0, "0 added, 0 changed, 1 unchanged, of 1 users")


def test_the_first_unknown_items_are_named_and_the_others_counted(ask, shop, ratings):
    file = ratings("user,item", "ann,item 1", *(f"ann,x{n}" for n in range(25)), *(",x" for _ in range(12)))
    _, _, said = ask("interactions", "import", file, "--store", shop)
    assert "unknown x9: 1 row\n  … and 15 more unknown items" in said
    assert "x10:" not in said
    assert "… and 2 more rows" in said


def test_what_several_items_share_is_named(ask, shop, ratings):
    _, shown, said = ask(
        "interactions", "import", ratings("user,item", "a,3", "b,3"), "--item-field", "half", "--store", shop
    )
    assert "2 with ambiguous ones" in shown
    assert "ambiguous 3: 2 rows" in said


@pytest.mark.parametrize("lines", [["ann,x", "bob,y"], [",item 1"], []])
def test_where_nothing_can_be_imported_the_exit_code_is_1(ask, shop, ratings, lines):
    code, shown, _ = ask("interactions", "import", ratings("user,item", *lines), "--store", shop)
    assert code == 1
    assert shown.startswith("0 added")


def test_escapes_in_ids_do_not_reach_the_terminal(ask, shop, ratings):
    _, _, said = ask("interactions", "import", ratings("user,item", "ann,\x1b[31m[bold]x"), "--store", shop)
    assert r"unknown \x1b[31m[bold]x: 1 row" in said


@pytest.mark.parametrize(
    ("lines", "options", "said"),
    [
        (["a,b", "1,2"], [], "expected one column with the user, got none: name it (user=… or --user …)"),
        (["user,item", "1,2"], ["--weight", "stars"], "got none called 'stars'"),
        (["user,item", "1,2"], ["--item-field", "sku"], "no item has a metadata field 'sku'; there are: code, half"),
    ],
)
def test_a_table_that_cannot_be_read_is_wrong_input(ask, shop, ratings, lines, options, said):
    code, shown, error = ask("interactions", "import", ratings(*lines), *options, "--store", shop)
    assert (code, shown) == (2, "")
    assert said in error


def test_a_file_or_store_that_is_not_there_is_told(ask, shop, ratings, tmp_path):
    assert ask("interactions", "import", tmp_path / "absent.csv", "--store", shop)[0] == 2
    assert ask("interactions", "import", ratings("user,item"), "--store", tmp_path / "absent")[0] == 3


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_what_is_exported_can_be_imported_again(ask, shop, ratings, tmp_path, encoder, suffix):
    ask("interactions", "import", ratings("user,item,time", "ann,item 1,", "bob,item 2,7"), "--store", shop)
    before, file = told(shop, encoder), tmp_path / f"out.{suffix}"
    assert ask("interactions", "export", file, "--store", shop)[:2] == (0, f"{file}: 2 interactions\n")
    code, _, said = ask("interactions", "export", file, "--store", shop)
    assert code == 2
    assert "is there already" in said
    shown = ask("interactions", "export", file, "--overwrite", "--store", shop, "--json")[1]
    assert json.loads(shown) == {"file": str(file), "interactions": 2}
    ask("interactions", "forget", "--all", "--store", shop)
    assert ask("interactions", "import", file, "--store", shop)[0] == 0
    assert told(shop, encoder) == before


def test_forget_deletes_one_user_or_everybody(ask, shop, ratings):
    ask("interactions", "import", ratings("user,item", "ann,item 1", "bob,item 1", "cem,item 1"), "--store", shop)
    assert ask("interactions", "forget", "--user", "ann", "--store", shop)[:2] == (0, "1 interactions forgotten\n")
    assert ask("interactions", "forget", "--user", "ann", "--store", shop)[:2] == (0, "0 interactions forgotten\n")
    assert json.loads(ask("interactions", "forget", "--all", "--json", "--store", shop)[1]) == {"forgotten": 2}


@pytest.mark.parametrize("options", [[], ["--all", "--user", "ann"]])
def test_forget_needs_to_know_whom(ask, shop, options):
    code, _, said = ask("interactions", "forget", *options, "--store", shop)
    assert code == 2
    assert "expected --user or --all" in said


def test_info_tells_of_users_once_there_are_any(ask, tmp_path, ratings):
    store = tmp_path / "own"
    with Engine.open(store) as engine:
        engine.add([Item(id="item 1", text="a thing")])
    assert " interactions of" not in ask("info", "--store", store)[1]
    ask("interactions", "import", ratings("user,item", "ann,item 1"), "--store", store)
    assert "MB, 1 interactions of 1 users\n" in ask("info", "--store", store)[1]
    facts = json.loads(ask("info", "--store", store, "--json")[1])
    assert (facts["users"], facts["interactions"]) == (1, 1)
