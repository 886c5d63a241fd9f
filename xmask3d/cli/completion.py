"""Print a completion script for a shell, made from the parsers of all commands.

bash: eval "$(xmask3d completion bash)" in ~/.bashrc; zsh: the same with zsh in ~/.zshrc, after compinit;
fish: xmask3d completion fish > ~/.config/fish/completions/xmask3d.fish
"""

import argparse
from argparse import ArgumentParser, Namespace

from xmask3d.cli.registry import COMMANDS, make_parser

BASH = """_xmask3d() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W "{commands} --help --version" -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}}:$before in
{choices}
    esac
    if [ -z "$words" ]; then
        case $word in
            -*) case ${{COMP_WORDS[1]}} in
{options}
            esac ;;
        esac
    fi
    [ -z "$words" ] || COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _xmask3d xmask3d
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d completion`."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="shell to complete in")


def run(options: Namespace) -> int:
    """Print the script."""
    print(fish() if options.shell == "fish" else bash(options.shell), end="")
    return 0


def options_of(command: str) -> list[argparse.Action]:
    """List the options of a command, without its positional arguments."""
    return [action for action in make_parser(command)._actions if action.option_strings]


def name_of(action: argparse.Action) -> str:
    """Return the name of an option to offer: the first long one."""
    return next(name for name in action.option_strings if name.startswith("--"))


def bash(shell: str = "bash") -> str:
    """Write the script for bash, or for zsh, which runs the same script by bashcompinit."""
    choices, options = [], []
    for command in COMMANDS:
        actions = options_of(command)
        options.append(f'{16 * " "}{command}) words="{" ".join(name_of(action) for action in actions)}" ;;')
        for action in actions:
            if action.choices:
                words = " ".join(map(str, action.choices))
                choices.append(f'        {command}:{name_of(action)}) words="{words}" ;;')
        if command == "completion":
            choices.append('        completion:completion) words="bash zsh fish" ;;')
    script = BASH.format(commands=" ".join(COMMANDS), choices="\n".join(choices), options="\n".join(options))
    return ("autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "") + script


def fish() -> str:
    """Write the script for fish."""
    first = "complete -c xmask3d -n __fish_use_subcommand -f -a"
    lines = [f"{first} {name} -d {_quote(about)}" for name, about in COMMANDS.items()]
    for command in COMMANDS:
        for action in options_of(command):
            line = f"complete -c xmask3d -n '__fish_seen_subcommand_from {command}' -l {name_of(action)[2:]}"
            line += " -r" if action.nargs != 0 else ""
            line += f" -fa {_quote(' '.join(map(str, action.choices)))}" if action.choices else ""
            lines.append(f"{line} -d {_quote((action.help or '').replace('%(default)s', str(action.default)))}")
    lines.append("complete -c xmask3d -n '__fish_seen_subcommand_from completion' -fa 'bash zsh fish'")
    return "\n".join([*lines, ""])


def _quote(text: str) -> str:
    """Quote text for fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
