"""How much memory this process has, and can have at most: that of the machine, or of the control group of a container."""

from pathlib import Path

GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # as a container sees its own


def memory_bytes() -> int:
    """Return how many bytes of memory there are for all processes together."""
    import psutil  # what runs on a device of a benchmark does without

    found = int(psutil.virtual_memory().total)
    for file in GROUP_LIMITS:
        try:
            limit = Path(file).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit():  # `max` otherwise
            found = min(found, int(limit))
    return found


def process_limits() -> dict[str, int]:
    """Return how many bytes of memory this process may have at most, by the option of `ulimit` that allows no more."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return {}
    found = {option: resource.getrlimit(kind)[0] for option, kind in (("-v", resource.RLIMIT_AS), ("-d", resource.RLIMIT_DATA))}
    return {option: size for option, size in found.items() if size != resource.RLIM_INFINITY}


def used_bytes() -> int:
    """Return how many bytes of memory this process has now."""
    import psutil

    return int(psutil.Process().memory_info().rss)
