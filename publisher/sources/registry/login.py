"""Check a user name and password with their registry."""

from __future__ import annotations

from publisher.sources import SourceError
from publisher.sources.credentials.lookup import Credential, Credentials
from publisher.sources.http.exchange import Exchange
from publisher.sources.registry.auth import RegistryAuth
from publisher.sources.settings import Settings


def check_login(
    settings: Settings, registry: str, username: str, password: str, *, plain_http: bool = False
) -> None:
    """Check a user name and password with their registry.

    Raises:
        AuthenticationFailed: The registry refuses them.
        SourceError: The registry cannot be reached, or the host is not a registry.
    """
    exchange = Exchange(settings)
    try:
        given = _Given(settings, Credential(username, password))
        auth = RegistryAuth(registry, plain_http, exchange, given).repository("")
        url = exchange.base_url(registry, plain_http=plain_http) + "/v2/"
        with auth.request("GET", url, deadline=exchange.deadline(registry)) as answer:
            if answer.status == 403:
                raise auth.denied("it answers with status 403")
            if answer.status != 200 or answer.is_web_page:
                got = "a web page" if answer.is_web_page else f"status {answer.status}"
                raise SourceError(
                    f"cannot log in to {registry}",
                    why=f"it answers with {got}",
                    hint="check the host: it may not be a registry",
                )
    finally:
        exchange.close()


class _Given(Credentials):
    """The credential to be checked, in place of those in files and helpers."""

    def __init__(self, settings: Settings, credential: Credential) -> None:
        super().__init__(settings)
        self._credential = credential

    def find(self, registry: str, repository: str) -> Credential:
        return self._credential
