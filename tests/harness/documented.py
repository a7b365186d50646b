"""Commands that documents and alerts name, followed through the command tree."""

import click

from skewless.cli.main import main


def resolve(words: list[str]) -> None:
    """Follow the words of a `skewless …` line through the command tree. Fails at a word that is no command."""
    command: click.Command = main
    context = click.Context(main)
    for word in words:
        if not isinstance(command, click.Group) or word.startswith("-"):
            break
        found = command.get_command(context, word)
        assert found is not None, (
            f"`skewless {' '.join(words)}`: `{word}` is no command of {command.list_commands(context)}"
        )
        command = found
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in {*options, "--help"}]
    assert not unknown, f"`skewless {' '.join(words)}` has no {unknown}; it has {sorted(options)}"
