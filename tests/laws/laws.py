# SPDX-License-Identifier: Apache-2.0
"""The laws of the house. A law is a function from a tree to its violations; what each one allows
all the same stands in exceptions.py, with the reason. test_laws.py applies them to this tree, and
tries each on a planted violation."""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import tempfile

from source import Violation

# A room includes itself and what stands before it.
ROOMS = ["base", "os", "observe", "redis", "journal", "work", "keyed", "http", "points", "events",
         "tasks", "snapshots", "serve", "cli"]
# Siblings: none of these includes another.
KINDS = {"points", "events", "tasks", "snapshots"}

C_LINES_MAX = 1000
H_LINES_MAX = 250
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_MEDIAN_MAX = 15
MAIN_LINES_MAX = 40
README_LINES_MAX = 80  # about a page

LAWS = {}


def law(check):
    LAWS[check.__name__] = check
    return check


# ---- Layers ----
@law
def rooms_look_down(tree):
    """A room includes no header of a room after it in ROOMS; siblings do not see each other."""
    for source in tree.sources:
        if source.room and source.room not in ROOMS:
            yield Violation(f"src/{source.room}", "a room that ROOMS does not know")
            continue
        for line, header in source.includes:
            if header.startswith("<"):
                continue
            room = header.split("/")[0] if "/" in header else None
            if room not in ROOMS:
                yield Violation(source.path, f'line {line}: "{header}" is not "room/header.h"')
            elif source.room and ROOMS.index(room) > ROOMS.index(source.room):
                yield Violation(source.path, f"line {line}: {source.room} looks up to {header}")
            elif room != source.room and {room, source.room} <= KINDS:
                yield Violation(source.path, f"line {line}: {source.room} sees its sibling {room}")


@law
def private_headers_stay_in_their_folder(tree):
    """What a folder's internal.h, or a driver's folder (src/room/driver/), declares is its own."""
    for source in tree.sources:
        folder = source.path.rsplit("/", 1)[0]
        for line, header in source.includes:
            if header.startswith("<") or "/" not in header:
                continue
            home, name = ("src/" + header).rsplit("/", 1)
            inner = home.count("/") > 1
            if (name == "internal.h" or inner) and home != folder:
                yield Violation(source.path, f"line {line}: {header} is private to {home}")


LIBRARIES = {  # ARCHITECTURE.md, "What we stand on"
    "<microhttpd.h>": {"src/http/request.h", "src/http/side.c"},
    "<curl/curl.h>": {"src/http/transfer.c"},
    "<simdjson.h>": {"src/base/json_parser.cc"},
    "<rocksdb/c.h>": {"src/keyed/database.h"},
    "<zlib.h>": {"src/http/decode.c", "src/serve/assets.c"},
    "<zstd.h>": {"src/http/decode.c"},
    "<hiredis/hiredis.h>": {"src/redis/redis.h"},
    "<xxhash.h>": {"src/base/hash.c"},
    "<amqp.h>": {"src/journal/remote/rabbitmq_link.h"},
    "<amqp_ssl_socket.h>": {"src/journal/remote/rabbitmq_link.c"},
    "<amqp_tcp_socket.h>": {"src/journal/remote/rabbitmq_link.c"},
    "<librdkafka/rdkafka.h>": {"src/journal/remote/kafka.h"},
    "<nghttp2/nghttp2.h>": {"src/points/qdrant/rpc.c"},
    "<gnutls/gnutls.h>": {"src/points/qdrant/tls.c"},
}


@law
def libraries_have_their_place(tree):
    """A library is known to the files that stand for it, and could be replaced there."""
    for source in tree.sources:
        for line, header in source.includes:
            if not source.is_test and source.path not in LIBRARIES.get(header, {source.path}):
                yield Violation(source.path, f"line {line}: {header} is for {LIBRARIES[header]}")


