"""The layout that ARCHITECTURE.md describes, checked in the source with ``ast``.

What a module may import is what it can do: the pure ones decide and can neither tell the time,
throw dice nor leave the process; the tiers know each other through ``rpc`` alone.
"""

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mutants, mutants_client, mutants_services

ROOT = Path(__file__).resolve().parent.parent
MODULE_LINES_MAX = 399
FUNCTION_LINES_MAX = 49
FUNCTION_LINES_MEDIAN_MAX = 10


def words(text):
    """The words of a text."""
    return text.split()


PURE = words("""
    errors market config consistency tomltext csvtext plan tally access forms
    replication.messages replication.log replication.replica replication.election
    replication.leadership replication.standing replication.progress replication.writes
    replication.records replication.recovery replication.promises replication.places
    replication.seals replication.room replication.compaction replication.reach
    rpc.calls rpc.permissions rpc.status rpc.wire.base rpc.wire.columns rpc.wire.commands
    rpc.wire.methods
    rpc.wire.observe rpc.wire.replicas rpc.wire.streams rpc.wire.trading rpc.wire.administration
    catalog.state catalog.sessions catalog.changes catalog.administration catalog.rules
    catalog.remembered catalog.requests
    order.state order.keyfilter order.desk order.askers order.counts order.unpublished
    order.watermark order.reception
    web.cache web.answers web.bodies web.ring web.traffic web.recognition
    web.adminspec web.operations web.openapi web.manual
    web.http.conditional web.http.problems web.http.requestids web.http.fields web.http.quality
    web.http.foreign
    web.feed.cursor web.feed.subscription web.feed.events web.feed.recent web.feed.rhythm
    web.feed.gzipstream
    web.upstream.pace
    client.answers client.attempts client.batch client.eventstream client.values
    backup.journal backup.ledger backup.playback backup.replay backup.sealed
    commands.tabular
""")

HARMLESS = words("""
    array bisect collections collections.abc csv dataclasses decimal enum functools hashlib http
    io itertools json math mmap pathlib re struct tomllib types typing urllib.parse zlib
    random.Random grpc.StatusCode google.protobuf.message.DecodeError pylru html
""")
"""What a pure module may import from outside: the *type* Random, codes, an error, and data
structures, memory of no file among them (mmap)."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

DICE_AND_DOORS = {"open", "print", "input", "exec", "eval", "breakpoint", "__import__"}

CORE = [name.split(".")[1] for name in PURE if name.startswith("replication.")]

MAY_IMPORT = {
    "errors": "",
    "market": "",
    "tally": "",
    "exposition": "tally",
    "lag": "clocks tally",
    "observatory": "exposition lag clocks rpc tally",
    "csvtext": "",
    "rows": "errors market",
    "config": "errors replication.messages access consistency",
    "consistency": "errors market config",
    "process": "errors config logs certificates",
    "certificates": "errors clocks tally",
    "clocks": "",
    "threads": "",
    "keys": "clocks",
    "systemd": "clocks repeating",
    "doorbell": "",
    "repeating": "clocks",
    "plan": "errors config consistency access tomltext",
    "members": "config errors plan process replication.disk",
    "cluster": "errors durable config plan members process clocks systemd tokens follow "
    "certificates catalog.seed",
    "rest": "errors forms",
    "client": "errors market forms clocks keys client",
    "verify": "consistency errors market rest rpc.calls rpc.wire rpc.security",
    "cli": "errors forms rest cluster commands",
    "commands": "errors",
    "commands.admin": "errors forms rest tokens commands.command",
    "commands.backup": "errors config plan backup cluster commands",
    "commands.export": "errors market durable verify",
    "commands.rejoin": "errors config rest verify replication rpc.calls rpc.security rpc.wire "
    "commands",
    "commands.replicas": "config rest verify backup commands certificates rpc.security",
    "commands.watch": "rest commands.command commands.tabular",
    "commands.workload": "errors rest tally",
    "replication.CORE": "errors replication.CORE",
    "replication": "errors durable config clocks threads rows replication rpc.calls rpc.client "
    "rpc.security rpc.wire tally",
    "replication.assembly": "errors config observatory process threads replication rpc.calls "
    "rpc.health rpc.security rpc.server",
    "rpc": "errors market config clocks descriptors replication.messages rpc tally origin "
    "repeating certificates",
    "rpc.wire": "errors market replication.messages rpc.calls rpc.status rpc.wire pb tally",
    "catalog": "errors market config clocks csvtext replication rpc catalog tally origin repeating "
    "rows",
    "order": "errors market config clocks csvtext replication rpc order tally origin repeating "
    "rows",
    "web": "errors market config clocks descriptors threads keys rpc web tally exposition "
    "observatory access tokens origin repeating",
    "web.http": "errors market config clocks origin web.answers web.traffic web.http",
    "web.feed": "errors market config clocks rpc.calls tally web.answers web.http.poll "
    "web.http.quality web.http.respond web.http.routes web.upstream.gather web.upstream.leader "
    "web.feed",
    "web.upstream": "errors config clocks rpc.calls rpc.wire.methods origin repeating web.cache "
    "web.upstream",
    "*.tap": "errors market config process clocks threads keys systemd doorbell "
    "replication.assembly replication.disk rpc.client rpc.server rpc.wire rpc.health",
    "access": "errors",
    "tomltext": "config",
    "tokens": "access errors",
    "logs": "",
    "durable": "",
    "descriptors": "",
    "forms": "errors market",
    "origin": "market",
    "backup": "errors market rest verify csvtext durable backup",
    "backup.restore": "errors durable market config plan process backup catalog order replication "
    "rpc.wire",
    "follow": "",
    "backup.ledger": "errors market catalog.rules catalog.administration backup",
}
"""By the longest name that fits. A name stands for what is under it too; ``tap`` modules know
their own tier besides."""

PACKAGES = ["", *words("catalog order web web.http web.feed web.upstream rpc rpc.wire replication")]
"""They import nothing by themselves."""

FORBIDDEN_NAMES = re.compile(
    r"(Manager|Handler|Processor|Engine|Component|Helper|Utils?|Data|Info)$"
)
BLOCKING_COMMANDS = words(
    "verify rest cli commands.export commands.rejoin commands.watch commands.workload backup.source"
)
PAUSING_THREADS = words("catalog.views replication.database")


def sources():
    """Every module of ours, by its name without ``twstock.``, with its tree."""
    for path in sorted((ROOT / "twstock").rglob("*.py")):
        parts = path.relative_to(ROOT / "twstock").with_suffix("").parts
        if parts[0] != "pb":
            name = ".".join(part for part in parts if part != "__init__")
            yield name, path, ast.parse(path.read_text(), str(path))


MODULES = {name: (path, tree) for name, path, tree in sources()}


def imports(tree):
    """Every name that a tree imports, in full: ``package.module`` or ``module.name``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(tree):
    """The modules of ours that a tree imports, without ``twstock.``."""
    for name in imports(tree):
        if name.startswith("twstock."):
            ours = name.removeprefix("twstock.")
            while ours not in MODULES and not ours.startswith("pb"):
                ours = ours.rpartition(".")[0]
            yield ours


