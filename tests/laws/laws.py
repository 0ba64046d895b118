# SPDX-License-Identifier: Apache-2.0
"""The laws of the house, as functions over a source tree: each yields the places that break it.

test_laws.py runs them over this tree, and over small trees with a planted violation, so that a law
that has stopped looking is noticed.
"""
import pathlib
import re
import subprocess

ROOMS = ["base", "os", "observe", "journal", "work", "http", "points", "events", "tasks", "snapshots",
         "serve", "cli"]
SIBLINGS = {"points", "events", "tasks"}

# Headers that call the kernel, and who may include them besides src/os. Each with its reason.
KERNEL = re.compile(r"^(unistd|fcntl|pthread|poll|signal|dirent|netdb|sched|time|sys/.*|netinet/.*|"
                    r"arpa/.*)\.h$")
KERNEL_ALLOWED = {
    "observe/log.c": "gmtime_r breaks a time into its parts and asks nobody",
    "cli/record_print.c": "the same",
    "http/": "libmicrohttpd does its own input and output, and its header names these types",
}

BANNED = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|system|popen|alloca|"
                    r"rand|srand|strncpy|localtime|gmtime|setjmp|longjmp|signal)\s*\(")

# Functions over 70 lines, files over 1,000: with a reason, or not at all.
LONG_FUNCTIONS = {}
LONG_FILES = {}
LONG_HEADERS = {
    "http/http.h": "the one face of the server, its contracts stand in it",
    "journal/local/local.h": "private to the engine: its locks and states are told in one place",
}

# What lives in a file for the whole run. Tables are const; the rest is named here with a reason.
MUTABLE_ALLOWED = {
    "current": "base/error.c: the calling thread's marks",
    "held_ranks": "os/sync.c: the locks that the calling thread holds",
    "kernels": "chosen once at the first call from what the CPU has",
}


def read(path):
    return path.read_text(encoding="utf-8")


def sources(src, *suffixes, tests=False):
    for path in sorted(src.rglob("*")):
        if path.suffix in suffixes and path.is_file():
            if tests or not (path.name.startswith("test_") or path.name.startswith("testing")):
                yield path


def room_of(path, src):
    parts = path.relative_to(src).parts
    return parts[0] if len(parts) > 1 else "main"


def includes(path):
    return re.findall(r'^#include ([<"])([^>"]+)[>"]', read(path), re.M)


def includes_point_downward(src):
    for path in sources(src, ".c", ".h", ".cc", tests=True):
        room = room_of(path, src)
        if room == "main":
            continue
        for kind, name in includes(path):
            other = name.split("/")[0]
            if kind != '"' or other not in ROOMS:
                continue
            if ROOMS.index(other) > ROOMS.index(room):
                yield f"{path.relative_to(src)} includes {name}: {other} lies above {room}"
            if other != room and {other, room} <= SIBLINGS:
                yield f"{path.relative_to(src)} includes {name}: siblings do not see each other"


def kernel_is_called_in_os_alone(src):
    for path in sources(src, ".c", ".h", ".cc"):
        place = str(path.relative_to(src))
        if place.startswith("os/") or any(place.startswith(a) for a in KERNEL_ALLOWED):
            continue
        for kind, name in includes(path):
            if kind == "<" and KERNEL.match(name) and name not in ("sys/types.h",):
                yield f"{place} includes <{name}>"


def one_place_acknowledges_writes(src):
    """`acknowledged = true` is what lets a write route answer 2xx (request.c asserts it)."""
    places = [p for p in sources(src / "http", ".c", ".h")
              if re.search(r"\backnowledged = true\b|\backnowledging = true\b", read(p))]
    if [p.name for p in places] != ["acknowledge.c"]:
        yield f"a write's 2xx is allowed in {[p.name for p in places]}, not in acknowledge.c alone"


def strip_comments(text):
    blank = lambda m: re.sub(r"[^\n]", " ", m.group(0))
    text = re.sub(r"/\*.*?\*/", blank, text, flags=re.S)
    return re.sub(r'"(\\.|[^"\\\n])*"', blank, text)


# int functions that cannot fail: marks of an error, orders, places in a table, a sentence that is set.
INFALLIBLE = r"error_|cli_|problem_|\w+_compare$|\w+_find$"