KERNEL_HEADERS = re.compile(
    r"<(unistd|fcntl|pthread|poll|signal|dirent|netdb|sched|spawn|termios|semaphore|aio|pwd|grp|"
    r"sys/.*|netinet/.*|arpa/.*|linux/.*)\.h>")
# Of headers that are everywhere: files, clocks, sleeping, processes.
KERNEL_CALLS = re.compile(
    r"\b(fopen|freopen|fdopen|fclose|fread|tmpfile|remove|rename|popen|open|openat|close|"
    r"read|write|pread|pwrite|fsync|fdatasync|mmap|munmap|unlink|mkdir|rmdir|time|clock|"
    r"clock_gettime|gettimeofday|sleep|usleep|nanosleep|getrandom|fork|execv|execve|execvp|kill|"
    r"sigaction|socket|bind|listen|accept|connect|send|recv|epoll_wait|poll|select|getenv|"
    r"pthread_\w+|thrd_\w+|mtx_\w+)\s*\(")
PRINTING_CALLS = re.compile(r"\b(printf|vprintf|fprintf|vfprintf|dprintf|puts|putchar|fputs|fputc|"
                            r"putc|fwrite|perror)\s*\(")


def calls(source, pattern):
    """(name, line) of the calls; not of members, nor of declarations of our own."""
    for match in pattern.finditer(source.code):
        before = source.code[:match.start()].rstrip()
        if not before.endswith((".", "->")) and not re.search(r"\b(struct|void|int|bool)$", before):
            yield match.group(1), source.line_of(match.start(1))


@law
def only_os_calls_the_kernel(tree):
    """Files, clocks, sockets, threads: through src/os. Tests stand outside."""
    for source in tree.sources:
        if source.room == "os" or source.is_test:
            continue
        for line, header in source.includes:
            if KERNEL_HEADERS.fullmatch(header):
                yield Violation(f"{source.path}:{header}", f"line {line}")
        for name, line in calls(source, KERNEL_CALLS):
            yield Violation(f"{source.path}:{name}", f"line {line}")


@law
def library_rooms_do_not_print(tree):
    """Only cli speaks to the terminal."""
    for source in tree.sources:
        if source.room == "cli" or source.is_test:
            continue
        for name, line in calls(source, PRINTING_CALLS):
            yield Violation(f"{source.path}:{name}", f"line {line}")


# ---- Invariant 1 ----
ACKNOWLEDGE = "src/http/acknowledge.c"


# In the one function that starts answers:
GUARD = re.compile(r"assert\(\s*status\s*>=\s*300\s*\|\|\s*\w+->acknowledged\s*\|\|\s*"
                   r"!\s*http_request_writes\(")
ANSWERS = ("src/http/respond.c", "src/http/side.c")  # side: metrics and health, writes nothing


def _found(source, pattern, why):
    return [Violation(source.path, f"line {source.line_of(match.start())}: {why}")
            for match in re.finditer(pattern, source.code)]


@law
def one_place_acknowledges_writes(tree):
    """acknowledge.c alone marks a write's answer as acknowledged, at one place, and renders it;
    respond.c alone hands answers to libmicrohttpd, and refuses a 2xx to a write without the mark.
    """
    marks = []
    guards = 0
    for source in tree.sources:
        if source.is_test or source.room == "cli":  # cli counts the acknowledgements it gets
            continue
        marks += _found(source, r"\backnowledged\s*=(?!=)\s*(?!false)\w", "marks a write")
        guards += len(GUARD.findall(source.code))
        if source.path != ACKNOWLEDGE:
            yield from _found(source, r"(?:->|\.)write\.render\s*\(", "renders a write's answer")
        if source.path not in ANSWERS:
            yield from _found(source, r"\bMHD_queue_response\s*\(", "answers past respond.c")
    if len(marks) > 1 or any(mark.where != ACKNOWLEDGE for mark in marks):
        yield from marks
    if not marks:
        yield Violation(ACKNOWLEDGE, "nothing acknowledges a write")
    if guards != 1:
        yield Violation(ANSWERS[0], f"{guards} places refuse a 2xx without the mark, not one")


