"""A server on this machine that can do what real ones do: cut connections, ignore ranges, lie, refuse, redirect."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What is done with one request; anything else is served as it should be.

    Attributes:
        cut: Bytes of the body after which the connection ends.
        status: Answered instead of the file, with `headers`.
        page: A web page is sent instead, with this content type.
        lie: Added to the Content-Length.
        chunked: No length is said: chunks are sent.
        shift: Added to the first byte of a range that is answered.
    """

    cut: int | None = None
    status: int | None = None
    page: str | None = None
    lie: int = 0
    chunked: bool = False
    shift: int = 0
    headers: dict[str, str] = field(default_factory=dict)


class FlakyServer:
    """Files by path; `answers` are used up request by request; `log` holds (path, Range, If-Range)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: list[Answer] = []
        self.log: list[tuple[str, str | None, str | None]] = []
        self.ranges = True
        self.tag: str | None = '"one"'
        self.url = ""

    @property
    def asked(self) -> list[str | None]:
        """The Range of every request."""
        return [entry[1] for entry in self.log]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        return None

    def do_GET(self) -> None:
        flaky: FlakyServer = self.server.flaky
        flaky.log.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        answer = flaky.answers.pop(0) if flaky.answers else Answer()
        self.close_connection = True
        body = flaky.files.get(self.path)
        if answer.page:
            self._send(200, b"<!DOCTYPE html><html>log in</html>", {"Content-Type": answer.page}, answer)
        elif answer.status or body is None:
            self._send(answer.status or 404, b"no", answer.headers, answer)
        else:
            self._file(flaky, body, answer)

    def _file(self, flaky: FlakyServer, body: bytes, answer: Answer) -> None:
        headers = {"ETag": flaky.tag} if flaky.tag else {}
        asked, only_if = self.headers.get("Range"), self.headers.get("If-Range")
        if not asked or not flaky.ranges or (only_if and only_if != flaky.tag):
            self._send(200, body, headers, answer)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) + answer.shift
        if start >= len(body):
            self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"}, answer)
            return
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._send(206, body[start:], headers, answer)

    def _send(self, status: int, body: bytes, headers: dict[str, str], answer: Answer) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body) + answer.lie))
        self.send_header("Connection", "close")
        self.end_headers()
        cut = body if answer.cut is None else body[: answer.cut]
        with contextlib.suppress(OSError):
            if answer.chunked:
                end = b"0\r\n\r\n" if answer.cut is None else b""
                self.wfile.write(b"%x\r\n%b\r\n" % (len(cut), cut) + end if cut else end)
            else:
                self.wfile.write(cut)
            self.wfile.flush()


@contextlib.contextmanager
def flaky_server() -> Iterator[FlakyServer]:
    """Run such a server until the block ends."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.flaky = flaky = FlakyServer()
    flaky.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield flaky
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
