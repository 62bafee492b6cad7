"""TOML files and command lines to validated settings; every problem names its place, its key, its value and its cure.

A schema is a tree of pydantic models: a model is a section, its fields are keys. pydantic and tomli-w are imported only
when a config is read or written, so that importing this module costs nothing.
"""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from .errors import ConfigError
from .registry import nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo

M = TypeVar("M", bound="BaseModel")

COMMAND_LINE = "command line"
_SHOWN_CHARACTERS = 80  # of a value in a message
_BOUNDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
_NUMERIC = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_TYPES = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text in quotes",
    "list_type": "a list in square brackets",
    "finite_number": "a finite number",
}


def load(path: str | os.PathLike[str], model_class: type[M], overrides: Sequence[str] = ()) -> M:
    """Reads a TOML file, applies overrides and validates the result against a tree of pydantic models.

    Validation is strict: text is not a number, a whole number serves as a float, and an unknown key is an error
    whatever the model's own ``extra`` says.

    Args:
        path: the TOML file (UTF-8).
        model_class: the schema; fields that are models are sections.
        overrides: command line tokens, ``["--optim.lr", "0.1"]`` or ``["--optim.lr=0.1"]``. A value is read as a TOML
            literal, else as a number or truth value as Python writes it, else as text; the last of equal keys wins.

    Raises:
        ConfigError: the file cannot be read, or the settings cannot be used; one error lists every problem.
    """
    data = _read(Path(path))
    texts = _split(overrides)
    for key, text in texts.items():
        _put(data, key, _literal(text))

    schema = _Schema(model_class, str(path), texts)
    problems = list(schema.take_out_unknown(data))
    model, invalid = schema.validate(data)
    problems += invalid
    if problems:
        if len(problems) == 1:
            raise ConfigError(problems[0])
        raise ConfigError("\n  ".join([f"{path} cannot be used, {len(problems)} problems:", *problems]))
    assert isinstance(model, model_class)
    return model


def dump(model: BaseModel) -> str:
    """The model as TOML text, keys that are ``None`` left out; ``load`` of it gives an equal model."""
    import tomli_w

    return tomli_w.dumps(model.model_dump(exclude_none=True))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        there = _toml_files(path.parent)
        choice = f" The configs in {path.parent} are: {', '.join(there)}." if there else ""
        raise ConfigError(f"{path}: there is no such config file.{nearest(path.name, there)}{choice}") from None
    except IsADirectoryError:
        there = _toml_files(path)
        choice = ", ".join(there) if there else "none is there"
        raise ConfigError(f"{path} is a folder; name one of the TOML files in it: {choice}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); a config is a TOML file.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}. A line is `key = value` below a `[section]`; text stands in quotes."
        ) from None


def _toml_files(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".toml")
    except OSError:
        return []


def _split(tokens: Sequence[str]) -> dict[str, str]:
    """Command line tokens to ``{dotted key: text of the value}``."""
    texts: dict[str, str] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        key, equals, text = token.removeprefix("--").partition("=")
        if not token.startswith("--") or not all(key.split(".")):
            raise ConfigError(f"{COMMAND_LINE}: {token!r} is not a setting; write --section.key VALUE.")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{COMMAND_LINE}: --{key} has no value; write --{key} VALUE.")
            text = rest.pop(0)
        texts[key] = text
    return texts


def _literal(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
        if table.keys() == {"value"}:
            return table["value"]
    except tomllib.TOMLDecodeError:
        pass
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)  # `.5` and `1.`, which TOML does not know
    except ValueError:
        return text


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        if not isinstance(data.get(section), dict):
            data[section] = {}
        data = data[section]
    data[name] = value


