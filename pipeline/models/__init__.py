"""Models: what the pipeline asks of one, and one adapter per kind.

    speech_model.py    what every adapter offers
    model_files.py     where a model's files are: a path, a directory or a server; its metadata
    model_sessions.py  the graphs of one model, run as a whole
    matcha.py          acoustic model and vocoder of Matcha-TTS
    vits.py            voices of Piper, Coqui, icefall and Melo: one graph from tokens to audio
    kokoro.py          Kokoro and KittenTTS: one graph from tokens, a style and a speed to audio
    voice_styles.py    the styles of their voices
    one_graph_voice.py what these voices have in common
    piper_voice.py     what Piper keeps beside a voice
    vocoder.py         Vocos and HiFi-GAN
    ctc.py             recognisers of one graph
    recogniser_families.py  what the clients of recognisers do before and after the graph
    funasr.py          what SenseVoice and Paraformer share
    paraformer.py      Paraformer: the graph decides how many tokens there are
    sense_voice.py     SenseVoice: a language and a way of writing are asked for
    transducer.py      transducers: encoder, decoder and joiner
    streaming_zipformer.py  Zipformers that are run chunk by chunk, each with the states that the one before has left
    nemo_transducer.py  transducers of NeMo: an LSTM with states as decoder, durations
    word_recogniser.py  what recognisers with a token table in plain text share
    whisper.py         Whisper: an encoder, and a decoder that writes token by token
    vad.py             detectors of speech
    denoiser.py        denoisers, frame by frame over a spectrum
    onnx_file.py       any ONNX file
    stepwise_model.py  what models have in common that hear a sequence step by step
    state_loop.py      a streaming model step by step, each with the states that the step before has left
    collected_steps.py the outputs of all steps
    loop_settings.py   the settings of a streaming model against its graph
    model_kind.py      which kind of model a file or a directory holds
    text/              from text to token ids: a token table, a lexicon, espeak

An adapter is a dataclass whose fields are the settings of the model's YAML file (`conf/model/`), which names it as
`_target_`. It knows its graphs, how an utterance becomes the inputs of the first one, how the others follow from it, and
what the outputs mean.
"""
