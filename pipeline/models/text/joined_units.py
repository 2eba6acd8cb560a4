"""How sherpa-onnx writes the units of a Paraformer: Chinese characters and pieces of English words."""

from collections.abc import Sequence

GOES_ON = "@@"


def joined_units(units: Sequence[str]) -> str:
    """Return the text of units: a piece with @@ goes on in the next one, words of ASCII have spaces, other characters none."""
    text, before = "", ""
    for unit in units:
        goes_on = before.endswith(GOES_ON) and unit[:1].isascii()
        separate = unit[:1].isascii() or before[:1].isascii()
        text += ("" if goes_on or not separate else " ") + unit.removesuffix(GOES_ON)
        before = unit
    return text.strip()
