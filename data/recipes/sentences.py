"""What is said: an endless supply of short English sentences, written for this project.

Two kinds. A *grammar* sentence is a command, a number, a date or the like, built from templates; whoever has heard many
of them can guess the next word. A *random* sentence is a sequence of words of the same vocabulary in no order at all:
nothing can be guessed, so a recogniser has to listen, and a damaged one can't hide behind what it expects.
"""

import random
import re
from collections.abc import Callable

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
]
MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
ROOMS = ["kitchen", "bedroom", "bathroom", "garage", "garden", "office", "hallway", "basement"]
ROOMS += ["living room", "dining room"]
DEVICES = ["light", "lamp", "fan", "heater", "radio", "television", "speaker", "camera", "oven", "door", "window", "alarm"]
COLOURS = ["red", "blue", "green", "yellow", "white", "purple", "orange", "black"]
CITIES = ["london", "paris", "berlin", "tokyo", "madrid", "boston", "chicago", "denver", "moscow", "sydney", "rome", "cairo"]
NAMES = [
    "alice",
    "bob",
    "charlie",
    "david",
    "emma",
    "frank",
    "grace",
    "henry",
    "isabel",
    "jack",
    "kate",
    "lucas",
    "mary",
    "nathan",
    "oliver",
    "peter",
    "rachel",
    "sarah",
    "thomas",
    "victor",
]
ERRANDS = [
    *["buy some milk", "call the doctor", "water the plants", "feed the cat", "walk the dog", "pay the rent"],
    *["clean the house", "send the letter", "take the medicine", "read the report", "book a flight", "wash the car"],
    *["cook the dinner", "fix the bicycle"],
]
MUSIC = ["jazz", "rock", "classical", "country", "folk", "piano", "guitar"]
THINGS = ["apples", "boxes", "chairs", "shirts", "books", "pencils", "bottles", "candles"]
DIRECTIONS = ["left", "right", "forward", "back", "up", "down", "north", "south", "east", "west"]

Draw = random.Random


