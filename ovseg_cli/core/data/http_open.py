"""How an address is opened, and what is said where that fails. Only http and https, few redirects, no other scheme.

Failures are of two kinds: `Dropped` may go away by itself and is tried again, a MachineError does not.
"""

import http.client
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from email.utils import parsedate_to_datetime
from typing import Any

from ovseg_cli import __version__
from ovseg_cli.core.errors import MachineError

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as lost."""
MAX_REDIRECTS = 5

_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT = 60.0
_TRIES_TO_REACH = 3


class Dropped(Exception):
    """A failure that may go away by itself.

    Args:
        why: What happened, as a part of a sentence.
        wait: Seconds that the server asks to wait; None: it does not say.
        tries: How often it is worth trying without getting on; None: as often as usual.
    """

    def __init__(self, why: str, wait: float | None = None, tries: int | None = None):
        super().__init__(why)
        self.why, self.wait, self.tries = why, wait, tries


class RangeRefused(Exception):
    """The server has nothing from that byte on (416).

    Args:
        total: Bytes of the whole file as the server says; None: it does not say.
    """

    def __init__(self, total: int | None):
        super().__init__()
        self.total = total


def open_address(address: str, headers: dict[str, str], mend: str, timeout: float = TIMEOUT) -> Any:
    """Open an address.

    Args:
        address: http or https.
        headers: Of the request, besides our own.
        mend: What a user can do where the server refuses for good.
        timeout: Seconds without an answer.

    Returns:
        The response (`http.client.HTTPResponse`), 200 or 206.

    Raises:
        Dropped: The network or the server fails in a way that may pass.
        RangeRefused: See there.
        MachineError: It fails for good.
    """
    own = {"User-Agent": f"ovseg/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address, headers={**own, **headers})
    try:
        response = _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error, address, mend) from error
    except urllib.error.URLError as error:
        raise _unreachable(error.reason, address, mend) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(error, address, mend) from error
    if response.status not in (200, 206):
        response.close()
        raise MachineError(f"{address}: the server answers {response.status}, which is no file.", mend)
    return response


def describe(error: BaseException | str) -> str:
    """Say what failed, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected | ConnectionResetError):
        return "the connection was cut"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__


def _refusal(error: urllib.error.HTTPError, address: str, mend: str) -> Exception:
    """What an answer of 300 and above means."""
    code = error.code
    if code == 416:
        total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        return RangeRefused(int(total) if total.isdigit() else None)
    if code in _PASSING:
        return Dropped(f"the server answers {code} ({error.reason})", _wait_of(error.headers.get("Retry-After")))
    if code in (401, 403, 407):
        return MachineError(f"{address}: the server wants a login or refuses ({code} {error.reason}).", mend)
    if code in (404, 410):
        return MachineError(f"{address}: there is no such file on the server ({code} {error.reason}).", mend)
    if 300 <= code < 400:
        return MachineError(f"{address}: {error.reason or 'redirected to nowhere'} ({code}).", mend)
    return MachineError(f"{address}: the server answers {code} ({error.reason}).", mend)


def _unreachable(reason: BaseException | str, address: str, mend: str) -> Exception:
    host = urllib.parse.urlsplit(address).netloc
    if isinstance(reason, ssl.SSLCertVerificationError):
        return MachineError(f"{address}: the certificate of {host} is not accepted ({reason.verify_message}).", mend)
    what = "its name is not known here; is there a network?" if isinstance(reason, socket.gaierror) else ""
    return Dropped(f"{host} cannot be reached ({what or describe(reason)})", tries=_TRIES_TO_REACH)


def _wait_of(text: str | None) -> float | None:
    """Seconds of a Retry-After: a number, or a date; bounded."""
    if not text:
        return None
    try:
        if text.strip().isdigit():
            return min(float(text), _LONGEST_WAIT)
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    from datetime import UTC, datetime

    left = (moment - datetime.now(UTC)).total_seconds() if moment.tzinfo else 0.0
    return min(max(left, 0.0), _LONGEST_WAIT)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows few redirects, to http or https only, and never from https to http."""

    max_redirections = MAX_REDIRECTS
    max_repeats = 2
    inf_msg = f"more than {MAX_REDIRECTS} redirects, or a circle of them: "

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        new, old = urllib.parse.urlsplit(newurl), urllib.parse.urlsplit(req.full_url)
        if new.scheme not in ("http", "https"):
            raise urllib.error.HTTPError(req.full_url, code, f"redirected to {new.scheme}:, refused", headers, fp)
        if (old.scheme, new.scheme) == ("https", "http"):
            raise urllib.error.HTTPError(req.full_url, code, "redirected from https to http, refused", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Know http and https and nothing else: no files, no ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
