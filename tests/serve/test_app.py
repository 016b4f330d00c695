"""The server over real connections: who may ask and what, what is bounded, and that nothing brings it down."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT
from fake_live import FakeLive

from jaxsae.errors import InputError
from jaxsae.serve import run
from jaxsae.serve.asked import Limits, RefusedError, read_body
from jaxsae.serve.worker import QueueFullError, SupersededError, Worker

PAGE = "<!doctype html><title>page</title><script>1</script>"
LIMITS = Limits(waiting=4, seconds=1.0, body_seconds=1.0)


class Running:
    """A server in a thread of this process, and one request after another to it."""

    def __init__(self):
        self.live, self.errors = FakeLive({2: 60}), []
        self.listener = run.listen(0)
        self.port = self.listener.getsockname()[1]
        self.address, ready = "", threading.Event()

        def on_ready(address):
            self.address = address
            ready.set()

        def serve():
            with contextlib.suppress(KeyboardInterrupt):
                run.serve(self.listener, PAGE, self.live, scripts=["1"], limits=LIMITS, on_ready=on_ready,
                          on_error=self.errors.append, on_server=lambda server: setattr(self, "server", server))  # fmt: skip

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        assert ready.wait(10)
        self.token = self.address.partition("token=")[2]

    def ask(self, path="/api/restore", body=b'{"text": "a-na #"}', method="POST", *, leave=(), timeout=20, **headers):
        """(status, headers, content)."""
        usual = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {self.token}",
                 "Content-Type": "application/json"}  # fmt: skip
        usual |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in usual.items():
            if name not in leave:
                connection.putheader(name, value)
        if method == "POST" and not isinstance(body, list):
            connection.putheader("Content-Length", str(len(body)))
        elif isinstance(body, list):
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if isinstance(body, list):
                for piece in body:
                    connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                connection.send(b"0\r\n\r\n")
            elif method == "POST":
                connection.send(body)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers, content

    def json(self, **fields):
        status, _, content = self.ask(body=json.dumps(fields).encode())
        return status, json.loads(content)


@pytest.fixture(scope="module")
def server():
    one = Running()
    yield one
    one.server.should_exit = True
    one.thread.join(10)
    assert not one.thread.is_alive()
    assert one.listener.fileno() == -1


@pytest.fixture(autouse=True)
def alive(server):
    """After each test it answers as before."""
    yield
    server.live.gate.set()
    time.sleep(0.05)
    status, _, content = server.ask()
    assert status == 200, content
    assert json.loads(content)["cleaned"] == "a-na #"
    server.live.gate.clear()


def error_of(content: bytes) -> str:
    found = json.loads(content)
    assert list(found) == ["error"]
    assert "\n" not in found["error"]
    assert "Traceback" not in found["error"]
    return found["error"]


def test_the_page_is_given_to_who_has_its_address(server):
    assert server.address == f"http://127.0.0.1:{server.port}/?token={server.token}"
    assert len(server.token) >= 32
    path = server.address.partition(str(server.port))[2]
    for host in ("127.0.0.1", "localhost"):
        status, headers, content = server.ask(path, method="GET", leave=["Authorization"], Host=f"{host}:{server.port}")
        assert (status, content.decode()) == (200, PAGE)
        assert headers["Content-Type"] == "text/html; charset=utf-8"
    status, headers, content = server.ask(path, method="HEAD", leave=["Authorization"])
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) == len(PAGE)
    assert server.ask("/favicon.ico", method="GET", leave=["Authorization"])[0] == 204


def test_every_answer_has_the_headers(server):
    good = server.ask(f"/?token={server.token}", method="GET")
    bad = server.ask("/", method="GET", leave=["Authorization"])
    no_page = server.ask("/nothing", method="GET")
    for _, headers, _ in (good, bad, no_page, server.ask(), server.ask(body=b"[")):
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='; " in policy  # of "1"
        assert "connect-src 'self'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in headers
        assert "Server" not in headers
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/api/restore", "/nothing"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "evil.example:PORT"},
        {"Host": "127.0.0.1:PORT.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1:PORT"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=lambda headers: "=".join(*headers.items()),
)
def test_what_is_foreign_is_refused(server, path, headers):
    headers = {name: value.replace("PORT", str(server.port)) for name, value in headers.items()}
    before = len(server.live.calls)
    status, _, content = server.ask(
        path + f"?token={server.token}", method="POST" if "api" in path else "GET", **headers
    )
    assert status == 403
    assert next(iter(headers)).replace("_", "-") in error_of(content)
    assert len(server.live.calls) == before


def test_the_page_itself_may_ask(server):
    origin = f"http://localhost:{server.port}"
    assert server.ask(Origin=origin, Host=f"localhost:{server.port}", Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", "Bearer ", "Basic TOKEN", "TOKEN", "Bearer TOKENx"])
def test_without_the_token_nothing_is_given(server, given):
    given = given.replace("TOKEN", server.token)
    leave = [] if given else ["Authorization"]
    assert server.ask(leave=leave, Authorization=given)[0] == 401
    # for the page in its address alone, for the rest in the header alone
    assert server.ask(f"/api/restore?token={server.token}", leave=leave, Authorization=given)[0] == 401
    for query in ("", "?token=", "?token=wrong", f"?token={server.token}&token={server.token}", f"?x={server.token}"):
        status, headers, content = server.ask("/" + query, method="GET", leave=leave, Authorization=given)
        assert status == 401, query
        assert headers["WWW-Authenticate"] == "Bearer"
        assert server.token not in error_of(content)


def test_other_addresses_and_methods(server):
    assert server.ask("/nothing", method="GET")[0] == 404
    assert server.ask("/api/restore/", method="POST")[0] == 404
    status, headers, content = server.ask(method="GET")
    assert (status, headers["Allow"], bool(error_of(content))) == (405, "POST", True)
    assert server.ask(f"/?token={server.token}", method="POST")[0] == 405


def test_what_is_asked_reaches_the_model(server):
    server.live.calls.clear()
    settings = [{"layer": 2, "feature": 7, "value": 1.5}, {"layer": 2, "feature": 8, "value": -3}]
    for path, fields in {
        "restore": {"text": "a-na #", "settings": settings, "fill": True},
        "explain": {"text": "a-na #", "position": 5, "candidate": "š", "against": None, "settings": settings[:1]},
        "parallels": {"text": "a-na #", "position": 5},
    }.items():
        status, headers, content = server.ask(f"/api/{path}", json.dumps(fields).encode())
        assert status == 200
        assert headers["Content-Type"] == "application/json"
        assert json.loads(content)
    assert server.live.calls == [
        ("restore", "a-na #", [(2, 7, 1.5), (2, 8, -3.0)], True),
        ("explain", "a-na #", 5, "š", None, [(2, 7, 1.5)]),
        ("parallels", "a-na #", 5),
    ]


ONE = {"layer": 2, "feature": 7, "value": 1.5}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"[1]", "object, got a list"),
        (b"3", "object, got a number"),
        (b'{"text": "a", "text": "b"}', "differ"),
        (b"[" * 60_000, "JSON"),
        (b'{"text": ' * 900, "JSON"),
        (b'{"text": ' + b"[" * 500 + b"]" * 500 + b"}", "a string, got a list"),
        (b'{"text": "a", "position": ' + b"1" * 9000 + b"}", "JSON"),
        ({}, "text must be given"),
        ({"text": None}, "text must be given"),
        ({"text": 3}, "text must be a string, got a number"),
        ({"text": "a", "other": 1}, "got ['other']"),
        ({"text": "a" * 2049}, "at most 2,048 characters, got 2,049"),
        ({"text": "\ud800"}, "surrogate"),
        ({"text": "@"}, "got @"),
        ({"text": ""}, "at least one character"),
        ({"text": "a", "fill": 1}, "true or false"),
        ({"text": "a", "settings": {}}, "a list, got an object"),
        ({"text": "a", "settings": [3]}, "an object of layer, feature, value"),
        ({"text": "a", "settings": [ONE, ONE]}, "one twice"),
        ({"text": "a", "settings": [ONE] * 65}, "at most 64, got 65"),
        ({"text": "a", "settings": [ONE | {"more": 1}]}, "an object of layer"),
        ({"text": "a", "settings": [ONE | {"layer": True}]}, "layer must be a whole number"),
        ({"text": "a", "settings": [ONE | {"feature": -1}]}, "feature must be in 0.."),
        ({"text": "a", "settings": [ONE | {"feature": 2**40}]}, "feature must be in 0.."),
        ({"text": "a", "settings": [ONE | {"value": float("nan")}]}, "finite"),
        ({"text": "a", "settings": [ONE | {"value": 1e300}]}, "finite"),
        ({"text": "a", "settings": [ONE | {"value": 10**400}]}, "finite"),
        ({"text": "a", "settings": [ONE | {"value": "1"}]}, "value must be a number"),
        ({"text": "a", "settings": [ONE | {"value": True}]}, "value must be a number"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_asked_is_one_line(server, body, reason):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, content = server.ask(body=body)
    assert (status, reason in error_of(content)) == (400, True), content
    assert server.errors == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"position": 0}, "text must be given"),
        ({"text": "#"}, "position must be given"),
        ({"text": "#", "position": 1.0}, "whole number"),
        ({"text": "#", "position": 0, "candidate": ""}, "one character"),
        ({"text": "#", "position": 0, "against": "a" * 33}, "one character"),
        ({"text": "#", "position": 4}, "position must be damaged"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_explained_is_one_line(server, fields, reason):
    status, _, content = server.ask("/api/explain", json.dumps(fields).encode())
    assert (status, reason in error_of(content)) == (400, True), content


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_only_json_is_taken(server, kind):
    assert server.ask(Content_Type=kind)[0] == 415
    assert server.ask(leave=["Content-Type"])[0] == 415
    assert server.ask(Content_Type="Application/JSON; charset=utf-8")[0] == 200


def test_ten_megabytes_are_refused(server):
    for body in (b"a" * 10**7, [b"a" * 10**5] * 100):
        status, _, content = server.ask(body=body)
        assert (status, "65,536 bytes" in error_of(content)) == (413, True)
    text = json.dumps({"text": "a" * 65_000}).encode()
    assert server.ask(body=text)[0] == 400  # what the body may have, the text may not
    for body in ([b"a" * 10**6] * 40,):  # more than is even thrown away: the answer may be lost, the server is not
        with contextlib.suppress(ConnectionError):
            assert server.ask(body=body)[0] == 413


@pytest.mark.parametrize(("pieces", "read"), [(1, 1), (100, 100), (10**6, 168)])
def test_a_body_that_is_too_long_is_read_to_its_end_and_forgotten(pieces, read):
    """A client that is still sending would not see the answer; one that never ends is not listened to for ever."""
    came = 0

    async def chunks():
        nonlocal came
        for _ in range(pieces):
            came += 1
            yield b"a" * 10**5

    with pytest.raises(RefusedError, match="at most 65,536 bytes"):
        asyncio.run(read_body(chunks(), Limits()))
    assert came == read


def test_a_body_that_does_not_come_is_waited_for_in_vain(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
        head = (
            f"POST /api/restore HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.token}\r\n"
        )
        one.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert server.ask()[0] == 200  # others do not wait
        assert one.recv(1000).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
        one.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
        one.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert one.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_fifty_requests_at_once_are_served_or_refused(server):
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: server.ask(), range(50)))
    statuses = [status for status, _, _ in found]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= LIMITS.waiting
    server.live.calls.clear()
    slow = json.dumps({"text": "wait"}).encode()
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(server.ask, body=slow) for _ in range(50)]
        time.sleep(0.4)
        server.live.gate.set()
        found = [one.result() for one in waiting]
    statuses = [status for status, _, _ in found]
    assert set(statuses) == {200, 503}
    assert 1 <= statuses.count(200) <= LIMITS.waiting + 1
    busy = next(one for one in found if one[0] == 503)
    assert busy[1]["Retry-After"] == "1"
    assert "at most 4 requests may wait" in error_of(busy[2])


def test_a_slow_answer_is_given_up_and_the_next_one_comes(server):
    begun = time.monotonic()
    status, _, content = server.ask(body=b'{"text": "wait"}')
    assert (status, "at most 1 seconds" in error_of(content)) == (504, True)
    server.live.calls.clear()
    assert server.ask(body=b'{"text": "also #"}')[0] == 504  # it waits for the first, which is let finish
    assert time.monotonic() - begun < 10
    server.live.gate.set()
    assert server.ask()[0] == 200
    assert [call[1] for call in server.live.calls] == ["a-na #"]  # what was given up while it waited is not computed


def test_a_later_request_of_the_same_page_makes_the_older_void(server):
    server.live.calls.clear()
    with ThreadPoolExecutor(8) as pool:
        running = pool.submit(server.ask, body=b'{"text": "wait"}', Jaxsae_Page="other")
        time.sleep(0.2)
        older = [pool.submit(server.ask, body=b'{"text": "%d #"}' % i, Jaxsae_Page="one") for i in range(2)]
        parallels = pool.submit(server.ask, "/api/parallels", Jaxsae_Page="one")
        time.sleep(0.2)
        newest = pool.submit(server.ask, body=b'{"text": "newest #"}', Jaxsae_Page="one")
        statuses = [one.result()[0] for one in older]
        assert statuses == [409, 409]
        time.sleep(0.2)
        server.live.gate.set()
        assert [one.result()[0] for one in (running, parallels, newest)] == [200, 200, 200]
    texts = [call[1] for call in server.live.calls]
    assert sorted(texts) == ["a-na #", "newest #", "wait"]


@pytest.mark.parametrize("text", ["raise", "raise exit", "raise stop"])
def test_an_error_of_the_model_is_one_line_and_it_goes_on(server, text):
    server.errors.clear()
    status, found = server.json(text=text)
    kind = {"raise": "RuntimeError", "raise exit": "SystemExit", "raise stop": "StopIteration"}[text]
    assert status == 500
    assert kind in found["error"]
    assert "secret" not in found["error"]
    assert [type(error).__name__ for error in server.errors] == [kind]
    server.errors.clear()


def test_the_server_says_nothing_of_its_own(server, capfd):
    server.json(text="raise")
    server.errors.clear()
    server.ask(Host="evil.example")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
        one.sendall(b"\0\0\0\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
    time.sleep(0.2)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_port_that_is_taken_is_one_line(server):
    with pytest.raises(InputError, match=f"got {server.port}: Address already in use; give another, or 0"):
        run.listen(server.port)
    for port in (-1, 65536):
        with pytest.raises(InputError, match=r"in 0\.\.65535"):
            run.listen(port)
    assert server.listener.getsockname()[0] == "127.0.0.1"


# ---- the thread that computes


def test_the_worker_bounds_voids_and_stops():
    worker, gate = Worker(2), threading.Event()
    first = worker.submit(lambda: gate.wait(10))
    time.sleep(0.1)
    older = worker.submit(lambda: 1, "key")
    other = worker.submit(lambda: 2, "other")
    with pytest.raises(QueueFullError):
        worker.submit(lambda: 3)
    newer = worker.submit(lambda: 4, "key")  # in the place of the older
    with pytest.raises(SupersededError):
        older.result(1)
    assert other.cancel()  # who gave up makes room
    last = worker.submit(lambda: 5)
    gate.set()
    assert (first.result(5), newer.result(5), last.result(5)) == (True, 4, 5)
    done = []
    first = worker.submit(lambda: gate.wait(0.3) and None)
    given_up = worker.submit(lambda: done.append("given up"))
    assert given_up.cancel()
    worker.submit(lambda: done.append("waited for")).result(5)
    assert done == ["waited for"]
    gate.clear()
    running = worker.submit(lambda: gate.wait(0.5))
    time.sleep(0.1)
    waiting = worker.submit(lambda: 6)
    worker.stop(5)
    assert waiting.cancelled()
    assert running.result(0) is False
    with pytest.raises(QueueFullError):
        worker.submit(lambda: 7)


# ---- as a command


COMMAND = """
import sys
from fake_live import FakeLive
from jaxsae.cli import process
from jaxsae.cli.arguments import Parser
from jaxsae.serve import run

