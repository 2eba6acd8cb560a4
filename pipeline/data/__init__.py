"""Where samples come from.

datasets.py           calibration and evaluation samples as the settings name them
utterance_sets.py     a manifest, a Kaldi folder, a folder of audio, a file of sentences
manifest.py           a JSON-lines manifest: ours, NeMo's or Lhotse's
foreign_manifests.py  lines of NeMo and Lhotse
implied_kind.py       what a calibration set is, where only its path was given
audio_files.py        recordings, at the sample rate of the model
arrays.py             an .npz of arrays; the check of every sample against the graph's inputs
random_inputs.py      seeded noise shaped by the graph's inputs
download.py           a model's files from a server: resumed, verified, kept in a cache
"""
