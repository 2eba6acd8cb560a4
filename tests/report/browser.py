"""A headless Chromium, spoken to over the WebDriver protocol: W3C WebDriver, with Chromium's own `goog/cdp/execute`."""

import base64
import json
import re
import shutil
import subprocess
import urllib.request

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
LIMIT_S = 300  # of a browser that hangs; it says nothing about speed

OVERLAPS = """
const found = [];
for (const svg of document.querySelectorAll('svg')) {
  const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent.trim(), text.getBoundingClientRect()])
    .filter(([text, box]) => text && box.width);
  texts.forEach(([text, a], index) => { for (const [other, b] of texts.slice(index + 1)) {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 3) found.push(text + ' | ' + other); } });
}
return found;
"""  # pairs of texts in a picture that lie on each other; lines of text have some air above and below
OUTSIDE = """
const wide = document.documentElement.clientWidth;
const scrolled = element => element.closest('.scroll, pre, details:not([open])');
return [...document.body.querySelectorAll('*')].filter(element => !scrolled(element))
  .map(element => [element, element.getBoundingClientRect()])
  .filter(([element, box]) => box.width && (box.right > wide + 1 || box.left < -1) && !element.closest('thead, svg defs'))
  .map(([element]) => element.outerHTML.slice(0, 120));
"""  # elements that reach beyond the window, and do not lie in a box that scrolls


def missing_programs():
    """Return what a browser test needs and this machine lacks."""
    return [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]


class Browser:
    """One browser, used as a context manager; `profile` is an empty folder for it."""

    def __init__(self, profile):
        """Start ChromeDriver on a free port, and a browser."""
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        port = None
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                port = found[1]
                break
        assert port is not None, "chromedriver did not start"
        self._base = f"http://127.0.0.1:{port}/session"
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"], "binary": shutil.which("chromium")}
        logging = {"browser": "ALL", "performance": "ALL"}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logging}
        wanted["timeouts"] = {"script": 1000 * LIMIT_S, "pageLoad": 1000 * LIMIT_S}
        found = self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self._base += f"/{found['sessionId']}"

    def __enter__(self):
        """Return the browser."""
        return self

    def __exit__(self, *_):
        """End the browser."""
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(LIMIT_S)
            self._driver.stdout.close()

    def open(self, path, width, height=900, *, dark=False):
        """Show a file, or an address, in a window of this width, in the dark or the light scheme; earlier logs are dropped."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.log("browser"), self.log("performance")
        self._call("POST", "/url", {"url": path if isinstance(path, str) else path.as_uri()})

    def run(self, script, *arguments):
        """Run JavaScript in the page; a promise is awaited."""
        body = f"const done = arguments[arguments.length - 1]; (async () => {{ {script} }})().then(done, e => done('' + e))"
        return self._call("POST", "/execute/async", {"script": body, "args": list(arguments)})

    def log(self, kind):
        """Return the entries of a log since it was last read."""
        return self._call("POST", "/se/log", {"type": kind})

    def requests(self):
        """Return the addresses that pages have asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path, *, full=True):
        """Save a picture of the page, the whole of it or what the window shows."""
        found = self.cdp("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": full})
        path.write_bytes(base64.b64decode(found["data"]))

    def cdp(self, command, parameters):
        """Send a command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return json.loads(answer.read())["value"]
