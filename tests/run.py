"""The one test command: `python3 tests/run.py [--no-venv] [--no-install] [--pure | --compiled] [pytest arguments]`.

On any machine with Python 3.11 or newer it makes a virtual environment in the checkout, installs the package
with its test tools, installs the servers that the tests talk to where it may, then runs everything that CI
runs: format and lint, types, layers, then the tests over both builds, the checkout in pure Python and the package
compiled from it, which goes to build/compiled and is made again when a source has changed. The first step that fails
ends the run with exit code 1 and its name. pytest comes last: it runs all there is whatever fails, and what failed
before the last of its runs fails in that one once more, by its name. Without a C compiler the compiled build is
left out; where CI=true that is a failure.

Arguments that this file does not know go to pytest, and then nothing but pytest runs, over the checkout or with
--compiled over the compiled build, and no coverage is measured.

Only the standard library, as nothing is installed when it starts.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - this line is for the very versions that are too old
    sys.exit(f"tests/run.py: needs Python 3.11 or newer, this is {sys.version.split()[0]}")

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = "test-tools-installed"  # in the environment: a digest of what was installed into it
COMPILED = ROOT / "build" / "compiled"  # what is built of the checkout, to be tested as it is installed

# pytest's runs: which build, what of it. Only the first is traced: it alone takes the cores' every branch, and the
# conformance tests take four times as long when traced. ONCE are those whose subject is the same in both builds, as
# it is not compiled (several processes together), that make a build of their own, or whose load lasts; the compiled run
# has them.
TRACED = ["--cov=sidecar", "--cov-branch", "--cov-report=term", "--covered-fully"]
ONCE = [
    f"tests/e2e/test_{name}.py"
    for name in (
        "access_log",
        "admin_api",
        "build",
        "dashboard",
        "dashboard_access",
        "demo",
        "distributed",
        "dns",
        "etcd",
        "forking_servers",
        "hardening",
        "image",
        "metrics_scraped",
        "live_events",
        "new_user",
        "pod_lifecycle",
        "prometheus",
        "registration",
        "registry_outages",
        "registry_restarts",
        "reload",
        "retry_storm",
        "routing_workers",
        "socket_workers",
        "takeover",
        "trace_collectors",
        "token_renewal",
        "top",
        "workers",
    )
]
RUNS = {
    "pure Python, units and properties, traced": ("pure", ["tests/unit", "tests/property", *TRACED]),
    "pure Python, conformance and end to end": (
        "pure",
        ["tests/conformance", "tests/e2e", *(f"--ignore={path}" for path in ONCE)],
    ),
    "compiled, everything": ("compiled", ["tests"]),
}

# What the end-to-end tests and the benchmarks run, and Debian's package of each.
PROGRAMS = {
    "buildah": "buildah",
    "chromium": "chromium",
    "curl": "curl",
    "debootstrap": "debootstrap",
    "dnsmasq": "dnsmasq",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "node": "nodejs",
    "openssl": "openssl",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
    "setpriv": "util-linux",
    "systemd-analyze": "systemd",
    "unshare": "util-linux",
    "wrk": "wrk",
}
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])

# import-linter's command has no module of its own to run.
CHECKS = {
    "ruff check": ["-m", "ruff", "check", "."],
    "ruff format": ["-m", "ruff", "format", "--check", "."],
    "mypy": ["-m", "mypy"],
    "import layers": ["-c", "from importlinter.cli import lint_imports_command as lint; lint()"],
}

# Debian starts a server that it installs, unless policy-rc.d says no (exit 101, "action forbidden"). Whatever
# stands there is put back, also when the installation fails or is interrupted.
INSTALL = """
set -e
policy=/usr/sbin/policy-rc.d
kept=
undo() { rm -f "$policy"; if [ -n "$kept" ]; then mv "$kept" "$policy"; fi; }
trap undo EXIT
trap 'exit 1' HUP INT TERM
if [ -e "$policy" ]; then mv "$policy" "$policy.kept-by-tests"; kept="$policy.kept-by-tests"; fi
printf '#!/bin/sh\\nexit 101\\n' > "$policy"
chmod 755 "$policy"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -o DPkg::Lock::Timeout=60 install -y --no-install-recommends "$@"
"""


def main(arguments: Sequence[str]) -> int:
    """Run everything; the exit code."""
    parser = argparse.ArgumentParser(prog="tests/run.py", allow_abbrev=False, description=__doc__)
    parser.add_argument("--no-venv", action="store_true", help="use this very Python, make no environment")
    parser.add_argument("--no-install", action="store_true", help="install neither packages nor servers")
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--pure", dest="only", action="store_const", const="pure", help="not the compiled build"
    )
    only.add_argument("--compiled", dest="only", action="store_const", const="compiled", help="only that")
    options, chosen = parser.parse_known_args(arguments)
    python = sys.executable
    if not options.no_install:
        install_servers()
    if not options.no_venv and sys.prefix == sys.base_prefix:
        python = str(VENV / "bin" / "python")
        if not options.no_install:
            make_environment(python)
    if not options.no_install:
        install_package(python)
    # Programs that were installed beside the environment's Python are found by tests that start them by name.
    os.environ["PATH"] = os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")])
    builds = [options.only] if options.only else ["pure"] if chosen else ["pure", "compiled"]
    lacking = lacking_compiler() if "compiled" in builds else ""
    if lacking and (options.only or os.environ.get("CI", "").lower() in ("true", "1")):
        say(f"FAILED: the compiled build: {lacking}; nothing ran")
        return 1
    if lacking:
        say(f"the compiled build is left out: {lacking}")
        builds.remove("compiled")
    if chosen:
        compilation = Compilation(python) if options.only == "compiled" else None
        return 1 if compilation and not compilation.succeeds() else run_tests(python, builds[0], chosen)
    for name, command in CHECKS.items():
        step(name, [python, *command])
    return run_builds(python, builds)


def run_builds(python: str, builds: Sequence[str]) -> int:
    """All tests over these builds; the worst exit code of pytest's runs, or 1 when the compilation fails."""
    compilation = Compilation(python) if "compiled" in builds else None
    failed: list[str] = []
    code = 0
    for name, (build, what) in RUNS.items():
        if build not in builds:
            continue
        if build == "compiled" and compilation and not compilation.succeeds():
            return 1
        say(name)
        before = ["--failed-before", "; ".join(failed)] if failed else []
        found = run_tests(python, build, [*what, *before])
        failed += [name] if found else []
        code = max(code, found)
    return code


