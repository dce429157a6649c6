"""Limits that are known without the settings, whose library takes long to load."""

MAX_MODEL_BYTES = 268_435_456
"""The largest model file that is read, unless a setting says otherwise."""
MODEL_CACHE_BYTES = 4 * 2**30
"""The most bytes of models of a store that are kept, unless a setting says otherwise."""
CHECK_CPU_SECONDS = 60
"""What the check of one model file may take of a core."""
CHECK_MEMORY_BYTES = 4 * 2**30
"""What it may take of memory, beside a multiple of the file."""
