"""The command line of main.py: its own flags, the Trainer's flags, and ``a.b=c`` changes of the configuration."""

from __future__ import annotations

import argparse
import inspect
import re

import pytorch_lightning as pl

from ldm.arguments import Parser
from ldm.training.legacy import TRAINER_KEYS
from ldm.util import UserError

_CHANGE = re.compile(r"[A-Za-z_]\w*(\.\w+)+=")
_VALUE_FLAG = re.compile(r"--\w+(\.\w+)+")  # --a.b, whose value is the next word


EPILOG = """Anything in the YAML can be changed with a.b=c or --a.b c; every option of the Trainer is a flag.

examples:
    python main.py -b configs/tiny/ldm.yaml -t --name mine --max_steps 1000
    python main.py --resume latest:mine -t
    python main.py -b configs/tiny/textual-inversion.yaml -t --name word --data_root FOLDER --init_word star
"""


def _boolean(text: str) -> bool:
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")


def make_parser() -> argparse.ArgumentParser:
    """The flags of main.py."""
    parser = Parser(description="Train what a YAML describes.", epilog=EPILOG, allow_abbrev=False)
    add = parser.add_argument

    def switch(*names: str, default: bool = False, help: str) -> None:
        add(*names, type=_boolean, const=True, default=default, nargs="?", metavar="BOOL", help=help)

    add("-b", "--base", nargs="*", action="extend", default=[], metavar="YAML", help="YAMLs, merged left to right")
    switch("-t", "--train", help="train")
    switch("--no-test", help="skip the test data set after training")
    add("-n", "--name", default="", const="", nargs="?", help="ending of the run folder's name")
    add("-p", "--project", default="", help="name of the project, for loggers that have one (wandb)")
    add("-f", "--postfix", default="", help="added to the run folder's name")
    add("-l", "--logdir", default="logs", help="where run folders are made")
    add(
        "-r",
        "--resume",
        default="",
        metavar="RUN|CKPT",
        help="run folder, or a checkpoint inside one, to go on with; latest or latest:NAME: the newest run (of a name)",
    )
    add("--actual_resume", default="", metavar="CKPT", help="start from these weights (weights only)")
    add("-s", "--seed", type=int, default=23, help="seed of everything that is drawn")
    switch("--scale_lr", default=True, help="multiply base_learning_rate by devices, batch size and accumulation")
    switch("--trust_config", help="YAMLs of a resumed run may name classes of any package")
    switch("-d", "--debug", help="show the traceback of an error")
    add("--data_root", default="", help="folder of training pictures (data.params.train.params.data_root)")
    switch("--datadir_in_name", default=True, help="the name of --data_root in front of the run folder's name (true)")
    add("--init_word", default="", help="word that a new placeholder starts from")
    add("--placeholder_string", default="", help="word that stands for the new concept")
    add("--reg_data_root", default="", help="DreamBooth: folder of class pictures (data.params.reg.params.data_root)")
    add("--class_word", default="", help="DreamBooth: what the subject is one of, such as dog")
    add("--subject_word", default="sks", help="DreamBooth: the word before the class that names the subject (sks)")
    add(
        "--num_class_images", type=int, default=0, metavar="N",
        help="DreamBooth: make class pictures with the base model until --reg_data_root has so many",
    )  # fmt: skip
    add("--embedding_manager_ckpt", default="", help="embedding file to go on with")
    return parser


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split a command line into main.py's own options and changes of the configuration as ``a.b=c`` strings.

    Raises:
        UserError: a flag that neither main.py nor the Trainer has, or one without its value.
    """
    parser = make_parser()
    with_values = [action for action in parser._actions if action.nargs is None or action.dest == "name"]
    need_a_value = {flag for action in with_values for flag in action.option_strings}

    def is_change(place: int) -> bool:
        before = arguments[place - 1] if place else ""
        is_value = before in need_a_value or bool(_VALUE_FLAG.fullmatch(before))
        return _CHANGE.match(arguments[place]) is not None and not is_value

    changes = [text for place, text in enumerate(arguments) if is_change(place)]
    options, rest = parser.parse_known_args([text for place, text in enumerate(arguments) if not is_change(place)])
    return options, [*_read_rest(rest), *changes]


def trainer_flags() -> set[str]:
    """Names of the Trainer's parameters, today's and those of Lightning 1 that can be translated."""
    return set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"} | set(TRAINER_KEYS)


def _read_rest(rest: list[str]) -> list[str]:
    """``--a.b c``, ``--a.b=c`` and the Trainer's ``--flag [value]`` as changes of the configuration."""
    changes = []
    tokens = list(reversed(rest))
    while tokens:
        flag, separator, value = tokens.pop().partition("=")
        if not flag.startswith("--"):
            raise UserError(f"'{flag}' is neither a flag nor a change such as model.params.timesteps=1000")
        name = flag[2:]
        is_trainer_flag = "." not in name
        if is_trainer_flag:
            name = name.replace("-", "_")
            if name not in trainer_flags():
                raise UserError(f"there is no flag '{flag}'; see --help, or change a YAML value with --a.b value")
            name = f"lightning.trainer.{name}"
        if not separator:
            if tokens and not tokens[-1].startswith("--"):
                value = tokens.pop()
            elif is_trainer_flag:
                value = "true"
            else:
                raise UserError(f"'{flag}' needs a value")
        changes.append(f"{name}={value}")
    return changes
