"""From text to the token ids that an acoustic model reads, as sherpa-onnx does it.

tokens.py    the token table, tokens.txt
lexicon.py   words by lexicon.txt, the longest match first: Chinese
scripts.py   writing systems: which letters a voice can read
phonemes.py  what espeak makes of a text, checked against the token table
espeak.py    International Phonetic Alphabet by espeak-ng: English and a hundred other languages
"""
