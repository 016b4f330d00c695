"""The server's application: the page, and three questions that the page asks about what is typed into it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from jaxsae.errors import InputError, one_line
from jaxsae.files import to_json
from jaxsae.serve import asked
from jaxsae.serve.asked import Limits, RefusedError
from jaxsae.serve.guard import Guard, content_policy
from jaxsae.serve.worker import FailedError, QueueFullError, SupersededError, Worker

Settings = Sequence[tuple[int, int, float]]
"""(layer, feature, value) of latents that are set to a value wherever they are active."""


class Live(Protocol):
    """What answers the page; its methods are called from one thread, one at a time, and give what `to_json` takes.

    They raise `InputError` for what a person can mend, which the page then shows.
    """

    def restore(self, text: str, settings: Settings, fill: bool) -> Mapping[str, Any]:
        """The broken places of a text with their candidates; with `fill`, what fits whole gaps as well."""
        ...

    def explain(
        self, text: str, position: int, candidate: str | None, against: str | None, settings: Settings
    ) -> Mapping[str, Any]:
        """Why a candidate, the best if None, is given at a position, rather than another, the next best if None."""
        ...

    def parallels(self, text: str, position: int | None) -> Mapping[str, Any]:
        """Passages that are like the text, or like the neighbourhood of a position in it."""
        ...


@dataclass(frozen=True)
class Question:
    """Something that the page may ask by POST."""

    known: Mapping[str, Callable[[Any], Any]]
    """Field -> its check, see `asked.fields`."""
    required: frozenset[str]
    work: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    """From the fields that were given to the answer."""


def questions(live: Live, limits: Limits) -> dict[str, Question]:
    """Path -> what is asked there."""
    text, settings, position = asked.text_of(limits), asked.settings_of(limits), asked.number("position")

    def restore(one: Mapping[str, Any]) -> Mapping[str, Any]:
        return live.restore(one["text"], one.get("settings", []), one.get("fill", False))

    def explain(one: Mapping[str, Any]) -> Mapping[str, Any]:
        between = one.get("candidate"), one.get("against")
        return live.explain(one["text"], one["position"], *between, one.get("settings", []))

    def parallels(one: Mapping[str, Any]) -> Mapping[str, Any]:
        return live.parallels(one["text"], one.get("position"))

    place = {"text": text, "position": position}
    between = {"candidate": asked.character, "against": asked.character}
    return {
        "/api/restore": Question(
            {"text": text, "settings": settings, "fill": asked.flag}, frozenset({"text"}), restore
        ),
        "/api/explain": Question(
            {**place, **between, "settings": settings}, frozenset({"text", "position"}), explain
        ),
        "/api/parallels": Question(place, frozenset({"text"}), parallels),
    }  # fmt: skip


def application(
    page: str,
    live: Live,
    worker: Worker,
    *,
    scripts: Sequence[str],
    port: int,
    token: str,
    limits: Limits | None = None,
    on_error: Callable[[BaseException], None] = lambda error: None,
) -> Starlette:
    """The application.

    Args:
      page: the page's HTML.
      live: what answers the page's questions.
      worker: where it computes; to be stopped by who made it.
      scripts: the content of the scripts in the page; the browser runs no others.
      port: where the server listens; requests must name it.
      token: what requests must have.
      on_error: called with an error of `live` that is no `InputError`, of which the client is told the kind alone.
    """
    bounds = limits or Limits()

    async def home(request: Request) -> Response:
        return HTMLResponse(page)

    async def nothing(request: Request) -> Response:
        return Response(status_code=204)

    def asks(question: Question) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            try:
                content = await answer(request, question, worker, bounds)
            except RefusedError as error:
                return refused(error)
            except FailedError as error:
                cause = error.__cause__ or error
                on_error(cause)
                kind = type(cause).__name__
                return refused(
                    RefusedError(500, f"the answer failed with {kind}; the terminal of the server says more")
                )
            return Response(content, media_type="application/json")

        return endpoint

    asking = [Route(path, asks(one), methods=["POST"]) for path, one in questions(live, bounds).items()]
    app = Starlette(
        routes=[Route("/", home), Route("/favicon.ico", nothing), *asking],
        middleware=[Middleware(Guard, port=port, token=token, policy=content_policy(scripts))],
        exception_handlers={HTTPException: no_such_address},
    )
    app.router.redirect_slashes = False
    return app


async def answer(request: Request, question: Question, worker: Worker, limits: Limits) -> str:
    """Read a question, have it computed and give the answer as JSON.

    Raises:
      RefusedError: the question is not as it must be, is void, or cannot be answered now.
      FailedError: the computation failed.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, "Content-Type must be application/json")
    try:
        given = asked.fields(await asked.read_body(request.stream(), limits), question.known, question.required)
        page = request.headers.get("jaxsae-page", "")[:64]
        # the answer becomes text where it is computed: the loop that serves is not to wait for it
        future = worker.submit(lambda: to_json(question.work(given)), (page, request.url.path) if page else None)
        async with asyncio.timeout(limits.seconds):
            content: str = await asyncio.wrap_future(future)
            return content
    except InputError as error:
        raise RefusedError(400, str(error)) from None
    except ClientDisconnect:
        raise RefusedError(400, "the client went away") from None  # which nobody reads
    except SupersededError:
        raise RefusedError(409, "a later request of this page has taken this one's place") from None
    except QueueFullError:
        reason = f"at most {limits.waiting} requests may wait, got one more; ask again"
        raise RefusedError(503, reason, again=1) from None
    except TimeoutError:
        reason = f"an answer must take at most {limits.seconds:g} seconds, and this one takes longer; ask for less"
        raise RefusedError(504, reason) from None


def refused(error: RefusedError) -> Response:
    """The answer to a request that gets none."""
    headers = {} if error.again is None else {"Retry-After": str(error.again)}
    return JSONResponse({"error": one_line(str(error)).strip()}, error.status, headers)


async def no_such_address(request: Request, error: Exception) -> Response:
    """The answer where nothing is, or where another method is wanted."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        return JSONResponse({"error": "this address takes another method"}, 405, error.headers)
    return refused(RefusedError(404, "there is nothing at this address"))
