"""A headless Chromium, driven over its debugging pipe: no driver, no server, no Python package."""

import base64
import json
import os
import select
import shutil
import signal
import time

BINARY = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
)
_KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36,
         "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}  # fmt: skip


class Browser:
    """One tab. Chromium reads commands from file descriptor 3 and writes answers and events to 4.

    Attributes:
        requests: addresses that the page asked for outside itself.
        complaints: console errors and warnings, and exceptions.
    """

    def __init__(self, profile, seconds=20.0):
        self.seconds = seconds
        self.requests, self.complaints, self._count, self._buffer = [], [], 0, b""
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        with (profile / "stderr.txt").open("w") as log:
            moves = [(os.POSIX_SPAWN_DUP2, log.fileno(), 2), (os.POSIX_SPAWN_DUP2, log.fileno(), 1)]
            # By way of numbers that are surely free: a pipe's own ends may be 3 or 4.
            moves += [(os.POSIX_SPAWN_DUP2, theirs_in, 203), (os.POSIX_SPAWN_DUP2, theirs_out, 204)]
            moves += [(os.POSIX_SPAWN_DUP2, 203, 3), (os.POSIX_SPAWN_DUP2, 204, 4)]
            words = [BINARY, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
            self._pid = os.posix_spawn(BINARY, words, {**os.environ, "HOME": str(profile)}, file_actions=moves,
                                       setpgroup=0)  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(profile))

    def call(self, method, **params):
        """The result of one command of the DevTools protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def js(self, expression):
        """The value of an expression, or of the promise that it is."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression):
        """Waits until an expression is true."""
        self.wait_for(lambda: self.js(f"!!({expression})"), name=expression)

    def wait_for(self, condition, *, name="the condition"):
        """Waits until a function says yes."""
        end = time.monotonic() + self.seconds
        while not condition():
            assert time.monotonic() < end, f"never true: {name}"
            time.sleep(0.02)

    def open(self, path):
        """Opens a file, with nothing noted yet."""
        self.call("Page.navigate", url=path.as_uri())
        self.wait(f"location.href.startsWith({path.as_uri()!r}) && document.readyState === 'complete'")

    def window(self, width, *, height=900, scheme="light", scale=1):
        """Sets size and preferred colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key):
        """Presses a key, for example ArrowDown or a letter; a space and Enter with the text they type."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        number = _KEYS.get(key, ord(key[0].upper()))
        names = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **names)
        self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    def click(self, selector):
        """Clicks the middle of the first element that matches, after scrolling to it."""
        x, y = self.js(
            f"(() => {{ const e = document.querySelector({selector!r});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, *, whole=False):
        """A PNG of the window, or of the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def close(self):
        """Ends this browser and what it started."""
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._in)
        os.close(self._out)

    def _read(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], self.seconds)
            part = os.read(self._in, 1 << 20) if ready else b""
            assert part, "Chromium does not answer"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith(("data:", "file:", "blob:")):
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(params["exceptionDetails"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(params["args"])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(params["entry"])
