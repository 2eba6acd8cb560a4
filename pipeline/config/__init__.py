"""Settings.

settings.py   every setting: type, unit, default
compose.py    from what Hydra composes to typed settings, checked once
"""
