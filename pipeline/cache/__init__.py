"""What runs have made and others need again, in files named by what they depend on: docs/cache.md.

kinds.py          what is kept
cache_key.py      what an entry depends on, as its name; code, versions and the processor
entry_format.py   an entry as bytes: JSON and arrays, nothing that could be executed
cache_store.py    the files: whole or not there, checked when read, the least recently used go
current_cache.py  the settings `cache.*`, the cache that a run uses, and what came from it
recall.py         make something, or find it
"""