def fallible_functions_must_be_used(src):
    """An int function declared in a header is fallible: its result must be used."""
    for path in sources(src, ".h"):
        text = strip_comments(read(path))
        for match in re.finditer(r"^(?:static inline )?int (?:MUST_USE )?(\w+)\(([^;{]*)\)([^;{]*)[;{]",
                                 text, re.M):
            head, name = match.group(0), match.group(1)
            if "MUST_USE" in head or re.match(INFALLIBLE, name):
                continue
            yield f"{path.relative_to(src)}: {name} is not MUST_USE"


def no_banned_calls(src):
    for path in sources(src, ".c", ".h", ".cc"):
        for number, line in enumerate(strip_comments(read(path)).splitlines(), 1):
            match = BANNED.search(line)
            if match:
                yield f"{path.relative_to(src)}:{number} calls {match.group(1)}"


def files_stay_small(src):
    for path in sources(src, ".c", ".h", ".cc"):
        place, lines = str(path.relative_to(src)), read(path).count("\n")
        bound = 250 if path.suffix == ".h" else 1000
        if lines > bound and place not in LONG_FILES and place not in LONG_HEADERS:
            yield f"{place} has {lines} lines"


def functions(path):
    """(name, lines) of the functions of a file, as ctags sees them."""
    out = subprocess.run(["ctags", "--languages=C,C++", "--kinds-C=f", "--kinds-C++=f",
                          "--fields=+ne", "-f", "-", str(path)], capture_output=True, text=True,
                         check=True).stdout
    for line in out.splitlines():
        start, end = re.search(r"\bline:(\d+)", line), re.search(r"\bend:(\d+)", line)
        if start and end:
            yield line.split("\t")[0], int(end.group(1)) - int(start.group(1)) + 1


def functions_stay_small(src):
    lengths = []
    for path in sources(src, ".c", ".cc"):
        for name, lines in functions(path):
            lengths.append(lines)
            if lines > 70 and name not in LONG_FUNCTIONS:
                yield f"{path.relative_to(src)}: {name} has {lines} lines"
    lengths.sort()
    if lengths and lengths[len(lengths) // 2] > 15:
        yield f"the median function has {lengths[len(lengths) // 2]} lines, more than 15"
    main = src / "main.c"
    if main.exists() and read(main).count("\n") > 40:
        yield "main.c has more than 40 lines"


def files_open_with_what_they_are(src):
    for path in sources(src, ".c", ".h", ".cc", ".def", tests=True):
        lines = read(path).splitlines()
        if not lines or "SPDX-License-Identifier: Apache-2.0" not in lines[0]:
            yield f"{path.relative_to(src)} does not open with its licence"
        elif len(lines) < 2 or not lines[1].startswith("/*"):
            yield f"{path.relative_to(src)} does not say what it is"


def nothing_is_left_for_later(src):
    for path in sources(src, ".c", ".h", ".cc", ".def", tests=True):
        for number, line in enumerate(read(path).splitlines(), 1):
            if re.search(r"\b(TODO|FIXME|XXX|HACK)\b|#if 0", line):
                yield f"{path.relative_to(src)}:{number}: {line.strip()}"


def rooms_have_a_page(src):
    for room in ROOMS:
        if (src / room).is_dir() and not (src / room / "README.md").exists():
            yield f"{room}/ has no README.md"


def state_is_passed_not_kept(objects):
    """No writable data at file scope in the objects of the program. (Const tables of pointers lie
    in .data.rel.ro.)"""
    for path in objects:
        out = subprocess.run(["objdump", "-t", str(path)], capture_output=True, text=True,
                             check=True).stdout
        for line in out.splitlines():
            match = re.match(r"[0-9a-f]+ .{7} (\.t?data|\.t?bss|\*COM\*)\s+[0-9a-f]+\s+(?:\.hidden )?"
                             r"(\S+)$", line)
            name = re.sub(r"\.\d+$", "", match.group(2)) if match else ""
            if name and not name.startswith(".") and name not in MUTABLE_ALLOWED:
                yield f"{pathlib.Path(path).name}: {name}"


LAWS = [includes_point_downward, kernel_is_called_in_os_alone, one_place_acknowledges_writes,
        fallible_functions_must_be_used, no_banned_calls, files_stay_small, functions_stay_small,
        files_open_with_what_they_are, nothing_is_left_for_later, rooms_have_a_page]
