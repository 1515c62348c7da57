"""A `Screen` for agents: a page in a headless Chromium, driven by Playwright.

The page may be hostile, so nothing here trusts it. What an action would do is looked up in a world
of scripts of our own, which the page cannot tamper with. The browser saves nothing and never leaves
the site that it began on: whatever asks, no address is found but that of its host and port. Forms
and scripts send nothing to it, except while an action lasts for which that was consented to. What
they read from it is not held back, nor are sockets of workers: a page can tell its own server what
was clicked and written.
"""

import os
import shutil
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

from playwright.sync_api import (
    CDPSession,
    Dialog,
    Download,
    Error,
    FileChooser,
    Page,
    Request,
    Route,
    WebSocketRoute,
    sync_playwright,
)

from langchain_glm4v import ActionError, Box
from langchain_glm4v.gui import (
    Click,
    GoBack,
    Hover,
    Observation,
    Point,
    Press,
    Risk,
    ScreenAction,
    Scroll,
    Type,
    Wait,
)

FLAGS = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",  # its UDP asks for no address
)
NOTCH = 100  # pixels that a notch of the wheel scrolls
TIMEOUT = 10_000  # milliseconds
REST = 200  # milliseconds after an action in which a page may begin to load another
WAIT = 2000  # milliseconds

# What can be used on a page: where it is, and what it is.
MARKS = """(() => {
  const usable = 'a[href], button, input:not([type=hidden]), select, textarea, summary, '
    + '[role=button], [role=link], [role=checkbox], [role=tab], [contenteditable=true]';
  const marks = [];
  for (const one of document.querySelectorAll(usable)) {
    // A link around a picture may have no size of its own.
    const boxes = [one, ...one.children].map((box) => box.getBoundingClientRect());
    const { left, top, right, bottom } = boxes.find((box) => box.width && box.height) ?? boxes[0];
    const sides = [Math.max(left, 0), Math.max(top, 0),
                   Math.min(right, innerWidth), Math.min(bottom, innerHeight)];
    if (sides[2] - sides[0] < 2 || sides[3] - sides[1] < 2) continue;
    const there = document.elementFromPoint((sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2);
    if (!one.contains(there)) continue;  // it is hidden or covered
    const says = one.getAttribute('aria-label') || one.innerText || one.getAttribute('placeholder')
      || one.getAttribute('title') || '';
    marks.push({ sides, text: `${one.tagName.toLowerCase()} "${says.trim()}"` });
  }
  return { marks, width: innerWidth, height: innerHeight };
})()"""

# What they send does not pass where requests are stopped.
CLOSED = "delete globalThis.SharedWorker; delete globalThis.fetchLater;"