def is_under(name, prefix):
    """Whether a module is the named one or inside it."""
    return name == prefix or name.startswith(f"{prefix}.")


def rule_of(name):
    """What a module may import."""
    package, _, module = name.rpartition(".")
    if module == "tap":
        return [*MAY_IMPORT["*.tap"].split(), package]
    if package == "replication" and module in CORE:
        return ["errors", *(f"replication.{core}" for core in CORE)]
    return MAY_IMPORT[max((k for k in MAY_IMPORT if is_under(name, k)), key=len)].split()


def functions():
    """Every function of ours: where it is, and its node."""
    for name, (_, tree) in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                yield f"{name}.{node.name}", node


def public(tree, name):
    """Every class, function and method that others may use, by its full name."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            if node.name.startswith("_"):
                continue
            yield f"{name}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{name}.{node.name}")


def found(problems):
    """Fail with every problem, one a line."""
    problems = sorted(problems)
    assert not problems, "\n" + "\n".join(problems)


def test_pure_modules_import_nothing_that_can_leave_the_process():
    """A pure module imports data structures, types, and other pure modules."""
    problems = []
    for name in PURE:
        tree = MODULES[name][1]
        for imported in imports(tree):
            if imported.startswith("twstock."):
                continue
            if not any(imported == ok or imported.rpartition(".")[0] == ok for ok in HARMLESS):
                problems.append(f"{name} imports {imported}")
        for imported in own_imports(tree):
            if imported not in PURE and not (imported == "" or imported.startswith("pb")):
                problems.append(f"{name} imports {imported}, which is not pure")
    found(problems)


def test_pure_modules_call_nothing_that_can_leave_the_process():
    """No pure module opens a file, prints, or runs code from a text."""
    found(
        f"{name}:{node.lineno} calls {node.func.id}"
        for name in PURE
        for node in ast.walk(MODULES[name][1])
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in DICE_AND_DOORS
    )


def test_a_module_imports_only_what_its_package_may_know():
    """Each module keeps to the table of who may import whom."""
    problems = []
    for name, (_, tree) in MODULES.items():
        allowed = [] if name in PACKAGES else rule_of(name)
        for imported in own_imports(tree):
            # The package itself is a version number.
            if imported and not any(is_under(imported, ok) for ok in allowed):
                problems.append(f"{name} imports {imported}")
    found(problems)


def test_protobuf_is_known_to_the_wire_alone():
    """Only ``rpc.wire`` imports the generated code and protobuf."""
    found(
        f"{name} imports {imported}"
        for name, (_, tree) in MODULES.items()
        for imported in imports(tree)
        if ("_pb2" in imported or is_under(imported, "google")) and not name.startswith("rpc.wire.")
    )


def test_grpc_is_known_to_rpc_and_verify_alone():
    """Only ``rpc`` and ``verify`` import gRPC."""
    found(
        f"{name} imports {imported}"
        for name, (_, tree) in MODULES.items()
        for imported in imports(tree)
        if is_under(imported, "grpc") and not (is_under(name, "rpc") or name == "verify")
    )


def test_the_reactor_is_named_in_taps_inside_functions():
    """Importing a module installs no reactor; only ``tap`` modules, ``cluster`` and the client name
    it.
    """
    problems = []
    for name, (_, tree) in MODULES.items():
        if "twisted.internet.reactor" in imports(tree) and not (
            name.endswith(".tap") or name in ("cluster", "client.client")
        ):
            problems.append(f"{name} imports the reactor")
        top = ast.Module(
            [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], []
        )
        if "twisted.internet.reactor" in imports(top):
            problems.append(f"{name} imports the reactor when it is imported")
    found(problems)


def test_modules_and_functions_stay_small():
    """No module has 400 lines, no function 50, and the median function is below 10."""
    problems = [
        f"{name}: {lines} lines"
        for name, (path, _) in MODULES.items()
        if (lines := len(path.read_text().splitlines())) > MODULE_LINES_MAX
    ]
    sizes = {name: node.end_lineno - node.lineno + 1 for name, node in functions()}
    problems += [f"{name}: {n} lines" for name, n in sizes.items() if n > FUNCTION_LINES_MAX]
    found(problems)
    assert statistics.median(sizes.values()) < FUNCTION_LINES_MEDIAN_MAX


def test_everything_that_others_use_says_what_it_is_for():
    """Modules, public classes, functions and methods have docstrings; only the codecs of
    ``rpc.wire``, which come in pairs, need none besides their names.
    """
    problems = []
    for name, (_, tree) in MODULES.items():
        if ast.get_docstring(tree) is None:
            problems.append(f"{name} has no docstring")
        for full, node in public(tree, name):
            codec = is_under(name, "rpc.wire") and isinstance(node, ast.FunctionDef)
            if ast.get_docstring(node) is None and not codec:
                problems.append(f"{full} has no docstring")
    found(problems)


def test_classes_are_named_after_what_they_are():
    """No class has a name like Manager, Handler or Helper."""
    found(
        f"{name}.{node.name}"
        for name, (_, tree) in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and FORBIDDEN_NAMES.search(node.name)
    )


def test_services_never_sleep():
    """``time.sleep`` would stop a reactor. It is only in commands, which block anyway, and in code
    that has a thread of its own and wants to leave the interpreter to others.
    """
    others = {n: MODULES[n][1] for n in MODULES.keys() - {*BLOCKING_COMMANDS, *PAUSING_THREADS}}
    found(f"{name} imports time.sleep" for name in others if "time.sleep" in imports(others[name]))
    found(
        f"{name}:{node.lineno}"
        for name, tree in others.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "sleep"
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    )


def test_nothing_swallows_every_exception():
    """There is no bare ``except:``, which would hide even the request to stop."""
    found(
        f"{name}:{node.lineno}"
        for name, (_, tree) in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    )


def test_nothing_read_from_outside_can_run_code():
    """Nothing uses pickle, marshal, YAML, eval or exec."""
    problems = []
    for name, (_, tree) in MODULES.items():
        for imported in imports(tree):
            if imported.partition(".")[0] in ("pickle", "marshal", "shelve", "dill", "yaml"):
                problems.append(f"{name} imports {imported}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in ("eval", "exec"):
                problems.append(f"{name}:{node.lineno} uses {node.id}")
    found(problems)


def test_no_text_names_a_place_of_somebodys_machine():
    """No file of the repository names a directory that only one machine has."""
    place = re.compile(r"/(?:root|home|Users|work)/\w")
    suffixes = ["py", "md", "sh", "toml", "yaml", "proto", "svg", "js", "json", "html", "css"]
    texts = [ROOT / "Makefile", ROOT / "setup.py", *ROOT.glob("*.md"), *ROOT.glob("*.toml")]
    for top in ("twstock", "twisted", "tests", "docs", "deploy", "proto", ".ci"):
        texts += [
            path
            for path in (ROOT / top).rglob("*")
            if path.suffix in ("", *(f".{suffix}" for suffix in suffixes)) and path.is_file()
        ]
    found(
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts
        if not {"__pycache__", "node_modules"} & set(path.parts)
        and (match := place.search(path.read_text()))
    )


def test_tests_use_fakes():
    """No test imports a mock: a mock agrees to whatever is asked of it, a fake does what it stands
    for.
    """
    found(
        f"{path.name} imports {name}"
        for path in (ROOT / "tests").glob("*.py")
        for name in imports(ast.parse(path.read_text()))
        if is_under(name, "unittest.mock") or is_under(name, "mock")
    )


def test_plugins_can_live_beside_those_of_others():
    """The directory ``twisted`` is no package: a package would hide Twisted, or break it when
    uninstalled.
    """
    assert not (ROOT / "twisted/__init__.py").exists()
    assert not (ROOT / "twisted/plugins/__init__.py").exists()


def test_the_generated_code_is_what_the_generator_makes(tmp_path):
    """``twstock/pb`` is what ``make proto`` makes."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    protos = sorted((ROOT / "proto/twstock/pb").glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"]
    command += [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([*command, *map(str, protos)], check=True, timeout=60)
    made = {path.name: path.read_text() for path in (tmp_path / "twstock/pb").iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "twstock/pb").glob("*_pb2*")}
    assert made == kept


