"""What a command says when it fails: one line, with the remedy where there is one."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend; the message says what and how, a line for each fault."""
