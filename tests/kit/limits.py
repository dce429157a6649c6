"""Limits of this process that are real, and lifted again."""

import resource
from contextlib import contextmanager


@contextmanager
def no_files_left():
    """While entered, this process can open no file, socket or pipe (EMFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # what is closed meanwhile leaves no room either
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def files_of_at_most(size):
    """While entered, this process can write no file beyond so many bytes (EFBIG), as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores the signal that it may come with
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
