"""Reading YAML that costs no more than its length: without aliases, and with numbers of 64 bits."""

from __future__ import annotations

from typing import Any

import yaml

from dyninfer.foreign_errors import reason_of

LARGEST_YAML = 1 << 19  # characters: names of 15,000 classes
_LONGEST_NUMBER = 64  # characters


def load_yaml(text: str, *, words: bool = False) -> Any:
    """What a YAML text holds: plain data, or with ``words`` nothing but texts where it has values.

    A class may be called ``NO``, ``on``, ``012`` or ``1:30``, which YAML takes for truth values and
    numbers.

    Aliases are refused, by which a few lines become billions of entries; whole numbers of more
    than 64 bits, which can be chosen so that a mapping takes minutes to fill; and texts with half
    of a surrogate pair, which cannot be written anywhere.

    Raises:
        ValueError: it is not YAML, or holds what is refused or nested too deeply; in one line.
    """
    if len(text) > LARGEST_YAML:
        raise ValueError(f"it has {len(text)} characters, expected at most {LARGEST_YAML}")
    try:
        return yaml.load(text, _Words if words else _Loader)  # derived from SafeLoader
    except RecursionError:
        raise ValueError("its parts are nested too deeply") from None
    except (
        yaml.YAMLError,
        AttributeError,
        IndexError,
        KeyError,
        OverflowError,
        TypeError,
    ) as error:
        # constructors of numbers and dates that are none raise what they happen to
        raise ValueError(reason_of(error)) from None


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
            raise yaml.YAMLError(f"alias {alias.anchor!r} is not read; write it out")
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node) if len(node.value) <= _LONGEST_NUMBER else 1 << 64
        if value.bit_length() > 63:
            raise yaml.YAMLError("a whole number has more than 64 bits")
        return value

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        value = super().construct_yaml_str(node)
        # JSON writes a character beyond the first 65,536 as two escapes
        value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        value.encode()  # UnicodeEncodeError, for half of one, is a ValueError
        return value


class _Words(_Loader):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  # as PyYAML declares it


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_yaml_str)
