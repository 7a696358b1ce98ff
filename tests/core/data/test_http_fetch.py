"""A file comes over a bad network: whatever happens on the way, the bytes at the end are the file's, or it is said."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovseg_cli.core.data import http_fetch, http_open
from ovseg_cli.core.data.http_fetch import WAITS, Wanted, fetch
from ovseg_cli.core.data.http_part import Notes, Part
from ovseg_cli.core.errors import MachineError
from ovseg_cli.core.reporter import Silent
from tests.core.data.flaky_server import Answer, FlakyServer, flaky_server

BODY = bytes(range(256)) * 40  # 10 240 bytes


class Heard(Silent):
    """Keeps what is said, and for how long somebody waited."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.waits: list[float] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyServer]:
    monkeypatch.setenv("no_proxy", "*")
    with flaky_server() as running:
        running.files["/a.zip"] = BODY
        yield running


def get(server: FlakyServer, folder: Path, heard: Heard | None = None, path: str = "/a.zip", **more: object) -> bytes:
    heard = heard or Heard()
    wanted = Wanted(server.url + path, folder / "a.zip", "MEND", **more)  # type: ignore[arg-type]
    fetch(wanted, heard, heard.waits.append)
    return Part(wanted.target).path.read_bytes()


def test_file_is_fetched_in_one(server: FlakyServer, tmp_path: Path) -> None:
    assert get(server, tmp_path) == BODY
    assert server.asked == [None]


def test_cut_connection_is_gone_on_with_where_it_ended(server: FlakyServer, tmp_path: Path) -> None:
    server.answers, heard = [Answer(cut=1000)], Heard()
    assert get(server, tmp_path, heard) == BODY
    assert server.log == [("/a.zip", None, None), ("/a.zip", "bytes=1000-", '"one"')]
    assert heard.waits == [WAITS[0]] and "the connection was cut at 0.0 MB; trying again in 1 s" in heard.said[0]


def test_part_of_an_earlier_run_is_gone_on_with(server: FlakyServer, tmp_path: Path) -> None:
    server.answers = [Answer(cut=4000), *[Answer(status=503)] * 9]
    with pytest.raises(MachineError, match=r"503 \(Service Unavailable\), 5 times in a row") as caught:
        get(server, tmp_path)
    assert caught.value.exit_code == 4 and "0.0 MB are kept" in str(caught.value)
    assert Part(tmp_path / "a.zip").path.read_bytes() == BODY[:4000]
    server.answers, server.log = [], []
    assert get(server, tmp_path) == BODY and server.asked == ["bytes=4000-"]


def test_server_without_ranges_begins_anew(server: FlakyServer, tmp_path: Path) -> None:
    server.ranges, server.answers, heard = False, [Answer(cut=5000)], Heard()
    assert get(server, tmp_path, heard) == BODY
    assert any("begins anew" in said for said in heard.said)


@pytest.mark.parametrize("tag", ['"two"', None])
def test_file_that_changed_meanwhile_begins_anew(server: FlakyServer, tmp_path: Path, tag: str | None) -> None:
    server.answers = [Answer(cut=5000), *[Answer(status=500)] * 5]
    with pytest.raises(MachineError):
        get(server, tmp_path)
    other = BODY[::-1] + b"more"
    server.files["/a.zip"], server.tag, server.answers = other, tag, []
    assert get(server, tmp_path) == other


def test_version_is_not_believed_where_sizes_differ(server: FlakyServer, tmp_path: Path) -> None:
    server.tag, server.answers = None, [Answer(cut=5000), *[Answer(status=500)] * 5]
    with pytest.raises(MachineError):
        get(server, tmp_path)
    server.files["/a.zip"], server.answers = BODY[::-1] + b"more", []
    assert get(server, tmp_path) == BODY[::-1] + b"more"


def test_range_that_is_not_the_one_asked_for_is_not_appended(server: FlakyServer, tmp_path: Path) -> None:
    server.answers = [Answer(cut=100), Answer(shift=7)]
    assert get(server, tmp_path) == BODY


def test_complete_part_needs_no_more_bytes(server: FlakyServer, tmp_path: Path) -> None:
    get(server, tmp_path)
    server.log.clear()
    assert get(server, tmp_path) == BODY and server.log == []


