"""The events of an ingest in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from publisher.errors import printable
from publisher.ingest.report import Forwarding, Outcome, Status
from publisher.log_context import event, logged_image

_log = logging.getLogger(__name__)


class LoggedProgress(Forwarding):
    """Progress that writes every event to the log, and passes it on."""

    def run_started(self, requests: int) -> None:
        """Log the number of requests."""
        _log.info("requests: %d", requests, extra=event("run-started", requests=requests))
        super().run_started(requests)

    def image_step(self, name: str, step: str) -> None:
        """Log the step."""
        with logged_image(name):
            _log.info("%s", step, extra=event("image-step", step=step))
        super().image_step(name, step)

    def image_done(self, outcome: Outcome) -> None:
        """Log the outcome; an error if the image failed."""
        level = logging.ERROR if outcome.status is Status.FAILED else logging.INFO
        text = f"{outcome.status}: {outcome.error}" if outcome.error else str(outcome.status)
        data = event(
            "image-done",
            status=str(outcome.status),
            reference=outcome.reference,
            wishList=outcome.wish_list,
            digest=outcome.digest or None,
            bytesFetched=outcome.bytes_fetched,
            cause=outcome.cause or None,
            error=outcome.error or None,
        )
        with logged_image(outcome.name):
            _log.log(level, "%s", printable(text), extra=data)
        super().image_done(outcome)

    def layers_expected(self, name: str, sizes: Mapping[str, int]) -> None:
        """Log what is to be fetched."""
        if sizes:
            count, size = len(sizes), sum(sizes.values())
            text = "layers to fetch: %d, %d bytes"
            with logged_image(name):
                data = event("layers-expected", layers=count, bytes=size)
                _log.info(text, count, size, extra=data)
        super().layers_expected(name, sizes)

    def layer_started(self, digest: str, size: int) -> None:
        """Log that the download of a layer begins."""
        data = event("layer-started", layer=digest, bytes=size)
        _log.debug("fetching layer %s, %d bytes", digest, size, extra=data)
        super().layer_started(digest, size)

    def layer_done(self, digest: str) -> None:
        """Log that a layer is unpacked, or that its download failed."""
        data = event("layer-done", layer=digest)
        _log.debug("done with layer %s", digest, extra=data)
        super().layer_done(digest)

    def notice(self, text: str) -> None:
        """Log the text as a warning."""
        _log.warning("%s", text, extra=event("notice"))
        super().notice(text)
