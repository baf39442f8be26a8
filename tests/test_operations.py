"""What the documents say about settings, exit statuses, refusals, files and commands is so."""

import re
from dataclasses import fields
from fnmatch import filter, fnmatchcase
from pathlib import Path

import pytest

from twstock import process
from twstock.config import DEFAULT_TIMINGS, Limits

ROOT = Path(__file__).resolve().parent.parent
OPERATIONS = (ROOT / "docs/operations.md").read_text()
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", "twstock/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]


def rows(heading):
    """Key and default of every row of the table under a heading."""
    section = OPERATIONS.partition(f"\n### `[{heading}]`\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `(\w+)` \| (\S+) \| ..+ \|$", section, re.MULTILINE)


@pytest.mark.parametrize(
    ("heading", "values"), [("limits", Limits()), ("timings", DEFAULT_TIMINGS)]
)
def test_every_key_is_told_with_its_default(heading, values):
    """The tables of keys in operations.md have the keys of ``config``, with their values and in the
    same order.
    """
    assert rows(heading) == [(f.name, str(getattr(values, f.name))) for f in fields(values)]


def test_every_exit_status_is_told():
    """operations.md explains each status with which a service exits on purpose."""
    section = OPERATIONS.partition("## Exit statuses")[2].partition("\n## ")[0]
    for name, value in vars(process).items():
        if name.startswith("EXIT_"):
            assert f"\n| {value} |" in section, name


def test_every_variable_of_the_environment_is_told():
    """operations.md's table has exactly the ``TWSTOCK_`` variables that the source names."""
    section = OPERATIONS.partition("\n### Environment\n")[2].partition("\n#")[0]
    told = set(re.findall(r"^\| `(TWSTOCK_\w+)` \|", section, re.MULTILINE))
    named = {
        name
        for path in (ROOT / "twstock").rglob("*.py")
        for name in re.findall(r"TWSTOCK_[A-Z_]+", path.read_text())
    }
    assert told == named


def test_every_refusal_is_told():
    """operations.md has the words with which a member refuses to start, and the source still says
    them.
    """
    section = OPERATIONS.partition("## When a member refuses to start")[2].partition("\n## ")[0]
    said = {
        "process.py": ["is of a restore that did not finish"],
        "rpc/server.py": ["cannot listen on", "is the port taken?"],
        "replication/disk.py": [
            "is in use by another process",
            "has no room for a new log",
            "cannot be used",
        ],
        "replication/formation.py": [
            "this data directory is new, but",
            "another incarnation",
            "is in a group of",
        ],
        "replication/member.py": ["were applied,", "but the log ends before them"],
        "replication/database.py": ["it can be deleted, the log rebuilds it"],
        "replication/meta.py": ["neither copy of the term and the vote"],
        "replication/promises.py": ["this program reads format"],
        "replication/storage.py": [
            "is gone",
            "every log-*.seg is gone",
        ],
        "replication/recovery.py": ["damaged, although a later write is intact"],
        "config.py": ["is not in the configuration"],
        "tokens.py": ["there is no token in the file"],
    }
    for module, phrases in said.items():
        source = re.sub(r'"\s*\n\s*f?"', "", (ROOT / "twstock" / module).read_text())
        for phrase in phrases:
            assert phrase in source, (module, phrase)
            assert phrase in section, phrase


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    """A link inside the repository names a file that exists."""
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in link:
            assert (document.parent / link).exists(), link


def test_every_file_of_tests_has_its_place():
    """CONTRIBUTING.md's table names each file of tests, and none that does not exist."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Tests\n")[2]
    told = re.findall(r"`(test_[\w*]+)`", section.partition("\nAn error that")[0])
    files = [path.stem for path in (ROOT / "tests").glob("test_*.py")]
    assert [name for name in files if not any(fnmatchcase(name, each) for each in told)] == []
    assert [each for each in told if not filter(files, each)] == []


def test_every_command_of_the_makefile_is_explained():
    """CONTRIBUTING.md names each target of the Makefile, and none that does not exist."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE)) - {"clean"}
    told = set(re.findall(r"`make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert told == targets


def test_the_example_of_a_selection_selects_something():
    """CONTRIBUTING.md's example of running some of the tests selects at least one."""
    told = (ROOT / "CONTRIBUTING.md").read_text()
    ((file, word),) = re.findall(r"-m pytest (tests/\w+\.py) -k (\w+)", told)
    assert re.search(rf"def test_\w*{word}", (ROOT / file).read_text())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_test_files_that_are_named_exist(document):
    """A document names no file of tests that does not exist."""
    for name in re.findall(r"`(?:tests/)?(test_[\w*]+)(?:\.py)?`", document.read_text()):
        assert list((ROOT / "tests").glob(f"{name}.py")), name