# ---- Errors and calls ----
PROTOTYPE = re.compile(r"^(?:static\s+)?(?:inline\s+)?int\s+(?:MUST_USE\s+)?(\w+)\s*"
                       r"\(((?:[^;{}()]|\([^()]*\))*)\)([^;{}]*)[;{]", re.M)


@law
def fallible_functions_must_be_used(tree):
    """Every function in a header that returns int carries MUST_USE."""
    for source in tree.sources:
        if not source.is_header or source.is_test:
            continue
        for match in PROTOTYPE.finditer(source.code):
            if "MUST_USE" not in match.group(0):
                yield Violation(f"{source.path}:{match.group(1)}",
                                f"line {source.line_of(match.start())}: returns int, not MUST_USE")


BANNED = re.compile(
    r"\b(strcpy|strcat|stpcpy|sprintf|vsprintf|gets|strtok|strtok_r|strncpy|strncat|atoi|atol|atoll|"
    r"atof|system|popen|alloca|rand|srand|random|srandom|tmpnam|tempnam|mktemp|setjmp|longjmp|abort|exit|"
    r"localtime|gmtime|ctime|asctime|gethostbyname|signal|vfork)\s*\(")


@law
def banned_calls(tree):
    """What has a better form: bounded, thread-safe, or an error that is returned."""
    for source in tree.sources:
        for name, line in calls(source, BANNED):
            yield Violation(f"{source.path}:{name}", f"line {line}")


@law
def no_unfinished_work(tree):
    """No TODO, FIXME, XXX, HACK, nor code switched off: it is done, or it is an issue."""
    for source in tree.sources:
        for match in re.finditer(r"\b(TODO|FIXME|XXX|HACK)\b|^#\s*if 0\b", source.text, re.M):
            yield Violation(source.path, f"line {source.line_of(match.start())}: {match.group(0)}")


# ---- Sizes ----
@law
def files_are_small(tree):
    for source in tree.sources:
        most = H_LINES_MAX if source.is_header and not source.is_test else C_LINES_MAX
        if source.line_count > most:
            yield Violation(source.path, f"{source.line_count} lines, at most {most}")


@law
def functions_are_small(tree):
    for source in tree.sources:
        if source.is_table:
            continue
        for function in source.functions:
            if function.lines > FUNCTION_LINES_MAX:
                yield Violation(f"{source.path}:{function.name}",
                                f"{function.lines} lines, at most {FUNCTION_LINES_MAX}")


@law
def the_median_function_is_short(tree):
    lengths = [f.lines for s in tree.sources if not s.is_table for f in s.functions]
    if lengths and statistics.median(lengths) > FUNCTION_LINES_MEDIAN_MAX:
        yield Violation("src", f"the median function has {statistics.median(lengths)} lines, "
                               f"at most {FUNCTION_LINES_MEDIAN_MAX}")


@law
def main_is_a_table_of_contents(tree):
    for source in tree.sources:
        if source.path == "src/main.c" and source.line_count > MAIN_LINES_MAX:
            yield Violation(source.path, f"{source.line_count} lines, at most {MAIN_LINES_MAX}")
        for function in source.functions if not source.is_test and not source.is_table else []:
            if function.name == "main" and source.path != "src/main.c":
                yield Violation(source.path, "a main() beside src/main.c")


# ---- Forms ----
@law
def files_say_what_they_are(tree):
    """One SPDX line, then a comment; headers have the guard of their path."""
    for source in tree.sources:
        lines = source.text.splitlines() + ["", ""]
        if lines[0] != "/* SPDX-License-Identifier: Apache-2.0 */":
            yield Violation(source.path, "does not begin with the SPDX line")
        if source.path != "src/main.c" and not lines[1].startswith("/*"):
            yield Violation(source.path, "no comment says what the file is")
        if source.is_header:
            guard = "MILLRACE_" + re.sub(r"[/.]", "_", source.path[len("src/"):]).upper()
            if f"#ifndef {guard}\n#define {guard}\n" not in source.text:
                yield Violation(source.path, f"no include guard {guard}")