def test_every_pure_module_exists_and_none_is_forgotten():
    """The list of pure modules names only modules that exist, and each that could be listed."""
    assert set(PURE) <= MODULES.keys()
    for name, (_, tree) in MODULES.items():
        if name in PURE or name.count(".") < 1 or name.endswith(".tap"):
            continue
        outside = [i for i in imports(tree) if not i.startswith("twstock.")]
        harmless = all(i in HARMLESS or i.rpartition(".")[0] in HARMLESS for i in outside)
        ours = all(i in PURE or i == "" for i in own_imports(tree))
        assert not (tree.body[1:] and harmless and ours), f"{name} is pure: list it"


def test_every_module_has_its_place_in_the_table_of_packages():
    """ARCHITECTURE.md's table names each module once, in the right column, and none that does not
    exist. The codecs stand there together, as ``wire/``.
    """
    row = re.compile(r"^\| `([\w/]+)/` \| (.*) \| (.*) \|$", re.MULTILINE)
    named = []
    for package, *columns in row.findall((ROOT / "ARCHITECTURE.md").read_text()):
        prefix = "" if package == "twstock" else f"{package.replace('/', '.')}."
        for column, kind in zip(columns, ("pure", "doing"), strict=True):
            named += [f"{kind}: {prefix}{name}" for name in re.findall(r"`(\w+/?)`", column)]
    wanted = ["pure: rpc.wire/"] + [
        f"{'pure' if name in PURE else 'doing'}: {name}"
        for name, (path, _) in MODULES.items()
        if path.name != "__init__.py" and not is_under(name, "rpc.wire")
    ]
    assert sorted(named) == sorted(wanted)


