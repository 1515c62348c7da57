"""Fetches media from the network, for URLs that a model, an agent or a stranger may have written.

    URL -> spelling checked -> host resolved, once -> every address checked -> connection to an
    address that was checked, with TLS and `Host` by the name -> status, length, kind of file

A redirect starts again at the front. What is refused is refused before a packet goes to it.

**Addresses.** Only public ones, unless `allow_hosts` names them. A name of which one address is not
public is refused as a whole. The connection goes to the very address that was checked, so a name
that resolves to something else a moment later (DNS rebinding) leads nowhere.

**Ports.** 80, 443 and those from 1024 on: the others belong to mail, remote logins and the like.

**Proxies.** None is used, whatever `HTTP_PROXY` and `HTTPS_PROXY` say: a proxy resolves names by
itself, so no check of ours would hold. Where only a proxy leads out, download with other means.

**Credentials.** None are taken from anywhere: no cookies, no `.netrc`, no user and password in a
URL. `headers` go to the host that was asked for and to no other it redirects to. Error messages
leave out a URL's query, which may be a signature.

Certificates are checked against those of the system, or `SSL_CERT_FILE`.
"""

import asyncio
import ipaddress
import os
import re
import socket
import ssl
import threading
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

import httpx2

from langchain_glm4v._version import __version__
from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.media import sniffing, stopping
from langchain_glm4v.media.source import MAX_BYTES, shown

TIMEOUT = 30
"""Seconds for everything from the name to the last byte, redirects and a second attempt included,
unless told otherwise."""

MAX_REDIRECTS = 5
"""Redirects that are followed, at most."""

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Resolve: TypeAlias = Callable[[str], Awaitable[Sequence[Address]]]

_CONNECT_TIMEOUT = 5  # seconds for one address, so that there is time for the next
_PAUSE = 0.5  # seconds before the second attempt
_PORTS = {"http": 80, "https": 443}
_FIRST_FREE_PORT = 1024

# What `ipaddress` of this or an older Python calls global, and is not or must not be.
# Source: IANA's registries of special-purpose addresses, unless stated.
_NOT_PUBLIC: Sequence[Network] = [
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments; Oracle's cloud has its metadata there
        "192.88.99.0/24",  # relays of 6to4
        "168.63.129.16/32",  # the host of each virtual machine in Azure, by Microsoft's documents
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved
        "2001::/23",  # protocol assignments, Teredo (with an IPv4 address inside) among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, with an IPv4 address inside
        "3fff::/20",  # documentation
    )
]
_UNICAST = IPv6Network("2000::/3")  # all that IANA has given out of IPv6 for use in the open
_NAT64 = IPv6Network("64:ff9b::/96")  # how an IPv6-only network writes addresses of IPv4

_NAME = re.compile(r"(?!.{254})[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
# A last label by which resolvers and browsers take the whole for an IPv4 address, in parts that may
# be decimal, octal or hexadecimal, and fewer than four.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# A compressed answer could be a bomb, and media are compressed already.
_HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": f"langchain-glm4v/{__version__}",
}
_DOWNLOAD = "download it yourself and give its path"
_REMEDIES = {
    401: f"it wants a login: {_DOWNLOAD}",
    403: f"it wants a login, or no programs: {_DOWNLOAD}",
    429: "it wants fewer requests: try later",
}


@dataclass(frozen=True)
class Fetched:
    """A file from the network.

    Attributes:
        data: Its bytes.
        mime_type: Its kind by its bytes, whatever the server said; "application/octet-stream" for
            one that is no usual picture, video, PDF or office document.
        url: Where it was in the end, after redirects. It may hold secrets.
        name: What error messages call it: the URL without its query, in quotes.
        max_age: Seconds for which it may be used again, by the server's `Cache-Control`: 0 for
            `no-store` and `no-cache`, None if it says nothing.
    """

    data: bytes = field(repr=False)
    mime_type: str
    url: str = field(repr=False)
    name: str
    max_age: int | None = None


