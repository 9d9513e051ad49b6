"""Chromium, driven by chromedriver over WebDriver's plain HTTP."""

import base64
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import requests

__all__ = ["Browser", "Picture"]

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


class Picture(NamedTuple):
    """A PNG, taken apart as far as is needed to see whether there is anything on it."""

    width: int
    height: int
    rows: list[bytes]
    """The rows of pixels, as they are filtered: those of an empty page are all the same."""

    @classmethod
    def of(cls, png: bytes) -> "Picture":
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        chunks: dict[bytes, bytes] = {}
        at = 8
        while at < len(png):
            length, kind = struct.unpack_from(">I4s", png, at)
            chunks[kind] = chunks.get(kind, b"") + png[at + 8 : at + 8 + length]
            at += 12 + length
        assert b"IEND" in chunks
        width, height, depth, colours = struct.unpack_from(">IIBB", chunks[b"IHDR"])
        assert depth == 8
        pixels = zlib.decompress(chunks[b"IDAT"])
        stride = 1 + width * {2: 3, 6: 4}[colours]
        assert len(pixels) == height * stride
        return cls(width, height, [pixels[start : start + stride] for start in range(0, len(pixels), stride)])


class Browser:
    """One window with a new, empty profile in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._http = requests.Session()
        self._http.trust_env = False
        self._log = (folder / "chromedriver.log").open("w+")
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._driver.stdout is not None
        started = (re.search(r"started successfully on port (\d+)", line) for line in self._driver.stdout)
        port = next(match[1] for match in started if match)
        self._url = f"http://127.0.0.1:{port}/session"
        options = {"binary": shutil.which("chromium"), "args": [*_FLAGS, f"--user-data-dir={folder}/profile"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self._url += f"/{session['sessionId']}"
        self.open("about:blank")  # from Chromium's own first page, which complains when the machine is busy
        self.console()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._http.request(method, self._url + path, json=body, timeout=60)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def open(self, url: str) -> None:
        """Load a page, whole."""
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """Return what JavaScript returns; the page's own policy does not bind it."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def click(self, selector: str) -> None:
        self._ask("POST", f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._ask("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def move(self, selector: str, *shares: float, drag: bool = False) -> None:
        """Move the mouse over an element, to these shares of its width; ``drag``: with the button held down."""
        left, top, width = self.run(f"""
            const element = document.querySelector({selector!r});
            element.scrollIntoView({{block: 'center'}});
            const box = element.getBoundingClientRect();
            return [box.left, box.top + box.height / 2, box.width];
        """)
        places = [{"x": round(left + share * width), "y": round(top)} for share in shares]
        steps = [{"type": "pointerMove", "duration": 0, "origin": "viewport", **place} for place in places]
        if drag:
            steps[1:1] = [{"type": "pointerDown", "button": 0}]
            steps += [{"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self._ask("POST", "/actions", {"actions": [mouse]})

    def _find(self, selector: str) -> str:
        found: dict[str, str] = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return next(iter(found.values()))

    def resize(self, width: int, height: int = 900) -> None:
        self._ask("POST", "/window/rect", {"width": width, "height": height})

    def emulate(self, width: int, height: int) -> None:
        """Show pages as on a screen of this size, a telephone's too, without scroll bars."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        for command, values in (("setDeviceMetricsOverride", screen), ("setScrollbarsHidden", {"hidden": True})):
            self._ask("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": values})

    def prefer(self, scheme: str) -> None:
        """Be a reader who prefers ``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}})

    def console(self) -> list[str]:
        """What the console has said since the last call: errors, and violations of the page's policy."""
        return [f"{entry['level']}: {entry['message']}" for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def violations(self, axe: str) -> list[str]:
        """Return what ``axe``, the source of axe-core, finds wrong with the accessibility of the page."""
        script = f"""{axe}
            const done = arguments[arguments.length - 1];
            const tell = violation => violation.nodes.map(node => `${{violation.id}}: ${{node.html}}`);
            axe.run().then(found => done(found.violations.flatMap(tell)));
        """
        found: list[str] = self._ask("POST", "/execute/async", {"script": script, "args": []})
        return found

    def picture(self) -> Picture:
        return Picture.of(base64.b64decode(self.png()))

    def png(self) -> str:
        """The picture of the window, in base 64."""
        return str(self._ask("GET", "/screenshot"))

    def close(self) -> None:
        try:
            self._ask("DELETE", "")
        finally:
            self._http.close()
            self._driver.terminate()
            self._driver.communicate(timeout=60)
            self._log.close()
