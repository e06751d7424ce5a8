"""The one error class for mistakes that a user can mend: the command line shows its message alone and exits with 1."""


class UserError(Exception):
    """Bad config or data. The message is one line: what is wrong, where (file, line or key), what would be right."""

    def __str__(self) -> str:
        return shown(super().__str__())


def shown(text: str) -> str:
    r"""A text for a terminal or log: control characters and what is no text are written out, as `\x1b`.

    Names of files and columns are chosen by strangers: escape sequences in them would reach the terminal.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