def run_tests(python: str, build: str, arguments: Sequence[str]) -> int:
    """pytest over one build; its exit code. -P: the current folder, the checkout, is not where modules are."""
    environ = {**os.environ, "PYTHONPATH": str(COMPILED if build == "compiled" else ROOT)}
    command = [python, "-P", "-m", "pytest", f"--build={build}", *arguments]
    return subprocess.call(command, cwd=ROOT, env=environ)


class Compilation:
    """The checkout becoming a compiled package, beside what runs meanwhile, unless that was done before.

    It takes two minutes of one processor; a traced run leaves the other idle.
    """

    def __init__(self, python: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stamp = COMPILED / "built-from"
        self._digest = self._sources(python)
        if self._stamp.exists() and self._stamp.read_text() == self._digest:
            return
        shutil.rmtree(COMPILED, ignore_errors=True)
        for copy in (ROOT / "build").glob("lib*/**/*.p*"):
            copy.unlink()  # setuptools copies what is new, but leaves what has gone
        pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        self._process = subprocess.Popen(
            ["nice", *pip, "--target", str(COMPILED), "."],
            cwd=ROOT,
            env={**os.environ, "SIDECAR_EXT": "require"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    @staticmethod
    def _sources(python: str) -> str:
        """A digest of what the package is made of and for."""
        digest = hashlib.sha256(python.encode() + sys.version.encode())
        for path in [ROOT / "pyproject.toml", *sorted((ROOT / "sidecar").rglob("*"))]:
            if path.is_file() and path.suffix not in (".pyc", ".so"):
                digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
        return digest.hexdigest()

    def succeeds(self) -> bool:
        """Wait for it; whether there is a compiled package then."""
        if self._process is not None:
            waited = time.monotonic()
            said, _ = self._process.communicate()
            if self._process.returncode:
                sys.stdout.buffer.write(said)
                sys.stdout.flush()
                say(f"FAILED: compile (exit {self._process.returncode}); the compiled build was not tested")
                return False
            self._stamp.write_text(self._digest)
            say("ok compile, waited for", waited)
        return True


def lacking_compiler() -> str:
    """What a C compilation for this Python lacks; empty when nothing."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(command) is None:
        return f"no C compiler ({command})"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "no headers of this Python (Python.h)"
    return ""


def install_servers() -> None:
    """Install the missing programs with apt-get where that is allowed; elsewhere say which are missing."""
    packages = {
        package for program, package in PROGRAMS.items() if shutil.which(program, path=SYSTEM_PATH) is None
    }
    lacking = lacking_compiler()
    if lacking:
        packages |= {"gcc", "libc6-dev"}
        if "headers" in lacking and sys.base_prefix == "/usr":
            packages.add("python3-dev")
    if sys.prefix == sys.base_prefix and not has_module("ensurepip"):
        packages.add("python3-venv")  # Debian ships venv without the part that makes environments
    if not packages:
        return
    names = " ".join(sorted(packages))
    shell = ["sh", "-c", INSTALL, "sh", *sorted(packages)]
    if shutil.which("apt-get") is None or not (os.geteuid() == 0 or sudo_works()):
        say(f"cannot install {names} here: tests that need them are skipped (and fail where CI=true)")
        return
    if os.geteuid() != 0:
        shell = ["sudo", "-n", *shell]
    started = time.monotonic()
    done = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"apt-get could not install {names}: {last_line(done.stderr)}")
    else:
        say(f"installed {names}", started)


def sudo_works() -> bool:
    """Whether sudo asks for no password."""
    return shutil.which("sudo") is not None and quiet(["sudo", "-n", "true"])


def has_module(name: str) -> bool:
    """Whether this Python can import it."""
    return quiet([sys.executable, "-c", f"import {name}"])


def make_environment(python: str) -> None:
    """Make .venv, again when what is there does not run (moved, or its Python has gone)."""
    if Path(python).exists() and quiet([python, "-m", "pip", "--version"]):
        return
    step("make .venv", [sys.executable, "-m", "venv", "--clear", str(VENV)])


def install_package(python: str) -> None:
    """Install the checkout, editable and pure, with its test tools; once for each pyproject.toml."""
    where = subprocess.run(
        [python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    stamp = Path(where) / STAMP
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    step(
        "pip install",
        [python, "-m", "pip", "install", "--quiet", "--editable", ".[test]"],
        SIDECAR_EXT="skip",
    )
    stamp.write_text(digest)


def step(name: str, command: Sequence[str], **environ: str) -> None:
    """Run one step, with this added to its environment; its output only when it fails, which ends the whole run."""
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        sys.stdout.buffer.write(done.stdout)
        sys.stdout.flush()
        say(f"FAILED: {name} (exit {done.returncode}); the steps after it did not run")
        raise SystemExit(1)
    say(f"ok {name}", started)


def quiet(command: Sequence[str]) -> bool:
    """Whether the command succeeds; its output is nobody's business."""
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0


def last_line(text: str) -> str:
    """The last line that says anything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def say(text: str, started: float | None = None) -> None:
    """One line about what happened, with the seconds it took."""
    took = "" if started is None else f" ({time.monotonic() - started:.1f} s)"
    print(f"tests/run.py: {text}{took}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)  # the shell's code for SIGINT
