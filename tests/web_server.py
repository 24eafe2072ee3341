"""A web server of this machine that sends one file: whole, in part, cut off, or another one."""

import http.server
import threading
from contextlib import contextmanager


@contextmanager
def serving(content, *, cut_after=(), ranges=True, status=None):
    """Serves ``content`` at any path, and yields the address and the list of the ranges that were asked for.

    Args:
        content: the bytes.
        cut_after: the number of bytes after which the first answers end early.
        ranges: whether the server can send a part.
        status: the status of all answers, without content; None is that of a server in order.
    """
    cuts, asked = list(cut_after), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Range"])
            begin = int(asked[-1].removeprefix("bytes=").removesuffix("-")) if asked[-1] and ranges else 0
            if status is not None or begin >= len(content):
                self.send_error(status or 416)
                return
            rest = content[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: cuts.pop(0)] if cuts else rest)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/file", asked
        server.shutdown()
        thread.join()
