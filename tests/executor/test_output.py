"""The framing of what tasks print."""

from __future__ import annotations

import os
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from yarrow_executor.output import LINE_LIMIT, Frame, FrameWriter, Pipes, Splitter, readable

KEY = b"0123456789abcdef"


def frames_and_lines(data: bytes, chunk: int) -> list[Frame | bytes]:
    splitter = Splitter(KEY)
    found = [piece for at in range(0, len(data), chunk) for piece in splitter.feed(data[at : at + chunk])]
    return [*found, *splitter.flush()]


def written(*messages: tuple[str, Mapping[str, object]]) -> bytes:
    reader, writer = os.pipe()
    frames = FrameWriter(writer, KEY)
    for kind, payload in messages:
        frames.write(kind, payload)  # type: ignore[arg-type]  # any kind will do
    os.close(writer)
    with open(reader, "rb") as file:
        return file.read()


@given(chunk=st.integers(1, 4000))
def test_lines_and_frames_come_apart_whatever_the_chunks_are(chunk: int) -> None:
    long = {"text": "ü" * 5000}  # a frame of several parts
    data = (
        b"before\n" + written(("begin", {"attempt_id": "a"})) + b"one\n\nno line end" + written(("log", long)) + b"tail"
    )
    assert frames_and_lines(data, chunk) == [
        b"before",
        Frame("begin", {"attempt_id": "a"}),
        b"one",
        b"",
        b"no line end",
        Frame("log", long),
        b"tail",
    ]


def test_flushing_at_a_frame_leaves_what_comes_after_it() -> None:
    begin, end = written(("begin", {"attempt_id": "b"})), written(("end", {}))
    splitter = Splitter(KEY)
    owners: list[tuple[str, bytes]] = []
    owner = "a"
    for piece in splitter.feed(b"of a" + end + begin + b"of b, whole\nof b, "):
        if isinstance(piece, Frame):
            owners += [(owner, rest) for rest in splitter.flush()]
            owner = str(piece.payload.get("attempt_id", ""))
        else:
            owners.append((owner, piece))
    owners += [(owner, piece) for piece in splitter.feed(b"in two parts\n") if isinstance(piece, bytes)]
    assert owners == [("a", b"of a"), ("b", b"of b, whole"), ("b", b"of b, in two parts")]


def test_output_that_looks_like_a_frame_is_output() -> None:
    for text in (b"\x1e", b'\x1e{"kind":"end"}', b"\x1e" + b"f" * 16 + b'.{"kind":"end"}'):
        assert frames_and_lines(text + b"\n", 7) == [text]


def test_a_torn_frame_is_dropped() -> None:
    frame = written(("log", {"text": "x" * 100}))
    assert frames_and_lines(frame[:50] + b"\nnext\n", 1000) == [b"next"]
    assert frames_and_lines(frame[:50], 1000) == []


def test_a_line_without_an_end_does_not_pile_up() -> None:
    splitter = Splitter(KEY)
    pieces = [piece for _ in range(100) for piece in splitter.feed(b"x" * 10_000)]
    assert all(isinstance(piece, bytes) and len(piece) <= LINE_LIMIT for piece in pieces)
    assert sum(len(piece) for piece in pieces if isinstance(piece, bytes)) >= 1_000_000 - LINE_LIMIT


def test_lines_are_made_readable() -> None:
    assert readable(b"caf\xc3\xa9\r") == "café"
    assert readable(b"\xff\x00") == "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    assert readable(b" 10%\r 50%\r100%\r") == "100%"
    assert readable(b"\r") == ""


def test_a_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    FrameWriter(writer, KEY).write("end", {})
    os.close(writer)


def test_a_worker_has_two_pipes_for_each_slot() -> None:
    pipes = Pipes.make(2)
    out, err = pipes.of(1)
    os.write(out.writer, b"out")
    os.write(err.writer, b"err")
    assert (os.read(out.reader, 10), os.read(err.reader, 10)) == (b"out", b"err")
    pipes.close_writers(but=1)
    assert os.write(out.writer, b"open")
    os.close(out.writer)
    os.close(err.writer)
    pipes.close_readers()
