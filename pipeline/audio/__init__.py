"""Signal processing that models, data and metrics share.

mel.py           mel spectrograms
stft.py          Fourier transforms over time, forward and inverse
resample.py      another sample rate
kaldi_fbank.py   the features of icefall's recognisers
ctc_decode.py    greedy decoding of CTC
"""
