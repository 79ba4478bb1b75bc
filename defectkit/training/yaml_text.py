"""YAML as a person writes it: plain values alone, numbers such as 1e-3, no key twice."""

import re
from typing import Any

import yaml

from defectkit import DefectkitError
from defectkit.structures.names import one_line

MAX_SIZE = 200_000  # characters: two seconds
MAX_DEPTH = 50  # groups in groups; PyYAML's time grows with the square


class Loader(yaml.SafeLoader):
    """Safe: it makes numbers, texts, lists and dictionaries, and runs nothing.

    Unlike YAML 1.1 it takes 1e-3 for a number, and it refuses a key that stands twice.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A dictionary."""
        seen = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                problem = f"the key '{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def fetch_flow_collection_start(self, token: type) -> None:
        """One more bracket is open."""
        self._check_depth(self.flow_level)
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        """One more group is begun by its indentation."""
        self._check_depth(len(self.indents))
        return super().add_indent(column)

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            problem = f"groups lie in each other more than {MAX_DEPTH} deep"
            raise yaml.scanner.ScannerError(None, None, problem, self.get_mark())


class Dumper(yaml.SafeDumper):
    """Quotes what the `Loader` would take for a number."""


for _kind in (Loader, Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def text_of(values: Any) -> str:
    """The YAML of plain values, from which `parse` makes the same."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def parse(text: str, where: str) -> Any:
    """The values in a text; DefectkitError, beginning with `where`, if it is no such YAML."""
    if len(text) > MAX_SIZE:
        raise DefectkitError(f"{where} has {len(text):,} characters; the limit is {MAX_SIZE:,}.")
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = one_line(error.problem or error.context)
        raise DefectkitError(f"{where}{line} is no YAML that can be read: {problem}.") from error
    # What PyYAML lets through: dates and numbers that there are not, characters without a glyph.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        problem = one_line(error)
        raise DefectkitError(f"{where} is no YAML that can be read: {problem}.") from error