def _get(data: Any, key: str) -> Any:
    for name in key.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _show(value: Any) -> str:
    """A value as TOML writes it, on one line, shortened."""
    import tomli_w

    if isinstance(value, dict):
        text = "{" + ", ".join(f"{name} = {_show(entry)}" for name, entry in value.items()) + "}"
    else:
        text = " ".join(tomli_w.dumps({"x": value}).removeprefix("x = ").split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


class _Schema:
    """What a tree of models allows, and how a violation of it is told.

    Args:
        root: the outermost model.
        file: the config's path, for messages.
        texts: overrides as they were typed, by dotted key.
    """

    def __init__(self, root: type[BaseModel], file: str, texts: Mapping[str, str]) -> None:
        self.root = root
        self.file = file
        self.texts = texts

    def section(self, field: FieldInfo) -> type[BaseModel] | None:
        """The model a field holds; ``None`` where the field is a plain key."""
        from pydantic import BaseModel

        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                return kind
        return None

    def keys(self, model_class: type[BaseModel], prefix: str = "") -> Iterator[str]:
        """Every dotted key below ``model_class``."""
        for name, field in model_class.model_fields.items():
            section = self.section(field)
            if section is None:
                yield prefix + name
            else:
                yield from self.keys(section, f"{prefix}{name}.")

    def source(self, key: str) -> str:
        """Where the value of ``key`` was written."""
        plain = key.partition("[")[0]
        typed = any(
            plain == text or plain.startswith(f"{text}.") or text.startswith(f"{plain}.") for text in self.texts
        )
        return COMMAND_LINE if typed else self.file

    def take_out_unknown(self, data: dict[str, Any]) -> Iterator[str]:
        """Removes what the schema does not know from ``data``; gives one problem for each."""
        yield from self._take_out_unknown(data, self.root, "")

    def _take_out_unknown(self, table: dict[str, Any], model_class: type[BaseModel], prefix: str) -> Iterator[str]:
        fields = model_class.model_fields
        for name in list(table):
            section = self.section(fields[name]) if name in fields else None
            if name not in fields:
                yield self._unknown(prefix, name, table.pop(name), list(fields))
            elif section is not None and isinstance(table[name], dict):
                yield from self._take_out_unknown(table[name], section, f"{prefix}{name}.")
        for name, field in fields.items():
            # An absent section is an empty one, so that a missing key is told by its own name.
            if self.section(field) is field.annotation and name not in table:
                table[name] = {}

    def _unknown(self, prefix: str, name: str, value: Any, siblings: list[str]) -> str:
        key = prefix + name
        namesakes = [known for known in self.keys(self.root) if known.rpartition(".")[2] == name]
        if namesakes and not isinstance(value, dict):
            hint = f" Did you mean {namesakes[0]!r}?"
        else:
            hint = nearest(name, siblings)
        place = f"[{prefix[:-1]}] takes" if prefix else "The sections are"
        what = f"[{key}] is not a known section."
        if not isinstance(value, dict):
            what = f"{key} = {_show(value)} is not a known key."
        return f"{self.source(key)}: {what}{hint} {place}: {', '.join(siblings)}."

    def validate(self, data: dict[str, Any]) -> tuple[Any, list[str]]:
        """The model and no problems, or ``None`` and its problems.

        A value from the command line that does not fit as a literal is tried as text: ``--run.name 2024`` is a name.
        """
        model, problems = self._validate(data)
        literals = [key for key in problems if key in self.texts and not isinstance(_get(data, key), str)]
        if literals:
            as_text = copy.deepcopy(data)
            for key in literals:
                _put(as_text, key, self.texts[key])
            still = self._validate(as_text)[1]
            for key in literals:
                if key not in still:
                    _put(data, key, self.texts[key])
            model, problems = self._validate(data)
        return model, list(problems.values())

    def _validate(self, data: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        from pydantic import ValidationError

        try:
            return self.root.model_validate(data, strict=True), {}
        except ValidationError as error:
            return None, self._problems(error, data)

    def _problems(self, error: ValidationError, data: dict[str, Any]) -> dict[str, str]:
        """One sentence for each key that failed; the alternatives of a union are joined."""
        verdicts: dict[str, list[str]] = {}
        fields: dict[str, FieldInfo | None] = {}
        inputs: dict[str, Any] = {}
        missing, cured = set(), set()
        for item in error.errors(include_url=False):
            key, field = self._locate(item["loc"])
            value = item["input"]
            if "key" in item.get("ctx", {}):  # a rule between sections says which key it blames
                key = item["ctx"]["key"]
                value = _get(data, key)
            fields[key], inputs[key] = field, value
            if item["type"] == "missing":
                missing.add(key)
            if item["type"] not in _NUMERIC and item["type"] not in _TYPES:
                cured.add(key)  # the verdict says what to write
            verdict = self._verdict(dict(item), field)
            if verdict not in verdicts.setdefault(key, []):
                verdicts[key].append(verdict)
        problems = {}
        for key, found in verdicts.items():
            field, source = fields[key], self.source(key)
            if key in missing:
                about = f", {field.description}" if field is not None and field.description else ""
                cure = f"Write it in the file or pass --{key} VALUE."
                problems[key] = f"{source}: {key} is missing{about}. {cure}"
                continue
            shown = f"{key} = {_show(inputs[key])}" if key and inputs[key] is not None else key
            sentence = f"{source}: {shown} {' or '.join(found)}".replace(":  ", ": ").rstrip(".")
            problems[key] = f"{sentence}{'' if key in cured else self._example(key, field)}."
        return problems

    def _locate(self, loc: tuple[int | str, ...]) -> tuple[str, FieldInfo | None]:
        """A pydantic location to a dotted key and its field; the tags of a union's members are left out."""
        model_class: type[BaseModel] | None = self.root
        field: FieldInfo | None = None
        key = ""
        for part in loc:
            if isinstance(part, int):
                key += f"[{part}]"
            elif model_class is not None and part in model_class.model_fields:
                field = model_class.model_fields[part]
                model_class = self.section(field)
                key += f".{part}" if key else part
        return key, field

    def _verdict(self, item: dict[str, Any], field: FieldInfo | None) -> str:
        kind, value = item["type"], item["input"]
        section = self.section(field) if field is not None else None
        if kind in ("model_type", "model_attributes_type") and section is not None:
            return f"must be a section with the keys: {', '.join(section.model_fields)}"
        if kind in _NUMERIC and field is not None:
            limits = [
                f"{words} {getattr(bound, name)}"
                for bound in field.metadata
                for name, words in _BOUNDS.items()
                if hasattr(bound, name)
            ]
            return f"must be {' and '.join(limits)}"
        if kind == "literal_error":
            names = [str(name) for name in get_args(field.annotation)] if field is not None else []
            import difflib

            close = difflib.get_close_matches(str(value), names, n=1)
            return f"must be one of {item['ctx']['expected']}" + (f" (did you mean {close[0]!r}?)" if close else "")
        if kind in _TYPES:
            quoted = isinstance(value, str) and kind != "string_type" and not isinstance(_literal(value), str)
            return f"must be {_TYPES[kind]}" + (", without the quotes" if quoted else "")
        return str(item["msg"]).removeprefix("Value error, ")

    def _example(self, key: str, field: FieldInfo | None) -> str:
        if field is None or self.section(field) is not None:
            return ""
        examples = [*(field.examples or []), field.default]
        if not isinstance(examples[0], bool | int | float | str) or examples[0] == "":
            return ""
        if self.source(key) == COMMAND_LINE:
            return f", for example --{key} {examples[0] if isinstance(examples[0], str) else _show(examples[0])}"
        return f", for example {_show(examples[0])}"