@law
def rooms_have_a_page(tree):
    for room in tree.rooms:
        page = tree.root / "src" / room / "README.md"
        if not page.exists():
            yield Violation(f"src/{room}", "no README.md")
        elif page.read_text(encoding="utf-8").count("\n") > README_LINES_MAX:
            yield Violation(f"src/{room}", f"a README.md of more than {README_LINES_MAX} lines")


@law
def structs_go_by_their_name(tree):
    """No typedef of a struct, union or enum: the reader sees what it is."""
    for source in tree.sources:
        for match in re.finditer(r"\btypedef\s+(struct|union|enum)\b", source.code):
            yield Violation(source.path, f"line {source.line_of(match.start())}: "
                                         f"typedef {match.group(1)}")


# ---- Data ----
MUTABLE_SECTION = re.compile(r"\.(data|bss|tdata|tbss)(\.(?!rel\.ro).*)?$|\*COM\*$")
SYMBOL = re.compile(r"^[0-9a-f]{16} .{7} (\S+)\t[0-9a-f]{16} (?:\.hidden )?(\S+)$", re.M)


def mutable_symbols(objects):
    """(object, symbol) of all data that can change; what the compiler made is left out."""
    for path in objects:
        out = subprocess.run(["objdump", "-t", str(path)], check=True, capture_output=True,
                             text=True).stdout
        for section, symbol in SYMBOL.findall(out):
            if MUTABLE_SECTION.match(section) and not symbol.startswith((".", "_Z", "__", "DW.")):
                yield path, re.sub(r"\.\d+$", "", symbol)


def plain_objects(build, scratch):
    """source path -> object file with machine code of every file of the library. The build's own
    where they have it; with link-time optimisation they do not, and are compiled once more."""
    commands = json.loads((build / "compile_commands.json").read_text())
    again = []
    objects = {}
    for entry in commands:
        if "libmillrace.a.p/" not in entry["output"]:
            continue
        source = os.path.relpath(build / entry["file"], build.parent)
        args = shlex.split(entry["command"])
        if any(a.startswith("-flto") for a in args):
            objects[source] = scratch / (source.replace("/", "_") + ".o")
            command = re.sub(r" -(M[QF] \S+|MD|flto\S*|O\d)(?= )", "", entry["command"])
            args = shlex.split(command)
            args[args.index("-o") + 1] = str(objects[source])
            again.append([*args, "-O0", "-w", "-fno-lto"])
        else:
            objects[source] = build / entry["output"]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda args: subprocess.run(args, check=True, cwd=build), again))
    return objects


def compiled_alone(tree, scratch):
    """For a small tree without a build: each file by itself."""
    objects = {}
    for source in tree.sources:
        if source.name.endswith(".c") and not source.is_test:
            objects[source.path] = scratch / (source.path.replace("/", "_") + ".o")
            subprocess.run(["cc", "-c", "-I", str(tree.root / "src"), "-o",
                            str(objects[source.path]), str(tree.root / source.path)], check=True)
    return objects


@law
def no_mutable_data(tree):
    """No variable outlives a call but in what its caller owns."""
    binary = pathlib.Path(os.environ.get("MILLRACE", tree.root / "build" / "millrace"))
    build = binary.resolve().parent
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        if build.parent == tree.root.resolve() and (build / "compile_commands.json").exists():
            objects = plain_objects(build, scratch)
        else:
            objects = compiled_alone(tree, scratch)
        source_of = {path: source for source, path in objects.items()}
        for path, symbol in mutable_symbols(objects.values()):
            yield Violation(f"{source_of[path]}:{symbol}", "data that can change")


