"""YAML as a person writes it: plain values alone, numbers such as 1e-3, no key twice."""

import re
from typing import Any

import yaml

from defectkit import DefectkitError

MAX_SIZE = 200_000  # characters: two seconds


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


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse(text: str, where: str) -> Any:
    """The values in a text; DefectkitError, beginning with `where`, if it is no such YAML."""
    if len(text) > MAX_SIZE:
        raise DefectkitError(f"{where} has {len(text):,} characters; the limit is {MAX_SIZE:,}.")
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise DefectkitError(f"{where}{line} is no YAML that can be read: {problem}.") from error
    except RecursionError as error:
        raise DefectkitError(f"{where} is no YAML that can be read: too many brackets.") from error
    # What PyYAML lets through: dates and numbers that there are not, characters without a glyph.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        problem = " ".join(str(error).split())
        raise DefectkitError(f"{where} is no YAML that can be read: {problem}.") from error
