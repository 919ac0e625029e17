"""Builds the image and runs it, without a container engine: `python3 tests/image.py`, as root, on Debian.

It needs buildah and debootstrap (Debian's packages), takes some three minutes and 4 GB in a temporary folder, and is
what tests/e2e/test_image.py runs. debootstrap makes the two base images from the mirror that apt uses, buildah builds
the Dockerfile on them, and then the sidecar is run as the image says, the way a strict engine would: as process 1 of
its own process, mount and network namespaces, on a read-only root, as the image's user, without any capability
and without a shell. What is wrong ends it with one line and exit code 1; at the end is what the image takes.

    --base IMAGE --build-base IMAGE   images that are there, in place of debootstrap's
    --keep FOLDER                     work there and leave everything: the next run makes no base images

Only the standard library, as nothing is installed when it starts.
"""

import argparse
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
BASES = {
    "base": ["python3", "python3-venv"],
    "build-base": ["python3", "python3-venv", "python3-dev", "gcc", "libc6-dev"],
}
IMAGE = "localhost/sidecar"
PROGRAMS = ("buildah", "debootstrap", "apt-get", "unshare", "nsenter", "mount")
CONFIGURATION = """\
external_registry: {type: file, path: endpoints.yml}
services:
  api: {port: 8001}
sidecar:
  metrics: 0.0.0.0:9902
"""
LAST_GOOD = "  last_good: /var/lib/sidecar/last-good.json\n"
# Every module that is loaded has bytecode that Python will take.
BYTECODE = """
import os, sys, sidecar.app, sidecar.admin.server, sidecar.cli
bare = [name for name, one in sys.modules.items()
        if getattr(one, "__cached__", None) and not os.path.exists(one.__cached__)]
sys.exit(f"without bytecode: {bare}" if bare else 0)
"""
# The answer of an upstream that nobody serves is the sidecar's own.
ASK = """
import http.client
asked = http.client.HTTPConnection("127.0.0.1", 8001, timeout=5)
asked.request("GET", "/")
answer = asked.getresponse()
print(answer.status, answer.getheader("x-sidecar-error"))
"""
# linux/prctl.h, linux/sockios.h, linux/if.h
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def main() -> int:
    """Build, look and run; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="")
    parser.add_argument("--build-base", default="")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    lacking = [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]
    if os.geteuid() != 0 or lacking:
        fail(f"needs root and {', '.join(lacking) or 'nothing else'}; see --help")
    os.environ["PATH"] = search_path()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="sidecar-image-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        store = Store(folder)
        base = options.base or store.base("base")
        store.build(base, options.build_base or store.base("build-base"))
        check(store)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print("tests/image.py: the image is as it should be")
    return 0


class Store:
    """buildah with a store of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def buildah(self, *arguments: str | Path, show: bool = False) -> str:
        """One command; what it printed."""
        places = ["--root", self.folder / "store", "--runroot", self.folder / "run"]
        command = ["buildah", *places, "--storage-driver", "vfs", *arguments]
        return run([str(part) for part in command], show)

    def base(self, name: str) -> str:
        """The base image of this name, made by debootstrap unless it was before."""
        image = f"localhost/{name}"
        if image in self.buildah("images", "--noheading", "--format", "{{.Name}}").split():
            return image
        started = time.monotonic()
        release, mirror = apt_mirror()
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        debs = self.folder / "debs"
        debs.mkdir(exist_ok=True)
        include = "--include=" + ",".join(BASES[name])
        run(
            ["debootstrap", "--variant=minbase", f"--cache-dir={debs}", include, release, str(target), mirror]
        )
        for left in (
            "var/cache/apt",
            "var/lib/apt/lists",
        ):  # as the images of Docker's library leave them out
            shutil.rmtree(target / left, ignore_errors=True)
        container = self.buildah("from", "scratch").strip()
        self.buildah("copy", "--quiet", container, target, "/")
        self.buildah("commit", "--quiet", container, image)
        self.buildah("rm", container)
        shutil.rmtree(target)
        say(f"{image} of {release}", started)
        return image

    def build(self, base: str, build_base: str) -> None:
        """The image, reaching the package index as pip does outside."""
        started = time.monotonic()
        pip = self.folder / "pip.conf"
        pip.write_text(pip_configuration())
        certificates = "/etc/ssl/certs"
        volume = ["--volume", f"{certificates}:{certificates}:ro"] if Path(certificates).is_dir() else []
        self.buildah(
            *(
                "bud",
                "--isolation",
                "chroot",
                "--format",
                "docker",
                "--layers=false",
                "--pull-never",
                *volume,
            ),
            *("--secret", f"id=pip,src={pip}", "--tag", IMAGE),
            *("--build-arg", f"BASE={base}", "--build-arg", f"BUILD_BASE={build_base}", ROOT),
        )
        say(f"{IMAGE} built", started)

    def configuration(self) -> dict[str, Any]:
        """What the image says of how it is run, in Docker's form."""
        return json.loads(self.buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]

    def show_sizes(self, root: Path) -> None:
        """What each layer of the image takes, unpacked, and what is in the sidecar's.

        They are counted here, as a layer for each step would have buildah copy the whole base that often: this
        driver shares nothing between layers.
        """
        packages = root / "opt/sidecar/lib"
        parts = {
            "the whole image": size(root),
            "COPY /opt/sidecar": size(root / "opt/sidecar"),
        }
        for what, taken in parts.items():
            print(f"{taken / 1e6:8.1f} MB  {what}")
        found = next(packages.glob("python3*/site-packages"))
        for one in sorted(found.iterdir(), key=size, reverse=True)[:8]:
            print(f"{size(one) / 1e6:8.1f} MB      {one.name}")