def main(args):
    run.serve(run.listen(0), "page", FakeLive({2: 60}), scripts=[], on_ready=lambda address: print(address, flush=True))

process.run(main, Parser("", prog="serve"))
"""


@pytest.mark.parametrize(("number", "status", "word"), [(2, 130, "interrupted\n"), (15, 143, "terminated\n")])
@pytest.mark.parametrize("busy", [False, True])
def test_a_signal_ends_it_without_a_word_more(number, status, word, busy):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "serve")])
    command = subprocess.Popen([sys.executable, "-c", COMMAND], env={**os.environ, "PYTHONPATH": path}, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    address = command.stdout.readline().strip()
    port, token = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(.*)", address).groups()
    held = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    if busy:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        held.request("POST", "/api/restore", b'{"text": "wait"}', headers)
        time.sleep(0.3)
    else:
        held.request("GET", f"/?token={token}")  # and the connection is kept open
        assert held.getresponse().read() == b"page"
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as garbage:
        garbage.sendall(b"\0\0\0\r\n\r\n")
        assert garbage.recv(1000).startswith(b"HTTP/1.1 400 ")
    begun = time.monotonic()
    command.send_signal(number)
    out, err = command.communicate(timeout=20)
    assert (command.returncode, out, err) == (status, "", word)
    assert time.monotonic() - begun < 8
    held.close()
