# SPDX-License-Identifier: Apache-2.0
"""This tree keeps the laws; and each law finds a violation that is planted."""
import pathlib
import subprocess

import pytest

import laws

ROOT = pathlib.Path(__file__).resolve().parents[2]
SRC = ROOT / "src"


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_this_tree(law):
    assert list(law(SRC)) == []


def test_state_is_passed_not_kept():
    """Over the objects of the debug build (the release build's hold no machine code)."""
    objects = list((ROOT / "build-debug" / "src" / "libmillrace.a.p").glob("*.o"))
    assert objects, "make debug first"
    assert list(laws.state_is_passed_not_kept(objects)) == []


HEAD = "/* SPDX-License-Identifier: Apache-2.0 */\n/*\n * What it is.\n */\n"
LONG = "int f(void) {\n" + "    ;\n" * 80 + "    return 0;\n}\n"
PLANTED = {
    "includes_point_downward": ("os/a.c", HEAD + '#include "journal/journal.h"\n'),
    "kernel_is_called_in_os_alone": ("work/a.c", HEAD + "#include <unistd.h>\n"),
    "one_place_acknowledges_writes": ("http/respond.c", HEAD + "void f(void) { acknowledged = true; }\n"),
    "fallible_functions_must_be_used": ("os/a.h", HEAD + "int os_thing(int x);\n"),
    "no_banned_calls": ("base/a.c", HEAD + "void f(void) {\n    strcpy(a, b);\n}\n"),
    "files_stay_small": ("base/a.h", HEAD + "\n" * 300),
    "functions_stay_small": ("base/a.c", HEAD + LONG),
    "files_open_with_what_they_are": ("base/a.c", "int x;\n"),
    "nothing_is_left_for_later": ("base/a.c", HEAD + "/* TO" + "DO: later */\n"),
    "rooms_have_a_page": ("base/a.c", HEAD),
}


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_a_planted_violation_is_found(law, tmp_path):
    place, text = PLANTED[law.__name__]
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert list(law(tmp_path)), law.__name__


def test_planted_state_is_found(tmp_path):
    (tmp_path / "a.c").write_text("static int kept; int f(void); int f(void) { return kept++; }\n"
                                  "static const char *const table[] = {\"a\"};\n"
                                  "const char *g(int i); const char *g(int i) { return table[i]; }\n")
    subprocess.run(["gcc", "-fPIE", "-c", "a.c", "-o", "a.o"], cwd=tmp_path, check=True)
    assert list(laws.state_is_passed_not_kept([tmp_path / "a.o"])) == ["a.o: kept"]


def test_siblings_and_open_calls_are_told_apart(tmp_path):
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "a.c").write_text(HEAD + '#include "points/point.h"\n')
    (tmp_path / "events" / "b.c").write_text(HEAD + "/* strcpy(a, b) */ const char *c = \"gets(\";\n")
    assert list(laws.includes_point_downward(tmp_path))
    assert list(laws.no_banned_calls(tmp_path)) == []


def rows_of(path, pattern):
    import re
    return re.findall(pattern, path.read_text())


def all_tests():
    files = list((ROOT / "tests").rglob("*.py")) + list(SRC.rglob("test_*.c"))
    return "\n".join(f.read_text() for f in files if f.name != "test_laws.py")


def test_every_error_row_is_exercised():
    """Each code of errors.def is asked for by name in some test."""
    text = all_tests()
    rows = rows_of(SRC / "http" / "errors.def", r'HTTP_ERROR\((\w+), (\d+), "(\w+)"')
    # 500 is for our own mistakes, and no test can ask for one.
    missing = [code for name, status, code in rows if status != "500"
               and f'"{code}"' not in text and f"{code}\\\"" not in text
               and f"HTTP_ERROR_{name}" not in text]
    assert missing == []


def test_every_option_row_is_exercised():
    """Each flag stands in some test; test_options.c goes through all rows besides."""
    text = all_tests()
    assert "OPTIONS" in (SRC / "cli" / "test_options.c").read_text()
    rows = rows_of(SRC / "cli" / "options.def", r'OPTION\((\w+),\s*"([\w-]+)"')
    assert len(rows) > 20
    missing = [flag for _, flag in rows if f"--{flag}" not in text and f'"{flag}"' not in text]
    print(missing)
    assert missing == []


def test_every_route_row_is_exercised():
    """Each path of the route tables, with its parameters filled in, stands in some test."""
    import re
    text = all_tests()
    missing = []
    for path in SRC.rglob("*.c"):
        if path.name.startswith("test_"):
            continue
        for route in re.findall(r'\.path = "(/[^"]*)"', path.read_text()):
            parts = [re.escape(p) for p in re.split(r"\{\w+\}", route)]
            if not re.search(r"[^\s\"']+".join(parts), text):
                missing.append(route)
    assert missing == []
