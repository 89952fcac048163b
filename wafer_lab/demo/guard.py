"""Which requests are answered at all: a web page elsewhere can make any browser ask a server on the same machine."""

import ipaddress
import re

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
_PORT = re.compile(r":\d*$")


class Guard:
    """ASGI middleware that refuses what other web sites make a browser ask.

    - 400 where the server listens on a loopback address and is asked under another name: a site whose name is made to
      point to this machine (DNS rebinding) would read the answers otherwise.
    - 403 where a page of another origin asks: browsers let any page send a form with a file to any server.

    Where the server listens on another address, the names it has in its network are not known and all are answered.
    """

    def __init__(self, app: ASGIApp, address: str) -> None:
        """Guard an application.

        Args:
            app: What answers the other requests.
            address: The IP address that the server listens on.
        """
        self._app = app
        # The address itself may be another one than the usual: 127.0.0.2 is a loopback address, too.
        own = f"[{address}]" if ":" in address else address
        self._names = _LOOPBACK | {own} if ipaddress.ip_address(address).is_loopback else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; as ASGI has it."""
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] in ("http", "websocket") else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> PlainTextResponse | None:
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        # Starlette's TrustedHostMiddleware does it, too, but older versions cut [::1] at its first colon.
        if self._names is not None and _PORT.sub("", host) not in self._names:
            return PlainTextResponse(f"Ask for one of {', '.join(sorted(self._names))}.\n", 400)
        # An origin that hides, "null", has no place and is another one.
        if origin is not None and origin.lower().partition("://")[2] != host:
            return PlainTextResponse("Pages of other web sites are not answered.\n", 403)
        return None
