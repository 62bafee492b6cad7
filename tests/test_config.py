from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from distgrad import config
from distgrad.errors import ConfigError


class Inner(BaseModel):
    lr: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    name: Literal["sgd", "adam"] = "sgd"
    milestones: list[int] = Field(default_factory=list)
    clip: float | Literal["auto"] | None = None

    @field_validator("nesterov")
    @classmethod
    def _rule(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and not info.data.get("momentum"):
            raise ValueError("needs momentum above 0")
        return nesterov


class Outer(BaseModel):
    title: str = "untitled"
    optim: Inner = Field(default_factory=Inner)
    data: Required


class Required(BaseModel):
    folder: str = Field(description="where the photos are")
    batch_size: int = Field(default=8, ge=1)


Outer.model_rebuild()

GOOD = '[data]\nfolder = "photos"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(path, Outer, overrides)
    return str(caught.value).replace(str(path), "recipe.toml")


def test_file_values_and_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "[optim]\nlr = 1\nmilestones = [3, 6]\n" + GOOD)
    model = config.load(path, Outer)
    assert model.optim.lr == 1.0 and type(model.optim.lr) is float  # a whole number serves as a float
    assert model.optim.milestones == [3, 6]
    assert model.data.folder == "photos" and model.data.batch_size == 8


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert config.load(path, Outer).data.folder == "photos"


@pytest.mark.parametrize(
    ("tokens", "key", "value"),
    [
        (["--optim.lr", "0.1"], "lr", 0.1),
        (["--optim.lr=0.1"], "lr", 0.1),
        (["--optim.lr=1e-3"], "lr", 1e-3),
        (["--optim.lr", ".5"], "lr", 0.5),
        (["--optim.lr", "3"], "lr", 3.0),
        (["--optim.lr", "1", "--optim.lr", "2"], "lr", 2.0),
        (["--optim.nesterov", "true"], "nesterov", True),
        (["--optim.nesterov", "True"], "nesterov", True),
        (["--optim.milestones", "[1, 2]"], "milestones", [1, 2]),
        (["--optim.milestones=[]"], "milestones", []),
        (["--optim.name", "adam"], "name", "adam"),
        (["--optim.name", '"adam"'], "name", "adam"),
        (["--optim.clip", "auto"], "clip", "auto"),
        (["--optim.clip", "0.5"], "clip", 0.5),
    ],
)
def test_overrides(tmp_path: Path, tokens: list[str], key: str, value: object) -> None:
    found = getattr(config.load(written(tmp_path, GOOD), Outer, tokens).optim, key)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["2024", "1e5", "true", "2024-01-01", "[1]", "inf", "a=b", "1\n[optim]\nlr=9", ""])
def test_a_literal_is_text_where_text_is_wanted(tmp_path: Path, text: str) -> None:
    model = config.load(written(tmp_path, GOOD), Outer, ["--title", text])
    assert model.title == text
    assert model.optim.lr == 0.05


def test_an_override_makes_a_missing_section(tmp_path: Path) -> None:
    model = config.load(written(tmp_path, ""), Outer, ["--data.folder", "x", "--data.batch_size", "2"])
    assert (model.data.folder, model.data.batch_size) == ("x", 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim]\nlr = -0.1\n", "recipe.toml: optim.lr = -0.1 must be greater than 0, for example 0.05."),
        (
            '[optim]\nlr = "0.1"\n',
            'recipe.toml: optim.lr = "0.1" must be a number, without the quotes, for example 0.05.',
        ),
        ("[optim]\nlr = nan\n", "recipe.toml: optim.lr = nan must be greater than 0, for example 0.05."),
        ("[optim]\nlr = true\n", "recipe.toml: optim.lr = true must be a number, for example 0.05."),
        (
            "[optim]\nmomentum = 1\n",
            "recipe.toml: optim.momentum = 1 must be at least 0 and less than 1, for example 0.9.",
        ),
        (
            '[optim]\nnesterov = "yes"\n',
            'recipe.toml: optim.nesterov = "yes" must be true or false, for example false.',
        ),
        (
            "[optim]\nmomentum = 0\nnesterov = true\n",
            "recipe.toml: optim.nesterov = true needs momentum above 0.",
        ),
        (
            '[optim]\nname = "adan"\n',
            "recipe.toml: optim.name = \"adan\" must be one of 'sgd' or 'adam' (did you mean 'adam'?).",
        ),
        ("[optim]\nmilestones = [1, 2.5]\n", "recipe.toml: optim.milestones[1] = 2.5 must be a whole number."),
        ("[optim]\nmilestones = 3\n", "recipe.toml: optim.milestones = 3 must be a list in square brackets."),
        (
            "[optim]\nclip = [1]\n",
            "recipe.toml: optim.clip = [ 1, ] must be a number or must be one of 'auto'.",
        ),
        (
            "optim = 3\n",
            "recipe.toml: optim = 3 must be a section with the keys: lr, momentum, nesterov, name, milestones, clip.",
        ),
        (
            "[optim]\nmomentun = 0.9\n",
            "recipe.toml: optim.momentun = 0.9 is not a known key. Did you mean 'momentum'? "
            "[optim] takes: lr, momentum, nesterov, name, milestones, clip.",
        ),
        (
            "[optimizer]\nlr = 0.9\n",
            "recipe.toml: [optimizer] is not a known section. Did you mean 'optim'? "
            "The sections are: title, optim, data.",
        ),
        (
            "[optim]\nbatch_size = 4\n",
            "recipe.toml: optim.batch_size = 4 is not a known key. Did you mean 'data.batch_size'? "
            "[optim] takes: lr, momentum, nesterov, name, milestones, clip.",
        ),
    ],
)
def test_one_problem_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    assert refused(written(tmp_path, text + GOOD)) == message


