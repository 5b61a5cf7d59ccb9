"""Bytes to frames: every line end, cut anywhere."""

import pytest

from service.client.sse import MAX_FRAME_BYTES, Comment, EventStream, Frame, FrameTooLong, Item, Retry


def read(*pieces: bytes) -> list[Item]:
    stream = EventStream()
    return [item for piece in pieces for item in stream.feed(piece)]


STREAM = b"\xef\xbb\xbfretry: 1000\nid: 1-1\ndata: {\xe2\x80\xa8}\n\n: hb\n:\n"
STREAM += b"id: 1-2\ndata:a\ndata: b\ndata\n\ndata: [DONE]\n\n"
ITEMS = [
    Retry(1000),
    Frame(b"1-1", b"{\xe2\x80\xa8}"),
    Comment(),
    Comment(),
    Frame(b"1-2", b"a\nb\n"),
    Frame(None, b"[DONE]"),
]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_a_stream_reads_the_same_however_its_lines_end_and_wherever_it_is_cut(end: bytes) -> None:
    stream = STREAM.replace(b"\n", end)
    assert read(stream) == ITEMS
    assert read(*(bytes([byte]) for byte in stream)) == ITEMS
    for cut in range(len(stream)):
        assert read(stream[:cut], stream[cut:]) == ITEMS
        assert read(stream[:cut], b"", stream[cut:]) == ITEMS


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_a_frame_is_given_out_with_its_last_byte_and_not_before(end: bytes) -> None:
    frame = b"id: 1-1" + end + b"data: x" + end + end
    assert read(frame) == [Frame(b"1-1", b"x")]
    whole = len(frame) - (1 if end == b"\r\n" else 0)  # the CR of the blank line says enough
    assert read(frame[: whole - 1]) == []


@pytest.mark.parametrize(
    "nothing",
    [b"\n\n\n", b"id: 1-1\n\n", b"event: x\n\n", b"retry: soon\n\n", b"retry: -1\n", b"foo\n\n", b" data: x\n\n"],
)
def test_what_says_nothing_is_passed_over(nothing: bytes) -> None:
    assert read(nothing) == []
    assert read(nothing + b"\ndata: x\n\n") == [Frame(None, b"x")]


def test_an_id_is_its_own_frame_s_and_none_with_a_nul() -> None:
    assert read(b"id: 1-1\n\ndata: x\n\n") == [Frame(None, b"x")]
    assert read(b"id: 1\x00\ndata: x\n\n") == [Frame(None, b"x")]
    assert read(b"id: 1-1\nid: 1-2\ndata: x\n\n") == [Frame(b"1-2", b"x")]


@pytest.mark.parametrize("line", [b"x", b"data: x\n", b"data\n"], ids=["a line", "many lines", "empty lines"])
def test_what_is_held_of_a_frame_is_bounded(line: bytes) -> None:
    longest = b"data: " + b"x" * (MAX_FRAME_BYTES - 6)
    assert len(read(longest + b"\n\n", longest + b"\n\n")) == 2
    with pytest.raises(FrameTooLong):
        read(*[line * 1024] * (3 * MAX_FRAME_BYTES // 1024))


def test_comments_without_end_are_not_held() -> None:
    lines = MAX_FRAME_BYTES // 256
    assert len(read(b":" + b"x" * 511 + b"\n" + b"retry\n", *[b":" + b"x" * 511 + b"\n"] * lines)) == lines + 1
