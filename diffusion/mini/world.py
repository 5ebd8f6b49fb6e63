"""The embedded world: a grammar of small scenes and the prompts people would write for them.

A `Scene` is a structured description (who, how many, where, in which style, under which sky). `random_scene` draws one,
`Scene.prompt` phrases it, `Scene.slots` names its parts for evaluation. Pictures come from `diffusion.mini.render`, which needs
an emoji font; nothing here does, so prompts can be drawn on any machine.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

HELD_OUT_OF_100 = 5  # per cent of all scenes that the embedded diffusion model never trains on


@dataclass(frozen=True)
class Subject:
    """One everyday thing: its emoji, its plural and the colour it has by nature (which is never asked for by name)."""

    emoji: str
    plural: str
    natural_colour: str = ""


@dataclass(frozen=True)
class Style:
    """How a style is phrased. `shows_colour` is False where the style replaces all colours by its own."""

    lead: str  # goes before the subject: "a watercolor painting of" ...
    tag: str  # stands alone between commas
    finish: str  # what its users like to append
    shows_colour: bool = True


SUBJECTS: dict[str, Subject] = {
    "cat": Subject("🐱", "cats", "yellow"),
    "dog": Subject("🐶", "dogs"),
    "fox": Subject("🦊", "foxes", "orange"),
    "panda": Subject("🐼", "pandas"),
    "lion": Subject("🦁", "lions", "yellow"),
    "frog": Subject("🐸", "frogs", "green"),
    "pig": Subject("🐷", "pigs", "pink"),
    "owl": Subject("🦉", "owls"),
    "penguin": Subject("🐧", "penguins"),
    "elephant": Subject("🐘", "elephants"),
    "flamingo": Subject("🦩", "flamingos", "pink"),
    "parrot": Subject("🦜", "parrots"),
    "octopus": Subject("🐙", "octopuses", "red"),
    "crab": Subject("🦀", "crabs", "red"),
    "fish": Subject("🐠", "fish", "yellow"),
    "turtle": Subject("🐢", "turtles", "green"),
    "butterfly": Subject("🦋", "butterflies", "blue"),
    "ladybug": Subject("🐞", "ladybugs", "red"),
    "whale": Subject("🐳", "whales", "blue"),
    "dinosaur": Subject("🦕", "dinosaurs", "green"),
    "unicorn": Subject("🦄", "unicorns"),
    "snail": Subject("🐌", "snails"),
    "hamburger": Subject("🍔", "hamburgers"),
    "pizza": Subject("🍕", "pizzas", "yellow"),
    "donut": Subject("🍩", "donuts"),
    "ice cream": Subject("🍦", "ice creams"),
    "watermelon": Subject("🍉", "watermelons", "red"),
    "strawberry": Subject("🍓", "strawberries", "red"),
    "banana": Subject("🍌", "bananas", "yellow"),
    "pineapple": Subject("🍍", "pineapples", "yellow"),
    "birthday cake": Subject("🎂", "birthday cakes"),
    "cactus": Subject("🌵", "cacti", "green"),
    "sunflower": Subject("🌻", "sunflowers", "yellow"),
    "rose": Subject("🌹", "roses", "red"),
    "mushroom": Subject("🍄", "mushrooms", "red"),
    "palm tree": Subject("🌴", "palm trees", "green"),
    "pumpkin": Subject("🎃", "pumpkins", "orange"),
    "car": Subject("🚗", "cars", "red"),
    "bus": Subject("🚌", "buses"),
    "tractor": Subject("🚜", "tractors", "green"),
    "sailboat": Subject("⛵", "sailboats"),
    "rocket": Subject("🚀", "rockets"),
    "helicopter": Subject("🚁", "helicopters", "red"),
    "train": Subject("🚂", "trains"),
    "castle": Subject("🏰", "castles"),
    "house": Subject("🏠", "houses"),
    "tent": Subject("⛺", "tents", "orange"),
    "umbrella": Subject("☔", "umbrellas", "purple"),
    "balloon": Subject("🎈", "balloons", "red"),
    "guitar": Subject("🎸", "guitars", "red"),
    "drum": Subject("🥁", "drums", "red"),
    "camera": Subject("📷", "cameras"),
    "telephone": Subject("☎", "telephones", "red"),
    "alarm clock": Subject("⏰", "alarm clocks", "red"),
    "teddy bear": Subject("🧸", "teddy bears", "orange"),
    "snowman": Subject("⛄", "snowmen"),
    "robot": Subject("🤖", "robots"),
    "ghost": Subject("👻", "ghosts"),
    "crown": Subject("👑", "crowns", "yellow"),
    "diamond": Subject("💎", "diamonds", "blue"),
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 40),
    "orange": (245, 135, 25),
    "yellow": (245, 210, 35),
    "green": (50, 170, 60),
    "blue": (45, 95, 225),
    "purple": (140, 60, 200),
    "pink": (250, 120, 180),
}

# background -> how a sentence says it; the key itself is how a tag says it
BACKGROUNDS: dict[str, str] = {
    "beach": "on a beach",
    "forest": "in a forest",
    "desert": "in the desert",
    "snowy mountains": "in front of snowy mountains",
    "city skyline": "in front of a city skyline",
    "outer space": "in outer space",
    "underwater": "underwater",
    "flower meadow": "in a flower meadow",
    "living room": "in a living room",
    "theater stage": "on a theater stage",
    "checkered floor": "on a checkered floor",
    "brick wall": "in front of a brick wall",
    "plain background": "on a plain background",
}

STYLES: dict[str, Style] = {
    "digital art": Style("digital art of", "digital art", "clean shapes"),
    "watercolor": Style("a watercolor painting of", "watercolor", "soft washes on paper"),
    "oil painting": Style("an oil painting of", "oil painting", "thick brushstrokes"),
    "pencil sketch": Style("a pencil sketch of", "pencil sketch", "graphite shading", shows_colour=False),
    "pixel art": Style("pixel art of", "pixel art", "8-bit"),
    "neon": Style("a neon sign of", "neon", "glowing outlines"),
    "mosaic": Style("a mosaic of", "mosaic", "ceramic tiles"),
    "sepia photo": Style("a sepia photo of", "sepia photo", "vintage", shows_colour=False),
    "blueprint": Style("a blueprint of", "blueprint", "technical drawing", shows_colour=False),
    "comic book": Style("a comic book panel of", "comic book", "bold ink"),
    "vaporwave": Style("vaporwave art of", "vaporwave", "scanlines", shows_colour=False),
}

WEATHERS = ("rain", "snow", "fog")
LIGHTS = ("golden hour", "night", "spotlight")
RELATIONS = ("next to", "above", "behind")
COUNTS = {1: "one", 2: "two", 3: "three"}
PHRASINGS = 3  # how many ways `Scene.prompt` can say the same scene


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture in words and parts. Empty strings mean "not asked for".

    `count` is 1 to 3 and is 1 whenever there is an `other` subject; `colour` belongs to `subject`.
    """

    subject: str
    background: str
    style: str
    count: int = 1
    colour: str = ""
    relation: str = ""
    other: str = ""
    weather: str = ""
    light: str = ""
    close_up: bool = False

    def slots(self) -> dict[str, str]:
        """The parts of the scene as strings, for a pair's JSON and for per-slot accuracy."""
        slots = {name: value for name, value in asdict(self).items() if isinstance(value, str)}
        return slots | {"count": COUNTS[self.count], "shot": "close-up" if self.close_up else ""}

    @property
    def key(self) -> str:
        """A name for the scene, however it is phrased: 16 hexadecimal digits."""
        text = "|".join(f"{name}={value}" for name, value in sorted(self.slots().items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def held_out(self) -> bool:
        """True for the scenes that the embedded diffusion model never trains on, however they are phrased."""
        return int(self.key[:8], 16) % 100 < HELD_OUT_OF_100

    def prompt(self, phrasing: int = 0) -> str:
        """Phrase the scene: 0 as a sentence, 1 as a sentence with a style tag, 2 as a list of tags."""
        style, place = STYLES[self.style], BACKGROUNDS[self.background]
        who = self._subjects()
        if phrasing == 0:
            parts = [f"{style.lead} {who} {place}"]
        elif phrasing == 1:
            parts = [f"{who} {place}", style.tag]
        elif phrasing == 2:
            parts = [who, self.background, style.tag]
        else:
            raise ValueError(f"phrasing must be 0 to {PHRASINGS - 1}, not {phrasing}")
        parts += [self.weather, self.light, "close-up" if self.close_up else ""]
        if phrasing > 0:
            parts.append(style.finish)
        return ", ".join(part for part in parts if part)

    def _subjects(self) -> str:
        subject = SUBJECTS[self.subject]
        if self.count > 1:
            return " ".join(word for word in (COUNTS[self.count], self.colour, subject.plural) if word)
        who = with_article(f"{self.colour} {self.subject}".strip())
        return f"{who} {self.relation} {with_article(self.other)}" if self.other else who


def with_article(noun: str) -> str:
    """`"owl"` -> `"an owl"`; every subject beginning with a u ("unicorn", "umbrella") is listed by its sound."""
    vowel = noun[0] in "aeio" or noun.startswith("umbrella")
    return f"{'an' if vowel else 'a'} {noun}"


def random_scene(rng: random.Random) -> Scene:
    """Draw a scene: two in three show one thing, the others two or three of it, or a pair with a relation."""
    subject = rng.choice(tuple(SUBJECTS))
    style = rng.choice(tuple(STYLES))
    cast = rng.choices(("one", "several", "pair"), weights=(68, 14, 18))[0]
    other = rng.choice([name for name in SUBJECTS if name != subject]) if cast == "pair" else ""
    colours = [name for name in COLOURS if name != SUBJECTS[subject].natural_colour]
    coloured = STYLES[style].shows_colour and rng.random() < 0.3
    return Scene(
        subject=subject,
        background=rng.choice(tuple(BACKGROUNDS)),
        style=style,
        count=rng.choice((2, 3)) if cast == "several" else 1,
        colour=rng.choice(colours) if coloured else "",
        relation=rng.choice(RELATIONS) if other else "",
        other=other,
        weather=rng.choice(WEATHERS) if rng.random() < 0.2 else "",
        light=rng.choice(LIGHTS) if rng.random() < 0.2 else "",
        close_up=cast == "one" and rng.random() < 0.2,
    )


def random_scenes(seed: int, *, held_out: bool) -> Iterator[tuple[Scene, str]]:
    """An endless stream of (scene, prompt), only those held out from the diffusion model's training or only the others."""
    rng = random.Random(seed)
    while True:
        scene = random_scene(rng)
        phrasing = rng.choices(range(PHRASINGS), weights=(60, 25, 15))[0]
        if scene.held_out == held_out:
            yield scene, scene.prompt(phrasing)


def count_scenes() -> int:
    """How many distinct scenes the grammar can say (phrasings not counted)."""
    casts = 0
    for style in STYLES.values():
        for subject in SUBJECTS.values():
            colours = 1 + (sum(c != subject.natural_colour for c in COLOURS) if style.shows_colour else 0)
            singles_and_groups = 2 + (len(COUNTS) - 1)  # one, one close-up, two, three
            pairs = len(RELATIONS) * (len(SUBJECTS) - 1)
            casts += colours * (singles_and_groups + pairs)
    return casts * len(BACKGROUNDS) * (1 + len(WEATHERS)) * (1 + len(LIGHTS))


_NOUNS = {subject: name for name in SUBJECTS for subject in (name, SUBJECTS[name].plural)}
_ANY_NOUN = "|".join(sorted(map(re.escape, _NOUNS), key=len, reverse=True))
_CAST = re.compile(
    rf"\b(?P<count>an?|two|three) (?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<subject>{_ANY_NOUN})\b"
    rf"(?: (?P<relation>{'|'.join(RELATIONS)}) an? (?P<other>{_ANY_NOUN})\b)?"
)


def read_slots(text: str) -> dict[str, str]:
    """The inverse of `Scene.prompt` for any text: the slots that can be read off it, "" for those that cannot.

    It forgives what does not matter (order, doubled parts), so that a prediction is judged part by part.
    """
    lowered = " ".join(text.casefold().split())
    tags = {part.strip() for part in lowered.split(",")}
    cast = _CAST.search(lowered)
    found = cast.groupdict(default="") if cast else dict.fromkeys(("count", "colour", "subject", "relation", "other"), "")
    return {
        "subject": _NOUNS.get(found["subject"], ""),
        "background": _first_in(BACKGROUNDS, lowered),
        "style": _first_in(STYLES, lowered),
        "count": {"a": "one", "an": "one"}.get(found["count"], found["count"]),
        "colour": found["colour"],
        "relation": found["relation"],
        "other": _NOUNS.get(found["other"], ""),
        "weather": next((name for name in WEATHERS if name in tags), ""),
        "light": next((name for name in LIGHTS if name in tags), ""),
        "shot": "close-up" if "close-up" in tags else "",
    }


def _first_in(names: Iterable[str], text: str) -> str:
    """The one of `names` that stands earliest in `text`."""
    places = [(text.find(name), name) for name in names if name in text]
    return min(places)[1] if places else ""
