"""Waits for the answer of a server."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict

from yarrow import Context, Fail, NotYet, Sensor, YarrowError, param
from yarrow.jsontypes import Json
from yarrow.operator import ArgumentPath
from yarrow_operators.http import Http


class WaitForHttp(Sensor):
    """Waits until a server answers with a success, and with a certain value in its JSON body where one is asked for.

    Not there yet is: a server that can't be reached or does not answer in time, a status of `not_yet`, and another
    value. Any other status fails at once: a wrong address or login does not mend itself.
    """

    url: str | None = param(default=None, doc="The whole URL. Either this or `conn_id`.", pattern=r"https?://.+")
    conn_id: str | None = param(default=None, doc="The connection, whose URI is `https://login:password@host/path`.")
    path: str = param(default="", doc="What follows the connection's URI.", examples=("/v1/jobs/{{ ds }}",))
    method: Literal["GET", "HEAD"] = param(default="GET", doc="The method.")
    headers: dict[str, str] = param(default={}, doc="Request headers.")
    params: dict[str, Json] = param(default={}, doc="What follows the `?`.")
    ok_status: list[int] = param(default=[], doc="The statuses that are a success. By default 200 to 299.")
    not_yet: list[int] = param(
        default=[404, 408, 409, 425, 429, 500, 502, 503, 504], doc="The statuses that mean: not there yet."
    )
    field: str | None = param(
        default=None,
        doc="The way to a value in the JSON body: keys and list indexes with dots between them. By itself: it is there "
        "when the value is true, a number but 0, or not empty.",
        examples=("job.state", "items.0.ready"),
    )
    equals: Json = param(default=None, doc="What `field` must be; of a list, one of its items.", examples=("done",))
    request_timeout: float = param(default=30.0, minimum=0.1, maximum=600, doc="Seconds to wait for an answer.")

    class Outputs(TypedDict):
        status: int
        body: Json

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """An address too many or none, and a value that nothing is compared with."""
        yield from super().check(arguments, downstream)
        yield from Http.check({**arguments, "json": None, "data": None}, downstream)
        if arguments.get("equals") is not None and arguments.get("field") is None:
            yield ("equals",), "`equals` is compared with the value of `field`, which is not given."
        if arguments.get("field") is not None and arguments.get("method") == "HEAD":
            yield ("field",), "The answer to HEAD has no body; leave `method` out."

    def poke(self, context: Context) -> Outputs | NotYet:
        for _, problem in self.check(vars(self), ()):
            raise Fail(problem)
        request = Http(
            url=self.url,
            conn_id=self.conn_id,
            path=self.path,
            method=self.method,
            headers=self.headers,
            params=self.params,
            ok_status=self.ok_status,
            retry_on=self.not_yet,
            response_type="json" if self.field is not None else "text",
            timeout=self.request_timeout,
        )
        try:
            answer = request.request(context, logging.DEBUG)
        except Fail:
            raise
        except YarrowError as error:
            return NotYet(error.message)
        if self.field is not None:
            found, value = _value_at(answer["body"], self.field)
            if not found:
                return NotYet(f"The answer has no `{self.field}`.")
            if not self._wanted(value):
                return NotYet(f"`{self.field}` is {value!r:.100}.")
        return {"status": answer["status"], "body": answer["body"]}

    def _wanted(self, value: Json) -> bool:
        if self.equals is None:
            return bool(value)
        wanted = self.equals if isinstance(self.equals, list) else [self.equals]
        return any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in wanted)


def _value_at(body: Json, path: str) -> tuple[bool, Json]:
    """Whether there is a value at the end of the way, and which."""
    value = body
    for step in path.split("."):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return False, None
    return True, value
