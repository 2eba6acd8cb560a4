"""Where samples come from.

utterance.py  what is known of one: text, tokens, recording
manifest.py   a JSON-lines manifest
sets.py       any set of utterances: a manifest, a Kaldi folder, a folder of audio, a file of sentences
audio.py      recordings, at the sample rate of the model
arrays.py     an .npz of arrays; the check of every sample against the graph's inputs
noise.py      seeded noise shaped by the graph's inputs
download.py   a model's files from a server: resumed, verified, kept in a cache
"""
