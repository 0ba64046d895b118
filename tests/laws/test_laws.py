# SPDX-License-Identifier: Apache-2.0
"""The laws of the house, on this tree; and each on a tree that breaks it, to see it find that."""
import fnmatch
import textwrap

import pytest
from exceptions import EXCEPTIONS
from laws import (C_LINES_MAX, FUNCTION_LINES_MAX, FUNCTION_LINES_MEDIAN_MAX, H_LINES_MAX, LAWS,
                  MAIN_LINES_MAX, README_LINES_MAX)
from source import ROOT, Tree

HEAD = "/* SPDX-License-Identifier: Apache-2.0 */\n/* What it is. */\n"
TREE = Tree(ROOT)


def header(path, body=""):
    guard = "MILLRACE_" + path.replace("/", "_").replace(".", "_").upper()
    return f"{HEAD}#ifndef {guard}\n#define {guard}\n{body}\n#endif\n"


def long_function(lines, name="f"):
    return f"int {name}(int x) {{\n" + "    x++;\n" * (lines - 3) + "    return x;\n}\n"


ACKNOWLEDGES = {
    "src/http/acknowledge.c": HEAD + "void f(struct a *a) { a->acknowledged = true; "
                                     "r->write.render(r); }\n",
    "src/http/respond.c": HEAD + "void g(void) { assert(status >= 300 || a->acknowledged || "
                                 "!http_request_writes(r)); MHD_queue_response(c, 1, r); }\n",
}