def test_missing_key_says_what_it_is(tmp_path: Path) -> None:
    expected = "data.folder is missing, where the photos are. Write it in the file or pass --data.folder VALUE."
    assert refused(written(tmp_path, "")) == f"recipe.toml: {expected}"
    assert refused(written(tmp_path, "[data]\nbatch_size = 2\n")) == f"recipe.toml: {expected}"


def test_the_command_line_is_named_as_the_source(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    assert (
        refused(path, "--optim.lr", "-1")
        == "command line: optim.lr = -1 must be greater than 0, for example --optim.lr 0.05."
    )
    assert refused(path, "--lr=1") == (
        "command line: lr = 1 is not a known key. Did you mean 'optim.lr'? The sections are: title, optim, data."
    )
    assert refused(path, "--data.batch_size", "2.5").startswith("command line: data.batch_size = 2.5 must be a whole")
    assert refused(path, "--optim.lr.x", "3").startswith("command line: optim.lr = {x = 3} must be a number")


def test_all_problems_come_together(tmp_path: Path) -> None:
    path = written(tmp_path, "[optim]\nlr = -1\nmomentun = 0.5\n" + GOOD)
    lines = refused(path, "--data.batch_size", "0").split("\n  ")
    assert lines[0] == "recipe.toml cannot be used, 3 problems:"
    assert sorted(line.split(" ")[0] + " " + line.split(": ")[1].split(" ")[0] for line in lines[1:]) == [
        "command data.batch_size",
        "recipe.toml: optim.lr",
        "recipe.toml: optim.momentun",
    ]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--optim.lr"], "command line: --optim.lr has no value; write --optim.lr VALUE."),
        (["--optim.lr", "--title"], "command line: --optim.lr has no value; write --optim.lr VALUE."),
        (["0.1"], "command line: '0.1' is not a setting; write --section.key VALUE."),
        (["-x", "1"], "command line: '-x' is not a setting; write --section.key VALUE."),
        (["--"], "command line: '--' is not a setting; write --section.key VALUE."),
        (["--optim..lr", "1"], "command line: '--optim..lr' is not a setting; write --section.key VALUE."),
    ],
)
def test_malformed_command_line(tmp_path: Path, tokens: list[str], message: str) -> None:
    assert refused(written(tmp_path, GOOD), *tokens) == message


def test_no_such_file(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "recpie.toml", Outer)
    assert str(caught.value) == (
        f"{tmp_path}/recpie.toml: there is no such config file. Did you mean 'recipe.toml'? "
        f"The configs in {tmp_path} are: recipe.toml."
    )
    assert refused(tmp_path / "nowhere" / "a.toml") == "recipe.toml: there is no such config file."


def test_a_folder(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r"is a folder; name one of the TOML files in it: recipe\.toml\."):
        config.load(tmp_path, Outer)


def test_not_toml_gives_line_and_column(tmp_path: Path) -> None:
    assert "recipe.toml is not valid TOML: " in (message := refused(written(tmp_path, "[optim]\nlr 0.1\n")))
    assert "line 2, column 4" in message
    twice = refused(written(tmp_path, "[optim]\nlr = 1\nlr = 2\n"))
    assert "not valid TOML" in twice and "line 3" in twice


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"a = '\xff\xfe'")
    assert refused(path) == "recipe.toml is not UTF-8 text (byte 5); a config is a TOML file."


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, GOOD)

    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert refused(path) == "recipe.toml cannot be read: Permission denied. Check the path and its permissions."


def test_a_rule_between_sections_blames_a_key(tmp_path: Path) -> None:
    class Both(Outer):
        @model_validator(mode="after")
        def _rule(self) -> Both:
            if self.data.batch_size > 9:
                raise PydanticCustomError("rule", "must be below {limit}", {"key": "data.batch_size", "limit": 9})
            return self

    with pytest.raises(ConfigError, match=r"^command line: data\.batch_size = 10 must be below 9\.$"):
        config.load(written(tmp_path, GOOD), Both, ["--data.batch_size", "10"])


def test_dump_loads_back_equal(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    for tokens in ([], ["--optim.milestones", "[1, 2]", "--title", 'quo"te\n☃', "--optim.clip", "auto"]):
        model = config.load(path, Outer, tokens)
        text = config.dump(model)
        assert "clip" in text or model.optim.clip is None  # None is left out
        again = tmp_path / "again.toml"
        again.write_text(text, encoding="utf-8")
        assert config.load(again, Outer) == model
        assert config.dump(config.load(again, Outer)) == text


def test_importing_is_cheap() -> None:
    program = "import sys, distgrad.config; print({'pydantic', 'tomli_w'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