def test_complete_part_of_unknown_size_is_confirmed(server: FlakyServer, tmp_path: Path) -> None:
    part = Part(tmp_path / "a.zip")
    part.begin(Notes(f"{server.url}/a.zip", '"one"', None))
    part.path.write_bytes(BODY)
    assert get(server, tmp_path) == BODY and server.asked == [f"bytes={len(BODY)}-"]


def test_part_from_another_address_is_kept_only_with_a_checksum(server: FlakyServer, tmp_path: Path) -> None:
    server.files["/mirror/a.zip"] = BODY
    for is_checked, asked in ((True, "bytes=300-"), (False, None)):
        part = Part(tmp_path / "a.zip")
        part.begin(Notes(f"{server.url}/a.zip", '"one"', len(BODY)))
        part.path.write_bytes(BODY[:300])
        server.log.clear()
        assert get(server, tmp_path, path="/mirror/a.zip", is_checked=is_checked) == BODY
        assert server.log == [("/mirror/a.zip", asked, None)]


def test_part_without_notes_begins_anew(server: FlakyServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"something else")
    assert get(server, tmp_path) == BODY and server.asked == [None]


def test_part_longer_than_the_file_begins_anew(server: FlakyServer, tmp_path: Path) -> None:
    part = Part(tmp_path / "a.zip")
    part.begin(Notes(f"{server.url}/a.zip", None, len(BODY)))
    part.path.write_bytes(BODY + b"?")
    assert get(server, tmp_path) == BODY and server.asked == [None]


def test_progress_counts_megabytes_and_ends_at_the_last(server: FlakyServer, tmp_path: Path) -> None:
    class Counting(Heard):
        def track(self, items, what, total=None):  # type: ignore[no-untyped-def]
            count = 0
            for item in items:
                count += 1
                yield item
            self.said.append(f"{what}: {count} of {total}")

    server.files["/a.zip"] = body = os.urandom(3_400_000)
    server.answers, heard = [Answer(cut=1_200_000)], Counting()
    assert get(server, tmp_path, heard) == body
    assert heard.said[-1] == "fetch a.zip (MB from 1): 3 of 3"


def test_answer_without_length_is_taken_and_its_cut_noticed(server: FlakyServer, tmp_path: Path) -> None:
    server.answers = [Answer(chunked=True, cut=700), Answer(chunked=True)]
    assert get(server, tmp_path) == BODY


def test_length_that_is_too_long_ends_in_a_sentence(server: FlakyServer, tmp_path: Path) -> None:
    server.answers = [Answer(lie=50)] * 20
    with pytest.raises(MachineError, match="times in a row"):
        get(server, tmp_path)


@pytest.mark.parametrize("size", [len(BODY) + 1, len(BODY) - 1])
def test_other_size_than_published_is_refused(server: FlakyServer, tmp_path: Path, size: int) -> None:
    with pytest.raises(MachineError, match=f"the server offers 10,240 bytes, the file of this data set has {size:,}"):
        get(server, tmp_path, size=size)
    assert not (tmp_path / "a.zip.part").exists()


def test_more_bytes_than_published_are_refused_without_a_length(server: FlakyServer, tmp_path: Path) -> None:
    server.answers = [Answer(chunked=True)]
    with pytest.raises(MachineError, match="more than the 100 bytes"):
        get(server, tmp_path, size=100)
    assert not (tmp_path / "a.zip.part").exists()


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/zip"])
def test_web_page_instead_of_the_file_is_recognised(server: FlakyServer, tmp_path: Path, kind: str) -> None:
    server.answers = [Answer(page=kind)]
    with pytest.raises(MachineError, match=r"a web page instead of a\.zip.*log in") as caught:
        get(server, tmp_path)
    assert caught.value.mend == "MEND" and len(server.log) == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "no such file"), (410, "no such file"), (401, "wants a login"), (403, "refuses"), (451, "answers 451")],
)
def test_final_answers_are_not_asked_for_again(server: FlakyServer, tmp_path: Path, status: int, said: str) -> None:
    server.answers = [Answer(status=status)]
    with pytest.raises(MachineError, match=said) as caught:
        get(server, tmp_path)
    assert caught.value.exit_code == 4 and len(server.log) == 1 and server.url in str(caught.value)


def test_waiting_grows_and_the_server_may_name_it(server: FlakyServer, tmp_path: Path) -> None:
    busy = Answer(status=429, headers={"Retry-After": "7"})
    server.answers, heard = [Answer(status=500), busy, Answer(status=503)], Heard()
    assert get(server, tmp_path, heard) == BODY
    assert heard.waits == [WAITS[0], 7.0, WAITS[2]]


