"""Why a command failed, from its output: the stage's own words instead of DVC's exit code, which is always 255."""

import re
import signal

TRACEBACK = "Traceback (most recent call last):"
STAGE_EXIT = re.compile(r"failed to run: .*, exited with (-?\d+)$")
DVC_ERROR = re.compile(r"^ERROR: (.+)$")
FILES_FAILED = re.compile(r"files failed to (?:up|down)load$")
NOT_TRANSFERRED = re.compile(r"^ERROR: failed to (?:transfer '.+?'|connect to .+?) - (.+)$")
USER_ERROR = re.compile(r"^error: (.+)$")
BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")


class CommandError(Exception):
    """A command or stage failed; the message is the reason, in its own words."""


class BusyError(CommandError):
    """Another DVC process works on the same files; it heals by itself."""


def failure_of(lines: list[str], code: int) -> CommandError:
    """Turn the last lines and the exit code of a failed command into the failure to raise."""
    if any(words in line for line in lines for words in BUSY):
        return BusyError(_last(lines, DVC_ERROR) or "the workspace is busy")
    return CommandError(reason(lines, code))


def reason(lines: list[str], code: int) -> str:
    """The reason, best source first: a signal, an `error:` line, the last traceback, DVC's own error, the exit code."""
    stage_code = next((int(match[1]) for line in reversed(lines) if (match := STAGE_EXIT.search(line))), None)
    number = _signal(stage_code if stage_code is not None else code)
    if number is not None:
        hint = "; out of memory, or killed by somebody" if number == signal.SIGKILL else ""
        return f"killed by signal {number} ({signal.Signals(number).name}){hint}"
    told = _last(lines, USER_ERROR) or _exception(lines)
    if told:
        return told
    if stage_code is not None:
        return f"exit code {stage_code}"
    return _dvc_error(lines) or f"exit code {code}"


def not_transferred(lines: list[str]) -> str | None:
    """Why a file did not go to or come from the DVC remote; DVC goes on without it where it can."""
    return _last(lines, NOT_TRANSFERRED)


def _dvc_error(lines: list[str]) -> str | None:
    """What DVC says last; where that is how many files failed, with why."""
    error, cause = _last(lines, DVC_ERROR), not_transferred(lines)
    return f"{error}: {cause}" if error and cause and FILES_FAILED.search(error) else error


def _signal(code: int) -> int | None:
    """The signal in an exit code, as Python (-9) or a shell (137) writes it."""
    number = -code if code < 0 else code - 128
    return number if number in set(signal.Signals) else None


def _exception(lines: list[str]) -> str | None:
    """The line that names the exception under the last traceback."""
    if TRACEBACK not in lines:
        return None
    start = len(lines) - lines[::-1].index(TRACEBACK)
    return next((line for line in lines[start:] if line.strip() and not line[0].isspace()), None)


def _last(lines: list[str], pattern: re.Pattern[str]) -> str | None:
    return next((match[1] for line in reversed(lines) if (match := pattern.match(line))), None)
