"""Recipes that made the models and the data that ship in this repository.

Nothing in the runtime imports this package. Read `README.md` first; then, in the order of the pipeline:

    sentences.py         what is said: a grammar of commands, numbers and dates, and random word sequences
    espeak.py            who says it: espeak-ng, with the exact start of every phoneme
    signals.py           waveforms, log-mels, Kaldi features, noise and echo
    datasets.py          the calibration and evaluation sets that ship
    word_pieces.py       the tokens of the recogniser
    tts_tokens.py        the tokens of the synthesiser and how many frames each of them lasts
    speech.py            the training utterances of the one TTS voice, shared by Matcha and both vocoders
    training.py          what every training shares: schedule, loop, log
    exporting.py         what every export shares: the legacy exporter, metadata, a check against PyTorch
    asr.py               Conformer CTC (model in conformer.py)
    matcha.py            Matcha-TTS (model in matcha_model.py, matcha_encoder.py, matcha_unet.py)
    vocos.py, hifigan.py the two vocoders (losses in vocoder_training.py)
    full_size_matcha.py  an untrained Matcha graph of the size that people deploy
    torch_exports.py     small untrained models as PyTorch's newest exporter writes them, for tests
    evaluate.py          every figure of the README, measured on the exported graphs
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in pipeline/__init__.py, before ONNX Runtime is imported