def number(n: int) -> str:
    """Spells an integer from 0 to 9,999 in words."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f" {ONES[n % 10]}" if n % 10 else "")
    size, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    return f"{number(n // size)} {name}" + (f" {number(n % size)}" if n % size else "")


def ordinal(n: int) -> str:
    """Spells an ordinal number from 1 to 31 in words."""
    if n <= 20:
        return ORDINALS[n - 1]
    return "thirtieth" if n == 30 else f"{TENS[n // 10]} {ORDINALS[n % 10 - 1]}"


def digits(draw: Draw, low: int, high: int) -> str:
    return " ".join(ONES[draw.randint(0, 9)] for _ in range(draw.randint(low, high)))


def year(draw: Draw) -> str:
    century, rest = draw.choice([("nineteen", draw.randint(1, 99)), ("twenty", draw.randint(10, 29))])
    return f"{century} oh {ONES[rest]}" if rest < 10 else f"{century} {number(rest)}"


def date(draw: Draw) -> str:
    day = f"{draw.choice(MONTHS)} {ordinal(draw.randint(1, 31))}"
    return f"{day} {year(draw)}" if draw.random() < 0.4 else day


def clock(draw: Draw) -> str:
    hour = number(draw.randint(1, 12))
    style = draw.random()
    if style < 0.25:
        text = f"{hour} o clock"
    elif style < 0.4:
        text = f"{draw.choice(['half past', 'quarter to', 'quarter past'])} {hour}"
    else:
        text = f"{hour} {number(draw.randint(10, 59))}"
    return text + (draw.choice([" in the morning", " in the evening", " at night"]) if draw.random() < 0.25 else "")


def _when(draw: Draw) -> str:
    return draw.choice([f"on {draw.choice(DAYS)}", f"at {clock(draw)}", "tomorrow", "tonight", "next week", f"on {date(draw)}"])


def _setting(draw: Draw) -> str:
    return draw.choice(
        [
            f"temperature to {number(draw.randint(10, 35))} degrees",
            f"light to {number(draw.randint(1, 100))} percent",
            f"light to {draw.choice(COLOURS)}",
            f"volume to {number(draw.randint(1, 100))}",
        ]
    )


def _polite(draw: Draw) -> str:
    pick = draw.choice
    greeting = pick(["yes", "no", "please", "okay", "hello", "thank you"])
    wish = pick(
        [
            f"turn on the {pick(DEVICES)}",
            "play the next song",
            "stop the music",
            f"go back to the {pick(ROOMS)}",
            f"open the {pick(DEVICES)}",
            f"see you on {pick(DAYS)}",
        ]
    )
    return f"{greeting} {pick(NAMES)}, {wish}" + pick([".", ".", "!"])


def _amount(draw: Draw) -> str:
    return f"{number(draw.randint(2, 99))} {draw.choice(COLOURS)} {draw.choice(THINGS)}"


# Every template draws one sentence; p is draw.choice, r is draw.randint.
_Template = Callable[[Draw, Callable, Callable], str]
TEMPLATES: list[_Template] = [
    lambda d, p, r: f"{number(r(0, 9999))}.",
    lambda d, p, r: f"{digits(d, 3, 7)}.",
    lambda d, p, r: f"{p(['today is', 'tomorrow is', 'my birthday is', 'the meeting is on'])} {date(d)}.",
    lambda d, p, r: f"{p(DAYS)}, {date(d)}.",
    lambda d, p, r: f"{p(['the time is', 'wake me up at', 'set an alarm for', 'it is almost'])} {clock(d)}.",
    lambda d, p, r: f"{p(['turn', 'switch'])} {p(['on', 'off'])} the {p([*ROOMS, p(COLOURS)])} {p(DEVICES)}.",
    lambda d, p, r: f"{p(['open', 'close', 'lock', 'unlock'])} the {p(ROOMS)} {p(['door', 'window'])}.",
    lambda d, p, r: f"set the {p(ROOMS)} {_setting(d)}.",
    lambda d, p, r: f"remind me to {p(ERRANDS)} {_when(d)}.",
    lambda d, p, r: f"{p(['what', 'how'])} is the weather in {p(CITIES)}{p(['', ' today', ' on ' + p(DAYS)])}?",
    lambda d, p, r: f"{p(['will it rain', 'what time is it'])} in {p(CITIES)}{p(['', ' tomorrow', ' next week'])}?",
    lambda d, p, r: f"{p(['call', 'send a message to', 'write an email to', 'invite'])} {p(NAMES)} {_when(d)}.",
    lambda d, p, r: f"{p(['call', 'invite'])} {p(NAMES)} and {p(NAMES)}{p(['', ' now', ' ' + _when(d)])}.",
    lambda d, p, r: f"{p(['play', 'stop playing', 'find'])} {p(['some ', 'more ', ''])}{p(MUSIC)} music in the {p(ROOMS)}.",
    lambda d, p, r: f"{p(['play', 'find'])} {p(['some ', 'more ', ''])}{p(MUSIC)} music by {p(NAMES)}.",
    lambda d, p, r: f"what is {number(r(1, 999))} {p(['plus', 'minus', 'times', 'divided by'])} {number(r(1, 99))}?",
    lambda d, p, r: f"set a timer for {number(r(2, 59))} {p(['minutes', 'seconds', 'hours'])}.",
    lambda d, p, r: f"{p(['add', 'order', 'buy'])} {_amount(d)}{p(['', ' to the list', ' for ' + p(NAMES)])}.",
    lambda d, p, r: f"my {p(['phone', 'account', 'room'])} number is {digits(d, 3, 6)}.",
    lambda d, p, r: f"my password is {digits(d, 3, 5)} {p(COLOURS)}.",
    lambda d, p, r: f"the {p(['train', 'bus', 'flight', 'boat'])} to {p(CITIES)} {p(['leaves', 'arrives'])} at {clock(d)}.",
    lambda d, p, r: (
        f"{p(['go', 'move', 'turn', 'drive'])} {p(DIRECTIONS)} {number(r(2, 900))} {p(['meters', 'miles', 'steps'])}."
    ),
    lambda d, p, r: f"{p(NAMES)} has {_amount(d)}.",
    lambda d, p, r: _polite(d),
    lambda d, p, r: (
        f"it costs {number(r(2, 999))} {p(['dollars', 'euros', 'pounds'])}{p(['', ' and ' + number(r(2, 99)) + ' cents'])}."
    ),
]


def words_of(text: str) -> str:
    """Reduces a sentence to what a recogniser writes: lower-case words, single spaces, no punctuation."""
    return " ".join(re.sub(r"[^a-z ]", " ", text.lower()).split())


def grammar_sentences(count: int, *, seed: int, max_words: int = 11) -> list[str]:
    """Draws different sentences from the templates, with their punctuation.

    Args:
        count: How many.
        seed: The same seed gives the same sentences; a larger count only adds to the end of the list.
        max_words: Longer sentences are drawn again.
    """
    draw = random.Random(seed)
    seen: dict[str, None] = {}
    while len(seen) < count:
        sentence = draw.choice(TEMPLATES)(draw, draw.choice, draw.randint)
        if len(sentence.split()) <= max_words:
            seen.setdefault(sentence)
    return list(seen)


def vocabulary() -> list[str]:
    """Every word that the grammar can say, sorted."""
    return sorted({word for sentence in grammar_sentences(20_000, seed=0) for word in words_of(sentence).split()})


def random_sentences(count: int, *, seed: int, low: int = 3, high: int = 7) -> list[str]:
    """Draws sequences of `low` to `high` words, each word with the same probability wherever it stands."""
    draw = random.Random(seed)
    words = vocabulary()
    seen: dict[str, None] = {}
    while len(seen) < count:
        seen.setdefault(" ".join(draw.choice(words) for _ in range(draw.randint(low, high))) + ".")
    return list(seen)
