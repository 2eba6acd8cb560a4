"""Signal processing that models, data and metrics share.

mel.py           mel spectrograms
stft.py          Fourier transforms over time, forward and inverse
resample.py      another sample rate
kaldi_fbank.py   the features of recognisers
kaldi_resample.py   another sample rate, as the clients of recognisers make it
vad_features.py  what detectors of speech hear that do not take samples
noisy_track.py   speech, pauses and noise, made of a recording
ctc_decode.py    greedy decoding of CTC
"""