# law -> (files that break it, the culprits it must name). What is good in the same files, it must
# leave alone.
PLANTED = {
    "rooms_look_down": ({
        "src/os/a.c": HEAD + '#include "work/work.h"\n#include "os/os.h"\n#include "base/x.h"\n',
        "src/base/b.c": HEAD + '/* #include "os/os.h" */\n#include <os/os.h>\n',
        "src/points/c.c": HEAD + '#include "events/record.h"\n#include "work/work.h"\n',
        "src/work/d.c": HEAD + '#include "neighbour.h"\n',
        "src/cellar/e.c": HEAD,
        "src/main.c": HEAD + '#include "cli/cli.h"\n',
    }, ["src/os/a.c", "src/points/c.c", "src/work/d.c", "src/cellar"]),
    "libraries_have_their_place": ({
        "src/http/a.c": HEAD + "#include <curl/curl.h>\n#include <stdio.h>\n",
        "src/http/transfer.c": HEAD + "#include <curl/curl.h>\n",
        "src/work/b.c": HEAD + "#include <zstd.h>\n",
        "src/work/test_c.c": HEAD + "#include <zstd.h>\n",
    }, ["src/http/a.c", "src/work/b.c"]),
    "private_headers_stay_in_their_folder": ({
        "src/work/a.c": HEAD + '#include "work/internal.h"\n#include "journal/journal.h"\n',
        "src/http/b.c": HEAD + '#include "work/internal.h"\n',
        "src/points/c.c": HEAD + '#include "points/local/segment.h"\n',
        "src/points/local/d.c": HEAD + '#include "points/local/segment.h"\n',
    }, ["src/http/b.c", "src/points/c.c"]),
    "only_os_calls_the_kernel": ({
        "src/work/a.c": HEAD + "#include <unistd.h>\n#include <errno.h>\n",
        "src/http/b.c": HEAD + "#include <sys/socket.h>\n",
        "src/journal/c.c": HEAD + 'int f(void) { return fsync(1) + ops->open(x); /* read() */ }\n'
                                  'const char *s = "close()";\n',
        "src/os/d.c": HEAD + "#include <unistd.h>\nint f(void) { return fsync(1); }\n",
        "src/work/test_e.c": HEAD + "#include <unistd.h>\n",
    }, ["src/work/a.c:<unistd.h>", "src/http/b.c:<sys/socket.h>", "src/journal/c.c:fsync"]),
    "library_rooms_do_not_print": ({
        "src/points/a.c": HEAD + 'void f(void) { printf("x"); snprintf(b, 1, "x"); }\n',
        "src/cli/b.c": HEAD + 'void f(void) { printf("x"); }\n',
        "src/base/test_c.c": HEAD + 'void f(void) { printf("x"); }\n',
    }, ["src/points/a.c:printf"]),
    "one_place_acknowledges_writes": ({
        **ACKNOWLEDGES,
        "src/points/a.c": HEAD + "void f(struct a *a) { a->acknowledged = true; }\n",
        "src/http/b.c": HEAD + "void f(void) { r->write.render(r); }\n",
        "src/http/c.c": HEAD + "void f(void) { MHD_queue_response(c, 200, r); }\n",
    }, ["src/http/acknowledge.c", "src/points/a.c", "src/http/b.c", "src/http/c.c"]),
    "fallible_functions_must_be_used": ({
        "src/work/a.h": header("work/a.h", """
int good(void) MUST_USE;
int good_long(int (*f)(void *),
              int x) MUST_USE;
static inline int MUST_USE good_inline(void) { return 0; }
/* int comment(void); */
int bad(int x);
static inline int bad_inline(int x) { return x; }
int bad_callback(void (*f)(int a, int b), void *context);
void none(void);"""),
    }, ["src/work/a.h:bad", "src/work/a.h:bad_inline", "src/work/a.h:bad_callback"]),
    "banned_calls": ({
        "src/work/a.c": HEAD + 'void f(void) { strcpy(a, b); x->system(1); snprintf(c); }\n'
                               '/* strcat(a, b) */ const char *s = "gets(";\n',
        "src/base/b.c": HEAD + "int f(void) { return rand () + my_rand(); }\n",
    }, ["src/work/a.c:strcpy", "src/base/b.c:rand"]),
    "no_unfinished_work": ({
        "src/work/a.c": HEAD + "/* TO" "DO: the rest */\n",
        "src/work/c.c": HEAD + "#if 0\nint x;\n#endif\n",
        "src/work/b.c": HEAD + 'const char *s = "/tmp/x-XXXXXX"; int TODOS;\n',
    }, ["src/work/a.c", "src/work/c.c"]),
    "files_are_small": ({
        "src/work/a.c": HEAD + "\n" * (C_LINES_MAX - 1),
        "src/work/b.c": HEAD + "\n" * (C_LINES_MAX - 2),
        "src/work/a.h": HEAD + "\n" * (H_LINES_MAX - 1),
        "src/work/b.h": HEAD + "\n" * (H_LINES_MAX - 2),
        "src/work/testing.h": HEAD + "\n" * (H_LINES_MAX + 1),
    }, ["src/work/a.c", "src/work/a.h"]),
    "functions_are_small": ({
        "src/work/a.c": HEAD + long_function(FUNCTION_LINES_MAX + 1, "bad")
                             + long_function(FUNCTION_LINES_MAX, "good"),
    }, ["src/work/a.c:bad"]),
    "the_median_function_is_short": ({
        "src/work/a.c": HEAD + long_function(FUNCTION_LINES_MEDIAN_MAX + 1, "a")
                             + long_function(FUNCTION_LINES_MEDIAN_MAX + 1, "b")
                             + long_function(4, "c"),
    }, ["src"]),
    "main_is_a_table_of_contents": ({
        "src/main.c": HEAD + "\n" * MAIN_LINES_MAX,
        "src/serve/a.c": HEAD + "int main(void) {\n    return 0;\n}\n",
        "src/serve/test_b.c": HEAD + "int main(void) {\n    return 0;\n}\n",
    }, ["src/main.c", "src/serve/a.c"]),
    "files_say_what_they_are": ({
        "src/work/a.c": "int x;\n",
        "src/work/b.c": HEAD.splitlines()[0] + "\nint x;\n",
        "src/work/c.h": HEAD + "#ifndef C_H\n#define C_H\n#endif\n",
        "src/work/d.h": header("work/d.h"),
    }, ["src/work/a.c", "src/work/b.c", "src/work/c.h"]),
    "rooms_have_a_page": ({
        "src/work/a.c": HEAD,
        "src/http/README.md": "# http\n" * (README_LINES_MAX + 1),
        "src/base/README.md": "# base\n",
    }, ["src/work", "src/http"]),
    "structs_go_by_their_name": ({
        "src/work/a.h": header("work/a.h", "typedef struct { int x; } thing;"),
        "src/work/b.h": header("work/b.h", "typedef void (*handler)(void); struct thing;"),
    }, ["src/work/a.h"]),
    "no_mutable_data": ({
        "src/work/a.c": HEAD + """
static int counter;
int shared = 1;
_Thread_local int mine;
static const int fixed = 3;
static const char *const names[] = {"a", "b"};
const char *const *table(void) { static int calls; calls++; return fixed + names; }
int next(void) { return ++counter + mine; }
""",
    }, ["src/work/a.c:counter", "src/work/a.c:shared", "src/work/a.c:mine",
        "src/work/a.c:calls"]),
    "options_are_tested": ({
        "src/cli/options.def": HEAD + """
OPTION(A, "tested", PATH, "DIR", "", 0, 0, "", FOR_A | FOR(B), false, "", "Prose (really).")
OPTION(B, "in-a-file", PATH, "DIR", "", 0, 0, "", FOR_A, false, "", "Prose.")
OPTION(C, "environment", PATH, "DIR", "", 0, 0, "", FOR_A, false, "", "Prose.")
OPTION(D, "untested", PATH, "DIR", "", 0, 0, "", FOR_A, false, "", "Prose.")
""",
        "tests/api/test_x.py": 'run("--tested", "1", "--untested-too", MILLRACE_ENVIRONMENT=1)\n'
                               'file("in-a-file = 3")\n',
    }, ["src/cli/options.def:untested"]),
    "metrics_are_counted": ({
        "src/observe/metrics.def": HEAD + """
#define METRIC(id, type)
METRIC(A, HISTOGRAM, "millrace_a_seconds", "", "Help (and more).")
METRIC(B, COUNTER, "millrace_b_total", "", "Help.")
""",
        "src/work/x.c": HEAD + "void f(void) { count(METRIC_A); }\n",
        "src/work/test_x.c": HEAD + "void f(void) { count(METRIC_B); }\n",
    }, ["src/observe/metrics.def:millrace_b_total"]),
    "errors_are_tested": ({
        "src/http/errors.def": HEAD + 'HTTP_ERROR(A, 400, "met", "it")\n'
                                      'HTTP_ERROR(B, 400, "unmet", "it")\n',
        "tests/api/test_x.py": 'assert answer.json()["code"] == "met"\n',
    }, ["src/http/errors.def:unmet"]),
    "routes_are_tested": ({
        "src/serve/routes.c": HEAD + 'struct r r[] = {{.path = "/things/{id}/parts"},\n'
                                     '{.path = "/things"}, {.path = "/other/{id}"}};\n',
        "tests/api/test_x.py": 'get(f"/things/{thing}/parts?x=1"); get("/other"); '
                               'get("/things")\n',
    }, ["src/serve/routes.c:/other/{id}"]),
    "the_schema_of_events_stands_in_one_table": ({
        "src/events/schema.def": HEAD + 'EVENT_FIELD(TIME, "", "time", TIME, "", "when")\n'
                                        'EVENT_FIELD(BRAND, "info", "brand_id", DIMENSION, "brand", "x")\n'
                                        'EVENT_ACTION(BUY, "buys")\nEVENT_DEVICE(TV)\n',
        "src/events/a.c": HEAD + '/* brand */ int time(int rebrand) { return f("origin", BUYER); }\n',
        "src/events/b.c": HEAD + 'int f(void) { return q->brand; }\n',
        "src/events/c.c": HEAD + 'const char *s = ",info,";\n',
        "src/events/local/d.c": HEAD + 'const char *s = "\\"buys\\":"; int i = EVENT_TV;\n',
        "src/events/test_e.c": HEAD + "int f(void) { return q->brand; }\n",
        "src/points/f.c": HEAD + "int f(void) { return q->brand; }\n",
    }, ["src/events/b.c:brand", "src/events/c.c:info", "src/events/local/d.c:buys",
        "src/events/local/d.c:TV"]),
}


