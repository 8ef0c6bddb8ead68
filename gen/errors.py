"""How a command fails: one line on stderr, and an exit status that says whose fault it is."""

import sys
from typing import IO, Any

import click


class UserError(click.ClickException):
    """A wrong request: unknown name, malformed or impossible value, file trouble."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error as one line."""
        click.echo(f"error: {' '.join(self.format_message().split())}", file=file or sys.stderr)


class CheckFailed(UserError):
    """The request was right, and what was checked is not."""

    exit_code = 1


class Command(click.Command):
    """A command whose wrong options are a `UserError` as well: one line, no usage text."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options, or raise `UserError`."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as wrong:
            raise UserError(wrong.format_message()) from wrong


class Group(Command, click.Group):
    """A `Command` that has others below it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for, or raise `UserError`."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as wrong:
            raise UserError(wrong.format_message()) from wrong
