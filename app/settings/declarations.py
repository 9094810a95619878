"""Base of the groups of variables, and the declaration of each variable in words."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from annotated_types import Gt
from pydantic import BaseModel, ConfigDict, SecretStr
from pydantic.fields import FieldInfo

PREFIX = "MYSYMBOLS_"


class SettingsPart(BaseModel):
    """Group of variables; its docstring is the title of the group in the documents."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


@dataclass(frozen=True, slots=True)
class Variable:
    """Declaration of one environment variable; `group` describes its part of the settings."""

    name: str
    default: str
    description: str
    allowed: str
    group: str


def declared_variables(settings: type[BaseModel]) -> tuple[Variable, ...]:
    """Returns every environment variable of a settings class, grouped by part."""
    declared: list[Variable] = []
    for name, field in settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, SettingsPart):
            part, group = type(default), type(default).__doc__ or ""
            for inner, inner_field in part.model_fields.items():
                declared.append(_variable(f"{name}__{inner}", inner_field, group))
        else:
            declared.append(_variable(name, field, "Process."))
    return tuple(sorted(declared, key=lambda one: one.group == "Process."))


def _variable(path: str, field: FieldInfo, group: str) -> Variable:
    default = field.get_default()
    text = "" if default is None else str(default)
    return Variable(
        f"{PREFIX}{path}".upper(), text, field.description or "", allowed_values(field), group
    )


def allowed_values(field: FieldInfo) -> str:
    """Returns the allowed values of a variable in words."""
    kind: Any = field.annotation
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if isinstance(kind, type) and issubclass(kind, Enum):
        choices = tuple(one.value for one in kind)
    if choices:
        return "one of " + ", ".join(map(str, choices))
    bounds = {type(one).__name__: one for one in field.metadata}
    low = bounds.get("Ge") or bounds.get("Gt")
    high = bounds.get("Le")
    if low is not None and high is not None:
        least = f"above {low.gt}" if isinstance(low, Gt) else f"from {low.ge}"
        noun = "a whole number" if kind is int else "a number"
        return f"{noun} {least} up to {high.le}"
    words = {bool: "true or false", str: "text", SecretStr | None: "a secret"}
    return words.get(kind, "a JSON list" if get_origin(kind) is tuple else "text")
