"""Documents of identity providers: JSON objects of bounded size and time, without redirects."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from publisher.errors import PublisherError, presentable
from publisher.service.providers import is_secure

MAX_BYTES = 512 * 1024
_TIMEOUT = (5.0, 5.0)
_SECONDS = 15.0


class ProviderUnavailable(PublisherError):
    """An identity provider does not answer as it should; the same call may succeed later.

    `status` is the HTTP status of its answer, if that is the cause, or 0.
    """

    def __init__(self, what: str, *, why: str, hint: str, status: int = 0) -> None:
        super().__init__(what, why=why, hint=hint)
        self.status = status


def fetch(
    url: str,
    ca: Path | None = None,
    form: Mapping[str, str] | None = None,
    authorization: str = "",
) -> dict[str, Any]:
    """Return the JSON object at `url`; raise ProviderUnavailable.

    Args:
        url: Its address, with TLS unless it is on this machine.
        ca: The file with the authority of its certificate; None for the usual ones.
        form: Sent as the body of a POST request, if it is not None.
        authorization: The header of that name.
    """
    if not is_secure(url):
        raise _unavailable(url, "its address does not begin with https://")
    headers = {"Accept": "application/json"}
    if authorization:
        headers["Authorization"] = authorization
    method = "GET" if form is None else "POST"
    try:
        with requests.Session() as session:
            with session.request(
                method,
                url,
                data=form,
                headers=headers,
                auth=_as_it_is,
                timeout=_TIMEOUT,
                verify=str(ca) if ca is not None else True,
                allow_redirects=False,
                stream=True,
            ) as response:
                if response.status_code != 200:
                    status = response.status_code
                    raise _unavailable(url, f"it answers with status {status}", status)
                data = _read(url, response)
    except (requests.RequestException, OSError) as error:
        raise _unavailable(url, type(error).__name__) from error
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unavailable(url, "its answer is not JSON") from error
    if not isinstance(value, dict):
        raise _unavailable(url, "its answer is not a JSON object")
    return value


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return the request; without this, it would have what ~/.netrc has for the host."""
    return request


def _read(url: str, response: requests.Response) -> bytes:
    data = b""
    until = time.monotonic() + _SECONDS
    for part in response.iter_content(16 * 1024):
        data += part
        if len(data) > MAX_BYTES:
            raise _unavailable(url, f"its answer has more than {MAX_BYTES} bytes")
        if time.monotonic() > until:
            raise _unavailable(url, f"its answer takes longer than {_SECONDS:.0f} seconds")
    return data


def _unavailable(url: str, why: str, status: int = 0) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"cannot read {presentable(url)}",
        why=why,
        hint="make sure that the identity provider can be reached from the host of the service",
        status=status,
    )