@pytest.mark.parametrize("text", ["soon", "Wed, 21 Oct 2015 07:28:00 GMT", "999999", ""])
def test_wait_that_a_server_names_is_bounded(text: str) -> None:
    wait = http_open._wait_of(text)
    assert wait is None or 0 <= wait <= 60


def test_redirect_is_followed(server: FlakyServer, tmp_path: Path) -> None:
    server.answers = [Answer(status=302, headers={"Location": "/b/a.zip"})]
    server.files["/b/a.zip"] = b"elsewhere"
    assert get(server, tmp_path) == b"elsewhere"


def test_endless_redirects_end(server: FlakyServer, tmp_path: Path) -> None:
    server.answers = [Answer(status=302, headers={"Location": f"/{i}"}) for i in range(30)]
    with pytest.raises(MachineError, match="more than 5 redirects"):
        get(server, tmp_path)
    assert len(server.log) <= 7


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://example.org/a.zip"])
def test_redirect_to_another_scheme_is_refused(server: FlakyServer, tmp_path: Path, address: str) -> None:
    server.answers = [Answer(status=301, headers={"Location": address})]
    with pytest.raises(MachineError, match=r"ftp|file"):
        get(server, tmp_path)
    assert not (tmp_path / "a.zip.part").exists()


def test_server_that_is_not_there_ends_soon(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"
    heard = Heard()
    with pytest.raises(MachineError, match=r"cannot be reached .*3 times in a row"):
        fetch(Wanted(address, tmp_path / "a.zip", "MEND"), heard, heard.waits.append)
    assert len(heard.waits) == 2


def test_silent_server_counts_as_cut(server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = http_open.open_address
    monkeypatch.setattr(http_fetch, "open_address", lambda a, h, m: real(a, h, m, timeout=0.2))
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        dead.listen()
        silent = Wanted(f"http://127.0.0.1:{dead.getsockname()[1]}/a.zip", tmp_path / "a.zip", "MEND")
        with pytest.raises(MachineError, match="no answer in time"):
            fetch(silent, Heard(), lambda _: None)


def test_interrupt_keeps_the_part_and_says_so(server: FlakyServer, tmp_path: Path) -> None:
    def press(_: float) -> None:
        raise KeyboardInterrupt

    server.answers = [Answer(cut=2000)]
    with pytest.raises(KeyboardInterrupt) as caught:
        fetch(Wanted(f"{server.url}/a.zip", tmp_path / "a.zip", "MEND"), Heard(), press)
    assert "are kept in" in caught.value.__notes__[0] and (tmp_path / "a.zip.part").stat().st_size == 2000


def test_full_disk_is_said_before_the_first_byte(
    server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovseg_cli.core.data.upkeep.free_bytes", lambda _: 5000)
    with pytest.raises(MachineError, match=r"fetching a\.zip needs about"):
        get(server, tmp_path)


def test_full_disk_under_way_is_said(server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, stream: object) -> None:
            self.stream = stream

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()  # type: ignore[attr-defined]

        def seek(self, _: int) -> None:
            return None

        def write(self, _: bytes) -> None:
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(http_fetch, "open", lambda *a: Full(open(*a)), raising=False)
    with pytest.raises(MachineError, match="the disk is full"):
        get(server, tmp_path)


ANSWERS = st.one_of(
    st.builds(Answer, cut=st.integers(0, len(BODY))),
    st.builds(Answer, cut=st.integers(0, len(BODY)), chunked=st.just(True)),
    st.builds(Answer, status=st.sampled_from([500, 503, 429, 416])),
    st.builds(Answer, shift=st.integers(-3, 3), cut=st.integers(0, len(BODY))),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(ANSWERS, max_size=6), ranges=st.booleans(), tag=st.sampled_from([None, '"one"', 'W/"one"']))
def test_any_failures_end_in_the_same_bytes(
    server: FlakyServer, tmp_path_factory: pytest.TempPathFactory, answers: list[Answer], ranges: bool, tag: str | None
) -> None:
    server.answers, server.ranges, server.tag = list(answers), ranges, tag
    folder = tmp_path_factory.mktemp("any")
    for _ in range(len(answers) + 1):  # whoever gives up is started again
        try:
            assert get(server, folder) == BODY
            return
        except MachineError:
            continue
    raise AssertionError("it never ended")