# ---- Rows ----
def _rows(tree, path, macro, column):
    """(identifier, the string in a column) of every row of a table."""
    for source in tree.sources:
        if source.path != path:
            continue
        row = re.compile(macro + r"\(\s*(\w+)\s*,((?:[^()\"]|\"(?:\\.|[^\"\\])*\"|\([^()]*\))*)\)")
        for match in row.finditer(_table_text(source)):
            strings = re.findall(r'"((?:\\.|[^"\\])*)"', match.group(2))
            yield match.group(1), strings[column]


def _table_text(source):
    return re.sub(r"^\s*#.*$", "", source.code_and_strings, flags=re.M)


@law
def options_are_tested(tree):
    """Some test gives each option, as a flag, in the environment or in a file."""
    for _, flag in _rows(tree, "src/cli/options.def", "OPTION", 0):
        environment = "MILLRACE_" + flag.upper().replace("-", "_")
        if not re.search(rf"--{flag}\b(?!-)|\b{environment}\b|[\"\n]{flag}(\s*=|\")", tree.tests):
            yield Violation(f"src/cli/options.def:{flag}", "no test gives it")


@law
def metrics_are_counted(tree):
    """Some code names each row. (That /metrics shows them all is a test in tests/api.)"""
    counted = {word for s in tree.sources if not s.is_test and not s.is_table
               for word in re.findall(r"\bMETRIC_(\w+)", s.code)}
    for identifier, name in _rows(tree, "src/observe/metrics.def", "METRIC", 0):
        if identifier not in counted:
            yield Violation(f"src/observe/metrics.def:{name}", "no code counts it")


@law
def errors_are_tested(tree):
    for identifier, code in _rows(tree, "src/http/errors.def", "HTTP_ERROR", 0):
        if not re.search(rf"\"{code}\\?\"|\bHTTP_ERROR_{identifier}\b", tree.tests):
            yield Violation(f"src/http/errors.def:{code}", "no test meets it")


ROUTE = re.compile(r'\.path\s*=\s*"([^"]+)"')


@law
def routes_are_tested(tree):
    """Some test asks for each path (whatever stands for its parameters)."""
    seen = set()
    for source in tree.sources:
        if source.is_test:
            continue
        for path in ROUTE.findall(source.code_and_strings):
            if path in seen:
                continue
            seen.add(path)
            parts = [re.escape(p) if not p.startswith("{") else r"(?:\{[^}]*\}|[^/\"'\s?{}]+)+"
                     for p in path.split("/")]
            if not re.search("/".join(parts) + r"(?=[\"'?\s\\])", tree.tests):
                yield Violation(f"{source.path}:{path}", "no test asks for it")


SCHEMA = "src/events/schema.def"
INSIDE = {"TIME", "KEY", "DEVICE", "ACTION"}  # roles whose fields have a name inside, whatever theirs


@law
def the_schema_of_events_stands_in_one_table(tree):
    """The names of fields, actions and devices occur nowhere else in the room, so that another table
    is another kind of event. (Tests, and what they share, are of this one.)"""
    names = set()
    for source in tree.sources:
        text = _table_text(source) if source.path == SCHEMA else ""
        for row in re.finditer(r'EVENT_FIELD\((\w+), "(\w*)", "(\w+)", (\w+), "(\w*)"', text):
            names |= {row[2]} | (set() if row[4] in INSIDE else {row[1], row[3], row[5]})
        for row in re.finditer(r'EVENT_(?:ACTION|DEVICE)\((\w+)(?:, "(\w+)")?\)', text):
            names |= {row[1], row[2]}
    for source in tree.sources:
        if source.path.startswith("src/events/") and source.path != SCHEMA and not source.is_test:
            code = source.code_and_strings.replace("error_origin", "")
            for name in sorted(filter(None, names)):
                if re.search(rf"(?<![a-zA-Z]){name}(?![a-zA-Z])", code):
                    yield Violation(f"{source.path}:{name}", f"a name of {SCHEMA}")
