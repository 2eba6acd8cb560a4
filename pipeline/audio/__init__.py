"""Signal processing that models, data and metrics share.

mel.py           mel spectrograms
stft.py          Fourier transforms over time, forward and inverse
resample.py      another sample rate
kaldi_fbank.py   the features of recognisers
kaldi_resample.py   another sample rate, as the clients of recognisers make it
ctc_decode.py    greedy decoding of CTC
"""