def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout: float = TIMEOUT,
    allow_hosts: Collection[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Fetched:
    """Fetch a file from a public address; may be called in any thread.

    Args:
        url: `http://` or `https://`.
        max_bytes: Its length, at most. Default: 256 MiB.
        timeout: Seconds for all of it.
        allow_hosts: Which hosts may have an address that is not public, such as a file server of
            the intranet: names ("files.intranet"), addresses, or networks ("10.1.0.0/16").
        headers: Sent to the URL's own host, such as `Authorization`.

    Raises:
        MediaNotFoundError: The server has no such file (404 or 410).
        UnsupportedMediaError: The URL is not one to fetch from, or leads to a web page.
        MediaError: The address is not public, the server cannot be reached or refuses, or the file
            is too long or too slow. A broken connection and the statuses 502 to 504 get a second
            attempt. Or `allow_hosts` has an entry of another kind.
    """
    fetching = afetch(
        url, max_bytes=max_bytes, timeout=timeout, allow_hosts=allow_hosts, headers=headers
    )
    # Only in an event loop can a limit of time end a name's resolving or a header that drips in, so
    # there is one implementation, and a loop in a thread for callers without.
    running = asyncio.run_coroutine_threadsafe(fetching, _background_loop())
    try:
        stopping.wait(lambda seconds: bool(wait([running], seconds).done))
        return running.result()
    except BaseException:  # such as Ctrl-C: nobody waits for the file any more
        running.cancel()
        raise


async def afetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout: float = TIMEOUT,
    allow_hosts: Collection[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Fetched:
    """As `fetch`."""
    return await _fetch(url, _Terms(max_bytes, timeout, _Allowed.read(allow_hosts), headers or {}))


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet.

    Loopback, private, link-local (cloud metadata), shared (100.64.0.0/10), multicast, reserved and
    unspecified ones are not; nor is IPv6 with IPv4 inside, other than NAT64 of a public address.
    """
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(address.packed[-4:]))
        if address.scope_id or address not in _UNICAST:
            return False
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


@dataclass(frozen=True)
class _Allowed:
    """Whom the rule of public addresses does not bind."""

    names: frozenset[str]
    networks: Sequence[Network]

    @classmethod
    def read(cls, hosts: Collection[str]) -> "_Allowed":
        names, networks = set[str](), list[Network]()
        if not isinstance(hosts, Collection):
            raise _unusable(hosts)
        for host in [hosts] if isinstance(hosts, str) else hosts:
            if not isinstance(host, str):
                raise _unusable(host)
            try:
                networks.append(ipaddress.ip_network(host.strip("[]"), strict=False))
            except ValueError:
                name = host.lower().removesuffix(".")
                if not _NAME.fullmatch(name) or _ends_in_number(name):
                    raise _unusable(host) from None
                names.add(name)
        return cls(frozenset(names), networks)

    def covers(self, host: str, address: Address) -> bool:
        """Whether a host may be reached at an address."""
        return (
            is_public(address)
            or host in self.names
            or any(address in network for network in self.networks)
        )


def _unusable(host: object) -> MediaError:
    return MediaError(
        f"allow_hosts has {host!r}: give a list of which each is a host's name alone, an address, "
        "or a network such as 10.1.0.0/16"
    )


@dataclass(frozen=True)
class _Target:
    """A URL whose spelling is harmless.

    Attributes:
        url: As it is requested.
        host: In lower case and ASCII, without a dot at the end.
        port: Also if the URL names none.
        address: If the host is spelled as one.
        given: The URL that began it all, for error messages.
        name: This URL, for error messages.
    """

    url: httpx2.URL
    host: str
    port: int
    address: Address | None
    given: str
    name: str

    @classmethod
    def read(cls, text: str, previous: "_Target | None" = None) -> "_Target":
        """Take a URL apart.

        Args:
            text: As it was given, or as a redirect has it.
            previous: What was redirected.

        Raises:
            UnsupportedMediaError: It is not a URL to fetch from.
        """
        given = shown(text) if previous is None else previous.given
        name = given if previous is None else f"a redirect of {given}"
        # Programs differ in what they make of these.
        if not text.isprintable() or " " in text or "\\" in text:
            raise _misspelt(name, "has blanks, control characters or backslashes")
        try:
            url = httpx2.URL(text) if previous is None else previous.url.join(text)
            host = url.raw_host.decode("ascii").lower().removesuffix(".")
        except (httpx2.InvalidURL, ValueError) as error:
            raise _misspelt(name, "is not well-formed") from error
        if previous is not None:
            name = f"{shown(str(url))}, where {given} leads,"
        if url.scheme not in _PORTS:
            raise _misspelt(name, f"has the scheme {url.scheme!r}")
        if url.userinfo:
            raise _misspelt(name, "has a user or password, which may hide the host")
        port = _PORTS[url.scheme] if url.port is None else url.port
        if not (port in _PORTS.values() or _FIRST_FREE_PORT <= port < 2**16):
            raise _misspelt(name, f"names port {port}, and accepted are 80, 443 and from 1024 on")
        return cls(url, host, port, _spelled_address(host, name), given, name)

    @property
    def origin(self) -> tuple[str, str, int]:
        """What `headers` of the caller's are for."""
        return self.url.scheme, self.host, self.port


def _misspelt(name: str, reason: str) -> UnsupportedMediaError:
    return UnsupportedMediaError(f"{name} {reason}: give a plain http:// or https:// URL")


def _spelled_address(host: str, name: str) -> Address | None:
    """The address that a host is spelled as; None if it is a name."""
    try:
        if ":" in host:
            return IPv6Address(host)
        if _ends_in_number(host):
            return IPv4Address(host)
    except ValueError as error:
        raise _misspelt(name, f"has the address {host!r} in an unusual spelling") from error
    if not _NAME.fullmatch(host):
        raise _misspelt(name, f"has the host {host!r}, which is no name")
    return None


def _ends_in_number(host: str) -> bool:
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


async def _resolve(host: str) -> Sequence[Address]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(address[0]) for *_, address in found]


@dataclass(frozen=True)
class _Terms:
    """On which terms a URL is fetched.

    Attributes:
        max_bytes: Length of the file, at most.
        timeout: Seconds for all of it.
        allowed: Whom the rule of public addresses does not bind.
        headers: For the URL's own host.
        resolve: Finds the addresses of a name.
    """

    max_bytes: int
    timeout: float
    allowed: _Allowed
    headers: Mapping[str, str]
    resolve: Resolve = _resolve


@dataclass(frozen=True)
class _File:
    """What a server gives, and for how many seconds it may be used again, as far as it says."""

    data: bytes
    max_age: int | None


class _BusyError(Exception):
    """The server cannot answer just now."""


async def _fetch(url: str, terms: _Terms) -> Fetched:
    start = _Target.read(url)
    try:
        async with asyncio.timeout(terms.timeout):
            try:
                return await _follow(start, terms)
            except (httpx2.TransportError, _BusyError):
                await asyncio.sleep(_PAUSE)
                return await _follow(start, terms)
    except TimeoutError as error:
        raise MediaError(
            f"fetching {start.name} took more than {terms.timeout} s: {_DOWNLOAD}",
            setting="give more time",
        ) from error
    except (httpx2.TransportError, _BusyError) as error:
        reason = str(error) or type(error).__name__
        raise MediaError(
            f"cannot fetch {start.name}, tried twice ({reason}): try later, or {_DOWNLOAD}"
        ) from error


async def _follow(start: _Target, terms: _Terms) -> Fetched:
    """Fetch from where a URL leads in the end."""
    target = start
    for _ in range(MAX_REDIRECTS + 1):
        own = terms.headers if target.origin == start.origin else {}
        addresses = await _addresses(target, terms)
        answer = await _ask_any(addresses, target, own, terms.max_bytes)
        if isinstance(answer, _File):
            return _fetched(answer, target)
        target = _Target.read(answer, target)
    raise MediaError(
        f"{start.name} leads through more than {MAX_REDIRECTS} redirects: give the file's own URL"
    )


async def _addresses(target: _Target, terms: _Terms) -> Sequence[Address]:
    """The addresses of a host, all of which may be connected to."""
    try:
        if target.address is None:
            found = await terms.resolve(target.host)
        else:
            found = [target.address]
    except OSError as error:
        raise MediaError(
            f"{target.name} names the host {target.host!r}, which cannot be found "
            f"({error.strerror}): check the URL and the network"
        ) from error
    # The addresses stay untold: whoever gave the URL may be out to learn them.
    if not all(terms.allowed.covers(target.host, address) for address in found):
        raise MediaError(
            f"{target.name} leads to an address that is not public, which is refused: give a "
            "public URL",
            setting=f"if the host {target.host!r} is meant, name it in allow_hosts",
        )
    return found


async def _ask_any(
    addresses: Sequence[Address], target: _Target, headers: Mapping[str, str], max_bytes: int
) -> _File | str:
    """Ask at the first address that takes a connection."""
    for address in addresses[:-1]:
        try:
            return await _ask(address, target, headers, max_bytes)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            continue
    return await _ask(addresses[-1], target, headers, max_bytes)


async def _ask(
    address: Address, target: _Target, headers: Mapping[str, str], max_bytes: int
) -> _File | str:
    """Ask for a file at one address; returns it, or where it redirects to."""
    sent = httpx2.Headers({**headers})
    sent.update({**_HEADERS, "Host": target.url.netloc.decode("ascii")})
    request = httpx2.Request(
        "GET",
        # The address instead of the name, so that nothing below resolves the name again.
        target.url.copy_with(host=str(address)),
        headers=sent,
        extensions={
            "timeout": {"connect": _CONNECT_TIMEOUT},
            # What the certificate is checked against.
            **({} if target.address else {"sni_hostname": target.host}),
        },
    )
    # A bare transport knows no cookies, proxies or redirects; and each request has its own, for one
    # that is kept would be used for other names of the same address, whatever its certificate says.
    async with httpx2.AsyncHTTPTransport(
        verify=await asyncio.to_thread(_tls), trust_env=False
    ) as transport:
        response = await transport.handle_async_request(request)
        try:
            if response.has_redirect_location:
                return response.headers["location"]
            _check_status(response.status_code, target)
            data = await _content(response, target, max_bytes)
            return _File(data, _max_age(response.headers.get("cache-control", "")))
        finally:
            await response.aclose()


@lru_cache(1)
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def _check_status(status: int, target: _Target) -> None:
    match status:
        case 200:
            return
        case 404 | 410:
            raise MediaNotFoundError(f"nothing is at {target.name} (HTTP {status}): check the URL")
        case 502 | 503 | 504:
            raise _BusyError(f"HTTP {status}")
        case _:
            remedy = _REMEDIES.get(status, f"check the URL, or {_DOWNLOAD}")
            raise MediaError(f"the server refuses {target.name} with HTTP {status}: {remedy}")


def _max_age(cache_control: str) -> int | None:
    """Seconds by a `Cache-Control` header (RFC 9111, 5.2.2)."""
    text = cache_control.lower()
    if re.search(r"\bno-(store|cache)\b", text):
        return 0
    found = re.search(r"\bmax-age\s*=\s*\"?(\d{1,9})", text)
    return int(found[1]) if found else None


async def _content(response: httpx2.Response, target: _Target, max_bytes: int) -> bytes:
    unpacker = _unpacker(response.headers.get("content-encoding", "identity"), target, max_bytes)
    announced = response.headers.get("content-length", "0")
    if int(announced) > max_bytes:
        raise _too_long(target, max_bytes)
    data = bytearray()
    try:
        async for piece in response.aiter_raw():
            data += unpacker.unpack(piece)
            if len(data) > max_bytes:
                raise _too_long(target, max_bytes)
    except zlib.error as error:
        raise MediaError(f"{target.name} comes damaged ({error}): {_DOWNLOAD}") from error
    if not unpacker.is_whole:
        raise MediaError(f"{target.name} comes cut off: {_DOWNLOAD}")
    return bytes(data)


class _Plain:
    """What is not compressed."""

    is_whole = True

    def unpack(self, piece: bytes) -> bytes:
        return piece


class _Gzip:
    """What is compressed by gzip, in one member or several (RFC 1952, 2.2).

    Attributes:
        is_whole: Whether the last member has come to its end.
    """

    is_whole = False

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._member = self._begun()

    @staticmethod
    def _begun() -> "zlib._Decompress":
        return zlib.decompressobj(zlib.MAX_WBITS | 16)

    def unpack(self, piece: bytes) -> bytes:
        """Unpack a piece; no more bytes than make the file too long."""
        data = bytearray()
        while piece and len(data) <= self._max_bytes:
            if self._member.eof:
                self._member = self._begun()
            data += self._member.decompress(piece, self._max_bytes + 1)
            piece = self._member.unused_data
        self.is_whole = self._member.eof
        return bytes(data)


def _unpacker(encoding: str, target: _Target, max_bytes: int) -> _Plain | _Gzip:
    """Undo the one compression that some servers apply though they are asked not to."""
    match encoding.strip().lower():
        case "identity" | "":
            return _Plain()
        case "gzip" | "x-gzip":
            return _Gzip(max_bytes)
        case other:
            raise MediaError(
                f"the server sends {target.name} compressed as {other!r}, though it was asked not "
                f"to: {_DOWNLOAD}"
            )


def _too_long(target: _Target, max_bytes: int) -> MediaError:
    return MediaError(
        f"{target.name} has more than the {max_bytes} bytes that may be fetched: save it smaller, "
        f"or {_DOWNLOAD}"
    )


def _fetched(file: _File, target: _Target) -> Fetched:
    if not file.data:
        raise MediaError(f"{target.name} is empty: check the URL")
    kind = sniffing.mime_type(file.data)
    if kind == sniffing.HTML:
        raise UnsupportedMediaError(
            f"{target.name} is a web page, such as one to log in on, and no picture, video or "
            "document: give the URL of the file itself"
        )
    return Fetched(file.data, kind, str(target.url), shown(str(target.url)), file.max_age)


@lru_cache(1)
def _background_loop() -> asyncio.AbstractEventLoop:
    """The event loop in which `fetch` works; it runs in a thread of its own from the first use."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="glm4v-fetch", daemon=True).start()
    return loop


# After a fork, the child starts its own: threads are not copied.
os.register_at_fork(after_in_child=_background_loop.cache_clear)
