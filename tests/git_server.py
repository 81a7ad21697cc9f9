"""A git repository on loopback, served by git's own http-backend."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.http_server import Received, http_server


def commit(repository: Path, files: dict[str, str], branch: str = "main") -> None:
    """Commit files to a branch of a bare repository, which is created if it is missing."""
    if not repository.exists():
        _git("init", "--quiet", "--bare", "--initial-branch=main", repository)
    index = repository / "test-index"
    environment = {"GIT_DIR": str(repository), "GIT_INDEX_FILE": str(index)}
    for path, text in files.items():
        blob = _git("hash-object", "-w", "--stdin", env=environment, input=text)
        _git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=environment)
    tree = _git("write-tree", env=environment)
    made = _git("commit-tree", tree, "-m", "test", env=environment)
    _git("update-ref", f"refs/heads/{branch}", made, env=environment)
    index.unlink()


@contextmanager
def git_server(folder: Path) -> Iterator[str]:
    """Serve the bare repositories in `folder`; yield their common URL. `private` needs a login."""

    def respond(request: Received) -> None:
        if request.path.startswith("/private"):
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="test"')
            request.end_headers()
            return
        parts = urlsplit(request.path)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": request.command,
                "PATH_INFO": parts.path,
                "QUERY_STRING": parts.query,
                "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            },
        ).stdout
        head, _, content = done.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        headers = dict(lines)
        request.answer(content, int(headers.pop("Status", "200 OK").split()[0]), **headers)

    with http_server(respond) as url:
        yield url


def _git(*words: str | Path, env: dict[str, str] | None = None, input: str = "") -> str:
    identity = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "test")
    identity |= dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "test@example.org")
    done = subprocess.run(
        ["git", *map(str, words)],
        input=input,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **identity, **(env or {})},
    )
    return done.stdout.strip()
