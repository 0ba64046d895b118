# SPDX-License-Identifier: Apache-2.0
"""The source tree as the laws see it: files, text without comments, functions, prototypes.

A tree is any directory with a src/ in it, so that a law can be tried on a small one of its own.
"""
import functools
import pathlib
import re
import subprocess
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]

TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def _blank(text, keep_strings):
    """Replaces comments (and strings) by blanks, so that every line keeps its number."""
    def blank(match):
        token = match.group(0)
        if token[0] == "/" or (not keep_strings and token[0] == '"'):
            return re.sub(r"[^\n]", " ", token)
        return token
    return TOKEN.sub(blank, text)


@dataclass(frozen=True)
class Violation:
    """where names the culprit, as an exception would: "src/a/b.c" or "src/a/b.c:function"."""
    where: str
    what: str


@dataclass(frozen=True)
class Function:
    name: str
    line: int
    lines: int


@dataclass(frozen=True)
class Source:
    tree: "Tree"
    path: str  # from the root: "src/work/lane.c"

    @functools.cached_property
    def text(self):
        return (self.tree.root / self.path).read_text(encoding="utf-8")

    @functools.cached_property
    def code(self):
        """Without comments and strings."""
        return _blank(self.text, keep_strings=False)

    @functools.cached_property
    def code_and_strings(self):
        return _blank(self.text, keep_strings=True)

    @property
    def name(self):
        return self.path.rsplit("/", 1)[-1]

    @property
    def is_header(self):
        return self.name.endswith(".h")

    @property
    def is_table(self):
        return self.name.endswith(".def")

    @property
    def is_test(self):
        """A test, or what only tests include."""
        return self.name.startswith(("test_", "testing"))

    @property
    def room(self):
        """"work" of src/work/lane.c; "" of src/main.c."""
        parts = self.path.split("/")
        return parts[1] if len(parts) > 2 else ""

    @property
    def line_count(self):
        return self.text.count("\n")

    @functools.cached_property
    def includes(self):
        """(line, "work/work.h" or "<errno.h>") of every #include."""
        found = []
        for number, line in enumerate(self.code_and_strings.splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+(?:"([^"]+)"|(<[^>]+>))', line)
            if match:
                found.append((number, match.group(1) or match.group(2)))
        return found

    @functools.cached_property
    def functions(self):
        """Every function defined here, with its length, as universal-ctags sees it."""
        out = subprocess.run(
            ["ctags", "--options=NONE", "--languages=C,C++", "--kinds-C=f", "--kinds-C++=f",
             "--language-force=" + ("C++" if self.name.endswith(".cc") else "C"),
             "--fields=+ne", "--sort=no", "-o", "-", str(self.tree.root / self.path)],
            check=True, capture_output=True, text=True).stdout
        found = []
        for line in out.splitlines():
            fields = dict(re.findall(r"\t(line|end):(\d+)", line))
            if "end" in fields:
                first, last = int(fields["line"]), int(fields["end"])
                found.append(Function(line.split("\t")[0], first, last - first + 1))
        return found

    def line_of(self, offset):
        return self.text.count("\n", 0, offset) + 1


class Tree:
    def __init__(self, root):
        self.root = pathlib.Path(root)

    @functools.cached_property
    def sources(self):
        suffixes = {".c", ".h", ".cc", ".def"}
        return [Source(self, str(path.relative_to(self.root)))
                for path in sorted((self.root / "src").rglob("*")) if path.suffix in suffixes]

    @property
    def rooms(self):
        return sorted(path.name for path in (self.root / "src").iterdir() if path.is_dir())

    @functools.cached_property
    def tests(self):
        """All text of tests, in one piece: what they mention."""
        paths = [p for p in (self.root / "tests").rglob("*")
                 if p.suffix in {".py", ".c", ".sh"} and "laws" not in p.parts]
        texts = [p.read_text(encoding="utf-8") for p in sorted(paths)]
        return "\n".join(texts + [s.text for s in self.sources if s.is_test])
