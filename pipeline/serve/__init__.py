"""`speech-quantize serve <directory>`: runs as pages, for this machine alone, and a page to compare by ear."""