def test_what_the_ways_through_the_code_name_is_there():
    """The functions and methods that ARCHITECTURE.md names in "Through the code" exist."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    (ways,) = re.findall(r"## Through the code\n(.*?)\n## ", text, re.DOTALL)
    named = set(re.findall(r"`(\w+(?:\.\w+)?)`", ways)) - {"tap"}
    defined = set()
    for _, tree in MODULES.values():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                defined.add(node.name)
            elif isinstance(node, ast.ClassDef):
                methods = (each for each in node.body if isinstance(each, FUNCTIONS))
                defined |= {f"{node.name}.{method.name}" for method in methods}
    assert len(named) > 40
    assert named <= defined


def test_a_text_that_no_planted_bug_has_is_told(capsys):
    """A mistyped selection of planted bugs is an error; otherwise it would look as if all were
    found.
    """
    with pytest.raises(SystemExit):
        mutants.main(["no such bug"])
    assert "no bug has 'no such bug'" in capsys.readouterr().err


def test_every_planted_bug_has_its_place():
    """The text that a planted bug replaces is there exactly once, and what it becomes is valid
    Python. No two bugs have the same name.
    """
    planted = [*mutants.MUTANTS, *mutants_services.MUTANTS, *mutants_client.MUTANTS]
    for mutant in planted:
        text = (ROOT / mutant.file).read_text()
        assert text.count(mutant.old) == 1, mutant.name
        if mutant.file.endswith(".py"):
            ast.parse(text.replace(mutant.old, mutant.new), mutant.name)
    assert len({mutant.name for mutant in planted}) == len(planted)