# What an action on an element would do: names of `Risk`, and what it is done to.
TOLD = r"""function (kind) {
  const risks = new Set();
  const target = [];
  const around = (one, which) => {  // shadow trees do not end it
    for (; one; one = one.getRootNode().host) {
      if (one.closest(which)) return one.closest(which);
    }
    return null;
  };
  const there = this.nodeType === Node.ELEMENT_NODE ? this : this.parentElement;
  const element = around(there, 'label')?.control ?? there;
  if (!element) return { risks: [], target: '' };
  const says = (one) => one.getAttribute('aria-label') || one.innerText
    || (/^(button|reset|submit)$/.test(one.type) && one.value)
    || one.getAttribute('placeholder') || one.getAttribute('name') || '';
  const url = (text) => { try { return new URL(text, document.baseURI); } catch { return null; } };
  const leads = (text) => {
    const to = url(text);
    target.push(`to ${to?.href ?? text}`);
    if (!to || !/^https?:$/.test(to.protocol)) risks.add('UNKNOWN');
    else if (to.origin !== location.origin) risks.add('LEAVE');
  };
  const sends = (form, button) => {
    risks.add('SUBMIT');
    target.push(`of a form by ${button?.getAttribute('formmethod') ?? form.method}`);
    leads(button?.getAttribute('formaction') ?? form.getAttribute('action') ?? '');
    const fields = [...form.elements].filter((one) => !/^(hidden|password)$/.test(one.type));
    target.push(`with "${[form.innerText, ...fields.map((one) => one.value)].join(' ')}"`);
  };
  const used = around(element, 'a, area, button, input, textarea, select') ?? element;
  target.push(`${used.tagName.toLowerCase()} "${says(used)}"`);
  const field = around(element, 'input, textarea, select, [contenteditable]');
  if (kind === 'write' && field) {
    const said = [field.type, field.autocomplete, field.name, field.id, field.placeholder,
      field.getAttribute('aria-label'), ...[...(field.labels ?? [])].map((one) => one.innerText)];
    const secret = new RegExp(String.raw`passw|passcode|passphrase|pwd|\bpin\b|\botp\b|one-time`
      + String.raw`|\bcv[vc]|\bcc-|card.?num|\biban\b|密码|验证码`, 'i');
    if (said.some((one) => secret.test(one ?? ''))) risks.add('SECRET');
  }
  if (kind === 'enter' && field?.form && field.tagName !== 'TEXTAREA') sends(field.form);
  if (kind === 'write' && !field) risks.add('UNKNOWN');
  if (kind !== 'write' || element !== field) {
    const link = around(element, 'a, area');
    const href = link?.getAttribute('href') ?? link?.getAttribute('xlink:href');
    if (href != null) {
      leads(href);
      if (link.hasAttribute('download')) risks.add('DOWNLOAD');
    }
    const button = around(element, 'button, input');
    if (button?.form && /^(submit|image)$/.test(button.type)) sends(button.form, button);
    if (button?.type === 'file') risks.add('UPLOAD');
  }
  if (element.ownerDocument !== document || around(element, 'iframe, object, embed')) {
    risks.add('UNKNOWN');
  }
  return { risks: [...risks], target: target.join(' ').replace(/\s+/g, ' ').slice(0, 2000) };
}"""
FOCUSED = """(() => {
  let element = document.activeElement;
  while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
  return element;
})()"""

# Names of keys: a model's -> Playwright's.
KEYS = {
    **{"ctrl": "Control", "alt": "Alt", "shift": "Shift", "meta": "Meta", "cmd": "Meta"},
    **{"enter": "Enter", "esc": "Escape", "escape": "Escape", "tab": "Tab", "space": " "},
    **{"backspace": "Backspace", "delete": "Delete", "home": "Home", "end": "End"},
    **{"up": "ArrowUp", "down": "ArrowDown", "left": "ArrowLeft", "right": "ArrowRight"},
    **{"pageup": "PageUp", "pagedown": "PageDown"},
}
MOVING = {*KEYS.values()} - {"Control", "Alt", "Meta", "Enter", " "}
EDITING = {("Control", key) for key in "acxz"}

Told: TypeAlias = tuple[set[Risk], str]  # and what it is done to


