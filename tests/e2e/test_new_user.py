"""Started as a new user would: a clone, the README's words, nothing else."""

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.proxy import ROOT
from support.requirements import lacking

# Of the caller's environment: where programs and a home are, and how packages are reached from here.
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy")
RUN = """\
import ast, json, pathlib, sys
scope, values = {}, {}
for node in ast.parse(pathlib.Path(sys.argv[1]).read_text()).body:
    code = ast.unparse(node)
    if isinstance(node, ast.Expr):
        values[node.lineno] = str(eval(code, scope))
    else:
        exec(code, scope)
print(json.dumps(values))
"""


def environment() -> dict[str, str]:
    """No virtual environment, no PYTHONPATH, no deployment; the mode is what a laptop's would be.

    CFLAGS: the compiler takes a quarter of the time to make what is slower.
    """
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return {**kept, "AUTOBOT_DEPLOYMENT_MODE": "local", "CFLAGS": "-O0 -g0"}


def run(
    command: list[str], directory: Path, environ: Mapping[str, str], seconds: float = 60.0
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def first_block(readme: str, language: str) -> str:
    """The first fenced block in this language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no {language} block"
    return found[1]


def claims(block: str) -> dict[int, str]:
    """What the comments behind expressions say is returned: a literal, or one word without spaces."""
    found = {}
    for number, line in enumerate(block.splitlines(), 1):
        comment = line.partition("  # ")[2].strip()
        if comment and (" " not in comment or is_literal(comment)):
            found[number] = comment
    return found


def is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return True


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The checkout as it is committed, in an empty folder."""
    if shutil.which("git") is None:
        lacking("not installed: git")
    environ = environment()
    known = run(["git", "rev-parse", "--verify", "HEAD"], ROOT, environ)
    inside = run(["git", "rev-parse", "--show-toplevel"], ROOT, environ)
    if known.returncode or inside.stdout.strip() != str(ROOT):
        lacking("this checkout is no git repository with a commit, so there is nothing to clone")
    made = run(["git", "clone", "--quiet", str(ROOT), "clone"], tmp_path, environ)
    assert made.returncode == 0, made.stderr
    return tmp_path / "clone"


@pytest.mark.timeout(480)  # most of it is the compiler
def test_the_readme_is_all_one_needs(clone: Path) -> None:
    environ = environment()
    readme = (clone / "README.md").read_text()

    # See it work
    command = first_block(readme, "sh").strip()
    assert "\n" not in command, "it is to be one command"
    done = run(["sh", "-c", f"{command} --seconds 3"], clone, environ, 420.0)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    said = run([str(clone / ".venv" / "bin" / "sidecar"), "--version"], clone, environ).stdout
    assert re.fullmatch(r"sidecar \S+ \((compiled|pure Python)\)\n", said)
    assert "compiled" in said or shutil.which("gcc") is None
    assert re.search(r"http://localhost:\d+/", done.stdout), done.stdout
    total = re.search(r"(\d+) requests, 0 failed", done.stdout)
    assert total, done.stdout
    assert int(total[1]) > 0

    # Use it
    program = clone / ".venv" / "bin"
    user = clone.parent / "user"
    user.mkdir()
    assert "`sidecar.yml`" in readme.partition("```yaml\n")[0].splitlines()[-2], "the README names the file"
    (user / "sidecar.yml").write_text(first_block(readme, "yaml"))
    done = run([str(program / "sidecar"), "check", "--config", "sidecar.yml"], user, environ)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    shown = first_block(readme, "console").partition("$ sidecar check --config sidecar.yml\n")[2]
    # What the machine allows may be worth a note.
    assert [line for line in done.stdout.splitlines() if not line.startswith("note: here ")] == [
        shown.splitlines()[0]
    ]

    # From Python
    block = first_block(readme, "python")
    claimed = claims(block)
    assert len(claimed) >= 2, "the comments say what is returned"
    (user / "block.py").write_text(block)
    done = run([str(program / "python"), "-c", RUN, "block.py"], user, environ)
    assert done.returncode == 0, done.stderr
    returned = {int(line): value for line, value in ast.literal_eval(done.stdout).items()}
    assert {line: returned[line] for line in claimed} == claimed