def allowed(law, where):
    return [pattern for pattern in EXCEPTIONS.get(law, {}) if fnmatch.fnmatchcase(where, pattern)]


@pytest.mark.parametrize("law", LAWS)
def test_the_law_is_kept(law):
    needed = set()
    broken = []
    for violation in LAWS[law](TREE):
        patterns = allowed(law, violation.where)
        needed.update(patterns)
        if not patterns:
            broken.append(f"{violation.where}: {violation.what}")
    assert not broken, f"{law}: {LAWS[law].__doc__ or ''}\n" + textwrap.indent(
        "\n".join(broken), "  ")
    stale = set(EXCEPTIONS.get(law, {})) - needed
    assert not stale, f"exceptions from {law} that nothing needs: {sorted(stale)}"


@pytest.mark.parametrize("law", LAWS)
def test_the_law_finds_what_breaks_it(law, tmp_path, monkeypatch):
    monkeypatch.delenv("MILLRACE", raising=False)
    files, culprits = PLANTED[law]
    (tmp_path / "tests").mkdir()
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    found = {violation.where for violation in LAWS[law](Tree(tmp_path))}
    assert found == set(culprits)


def test_a_tree_without_an_acknowledgement_is_refused(tmp_path):
    """The law on acknowledging asks for one place, not for at most one."""
    (tmp_path / "src" / "http").mkdir(parents=True)
    (tmp_path / "src" / "http" / "a.c").write_text(HEAD)
    found = {v.where for v in LAWS["one_place_acknowledges_writes"](Tree(tmp_path))}
    assert found == {"src/http/acknowledge.c", "src/http/respond.c"}
    for name, text in ACKNOWLEDGES.items():
        (tmp_path / name).write_text(text)
    assert not list(LAWS["one_place_acknowledges_writes"](Tree(tmp_path)))


def test_every_exception_is_of_a_law():
    assert set(EXCEPTIONS) <= set(LAWS)
    assert set(PLANTED) == set(LAWS)
