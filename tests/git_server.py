"""A git repository on loopback, served by git's own http-backend."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


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

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            if self.path.startswith("/private"):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="test"')
                self.end_headers()
                return
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = subprocess.run(
                ["git", "http-backend"],
                input=body,
                capture_output=True,
                check=True,
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": parts.path,
                    "QUERY_STRING": parts.query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                },
            ).stdout
            head, _, content = done.partition(b"\r\n\r\n")
            lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
            headers = dict(lines)
            self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


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
