"""Pure: from what git and the remote say to one clear error."""

from __future__ import annotations

import re
import signal
from enum import Enum
from typing import Final

from renderer.errors import ConfigurationError, Failure, Locked, NotPermitted, RemoteError
from renderer.gitrepo.address import redact

_MOST_LINES: Final = 12
_MOST_SIGNS: Final = 300
_NOISE: Final = re.compile(r"(hint|warning): |To |Everything up-to-date|\s*$")

_LOCK: Final = re.compile(r"'([^']+\.lock)': File exists")
_REFUSED: Final = re.compile(
    r"(?i)authentication failed|could not read (username|password)|terminal prompts disabled|permission denied"
    r"|returned error: (401|403)|access denied|not allowed to|invalid username or (password|token)"
    r"|invalid credentials|password authentication (was removed|is not supported)"
)
_UNTRUSTED: Final = re.compile(r"(?i)host key verification failed|certificate|remote host identification has changed")
_PROTOCOL: Final = re.compile(r"(?i)transport '[^']+' not allowed|unable to find remote helper|strange (host|path)name")


class Push(Enum):
    """How the remote answered a push of one branch."""

    DONE = "done"
    RACED = "someone else was first"
    REFUSED = "refused"
    FAILED = "failed"


# Which words in the brackets of `git push --porcelain` mean that the branch has moved since it was fetched.
_RACED: Final = re.compile(
    r"\[rejected\]|fetch first|non-fast-forward|stale info"
    r"|\[remote rejected\] \((failed to update ref|cannot lock ref|incorrect old value|reference already exists)"
)
_SICK_REMOTE: Final = re.compile(r"unpacker error|\[remote failure\]|Internal Server Error")


def push_result(code: int, porcelain: str) -> tuple[Push, str]:
    """Read `git push --porcelain`: the result, and the remote's reason in its own words or ""."""
    for line in porcelain.splitlines():
        flag, _, rest = line.partition("\t")
        if flag.strip() == "!" and rest:
            reason = rest.partition("\t")[2]
            if _RACED.search(reason):
                return Push.RACED, reason
            return (Push.FAILED if _SICK_REMOTE.search(reason) else Push.REFUSED), reason
    return (Push.FAILED if code else Push.DONE), ""


def protected(address: str, branch: str, reason: str, said: str) -> NotPermitted:
    """The remote took the connection and refused the branch: a hook, a protection, a branch that is checked out."""
    return NotPermitted(
        f"{address} refused the push to branch {branch}: {_plain(reason)}. Nothing was committed here either.",
        details=lines(said),
        hint="Push to a branch that this account may change with --branch, or have its protection changed.",
    )


def remote_failure(doing: str, address: str, said: str) -> Failure:
    """A remote could not be reached, or refused the account, in its own words."""
    details = lines(said)
    if _UNTRUSTED.search(said):
        return ConfigurationError(
            f"{address}: the remote could not be verified while {doing}.",
            details=details,
            hint="Put its key into known_hosts, or its certificate's authority where git finds it.",
        )
    if _REFUSED.search(said):
        return NotPermitted(
            f"{address} refused this account while {doing}.",
            details=details,
            hint="Give git credentials that may do this: a key for ssh, a credential helper or a token for https.",
        )
    if _PROTOCOL.search(said):
        return ConfigurationError(f"{address} speaks a protocol that is not allowed.", details=details)
    return RemoteError(
        f"{address} failed while {doing}.",
        details=details,
        hint="Check the URL, and that this machine reaches it; nothing was committed. Then run again.",
    )


def too_slow(doing: str, address: str, seconds: float) -> RemoteError:
    """The remote did not answer in time."""
    return RemoteError(f"{address} did not answer within {seconds:g} seconds while {doing}; git was stopped.")


def local_failure(doing: str, code: int, said: str) -> Failure:
    """Git failed on this machine."""
    lock = _LOCK.search(said)
    if lock:
        return locked(lock.group(1))
    if "dubious ownership" in said:
        return ConfigurationError(
            "The repository belongs to another user, and git does not trust it.",
            details=lines(said),
            hint="If you do, run `git config --global --add safe.directory DIRECTORY`.",
        )
    if re.search(r"(?i)no (email|name) was given|empty ident|tell me who you are|invalid ident", said):
        return no_author()
    if re.search(r"(?i)failed to sign|gpg\.|signing|secret key|no private key", said):
        return ConfigurationError(
            "The commit could not be signed, as git is configured to; nothing was committed.",
            details=lines(said),
            hint="Make the key usable without a question (user.signingKey, an agent), or set commit.gpgSign=false.",
        )
    details = lines(said)
    if code < 0:
        details.append(f"git was ended by signal {-code} ({signal.strsignal(-code)})")
    return ConfigurationError(f"git failed while {doing}; nothing was committed.", details=details)


def locked(path: str) -> Locked:
    """Another git holds a lock file, or one left it behind."""
    return Locked(
        f"Another git works on this repository: it holds {path}. Nothing was committed.",
        hint=f"Wait until it has ended. If none runs, one left it behind: remove {path}, then run again.",
    )


def no_author() -> ConfigurationError:
    """Nobody said whose commit it is."""
    return ConfigurationError(
        "A commit needs an author, and git knows none.",
        hint='Give --author "Name <mail>" (INSIGHTS_AUTHOR), or set user.name and user.email with '
        "`git config --global`.",
    )


def lines(said: str) -> list[str]:
    """The lines worth showing of what git or a remote said: no login of a URL, nothing that controls a terminal."""
    shown = [_plain(line) for line in said.splitlines() if not _NOISE.match(line)]
    shown = [line for line in shown if line and line != "remote:"]
    more = len(shown) - _MOST_LINES
    return shown[:_MOST_LINES] + ([f"… and {more} more lines"] if more > 0 else [])


def _plain(text: str) -> str:
    return "".join(sign for sign in redact(text)[:_MOST_SIGNS] if sign.isprintable()).strip()
