import asyncio
import gzip
import ipaddress
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_socket import SocketConnectBlockedError

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.media import fetch as fetching
from langchain_glm4v.media.fetch import Fetched, _Allowed, _fetch, _Terms, afetch, fetch, is_public

PNG = b"\x89PNG\r\n\x1a\n and so on"
HERE = ("127.0.0.1",)
CERTIFICATE = Path(__file__).with_name("self_made.pem")

Address = IPv4Address | IPv6Address


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


class Names:
    """Resolves names as a test says, each answer once, the last for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): [*given] for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[Address]:
        self.asked.append(host)
        answers = self.answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [*map(ipaddress.ip_address, found)]


def resolved(
    url: str,
    names: Callable[..., Any],
    *,
    allow_hosts: Sequence[str] = (),
    timeout: float = 30,
    headers: Mapping[str, str] | None = None,
) -> Fetched:
    terms = _Terms(10**6, timeout, _Allowed.read(allow_hosts), headers or {}, names)
    return asyncio.run(_fetch(url, terms))


# ---- what is fetched


def test_a_picture(web: Any) -> None:
    url = web.give("/a.png?key=1", PNG, content_type="text/plain")

    found = fetch(url, allow_hosts=HERE)

    assert found == Fetched(PNG, "image/png", url, f"'{web.url}/a.png?…'")
    ((path, headers),) = web.seen
    assert path == "/a.png?key=1"
    assert headers["host"] == f"127.0.0.1:{web.server_port}"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("langchain-glm4v/")
    assert not {"authorization", "cookie"} & {name.lower() for name in headers}


async def test_async_and_sync_do_the_same(web: Any) -> None:
    url = web.give("/a.png", PNG)

    assert await afetch(url, allow_hosts=HERE) == fetch(url, allow_hosts=HERE)


def test_many_threads_at_once(web: Any) -> None:
    url = web.give("/a.png", PNG)
    found: list[Fetched] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(url, allow_hosts=HERE)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [one.data for one in found] == [PNG] * 20


def test_a_path_is_asked_for_as_it_is_written(web: Any) -> None:
    web.give("/a%2Fb/%E7%8C%AB.png?x=a%2Bb+c&y=%C3%A4", PNG)

    fetch(f"{web.url}/a%2Fb/猫.png?x=a%2Bb+c&y=ä#page=2", allow_hosts=HERE)

    assert web.paths == ["/a%2Fb/%E7%8C%AB.png?x=a%2Bb+c&y=%C3%A4"]


def test_chunks(web: Any) -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (PNG[:5], PNG[5:], b""))
    web.routes["/a"] = lambda handler: handler.wfile.write(chunked + body)

    assert fetch(f"{web.url}/a", allow_hosts=HERE).data == PNG


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><title>Log in</title>",
        b"\xef\xbb\xbf \n<!-- made by hand --> <HTML lang=en>",
        b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">',
    ],
)
def test_a_web_page(web: Any, body: bytes) -> None:
    url = web.give("/a.png", body, content_type="image/png")
    with pytest.raises(UnsupportedMediaError, match="is a web page") as error:
        fetch(url, allow_hosts=HERE)

    assert url in one_line(error)


def test_nothing_in_it(web: Any) -> None:
    with pytest.raises(MediaError, match="is empty"):
        fetch(web.give("/a.png"), allow_hosts=HERE)


# ---- addresses

# By IANA's registries; as whole networks, so that their edges are tried.
NOT_PUBLIC = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
    "::/128",
    "::1/128",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]


@given(st.ip_addresses())
def test_public_is_what_python_calls_global_and_less(address: Address) -> None:
    local = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    if isinstance(address, IPv6Address):
        local |= address.packed[0] >> 5 != 1  # outside 2000::/3
        if address in ipaddress.ip_network("64:ff9b::/96"):
            return  # see test_ipv4_inside_ipv6
    special = any(address in ipaddress.ip_network(network) for network in NOT_PUBLIC)

    assert is_public(address) == (address.is_global and not local and not special)


@pytest.mark.parametrize("network", [*map(ipaddress.ip_network, NOT_PUBLIC)], ids=NOT_PUBLIC)
def test_networks_that_are_not_public(network: Any) -> None:
    assert not is_public(network[0])
    assert not is_public(network[-1])
    assert not is_public(network[network.num_addresses // 2])


PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80e::200e",
    "2001:4860:4860::8888",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_ipv4_inside_ipv6(address: IPv4Address) -> None:
    inside = int(address)
    mapped, compatible = IPv6Address(0xFFFF << 32 | inside), IPv6Address(inside)
    six_to_four = IPv6Address(0x2002 << 112 | inside << 80 | 1)
    teredo = IPv6Address(0x20010000 << 96 | (inside ^ 0xFFFFFFFF))

    assert not any(map(is_public, (mapped, compatible, six_to_four, teredo)))
    assert is_public(IPv6Address(0x64FF9B << 96 | inside)) == is_public(address)


# Each would reach a server on this machine, or in its network, if it were taken in good faith.
# {port} is that of one which listens.
_PLAIN = Path(__file__).with_name("hostile_urls.txt").read_text().split()
_ODD = [
    "http://good.example\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@good.example/",
    "http://127.0.0.1:{port}\\.good.example/",
    "http:\\\\127.0.0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/ ",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1\n:{port}/",
    "ht\ntp://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/\r\nHost: other",
    "http://127.0.0.1:{port}/a\0b",
    "http://127.0.0.1:{port}/\x85\u2028",
    # letters and digits in circles, in full width, and dots of Chinese
    "http://\u24db\u24de\u24d2\u24d0\u24dbhost:{port}/",
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:{port}/",
    "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://127\u30020\u30020\u30021:{port}/",
    "http://127\uff0e0\uff0e0\uff0e1:{port}/",
    # blanks of no width, a soft hyphen, text from right to left, a slash in full width
    "http://local\u200bhost:{port}/",
    "http://local\u00adhost:{port}/",
    "http://\u202elocalhost:{port}/",
    "http://good.example\uff0f@127.0.0.1:{port}/",
    "http://[::ffff:127.0.0.1%eth0]\u2178[v1.a]:{port}/",
    "http:////.[\u3002]",
    "http://good.example\uff03@127.0.0.1:{port}/",
    "",
    "http://",
    "http://" + "a" * 70_000,
    "http://" + "a." * 200 + "example/",
]
HOSTILE = [*_PLAIN, *_ODD]

_touched: list[str] = []
_watching = threading.Event()


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _watching.is_set() and event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        _touched.append(f"{event} {args[1:] if event == 'socket.connect' else args}")


sys.addaudithook(_watch)


@pytest.fixture
def touched() -> Iterator[list[str]]:
    """What is asked of the network from now on."""
    _touched.clear()
    _watching.set()
    yield _touched
    _watching.clear()


async def treacherous(host: str) -> Sequence[Address]:
    """Leads every name here, some of them by a detour."""
    answers = {
        "public.example": ["8.8.8.8"],
        "half.example": ["8.8.8.8", "127.0.0.1"],
        "mapped.example": ["::ffff:127.0.0.1"],
        "metadata.google.internal": ["169.254.169.254"],
    }
    return [*map(ipaddress.ip_address, answers.get(host, ["127.0.0.1"]))]


def test_the_hostile_urls_are_many() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) > 100


@pytest.mark.parametrize("url", HOSTILE, ids=[ascii(url)[:60] for url in HOSTILE])
def test_a_hostile_url_sends_no_packet(url: str, web: Any, touched: list[str]) -> None:
    web.give("/", PNG)
    with pytest.raises(MediaError) as error:
        resolved(url.format(port=web.server_port), treacherous)

    assert (touched, web.connections) == ([], 0)
    assert "secret" not in one_line(error)


# What is no whole URL, a redirect may well hold: it is one at the same host.
_WHOLE = re.compile(r"[a-z+]+://[^/].*", re.IGNORECASE)
REDIRECTS = [
    url for url in HOSTILE if _WHOLE.fullmatch(url) and url.isascii() and url.isprintable()
]


@pytest.mark.parametrize("url", REDIRECTS, ids=[url[:60] for url in REDIRECTS])
def test_a_redirect_to_a_hostile_url_sends_no_further_packet(url: str, web: Any) -> None:
    web.give("/here", status="302 Found", location=url.format(port=web.server_port))
    start = f"http://start.example:{web.server_port}/here"
    with pytest.raises(MediaError):
        resolved(start, treacherous, allow_hosts=["start.example"])

    assert web.paths == ["/here"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://user:secret@127.0.0.1:{port}/", "user or password"),
        ("http://user@127.0.0.1:{port}/", "user or password"),
        ("http://127.0.0.1:{port}\\@good.example/", "backslashes"),
        ("http://127.0.0.1:{port}/ ", "blanks"),
        ("http://127.0.0.1:{port}/\t", "control characters"),
        ("http://127.1:{port}/", "'127.1' in an unusual spelling"),
        ("http://0x7f.0.0.1:{port}/", "unusual spelling"),
        ("http://2130706433:{port}/", "unusual spelling"),
        ("http://%6cocalhost:{port}/", "which is no name"),
        ("ftp://127.0.0.1:{port}/", "the scheme 'ftp'"),
        ("http://127.0.0.1:25/", "port 25"),
    ],
)
def test_spelling_counts_for_allowed_hosts_too(url: str, reason: str, web: Any) -> None:
    with pytest.raises(UnsupportedMediaError, match=reason) as error:
        resolved(url.format(port=web.server_port), treacherous, allow_hosts=["0.0.0.0/0"])

    assert web.connections == 0
    assert "secret" not in one_line(error)


def test_that_server_can_be_reached(web: Any, touched: list[str]) -> None:
    web.give("/", PNG)
    resolved(f"http://some.example:{web.server_port}/", treacherous, allow_hosts=HERE)

    assert web.connections == 1
    assert touched == [f"socket.connect (('127.0.0.1', {web.server_port}),)"]


async def test_a_second_answer_of_the_dns_is_never_asked_for(web: Any) -> None:
    web.give("/a.png", PNG)
    names = Names(rebinding_example=[["127.0.0.1"], ["127.0.0.2"]])
    url = f"http://rebinding.example:{web.server_port}/a.png"

    found = await asyncio.to_thread(resolved, url, names, allow_hosts=HERE)

    assert (found.data, found.url, names.asked) == (PNG, url, ["rebinding.example"])
    assert web.seen[0][1]["host"] == f"rebinding.example:{web.server_port}"


def test_the_connection_goes_to_the_address_that_was_checked(web: Any) -> None:
    names = Names(rebinding_example=[["93.184.216.34"], ["127.0.0.1"]])
    # No test gets further than this machine; the error of the guard says where it was to go.
    blocked = pytest.RaisesExc(SocketConnectBlockedError, match="93.184.216.34")
    with pytest.warns(UserWarning, match="93.184.216.34"), pytest.RaisesGroup(blocked):
        resolved(f"http://rebinding.example:{web.server_port}/", names)

    assert (names.asked, web.connections) == (["rebinding.example"], 0)


def test_a_redirect_to_a_name_that_has_moved(web: Any) -> None:
    url = web.give("/a", status="307 Temporary Redirect", location="/b")
    names = Names(rebinding_example=[["127.0.0.1"], ["127.0.0.2"]])
    with pytest.raises(MediaError, match="not public") as error:
        resolved(url.replace("127.0.0.1", "rebinding.example"), names, allow_hosts=HERE)

    assert web.paths == ["/a"]
    assert "127.0.0.2" not in one_line(error)


def test_the_next_address_if_one_does_not_answer(web: Any) -> None:
    web.give("/a.png", PNG)
    names = Names(double_example=[["::1", "127.0.0.1"]])
    url = f"http://double.example:{web.server_port}/a.png"

    assert resolved(url, names, allow_hosts=["double.example"]).data == PNG


@pytest.mark.parametrize(
    "entry", ["127.0.0.1", "127.0.0.0/8", "127.1.2.3/8", "files.example", "FILES.example."]
)
def test_hosts_that_are_allowed(entry: str, web: Any) -> None:
    web.give("/a.png", PNG)
    names = Names(files_example=[["127.0.0.1"]])
    url = f"http://files.example:{web.server_port}/a.png"

    assert resolved(url, names, allow_hosts=[entry]).data == PNG


def test_an_allowed_host_lets_no_other_in(web: Any) -> None:
    names = Names(other_example=[["127.0.0.1"]])
    allow = ["example", "files.example", "10.0.0.0/8", "::1", "127.0.0.2"]
    with pytest.raises(MediaError, match="name it in allow_hosts"):
        resolved(f"http://other.example:{web.server_port}/", names, allow_hosts=allow)

    assert web.connections == 0


@pytest.mark.parametrize("entry", ["http://files/", "files:80", "*.example", "", "127.1", "a/b"])
def test_an_unusable_entry_of_allow_hosts(entry: str) -> None:
    with pytest.raises(MediaError, match="allow_hosts has") as error:
        fetch("https://host.example/", allow_hosts=[entry])

    assert repr(entry) in one_line(error)


@pytest.mark.parametrize("hosts", [5, None, [5], [None], [b"files"]])
def test_hosts_that_are_no_texts(hosts: Any) -> None:
    with pytest.raises(MediaError, match="allow_hosts has"):
        fetch("https://host.example/", allow_hosts=hosts)


def test_no_such_host() -> None:
    with pytest.raises(MediaError, match=r"'nowhere.invalid', which cannot be found .*: check"):
        fetch("https://nowhere.invalid/a.png")


# ---- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects(status: int, web: Any) -> None:
    web.give("/a/b", status=f"{status} Go", location="../c?d")
    end = web.give("/c?d", PNG)

    found = fetch(f"{web.url}/a/b", allow_hosts=HERE)

    assert (found.data, found.url, found.name) == (PNG, end, f"'{web.url}/c?…'")


def test_redirects_without_end(web: Any) -> None:
    url = web.give("/a", status="302 Found", location="/a")
    with pytest.raises(MediaError, match="more than 5 redirects"):
        fetch(url, allow_hosts=HERE)

    assert web.paths == ["/a"] * 6


def test_a_redirect_without_a_place(web: Any) -> None:
    with pytest.raises(MediaError, match="HTTP 302"):
        fetch(web.give("/a", status="302 Found"), allow_hosts=HERE)


# ---- limits


def test_an_announced_length(web: Any) -> None:
    url = web.give("/a", content_length="1000000000000")
    with pytest.raises(MediaError, match="more than the 10 bytes"):
        fetch(url, allow_hosts=HERE, max_bytes=10)


def endless(beginning: bytes, more: bytes) -> Callable[[Any], None]:
    """Answers with a beginning, and with more until the client hangs up."""

    def answer(handler: Any) -> None:
        handler.wfile.write(beginning)
        while True:
            handler.wfile.write(more)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"


def test_a_body_without_end(web: Any) -> None:
    web.routes["/a"] = endless(OK + b"\r\n", bytes(10_000))
    with pytest.raises(MediaError, match="more than the 1000000 bytes"):
        fetch(f"{web.url}/a", allow_hosts=HERE, max_bytes=10**6)


@pytest.mark.parametrize("more", [b"x: y\r\n", b"x" * 1000, b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_header_without_end(more: bytes, web: Any) -> None:
    beginning = OK if b"100" not in more else b""
    web.routes["/a"] = endless(beginning, more)
    with pytest.raises(MediaError, match="/a'"):
        fetch(f"{web.url}/a", allow_hosts=HERE, timeout=2)


def test_exactly_as_long_as_may_be(web: Any) -> None:
    url = web.give("/a", PNG)

    assert fetch(url, allow_hosts=HERE, max_bytes=len(PNG)).data == PNG
    with pytest.raises(MediaError, match="more than"):
        fetch(url, allow_hosts=HERE, max_bytes=len(PNG) - 1)


def test_a_compressed_bomb(web: Any) -> None:
    bomb = gzip.compress(bytes(10**8))
    url = web.give("/a", bomb, content_encoding="gzip")
    tracemalloc.start()
    try:
        with pytest.raises(MediaError, match="more than the 1000000 bytes"):
            fetch(url, allow_hosts=HERE, max_bytes=10**6)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(bomb) < 10**6
    assert peak < 10**7


def test_a_server_that_compresses_unasked(web: Any) -> None:
    long = PNG * 50_000
    url = web.give("/a", gzip.compress(long), content_encoding="GZip")

    assert fetch(url, allow_hosts=HERE).data == long


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "deflate"])
def test_other_compression(encoding: str, web: Any) -> None:
    url = web.give("/a", PNG, content_encoding=encoding)
    with pytest.raises(MediaError, match=f"compressed as {encoding!r}"):
        fetch(url, allow_hosts=HERE)


def test_compression_in_several_members(web: Any) -> None:
    """As servers that compress piece by piece send it."""
    packed = gzip.compress(PNG) + gzip.compress(b"and") + gzip.compress(b"more" * 50_000)
    url = web.give("/a", packed, content_encoding="gzip")

    assert fetch(url, allow_hosts=HERE).data == PNG + b"and" + b"more" * 50_000
    with pytest.raises(MediaError, match="more than the 1000 bytes"):
        fetch(url, allow_hosts=HERE, max_bytes=1000)


@pytest.mark.parametrize(
    "packed",
    [PNG, gzip.compress(PNG) + b"and more", gzip.compress(PNG)[:-8] + bytes(8)],
)
def test_damaged_compression(packed: bytes, web: Any) -> None:
    with pytest.raises(MediaError, match="comes damaged"):
        fetch(web.give("/a", packed, content_encoding="gzip"), allow_hosts=HERE)


@pytest.mark.parametrize("end", [-1, -8, -20, 5])
def test_compression_that_is_cut_off(end: int, web: Any) -> None:
    """The server closes the connection, and has announced no length."""
    packed = (gzip.compress(PNG) + gzip.compress(PNG))[:end]
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\n\r\n" + packed
    web.routes["/a"] = lambda handler: handler.wfile.write(answer)
    with pytest.raises(MediaError, match="comes cut off: download"):
        fetch(f"{web.url}/a", allow_hosts=HERE)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("no-store", 0),
        ("private, No-Cache, max-age=60", 0),
        ("max-age=0, must-revalidate", 0),
        ("public, max-age=60", 60),
        ('Max-Age = "7"', 7),
        ("max-age=" + "9" * 9, 999_999_999),
        ("public", None),
        ("max-age=soon", None),
        ("", None),
    ],
)
def test_for_how_long_a_file_may_be_used(header: str, seconds: int | None, web: Any) -> None:
    url = web.give("/a", PNG, cache_control=header)

    assert fetch(url, allow_hosts=HERE).max_age == seconds
    assert fetch(web.give("/b", PNG), allow_hosts=HERE).max_age is None


def dripping(beginning: bytes, drop: bytes) -> Callable[[Any], None]:
    """Answers a little at a time, often enough for a limit on each read, until it is hung up."""

    def answer(handler: Any) -> None:
        handler.wfile.write(beginning)
        while not threading.Event().wait(0.05):
            handler.wfile.write(drop)

    return answer


@pytest.mark.parametrize(
    ("beginning", "drop"), [(b"", b""), (OK, b"x"), (OK + b"\r\n", b"x")], ids=str
)
def test_a_slow_server(beginning: bytes, drop: bytes, web: Any) -> None:
    web.routes["/a"] = dripping(beginning, drop)
    told = r"/a' took more than 0.5 s: download it yourself .*, or give more time"
    with pytest.raises(MediaError, match=told) as error:
        fetch(f"{web.url}/a", allow_hosts=HERE, timeout=0.5)

    assert one_line(error)


def test_a_slow_name_server() -> None:
    async def asleep(_: str) -> Sequence[Address]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(MediaError, match="took more than"):
        resolved("http://slow.example/", asleep, timeout=0.1)


# ---- errors of servers


@pytest.mark.parametrize("status", [404, 410])
def test_nothing_there(status: int, web: Any) -> None:
    url = web.give("/a", status=f"{status} No")
    with pytest.raises(MediaNotFoundError, match=f"HTTP {status}.*check the URL") as error:
        fetch(url, allow_hosts=HERE)

    assert url in one_line(error)
    assert isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "wants a login: download"),
        (403, "wants a login, or no programs"),
        (429, "try later"),
        (500, "check the URL"),
        (204, "check the URL"),
    ],
)
def test_a_refusal(status: int, remedy: str, web: Any) -> None:
    url = web.give("/a", status=f"{status} No")
    with pytest.raises(MediaError, match=f"refuses '{url}' with HTTP {status}: .*{remedy}"):
        fetch(url, allow_hosts=HERE)

    assert len(web.seen) == 1


def in_turn(web: Any, *answers: Callable[[Any], Any]) -> str:
    rest = iter(answers)

    def answer(handler: Any) -> None:
        next(rest)(handler)

    web.routes["/turn"] = answer
    return f"{web.url}/turn"


def written(answer: bytes) -> Callable[[Any], Any]:
    return lambda handler: handler.wfile.write(answer)


BROKEN = {
    "busy": written(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"),
    "gateway": written(b"HTTP/1.1 502 Bad\r\ncontent-length: 0\r\n\r\n"),
    "late": written(b"HTTP/1.1 504 Late\r\ncontent-length: 0\r\n\r\n"),
    "silent": written(b""),
    "cut in the header": written(OK),
    "cut in the body": written(OK + b"content-length: 100\r\n\r\nabc"),
    "no HTTP": written(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "a length beyond all": written(OK + b"content-length: " + b"9" * 5000 + b"\r\n\r\n"),
    "two lengths": written(OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_second_attempt(broken: Callable[[Any], Any], web: Any) -> None:
    good = written(OK + b"\r\n" + PNG)

    assert fetch(in_turn(web, broken, good), allow_hosts=HERE).data == PNG


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_no_third_attempt(broken: Callable[[Any], Any], web: Any) -> None:
    url = in_turn(web, broken, broken)
    with pytest.raises(MediaError, match=f"cannot fetch '{url}', tried twice .*: try later"):
        fetch(url, allow_hosts=HERE)

    assert web.paths == ["/turn"] * 2


def test_nobody_listens(web: Any) -> None:
    web.shutdown()
    web.server_close()
    with pytest.raises(MediaError, match=r"cannot fetch .*try later") as error:
        fetch(web.url, allow_hosts=HERE)

    assert one_line(error)


# ---- credentials and proxies


def test_headers_go_to_their_host_alone(web: Any, serve_web: Callable[[], Any]) -> None:
    other = serve_web()
    end = other.give("/a.png", PNG)
    web.give("/b", status="302 Found", location=end)
    url = web.give("/a", status="302 Found", location="/b")

    fetch(
        url, allow_hosts=HERE, headers={"Authorization": "Bearer x", "host": "evil", "X-Key": "y"}
    )

    for _, headers in web.seen:
        assert headers["authorization"] == "Bearer x"
        assert headers.get_all("host") == [f"127.0.0.1:{web.server_port}"]
    ((_, headers),) = other.seen
    assert not {"authorization", "x-key"} & {name.lower() for name in headers}


def test_no_cookies_and_no_netrc(web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    web.give("/a", status="302 Found", location="/b", set_cookie="session=1; Path=/")
    web.give("/b", PNG)

    fetch(f"{web.url}/a", allow_hosts=HERE)

    assert not {"cookie", "authorization"} & {name.lower() for name in web.seen[1][1]}


def test_proxies_are_not_used(
    web: Any, serve_web: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve_web()
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)

    assert fetch(web.give("/a.png", PNG), allow_hosts=HERE).data == PNG
    with pytest.raises(MediaError, match="not public"):
        fetch(web.url)
    assert proxy.connections == 0


def test_messages_hold_no_secrets(web: Any) -> None:
    web.give("/b?sig=secret2", status="403 No")
    url = web.give("/a?sig=secret", status="302 Found", location="/b?sig=secret2#secret3")
    with pytest.raises(MediaError, match=r"/b\?…', where .*/a\?…' leads") as error:
        fetch(url, allow_hosts=HERE)

    assert "secret" not in one_line(error)
    with pytest.raises(UnsupportedMediaError, match="'ftp'") as error:
        fetch("ftp://me:secret@host.example/a?sig=secret")
    assert "secret" not in one_line(error)
    found = fetch(web.give("/c?sig=secret", PNG), allow_hosts=HERE)
    assert "secret" not in repr(found)


# ---- TLS


@pytest.fixture
def secure(serve_web: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server whose certificate is for files.example, and is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    fetching._tls.cache_clear()
    yield serve_web(CERTIFICATE)
    fetching._tls.cache_clear()


def test_tls_is_by_the_name(secure: Any) -> None:
    secure.give("/a.png", PNG)
    url = f"https://files.example:{secure.server_port}/a.png"
    found = resolved(url, Names(files_example=[["127.0.0.1"]]), allow_hosts=HERE)

    assert (found.data, secure.names) == (PNG, ["files.example"])
    assert secure.seen[0][1]["host"] == f"files.example:{secure.server_port}"


@pytest.mark.parametrize("host", ["other.example", "127.0.0.1"])
def test_a_certificate_for_another_name(host: str, secure: Any) -> None:
    names = Names(other_example=[["127.0.0.1"]])
    with pytest.raises(MediaError, match="CERTIFICATE_VERIFY_FAILED"):
        resolved(f"https://{host}:{secure.server_port}/a.png", names, allow_hosts=HERE)

    assert secure.seen == []


def test_a_certificate_of_nobody(secure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    fetching._tls.cache_clear()
    url = f"https://files.example:{secure.server_port}/a.png"
    with pytest.raises(MediaError, match="CERTIFICATE_VERIFY_FAILED"):
        resolved(url, Names(files_example=[["127.0.0.1"]]), allow_hosts=HERE)

    assert secure.seen == []


def test_two_names_of_one_address_share_no_connection(secure: Any) -> None:
    """A certificate for the first says nothing of the second."""
    there = f"https://other.example:{secure.server_port}/b"
    secure.give("/a", status="302 Found", location=there)
    names = Names(files_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    with pytest.raises(MediaError, match="CERTIFICATE_VERIFY_FAILED"):
        resolved(f"https://files.example:{secure.server_port}/a", names, allow_hosts=HERE)

    assert secure.paths == ["/a"] * 2  # two attempts, none of which came to /b


# ---- processes and signals

PROGRAM = """
import os, sys
from langchain_glm4v.media.fetch import fetch
url = sys.argv[1]
fetch(url, allow_hosts=["127.0.0.1"])
"""


def test_after_a_fork(web: Any) -> None:
    child = "pid = os.fork()\nfetch(url, allow_hosts=['127.0.0.1'])\n"
    wait = "if pid: sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    program = PROGRAM + child + wait
    subprocess.run([sys.executable, "-c", program, web.give("/a", PNG)], check=True, timeout=60)

    assert web.paths == ["/a"] * 3


def test_ctrl_c_ends_a_fetch(web: Any) -> None:
    asked, gone = threading.Event(), threading.Event()

    def hang(handler: Any) -> None:
        asked.set()
        handler.rfile.read()  # until the client hangs up
        gone.set()

    web.routes["/a"] = hang
    # Started in the background, a run of tests makes its children ignore Ctrl-C.
    listening = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program = [sys.executable, "-c", listening + PROGRAM, f"{web.url}/a"]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)

    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert gone.wait(20)


async def test_cancelling_hangs_up(web: Any) -> None:
    asked, gone = threading.Event(), threading.Event()

    def hang(handler: Any) -> None:
        asked.set()
        handler.rfile.read()
        gone.set()

    web.routes["/a"] = hang
    task = asyncio.create_task(afetch(f"{web.url}/a", allow_hosts=HERE))
    assert await asyncio.to_thread(asked.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(gone.wait, 20)
