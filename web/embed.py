#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes what the binary embeds: embed.py WEB_DIRECTORY OUTPUT_DIRECTORY DEPFILE

Installs the packages of package-lock.json into the output directory, compresses the files of the
table below and those of console/, and writes assets.S (their bytes) and assets_table.c (struct asset
asset_rows[]). The depfile tells ninja what all that was made of.
Without npm, or without a way to the packages, the binary is built all the same: /docs is then a
plain list of the routes, the console has no charts, and `millrace load movies` says what is missing.
"""
import gzip
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

HTML, CSS, JS = "text/html; charset=utf-8", "text/css", "text/javascript"
TEXT, PNG, JSON = "text/plain; charset=utf-8", "image/png", "application/json"
SVG = "image/svg+xml"
SWAGGER = "node_modules/swagger-ui-dist/"
UPLOT = "node_modules/uplot/"
TYPES = {".html": HTML, ".css": CSS, ".js": JS, ".svg": SVG}
ASSETS = [  # name, file, content type
    ("docs/index.html", "docs.html", HTML),
    ("docs/swagger-ui-bundle.js", SWAGGER + "swagger-ui-bundle.js", JS),
    ("docs/swagger-ui.css", SWAGGER + "swagger-ui.css", CSS),
    ("docs/favicon-32x32.png", SWAGGER + "favicon-32x32.png", PNG),
    ("docs/swagger-ui-bundle.js.LICENSE.txt", SWAGGER + "swagger-ui-bundle.js.LICENSE.txt", TEXT),
    ("docs/LICENSE", SWAGGER + "LICENSE", TEXT),
    ("docs/NOTICE", SWAGGER + "NOTICE", TEXT),
    ("console/uplot.js", UPLOT + "dist/uPlot.iife.min.js", JS),
    ("console/uplot.css", UPLOT + "dist/uPlot.min.css", CSS),
    ("console/LICENSE.uplot.txt", UPLOT + "LICENSE", TEXT),
    ("movies.json", "node_modules/vega-datasets/data/movies.json", JSON),
]
PACKAGE_FILES = ["package.json", "package-lock.json", ".npmrc"]


def install(web, work):
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in PACKAGE_FILES:
        shutil.copy(web / name, work / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        subprocess.run(command, cwd=work, check=True, timeout=300, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"web: {error}: building without Swagger UI, charts and the movies", file=sys.stderr)


def rows(web):
    own = sorted(path for path in (web / "console").iterdir() if path.suffix in TYPES)
    return ASSETS + [(f"console/{path.name}", f"console/{path.name}", TYPES[path.suffix])
                     for path in own]


def contents(path):
    data = path.read_bytes()
    if path.suffix == ".json":  # without its white space
        data = json.dumps(json.loads(data), separators=(",", ":"), ensure_ascii=False).encode()
    return data


def write(web, work, out):
    assembly = ['    .section .rodata\n']
    externs, table = [], []
    for number, (name, source, content_type) in enumerate(rows(web)):
        path = (work if source.startswith("node_modules/") else web) / source
        if not path.exists():
            continue
        data = contents(path)
        packed = out / f"asset{number}.gz"
        packed.write_bytes(gzip.compress(data, 9, mtime=0))
        size = packed.stat().st_size
        symbol = f"millrace_asset_{number}"
        assembly.append(f'    .global {symbol}\n    .balign 16\n{symbol}:\n    .incbin "{packed}"\n')
        externs.append(f"extern const uint8_t {symbol}[];\n")
        etag = hashlib.sha256(data).hexdigest()[:16]
        table.append(f'    {{"{name}", "{content_type}", "\\"{etag}\\"", {symbol}, {size}, '
                    f'{len(data)}}},\n')
    assembly.append('    .section .note.GNU-stack,"",%progbits\n')
    (out / "assets.S").write_text("".join(assembly))
    (out / "assets_table.c").write_text(
        "/* Made by web/embed.py. */\n#include \"serve/assets.h\"\n\n" + "".join(externs) +
        "\nconst struct asset asset_rows[] = {\n" + "".join(table) + "};\n"
        f"const size_t asset_rows_n = {len(table)};\n")


def write_depfile(web, target, depfile):
    """A new file of the console changes its directory."""
    made_of = [web / name for name in PACKAGE_FILES] + [web / "docs.html", web / "console"]
    made_of += (web / "console").iterdir()
    depfile.write_text(f"{target}: {' '.join(str(path) for path in made_of)}\n")


def main():
    web, out = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    work = out / "web"
    install(web, work)
    write(web, work, out)
    write_depfile(web, sys.argv[2] + "/assets.S", pathlib.Path(sys.argv[3]))
    shutil.rmtree(work, ignore_errors=True)


main()
