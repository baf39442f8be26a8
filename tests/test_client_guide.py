"""docs/client.md is right: its programs are the files that are tested, its tables are those of the
code.
"""

import inspect
import re
from pathlib import Path

from twstock import client
from twstock.client import Client

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs/client.md").read_text()
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.py"))


def test_every_program_of_the_guide_is_a_file_and_every_file_is_in_it():
    """The text is that of the file, below a link to it. tests/test_client_processes.py runs the
    files.
    """
    told = re.findall(r"\[[\w ]+\]\(examples/(\w+\.py)\)[^`]*```python\n(.*?)```", GUIDE, re.DOTALL)
    assert sorted(name for name, _ in told) == [path.name for path in EXAMPLES]
    assert dict(told) == {path.name: path.read_text() for path in EXAMPLES}
    assert GUIDE.count("```python") == len(told)


def test_every_argument_of_a_client_is_told_with_its_default():
    """The table in the guide is the signature of Client."""
    section = GUIDE.partition("## The client")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| ?(\S*) \|", section, re.MULTILINE))
    parameters = inspect.signature(Client).parameters
    assert told == {
        name: "" if p.default in (p.empty, None) else str(p.default)
        for name, p in parameters.items()
    }


def test_every_name_of_the_package_is_told():
    """The guide names everything that can be imported."""
    assert [name for name in client.__all__ if f"`{name}" not in GUIDE] == []
