"""What the tests' servers on loopback share: one thread, a queue of faults, answers as JSON."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar


class LoopbackServer(ThreadingHTTPServer):
    """`requests`: (Authorization header, body) of each call, in the order they came.

    faults: taken one a request, in order; `always`: for every request that has none.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64  # on a busy machine five would turn connections away

    def __init__(self, handler: type[BaseHTTPRequestHandler], key: str | None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.key = key
        self.faults: list[str] = []
        self.always: str | None = None
        self.requests: list[tuple[str | None, dict[str, Any]]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hung up are part of the tests."""


class LoopbackHandler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *args: Any) -> None:
        """Nothing on stderr."""

    def read_body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def silent(self, fault: str | None) -> bool:
        """Whether the fault was to say nothing: the connection is closed, at once or at the end."""
        if fault not in ("drop", "hang"):
            return False
        if fault == "hang":
            self.server.closing.wait(30)
        self.close_connection = True
        return True

    def send(self, status: int, body: Any) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


S = TypeVar("S", bound=LoopbackServer)


@contextmanager
def serving(server: S) -> Iterator[S]:
    """Runs it in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
