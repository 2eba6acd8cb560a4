"""Completion in bash: groups, options, settings, and the values of those that have a closed set of them.

Hydra's own knows a command whose first word is `python`, answers a setting with its present value, in the notation of Python,
and prints a traceback where the line cannot be composed. Here the python may have a path, a setting is answered with all that
it may be, and a line that makes no sense has no completions.
"""

import os
import re
from typing import Any

from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra._internal.utils import get_args
from hydra.core.plugins import Plugins
from hydra.plugins.completion_plugin import CompletionPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, EnumNode, OmegaConf

from pipeline.command_line.arguments import LISTS
from pipeline.command_line.override_text import split_override
from pipeline.command_line.short_form import SHORT_KEYS
from pipeline.config.compose import switches_of

SCRIPT = """\
speech_quantize_completion()
{
    local words=($COMP_LINE) helper choices
    helper="${words[0]}"
    if [[ "${words[0]##*/}" == python* ]]; then
        [[ "${words[1]##*/}" == run.py && -f "${words[1]}" ]] || return
        helper="${words[0]} ${words[1]}"
    fi
    choices=$(COMP_POINT=$COMP_POINT COMP_LINE=$COMP_LINE $helper --shell-completion query=bash 2>/dev/null)
    COMPREPLY=($(compgen -o nospace -o default -W "$choices" -- "${COMP_WORDS[COMP_CWORD]}"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F speech_quantize_completion python python3 speech-quantize
"""


OPTIONS = ("--help", "--version", "--multirun", "--calib", "--eval", "--cfg", "--config-dir", "--shell-completion")
INTERNAL = ("schema", "article", "hydra")  # groups that are not for users, and Hydra's own: shown to whoever begins to type it


class Completion(BashCompletion):
    """What `--shell-completion` uses in the place of Hydra's."""

    def query(self, config_name: str | None) -> None:
        """Print the completions of the line that the shell is at; where no shell asks, those of an empty one."""
        os.environ.setdefault("COMP_LINE", "")
        super().query(config_name)

    def install(self) -> None:
        """Print what bash is to evaluate."""
        print(SCRIPT, end="")

    def uninstall(self) -> None:
        """Print what undoes it."""
        print("complete -r python python3 speech-quantize; unset -f speech_quantize_completion")

    @staticmethod
    def strip_python_or_app_name(line: str) -> str:
        """Return a line without the program: a python of any path and its script, or the command."""
        return re.sub(r"^\s*(?:\S*python[\d.]*\s+)?\S+\s*", "", line)

    def _query(self, config_name: str | None, line: str) -> list[str]:
        try:
            word = "" if not line or line[-1] == " " else line.rsplit(maxsplit=1)[-1]
            if word.startswith("-"):
                return [option for option in OPTIONS if option.startswith(word)]
            settings = [text for text in line.split()[: -1 if word else None] if _is_setting(text)]
            values = self._values(config_name, settings, word)
            found = super()._query(config_name, " ".join([*settings, word])) if values is None else values
            hidden = [name for name in INTERNAL if not word.startswith(name)]
            short = [f"{key}=" for key in SHORT_KEYS if word and f"{key}=".startswith(word)]
            return [*short, *(_as_typed(text) for text in found if text.rstrip(".=") not in hidden)]
        except Exception:  # a line that cannot be composed has no completions, and a shell shows no traceback
            return []

    def _values(self, config_name: str | None, words: list[str], word: str) -> list[str] | None:
        """Return the values that a setting may have; None where it is none, or may be anything."""
        parts = split_override(word)
        if parts is None or "." not in parts[1]:
            return None
        prefix, key, begun = parts
        overrides = get_args(words).overrides
        config = self.config_loader.load_configuration(config_name, overrides=overrides, run_mode=RunMode.RUN)
        group, _, name = key.rpartition(".")
        parent = OmegaConf.select(config, group)
        if not isinstance(parent, DictConfig) or name not in parent:
            return None
        return [f"{prefix}{key}={value}" for value in _values_of(parent, name) if value.startswith(begun)] or None


def _is_setting(text: str) -> bool:
    """Whether a word of the line is a setting; a model's path, `doctor`, options and short forms are none that Hydra knows."""
    return "=" in text and not text.startswith("-") and text.partition("=")[0] not in SHORT_KEYS


def _as_typed(text: str) -> str:
    """Return a completion with `=` behind a list, which Hydra takes for a group."""
    return f"{text[:-1]}=" if text.endswith(".") and text[:-1].rpartition(".")[2] in LISTS else text


def _values_of(parent: DictConfig, name: str) -> list[str]:
    node: Any = parent._get_node(name)
    empty = ["null"] if node._is_optional() else []
    if isinstance(node, EnumNode):
        return [*node.enum_type.__members__, *empty]
    bases = getattr(OmegaConf.get_type(parent), "__mro__", ())  # the first may be one whose switches are of any type
    switches: dict[str, bool] = next(filter(None, map(switches_of, bases)), {})
    return ["true", "false", *(["null"] if switches[name] else [])] if name in switches else []


def use_own_completion() -> None:
    """Put this completion in the place of Hydra's."""
    plugins = Plugins.instance()
    known = plugins.plugin_type_to_subclass_list[CompletionPlugin]
    # Hydra has loaded its plugins on its own: the class of this name that it knows is another object than the imported one.
    known[:] = [plugin for plugin in known if plugin.__name__ not in (BashCompletion.__name__, Completion.__name__)]
    plugins.register(Completion)