def size(where: Path) -> int:
    """Bytes of the files below it, or of itself."""
    files = (
        [where]
        if where.is_file()
        else [one for one in where.rglob("*") if one.is_file() and not one.is_symlink()]
    )
    return sum(one.stat().st_size for one in files)


def check(store: Store) -> None:
    """What the image is like, and that the sidecar runs from it."""
    config = store.configuration()
    expect(config["User"] == "10001:10001", f"the user is {config['User']!r}")
    expect(config["Entrypoint"] == ["sidecar"] and config["Cmd"] == ["run"], "it starts with something else")
    expect(config["StopSignal"] == "SIGTERM", "it is stopped by another signal")
    healthy = config["Healthcheck"]["Test"]
    expect(healthy == ["CMD", "sidecar", "status", "--ready"], f"its health check is {healthy}")
    container = store.buildah("from", "--pull-never", IMAGE).strip()
    root = Path(store.buildah("mount", container).strip())
    try:
        for name in ("usr/bin/gcc", "usr/bin/cc", "opt/sidecar/bin/pip"):
            expect(not (root / name).exists(), f"there is a /{name}")
        state = (root / "var/lib/sidecar").stat()
        expect(
            (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (10001, 0, 0o770), "who owns the state"
        )
        etc = store.folder / "etc"
        etc.mkdir(exist_ok=True)
        (etc / "endpoints.yml").write_text("api: []\n")
        (etc / "sidecar.yml").write_text(CONFIGURATION)
        user = tuple(int(part) for part in config["User"].split(":"))
        runs(config, root, etc, (user[0], user[1]), healthy[1:])
        # OpenShift gives a user of its own choice, and the group 0.
        (etc / "sidecar.yml").write_text(CONFIGURATION + LAST_GOOD)
        runs(config, root, etc, (1_000_730_000, 0), healthy[1:], state=True)
        store.show_sizes(root)
    finally:
        store.buildah("umount", container)
        store.buildah("rm", container)


def runs(
    config: Mapping[str, Any],
    root: Path,
    etc: Path,
    user: tuple[int, int],
    healthy: list[str],
    state: bool = False,
) -> None:
    """Run it as `user` until it is ready, look at it, and end it. state: its folder can be written to."""
    words = [*config["Entrypoint"], "run", "--config", "/etc/sidecar/sidecar.yml"]
    plan = {
        "root": str(root),
        "etc": str(etc),
        "state": state,
        "user": user,
        "folder": config["WorkingDir"],
        "environ": dict(entry.split("=", 1) for entry in config["Env"]),
    }
    say(f"running as {user[0]}:{user[1]}, {'with' if state else 'without'} a place to write")
    started = time.monotonic()
    alone = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
    process = subprocess.Popen(
        [*alone, *inside({**plan, "mount": True}, words)], stdin=subprocess.DEVNULL, cwd="/"
    )
    try:
        pid = first_child(process.pid)
        within = ["nsenter", f"--target={pid}", "--mount", "--pid", "--net"]
        last = subprocess.CompletedProcess[str]([], 1)
        while last.returncode and time.monotonic() - started < 30 and process.poll() is None:
            last = subprocess.run(
                [*within, *inside(plan, healthy)], capture_output=True, text=True, check=False
            )
        expect(last.returncode == 0, f"its health check says {last.stdout}{last.stderr}")
        say("the health check succeeds", started)
        facts = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        expect(facts["Uid"].split() == [str(user[0])] * 4, f"it runs as {facts['Uid']}")
        expect(facts["NSpid"].split()[-1] == "1", "it is not process 1")
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            expect(int(facts[name], 16) == 0, f"it has capabilities ({name} {facts[name]})")
        for words, answer in (
            (["/opt/sidecar/bin/python", "-c", BYTECODE], ""),
            (["/opt/sidecar/bin/python", "-c", ASK], "503 no_endpoints\n"),
            (["sidecar", "--version"], None),
        ):
            said = run([*within, *inside(plan, words)])
            expect(answer is None or said == answer, f"{words[0]} said {said!r}")
        expect("compiled" in said, f"it is {said!r}")
        kept = root / "var/lib/sidecar/last-good.json"
        while state and not kept.exists():  # it is written some time after the first snapshot
            expect(time.monotonic() - started < 60, "no last good snapshots were written")
            time.sleep(0.1)
        os.kill(pid, signal.SIGTERM)
        asked = time.monotonic()
        expect(process.wait(15) == 0, f"SIGTERM ended it with {process.returncode}")
        say("SIGTERM to process 1 ends it with 0", asked)
    finally:
        if process.poll() is None:
            process.kill()  # and --kill-child what is in the namespace
            process.wait()


def inside(plan: Mapping[str, Any], words: Sequence[str]) -> list[str]:
    """The command that runs `words` in the image's root, once it is in the namespaces."""
    return [sys.executable, "-I", str(Path(__file__).resolve()), "--inside", json.dumps(plan), *words]


def become(plan: Mapping[str, Any], words: Sequence[str]) -> None:
    """Be what the image runs: this process goes into its root, gives everything up, and executes `words`."""
    root, environ = Path(plan["root"]), plan["environ"]
    if plan.get("mount"):
        prepare(root, plan)
    libc = ctypes.CDLL(None, use_errno=True)
    os.chroot(root)
    os.chdir(plan["folder"])
    for capability in range(64):  # those that the kernel does not know are refused
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        fail("cannot set no_new_privs")
    os.setgroups([])
    os.setgid(plan["user"][1])
    os.setuid(plan["user"][0])
    os.environ["PATH"] = environ["PATH"]
    os.execvpe(words[0], list(words), environ)


def prepare(root: Path, plan: Mapping[str, Any]) -> None:
    """The mounts of an engine with --read-only, /dev and /proc as containers have them, and no shell."""
    mount("--rbind", root, root)
    mount("--bind", plan["etc"], root / "etc/sidecar")
    if plan["state"]:
        mount("--bind", root / "var/lib/sidecar", root / "var/lib/sidecar")
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", root / "dev")
    for name in ("null", "zero", "random", "urandom"):
        (root / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", root / "dev" / name)
    for name in ("dash", "bash", "sh", "rbash"):
        shell = root / "usr/bin" / name
        if shell.exists() and not shell.is_symlink():
            mount("--bind", "/dev/null", shell)
    mount("-o", "remount,bind,ro", root / "etc/sidecar")
    mount("-o", "remount,bind,ro", root)
    with socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as control:  # a new network namespace has lo, but down
        asked = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", asked)[1] | IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags))


def mount(*arguments: str | Path) -> None:
    """mount(8)."""
    run(["mount", *(str(part) for part in arguments)])


def first_child(pid: int) -> int:
    """The child that unshare has forked: process 1 of the namespace, by the number that it has here."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    sys.exit("tests/image.py: unshare forked nobody")


def apt_mirror() -> tuple[str, str]:
    """This Debian's release, and where apt gets it from."""
    facts = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    release = facts.get("VERSION_CODENAME", "").strip('"')
    listed = run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(SITE)", "Created-By: Packages"]
    )
    for line in listed.splitlines():
        codename, component, site = (*line.split(), "", "", "")[:3]
        if (codename, component) == (release, "main"):
            return release, site
    sys.exit(
        f"tests/image.py: apt knows no mirror of {release or 'this system'}; give --base and --build-base"
    )


def pip_configuration() -> str:
    """pip's settings here that say where its index is, for the build: folders of this machine are none of them."""
    lines = ["[global]"]
    for line in run([sys.executable, "-m", "pip", "config", "list"]).splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        value = " ".join(part for part in value.strip("'").split() if not part.startswith("file:"))
        if name in ("cert", "index-url", "extra-index-url", "proxy", "timeout", "trusted-host") and value:
            lines.append(f"{name} = {value}")
    return "\n".join(dict.fromkeys(lines)) + "\n"


def search_path() -> str:
    """Where programs are: Debian has some where an ordinary PATH does not look."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def run(command: Sequence[str], show: bool = False) -> str:
    """What it printed. What fails ends everything, with its last lines."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        fail(f"{' '.join(command[:8])} ended with {done.returncode}:\n{last}")
    return done.stdout


def expect(holds: bool, otherwise: str) -> None:
    """End with this line unless it holds."""
    if not holds:
        fail(otherwise)


def say(text: str, started: float | None = None) -> None:
    """One line about what happened, with the seconds it took."""
    took = "" if started is None else f" ({time.monotonic() - started:.1f} s)"
    print(f"tests/image.py: {text}{took}", flush=True)


def fail(text: str) -> NoReturn:
    """End with exit code 1."""
    sys.exit(f"tests/image.py: {text}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        become(json.loads(sys.argv[2]), sys.argv[3:])
    sys.exit(main())