class BrowserScreen:
    """A page of a website.

    Playwright works in a thread of its own, so that any thread may use a screen, with an event loop
    or without, and several of them.

    Args:
        url: Where it begins. The browser stays on this site: its host and port.
        width: Pixels of the page.
        height: Pixels of the page.

    Raises:
        FileNotFoundError: No Chromium is installed.
        playwright.sync_api.Error: It does not start, or the page cannot be reached.
    """

    def __init__(self, url: str, width: int = 1280, height: int = 720) -> None:
        self._site = _origin(url)
        self._size = (width, height)
        self._may_send = False
        self._stopped: list[str] = []  # what was not let through and is not told yet
        self._thread = ThreadPoolExecutor(1, "browser")
        try:
            self._thread.submit(self._start, url).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        self._thread.submit(self._end).result()
        self._thread.shutdown()

    def observe(self) -> Observation:
        """Photograph the page."""
        return self._thread.submit(self._observe).result()

    def risks(self, action: ScreenAction) -> Collection[Risk]:
        """Look up what an action would do."""
        return self._thread.submit(self._risks, action).result()

    def target(self, action: ScreenAction) -> str:
        """Look up what an action would be done to: an element, and where it leads or sends."""
        return self._thread.submit(self._target, action).result()

    def act(self, action: ScreenAction, allowed: Collection[Risk]) -> str:
        """Do an action, and wait until the page has come to rest; tell what was stopped."""
        return self._thread.submit(self._act, action, allowed).result()

    def _start(self, url: str) -> None:
        path = find_chromium()
        if path is None:
            raise FileNotFoundError("Chromium is not installed: apt-get install chromium")
        host = _host(url)
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(
                executable_path=path,
                # Nothing but this site is found, by names or IP addresses; root cannot have the
                # sandbox.
                args=[
                    *FLAGS,
                    f"--host-resolver-rules=MAP {host} {host}, MAP * ~NOTFOUND",
                    *(["--no-sandbox"] if os.geteuid() == 0 else []),
                ],
            )
            self._page = self._open(url)
        except BaseException:
            self._playwright.stop()
            raise

    def _end(self) -> None:
        self._browser.close()
        self._playwright.stop()

    def _observe(self) -> Observation:
        picture = self._page.screenshot(animations="disabled", caret="hide")
        session, world = self._world()
        seen = session.send(
            "Runtime.evaluate",
            {"expression": MARKS, "contextId": world, "returnByValue": True},
        )["result"]["value"]
        marks = tuple(
            Box.from_pixels(mark["sides"], seen["width"], seen["height"], mark["text"])
            for mark in seen["marks"]
        )
        return Observation(picture, *self._size, marks, self._page.url)

    def _risks(self, action: ScreenAction) -> Collection[Risk]:
        return {risk for risks, _ in self._told(action) for risk in risks}

    def _target(self, action: ScreenAction) -> str:
        return "; ".join(dict.fromkeys(target for _, target in self._told(action)))

    def _told(self, action: ScreenAction) -> Sequence[Told]:
        match action:
            case Click(at=at):
                return [self._told_at(at, "click")]
            case Type(at=None):
                return [self._told_at(None, "write")]
            case Type(at=at):
                return [self._told_at(at, "write"), self._told_at(at, "click")]
            case Press(keys=keys):
                return [self._told_of_keys(tuple(KEYS.get(key, key) for key in keys))]
            case Hover() | Scroll() | Wait() | GoBack():
                return ()
        raise ActionError(f"a browser has no {type(action).__name__}")

    def _act(self, action: ScreenAction, allowed: Collection[Risk]) -> str:
        if new := {*self._risks(action)} - {*allowed}:
            listed = ", ".join(sorted(risk.value for risk in new))
            raise ActionError(f"the page changed meanwhile: now the action {listed}")
        self._may_send = Risk.SUBMIT in allowed
        try:
            self._do(action)
            self._page.wait_for_timeout(WAIT if isinstance(action, Wait) else REST)
            self._page.wait_for_load_state(timeout=TIMEOUT)
        except Error as error:
            raise ActionError(f"the browser says: {error.message.splitlines()[0]}") from error
        finally:
            self._may_send = False
        stopped, self._stopped = dict.fromkeys(self._stopped), []
        return f"the browser stopped what the page tried: {'; '.join(stopped)}" if stopped else ""

    def _do(self, action: ScreenAction) -> None:
        page, mouse = self._page, self._page.mouse
        match action:
            case Click(at=at, button=button, count=count):
                mouse.click(*self._pixel(at), button=button, click_count=count)
            case Hover(at=at):
                mouse.move(*self._pixel(at))
            case Type(text=text, at=at, replace=replace):
                if at is not None:
                    mouse.click(*self._pixel(at))
                if replace:
                    page.keyboard.press("Control+a")
                page.keyboard.insert_text(text)  # no key is pressed, not even by a line break
            case Press(keys=keys):
                page.keyboard.press("+".join(KEYS.get(key, key) for key in keys))
            case Scroll(direction=direction, at=at, steps=steps):
                mouse.move(*self._pixel(at or Point(500, 500)))
                across, down = {
                    **{"up": (0, -1), "down": (0, 1)},
                    **{"left": (-1, 0), "right": (1, 0)},
                }[direction]
                mouse.wheel(across * steps * NOTCH, down * steps * NOTCH)
            case GoBack():
                # The first is an empty page, the second the one that it began with.
                if self._session.send("Page.getNavigationHistory")["currentIndex"] < 2:
                    raise ActionError("there is no page before this one")
                page.go_back()

    def _pixel(self, at: Point) -> tuple[int, int]:
        return at.to_pixels(*self._size)

    def _told_of_keys(self, keys: tuple[str, ...]) -> Told:
        if keys in {("Enter",), (" ",)}:
            return self._told_at(None, "enter")
        if keys in EDITING or MOVING.issuperset(keys):
            return set(), ""
        is_character = len(keys) == 1 and len(keys[0]) == 1
        return self._told_at(None, "write") if is_character else ({Risk.UNKNOWN}, "")

    def _told_at(self, at: Point | None, kind: str) -> Told:
        """What an action on the element at a point, or on the one with the focus, would do."""
        session, world = self._world()
        try:
            found = self._element(session, world, at)
            if "objectId" not in found:
                return set(), ""
            told = session.send(
                "Runtime.callFunctionOn",
                {
                    "functionDeclaration": TOLD,
                    "objectId": found["objectId"],
                    "arguments": [{"value": kind}],
                    "returnByValue": True,
                },
            )["result"]["value"]
            return {Risk[name] for name in told["risks"]}, str(told["target"])
        except (Error, KeyError):  # such as an element of another document
            return {Risk.UNKNOWN}, ""

    def _element(self, session: CDPSession, world: int, at: Point | None) -> dict[str, Any]:
        if at is None:
            focused = {"expression": FOCUSED, "contextId": world}
            return dict(session.send("Runtime.evaluate", focused)["result"])
        x, y = self._pixel(at)
        # Looks into shadow trees too, those that are closed to scripts included.
        node = session.send("DOM.getNodeForLocation", {"x": x, "y": y})
        whose = {"backendNodeId": node["backendNodeId"], "executionContextId": world}
        return dict(session.send("DOM.resolveNode", whose)["object"])

    def _world(self) -> tuple[CDPSession, int]:
        """A world of scripts beside the page's own, for the document that is there now."""
        session = self._session
        session.send("DOM.enable")
        session.send("DOM.getDocument", {"depth": 0})
        frame = session.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        made = session.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "agent"})
        return session, made["executionContextId"]

    def _open(self, url: str) -> Page:
        width, height = self._size
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            accept_downloads=False,
            service_workers="block",
        )
        context.set_default_timeout(TIMEOUT)
        context.add_init_script(CLOSED)
        context.route("**/*", self._pass)
        context.route_web_socket("**/*", self._close_socket)
        context.on("requestfailed", self._tell_redirect)
        page = context.new_page()
        context.on("page", self._close_page)
        page.on("dialog", self._dismiss)
        page.on("download", self._cancel)
        page.on("filechooser", self._ignore)
        page.goto(url)
        self._session = context.new_cdp_session(page)
        return page

    def _pass(self, route: Route) -> None:
        """Let a request through if it may be."""
        request = route.request
        if _origin(request.url) != self._site:  # could not anyway; so the page stays as it is
            self._stop(route, f"it would have gone to {_origin(request.url)}")
        elif request.method not in ("GET", "HEAD") and not self._may_send:
            self._stop(route, "it would have sent data")
        else:
            route.continue_()

    def _stop(self, route: Route, what: str) -> None:
        self._stopped.append(what)
        if route.request.is_navigation_request():
            route.fulfill(status=204)  # the page stays as it is
        else:
            route.abort("blockedbyclient")

    def _tell_redirect(self, request: Request) -> None:
        # Depending on who asked, the request is the one before the redirect, or the one after it.
        if request.failure == "net::ERR_NAME_NOT_RESOLVED":
            self._stopped.append(f"it would have left the site by {request.url[:200]!r}")

    def _close_socket(self, socket: WebSocketRoute) -> None:
        self._stopped.append(f"it would have talked to {_origin(socket.url)}")
        socket.close()

    def _close_page(self, page: Page) -> None:
        self._stopped.append("it would have opened a window")
        page.close()

    def _dismiss(self, dialog: Dialog) -> None:
        self._stopped.append(f"a dialog was dismissed ({dialog.message[:200]!r})")
        dialog.dismiss()

    def _cancel(self, download: Download) -> None:
        self._stopped.append(f"a download was cancelled ({download.suggested_filename[:200]!r})")
        download.cancel()

    def _ignore(self, _: FileChooser) -> None:
        self._stopped.append("it asked for a file")


def find_chromium() -> str | None:
    """Path of a Chromium on this machine; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _host(url: str) -> str:
    """Host and port."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return parts.netloc if parts.port else f"{parts.netloc}:{default}"
