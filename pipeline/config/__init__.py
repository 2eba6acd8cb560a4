"""Settings.

settings.py           every setting: type, unit, default; mode_settings.py: those of each mode; choices.py: enums
compose.py            from what Hydra composes to typed settings, checked once
composition_error.py  what a user needs to know where composing fails
saved_settings.py     the settings of a past run, read again
setting_docs.py       what the docstrings say of each setting; help_text.py: --help, settings_table.py: docs/settings.md
"""
