"""The one error class for mistakes that a user can mend: the command line shows its message alone and exits with 1."""

from ntulm.printable import printable


class UserError(Exception):
    """Bad config or data. The message is one line: what is wrong, where (file, line or key), what would be right."""

    def __str__(self) -> str:
        return printable(super().__str__())
