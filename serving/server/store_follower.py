"""Keeps a local folder in step with the URL that the settings name, so that all else follows a folder."""

import asyncio
import logging
import threading
import time
from contextlib import suppress
from pathlib import Path

from ..config.settings import ServerSettings
from ..errors import StoreError
from ..models.remote import Mirror

_PATIENCE_SECONDS = 10.0
_DOUBLINGS = 4  # of the time between two polls, while the store is away
_log = logging.getLogger(__name__)


class StoreFollower:
    """One thread that asks the store every `model_poll_seconds`, less often while it is away; it is never ended.

    All processes of a server follow the folder of this one. A thread, since libraries of stores may wait for
    minutes, and only the folder stays as it is meanwhile.
    """

    def __init__(self, settings: ServerSettings) -> None:
        """For settings whose models are behind a URL. Raises StoreError where there is no folder to keep them."""
        self._mirror = Mirror(
            str(settings.models),
            settings.model_cache,
            versions=settings.model_versions,
            max_model_bytes=settings.max_model_bytes,
            max_bytes=settings.model_cache_bytes,
        )
        self._poll_seconds = settings.model_poll_seconds
        self._told = ""

    @property
    def folder(self) -> Path:
        """The local folder."""
        return self._mirror.folder

    async def start(self) -> None:
        """Follow the store from now on; returns once its models are in the folder.

        Those of before will do where the store does not answer within some seconds. Raises StoreError if there
        are none.
        """
        _log.info("the models of %s are kept in %s", self._mirror.shown, self.folder)
        patience = _PATIENCE_SECONDS if self._mirror.has_models else None
        loop = asyncio.get_running_loop()
        first: asyncio.Future[StoreError | None] = loop.create_future()
        # Not one of an executor, which would be waited for.
        threading.Thread(target=self._follow, args=(loop, first), name="store", daemon=True).start()
        try:
            error = await asyncio.wait_for(asyncio.shield(first), patience)
        except TimeoutError:
            _log.warning("%s does not answer; the models fetched before are served", self._mirror.shown)
            return
        if error is not None and patience is None:
            raise error

    def _follow(self, loop: asyncio.AbstractEventLoop, first: "asyncio.Future[StoreError | None]") -> None:
        error = self._sync()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(first.set_result, error)
        failures = 0
        while self._poll_seconds:
            failures = 0 if error is None else min(failures + 1, _DOUBLINGS)
            time.sleep(self._poll_seconds * 2**failures)
            error = self._sync()

    def _sync(self) -> StoreError | None:
        """Bring the folder in step; what is in the way is logged when it changes."""
        try:
            self._mirror.sync()
        except StoreError as error:
            if str(error) != self._told and self._mirror.has_models:
                _log.warning("%s; its models stay as they are", error)
            self._told = str(error)
            return error
        except Exception as error:
            _log.exception("%s cannot be followed; its models stay as they are", self._mirror.shown)
            return StoreError(f"{self._mirror.shown} cannot be followed ({error!r})")
        if self._told:
            _log.info("%s answers again", self._mirror.shown)
        self._told = ""
        return None
