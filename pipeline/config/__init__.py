"""Settings.

settings.py            every setting: type, unit, default, meaning; the defaults stand here and nowhere else
compose.py             from what Hydra composes to typed settings, checked once
composition_error.py   errors of Hydra and OmegaConf as people read them
setting_docs.py        the meaning of each setting, from the docstrings
help_text.py           what --help prints
settings_table.py      docs/settings.md and the table in README.md
"""
