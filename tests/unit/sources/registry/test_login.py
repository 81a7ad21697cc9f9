"""The login that a registry accepts or refuses."""

from __future__ import annotations

import pytest

from publisher.sources import AuthenticationFailed, SourceError
from publisher.sources.registry.login import check_login
from publisher.sources.settings import Settings
from tests.registry import OwnRegistry
from tests.registry_auth import BasicAuth, BearerAuth
from tests.registry_faults import html, status


@pytest.mark.parametrize("kind", [BasicAuth, BearerAuth])
def test_a_login_is_checked_before_it_is_stored(kind: type[BasicAuth | BearerAuth]) -> None:
    with OwnRegistry(kind({"ann": "s3cret"})) as registry:
        check_login(Settings(), registry.host, "ann", "s3cret", plain_http=True)
        with pytest.raises(AuthenticationFailed) as caught:
            check_login(Settings(), registry.host, "ann", "wr0ng", plain_http=True)
        assert "wr0ng" not in str(caught.value)
        assert "check the password, or access token, of ann" in str(caught.value)
        assert "environment" not in str(caught.value)
        for answer, text in ((html(), "a web page"), (status(404), "status 404")):
            registry.heal()
            registry.misbehave(answer)
            with pytest.raises(SourceError, match=text):
                check_login(Settings(), registry.host, "ann", "s3cret", plain_http=True)
