"""Completion with the tab key, for bash and zsh: `eval "$(python -m ctp_jax.complete)"`."""

import pathlib

import configs
from ctp_jax import cli
from ctp_jax import config as config_lib
from ctp_jax.errors import UserError

# Readline splits words at = and :, so that what stands before them is cut off again.
_SCRIPT = """\
_ctp_jax() {{
  local line=${{COMP_LINE:0:$COMP_POINT}} word value found
  word=${{line##*[[:space:]]}}
  COMPREPLY=()
  [ -z "$ZSH_VERSION" ] || setopt local_options sh_word_split
  case $line in *' -m ctp'*) ;; *) return ;; esac
  case $word in
    --config=*) value=${{word#--config=}}
      found=$(compgen -P --config= -W '{configs}' -- "$value")
      [ -n "$found" ] || found=$(compgen -f -- "$value" | sed 's/^/--config=/') ;;
    --config.*) found=$(compgen -S = -W '{fields}' -- "$word")
      [ -z "$BASH_VERSION" ] || compopt -o nospace ;;
    ctp*) found=$(compgen -W '{commands}' -- "$word") ;;
    -*) found=$(compgen -W '--config= --workdir= --help --version' -- "$word")
      [ -z "$BASH_VERSION" ] || compopt -o nospace ;;
    *) case ${{line%"$word"}} in
      *' --config ') found=$(compgen -W '{configs}' -- "$word") ;;
      esac ;;
  esac
  local cut=${{word%"${{word##*[=:]}}"}} IFS=$'\\n'
  [ -n "$BASH_VERSION" ] || cut=
  for value in $found; do COMPREPLY+=("${{value#"$cut"}}"); done
}}
if [ -n "$ZSH_VERSION" ]; then
  autoload -U +X bashcompinit && bashcompinit
  complete -o nospace -o default -F _ctp_jax python python3
else
  complete -o bashdefault -o default -F _ctp_jax python python3
fi
"""


def main(arguments):
    """Prints what completes commands, configs and their fields with the tab key.

    eval "$(python -m ctp_jax.complete)"      in ~/.bashrc or ~/.zshrc, or now
    """
    if arguments:
        raise UserError(f"{arguments[0]!r}: takes no arguments")
    print(script(), end="")


def script() -> str:
    """The script, with the names of all commands, configs and fields."""
    folder = pathlib.Path(__file__).parent
    commands = {
        "ctp_jax." + path.relative_to(folder).parts[0].removesuffix(".py")
        for path in (*folder.glob("*.py"), *folder.glob("*/__main__.py"))
        if "\n    cli.run(main" in path.read_text(encoding="utf-8")
    }
    files, fields = [], set()
    for path in sorted(pathlib.Path(str(configs.__path__[0])).glob("*.py")):
        if "def get_config(" in path.read_text(encoding="utf-8"):
            files.append(f"configs/{path.name}")
            flat = config_lib.flatten(cli.load_config(str(path)))
            fields |= {f"--config.{name}" for name in flat}
    return _SCRIPT.format(
        commands=" ".join(sorted(commands)),
        configs=" ".join(files),
        fields=" ".join(sorted(fields)),
    )


if __name__ == "__main__":
    cli.run(main)
