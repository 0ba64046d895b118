# SPDX-License-Identifier: Apache-2.0
"""Manual pages and shell completion: made by the binary from the tables that parse the flags, so
that they name every command and every option; checked by what reads them."""
import json
import os
import pathlib
import pty
import re
import shlex
import subprocess
import time

import pytest

from conftest import BINARY, ROOT, millrace

pytestmark = pytest.mark.one_thread

COMMANDS = millrace("help", "--names").stdout.split()
OPTIONS = json.loads(millrace("options", "--json").stdout)["options"]
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "FILES", "EXIT STATUS",
            "EXAMPLES", "SEE ALSO"]


def page(*command):
    done = millrace("help", "--man", *command)
    assert done.returncode == 0 and done.stderr == ""
    return done.stdout


def rendered(text):
    done = subprocess.run(["mandoc", "-T", "utf8", "-O", "width=100"], input=text, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return re.sub(r".\x08", "", done.stdout)


def sections(text):
    return [line for line in text.splitlines()[1:-1] if re.fullmatch(r"[A-Z][A-Z ]+", line)]


@pytest.mark.parametrize("command", [(), *[(name,) for name in COMMANDS]],
                         ids=["millrace", *COMMANDS])
def test_a_page_is_well_formed(command):
    found = subprocess.run(["mandoc", "-T", "lint", "-W", "warning"], input=page(*command),
                           text=True, capture_output=True, timeout=60)
    complaints = [line for line in found.stdout.splitlines() if "missing date" not in line]
    assert complaints == []
    shown = rendered(page(*command))
    assert set(SECTIONS) <= set(sections(shown)), shown
    assert [s for s in sections(shown) if s in SECTIONS] == SECTIONS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_has_every_option_with_its_variable(command):
    shown = rendered(page(command))
    assert f"millrace-{command} - " in " ".join(shown.split())
    own = {o["flag"]: o["environment"] for o in OPTIONS if command in o["commands"]}
    for flag, variable in own.items():
        assert variable in shown
    listed = shown.split("\nOPTIONS\n")[1].split("\nENVIRONMENT\n")[0]
    assert set(re.findall(r"^ {5,9}(--[a-z-]+)", listed, re.M)) == {*own, "--help"}


def test_the_programs_page_leads_to_the_others():
    shown = rendered(page())
    for command in COMMANDS:
        assert f"millrace-{command}(1)" in shown


def test_help_of_every_command_has_examples_that_name_it():
    for command in COMMANDS:
        done = millrace("help", command)
        assert done.returncode == 0
        examples = done.stdout.split("Examples\n")[1]
        assert f"millrace {command}" in examples, command


@pytest.mark.parametrize("arguments, words", [
    (["completion"], ["bash, zsh or fish"]),
    (["completion", "tcsh"], ['"tcsh"', "only for bash, zsh or fish"]),
    (["help", "--mna"], ["did you mean --man?"]),
    (["help", "serve", "load"], ['"load"']),
])
def test_a_wrong_word_is_named(arguments, words):
    done = millrace(*arguments)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_install_and_uninstall(tmp_path):
    def make(target):
        # -o: with the binary under test, whatever `make build` would make
        subprocess.run(["make", "-s", "-o", "build", target, f"DESTDIR={tmp_path}", "PREFIX=/usr",
                        f"MILLRACE={BINARY}"], cwd=ROOT, check=True, capture_output=True,
                       timeout=120)
        return {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}

    found = make("install")
    assert found == {
        "usr/bin/millrace", "etc/systemd/system/millrace.service", "usr/share/man/man1/millrace.1",
        *(f"usr/share/man/man1/millrace-{command}.1" for command in COMMANDS),
        "usr/share/bash-completion/completions/millrace",
        "usr/share/zsh/site-functions/_millrace",
        "usr/share/fish/vendor_completions.d/millrace.fish"}
    installed = tmp_path / "usr/share/man/man1/millrace-serve.1"
    assert installed.read_text() == page("serve")
    assert make("uninstall") == set()


# What is typed -> what must be offered, and what must not.
CASES = [
    ("j", ["journal"], ["serve"]),
    ("", COMMANDS, ["--sync"]),
    ("serve --sy", ["--sync"], ["--lanes", "serve"]),
    ("serve --sync ", ["always", "group", "os"], ["--sync"]),
    ("serve --sync=o", ["os"], ["always"]),
    ("load ", ["records", "movies", "tags"], ["list"]),
    ("load tags --c", ["--count", "--cookies", "--collection"], ["--sync"]),
    ("journal --limit 3 d", ["dump", "dead-letters"], ["list", "tail"]),
    ("journal dead-letters ", ["list", "replay", "edit", "drop"], ["dump"]),
    ("help s", ["serve", "status"], ["load"]),
    ("completion z", ["zsh"], ["bash"]),
    ("serve --data-dir d", ["directory"], ["document.ini"]),
    ("serve --config d", ["document.ini"], []),
    ("serve --listen ", [], ["--sync", "directory"]),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the scripts, and something for paths to find."""
    place = tmp_path_factory.mktemp("completion")
    (place / "directory").mkdir()
    (place / "document.ini").write_text("")
    for shell in ["bash", "zsh", "fish"]:
        (place / f"script.{shell}").write_text(millrace("completion", shell).stdout)
    return place


def check(offered, wanted, unwanted, typed):
    offered = {word.rstrip("/") for word in offered}
    for word in wanted:
        assert any(o == word or o.endswith("=" + word) for o in offered), (typed, offered)
    for word in unwanted:
        assert not any(o == word or o.endswith("=" + word) for o in offered), (typed, offered)


def bash_words(typed):
    """As bash splits a line for completion: = is a word of its own."""
    words = re.findall(r"=|[^ =]+", "millrace " + typed)
    return words + [""] if typed == "" or typed[-1] in " =" else words


def test_bash_completes(place):
    for typed, wanted, unwanted in CASES:
        words = bash_words(typed)
        script = (f"source ./script.bash; COMP_WORDS=({' '.join(map(shlex.quote, words))}); "
                  f"COMP_CWORD={len(words) - 1}; _millrace; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        done = subprocess.run(["bash", "--norc", "-c", script], cwd=place, capture_output=True,
                              text=True, timeout=60)
        check(done.stdout.split(), wanted, unwanted, typed)


def test_fish_completes(place):
    for typed, wanted, unwanted in CASES:
        done = subprocess.run(
            ["fish", "--no-config", "-c",
             f"source script.fish; complete -C {shlex.quote('millrace ' + typed)}"],
            cwd=place, capture_output=True, text=True, timeout=60,
            env={**os.environ, "HOME": str(place)})
        assert done.stderr == "", done.stderr
        check([line.split("\t")[0] for line in done.stdout.splitlines()], wanted, unwanted, typed)


class Terminal:
    """A shell on a terminal, driven by its keys."""

    def __init__(self, command, cwd):
        self.mine, its = pty.openpty()
        self.process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, cwd=cwd,
                                        start_new_session=True,
                                        env={"PATH": os.environ["PATH"], "TERM": "dumb",
                                             "HOME": str(cwd), "ZDOTDIR": str(cwd)})
        os.close(its)
        os.set_blocking(self.mine, False)
        self.text = ""

    def type(self, keys):
        os.write(self.mine, keys.encode())

    def until(self, pattern, timeout=60):
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            try:
                self.text += os.read(self.mine, 65536).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.02)
        found, self.text = self.text, ""
        return found

    def close(self):
        self.process.kill()
        self.process.wait(30)
        os.close(self.mine)


ZSH = r"""
PS1= ; unsetopt zle_bracketed_paste prompt_cr prompt_sp
autoload -U compinit && compinit -u -D && source ./script.zsh
zstyle ':completion:*' list-grouped no
zstyle ':completion:*' verbose no
zstyle ':completion:*' completer _complete
compadd() { # what is offered, one a line, instead of a menu
    local -a offered
    [[ ${@[1,(i)(-|--)]} == *-(O|A|D)* ]] && { builtin compadd "$@"; return }
    builtin compadd -O offered "$@"
    (($#offered)) && printf '%s\n' "offer:"$^offered >> offers
    builtin compadd "$@"
}
look() { : > offers; zle complete-word; print -r "<done>" >> offers; zle kill-buffer; zle accept-line }
zle -N look; bindkey '^I' look
print READY
"""


def test_zsh_completes(place):
    (place / "setup.zsh").write_text(ZSH)
    zsh = Terminal(["zsh", "-f", "-i"], place)
    try:
        zsh.type("source ./setup.zsh\n")
        zsh.until(r"(?m)^READY\r?$")
        for typed, wanted, unwanted in CASES:
            offers = place / "offers"
            offers.unlink(missing_ok=True)
            zsh.type("millrace " + typed + "\t")
            deadline = time.monotonic() + 60
            while not (offers.exists() and "<done>" in offers.read_text()):
                assert time.monotonic() < deadline, typed
                time.sleep(0.02)
            check(re.findall(r"offer:(\S+)", offers.read_text()), wanted, unwanted, typed)
    finally:
        zsh.close()
