"""`glm4v completion`."""

import argparse
from collections.abc import Mapping
from typing import Any

# Arguments that are files.
FILES = {
    *("media", "api_key_file", "log_path", "model"),
    *("inputs", "output", "schema", "password_file", "cache"),
}
SHELLS: Mapping[str, str] = {
    "bash": "glm4v completion bash > ~/.local/share/bash-completion/completions/glm4v",
    "zsh": 'glm4v completion zsh > "${fpath[1]}/_glm4v"',
    "fish": "glm4v completion fish > ~/.config/fish/completions/glm4v.fish",
}


def _add_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=list(SHELLS))
    parser.epilog = "\n".join(f"{shell:<6}{how}" for shell, how in SHELLS.items())


def _completion(args: argparse.Namespace) -> int:
    import shtab  # noqa: PLC0415

    print(shtab.complete(whole_parser(shtab.FILE), shell=args.shell))
    return 0


def whole_parser(file: Any) -> argparse.ArgumentParser:
    """The parser of the command line with all its commands.

    Args:
        file: What marks arguments that are files.
    """
    from langchain_glm4v import cli  # noqa: PLC0415

    root = cli.root_parser()
    for name, command in cli.COMMANDS.items():
        parser = root.commands.add_parser(name, help=command.summary)
        cli.implementation(name)[0](parser)
        for action in parser._actions:
            if action.dest in FILES:
                action.complete = file  # type: ignore[attr-defined]  # shtab looks for it
    return root


COMMANDS: Mapping[str, Any] = {"completion": (_add_completion, _completion)}
