"""Writing systems: which letters a voice of espeak-ng reads, and which it can only name.

espeak-ng speaks a letter of another script as its name ("Chinese letter"), in each word of a text, without an error: a model
that is calibrated on that has heard no sentence of its language.
"""

import unicodedata

LATIN = frozenset({"LATIN"})
CYRILLIC, ARABIC, DEVANAGARI = frozenset({"CYRILLIC"}), frozenset({"ARABIC"}), frozenset({"DEVANAGARI"})
HAN = frozenset({"CJK"})
SCRIPTS = {  # language of a voice -> its scripts; those that are not named here are written in Latin letters
    **dict.fromkeys(("ba", "be", "bg", "cv", "kk", "ky", "mk", "mn", "nog", "ru", "tt", "uk"), CYRILLIC),
    "sr": CYRILLIC | LATIN,
    "uz": CYRILLIC | LATIN,
    **dict.fromkeys(("ar", "fa", "sd", "ug", "ur"), ARABIC),
    **dict.fromkeys(("bpy", "hi", "kok", "mr", "ne"), DEVANAGARI),
    **dict.fromkeys(("cmn", "hak", "yue", "zh"), HAN | {"BOPOMOFO"}),
    "ja": HAN | {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"},
    "ko": frozenset({"HANGUL", "CJK"}),
    "am": frozenset({"ETHIOPIC"}),
    "ti": frozenset({"ETHIOPIC"}),
    "as": frozenset({"BENGALI"}),
    "bn": frozenset({"BENGALI"}),
    "chr": frozenset({"CHEROKEE"}),
    "el": frozenset({"GREEK"}),
    "grc": frozenset({"GREEK"}),
    "gu": frozenset({"GUJARATI"}),
    "he": frozenset({"HEBREW"}),
    "hy": frozenset({"ARMENIAN"}),
    "hyw": frozenset({"ARMENIAN"}),
    "ka": frozenset({"GEORGIAN"}),
    "kn": frozenset({"KANNADA"}),
    "ml": frozenset({"MALAYALAM"}),
    "my": frozenset({"MYANMAR"}),
    "or": frozenset({"ORIYA"}),
    "pa": frozenset({"GURMUKHI"}),
    "shn": frozenset({"MYANMAR"}),
    "si": frozenset({"SINHALA"}),
    "ta": frozenset({"TAMIL"}),
    "te": frozenset({"TELUGU"}),
    "th": frozenset({"THAI"}),
}
UNKNOWN = frozenset(
    {"piqd", "qya", "sjn", "en-shaw", "kaa", "ku", "az", "tk"}
)  # written in scripts of their own, or in several


def foreign_letters(text: str, voice: str) -> list[str]:
    """Return the letters of a text that a voice cannot read, each once; Latin letters are read by every voice.

    Args:
        text: what is to be spoken.
        voice: of espeak-ng, such as `en-us`.
    """
    language = voice.lower()
    if language in UNKNOWN or language.partition("-")[0] in UNKNOWN:
        return []
    known = SCRIPTS.get(language.partition("-")[0], LATIN) | LATIN
    return list(dict.fromkeys(char for char in text if char.isalpha() and script_of(char) not in known))


def script_of(letter: str) -> str:
    """Return the script of a letter by its Unicode name: LATIN, CJK, CYRILLIC; LATIN for what is used with any."""
    name = unicodedata.name(letter, "")
    word = name.partition(" ")[0]
    return "LATIN" if word in ("MODIFIER", "FEMININE", "MASCULINE", "FULLWIDTH", "MICRO", "", "SCRIPT", "KELVIN") else word
