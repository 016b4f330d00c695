"""Who may ask: this machine's user, from the page that this server gave, who has the token of the printed address.

The server is reachable for every program of the machine and, through the user's browser, for every web page. `Host`
refuses names that a foreign page has had point here (DNS rebinding), `Origin` and `Sec-Fetch-Site` what another page
asks, the token everybody else. The token is no cookie: browsers send cookies to all ports of a machine, so that any
other local server would be given it.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("127.0.0.1", "localhost")
OPEN = "/favicon.ico"
"""What a browser asks for by itself, without a token; nothing is there."""


class Guard:
    """Refuses what is not the user's own, before anything of it is read; puts the headers on every answer."""

    def __init__(self, app: ASGIApp, *, port: int, token: str, policy: str) -> None:
        self.app, self.token = app, token
        ports = [f":{port}", ""] if port == 80 else [f":{port}"]  # a browser leaves out the usual one
        self.hosts = {host + end for host in LOCAL for end in ports}
        self.origins = {f"http://{host}" for host in self.hosts}
        self.headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",  # the page's address has the token in it
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        refused = self.refusal(scope)
        if refused is None:
            await self.app(scope, receive, with_headers)
        else:
            status, reason = refused
            more = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            await JSONResponse({"error": reason}, status, more)(scope, receive, with_headers)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason where a request is not the user's own; None: it is."""
        headers = Headers(scope=scope)
        if any(host not in self.hosts for host in headers.getlist("host") or [""]):
            return 403, f"Host must be one of {', '.join(sorted(self.hosts))}"
        if any(origin not in self.origins for origin in headers.getlist("origin")):
            return 403, "Origin must be that of this page"
        if any(site not in ("same-origin", "none") for site in headers.getlist("sec-fetch-site")):
            return 403, "Sec-Fetch-Site must be same-origin or none: open the address that jaxsae serve printed"
        if scope["path"] != OPEN and not self._has_token(scope, headers):
            return 401, "the token must be that of the address that jaxsae serve printed: open it as it stands there"
        return None

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        """In the address for the page, which a person opens; in a header for the rest, so that no other page can."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if scope["path"] == "/":
            tokens = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
            given = tokens[0] if len(tokens) == 1 else ""
        elif kind.lower() != "bearer":
            given = ""
        return secrets.compare_digest(given.encode(), self.token.encode())


def content_policy(scripts: Iterable[str]) -> str:
    """The content security policy of a page whose scripts are these and no others; nothing but this server is asked.

    Styles are not told apart: Observable Plot writes some into its charts.
    """
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    own = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {own}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
