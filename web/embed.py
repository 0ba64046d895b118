#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes what the binary embeds: embed.py WEB_DIRECTORY OUTPUT_DIRECTORY

Installs the packages of package-lock.json into the output directory, compresses the files of the
table below and writes assets.S (their bytes) and assets_table.c (struct asset asset_rows[]).
Without npm, or without a way to the packages, the binary is built all the same: /docs is then a
plain list of the routes, and `millrace load movies` says what is missing.
"""
import gzip
import json
import pathlib
import shutil
import subprocess
import sys

HTML, CSS, JS = "text/html; charset=utf-8", "text/css", "text/javascript"
TEXT, PNG, JSON = "text/plain; charset=utf-8", "image/png", "application/json"
SWAGGER = "node_modules/swagger-ui-dist/"
ASSETS = [  # name, file, content type
    ("docs/index.html", "docs.html", HTML),
    ("docs/swagger-ui-bundle.js", SWAGGER + "swagger-ui-bundle.js", JS),
    ("docs/swagger-ui.css", SWAGGER + "swagger-ui.css", CSS),
    ("docs/favicon-32x32.png", SWAGGER + "favicon-32x32.png", PNG),
    ("docs/swagger-ui-bundle.js.LICENSE.txt", SWAGGER + "swagger-ui-bundle.js.LICENSE.txt", TEXT),
    ("docs/LICENSE", SWAGGER + "LICENSE", TEXT),
    ("docs/NOTICE", SWAGGER + "NOTICE", TEXT),
    ("movies.json", "node_modules/vega-datasets/data/movies.json", JSON),
]
PACKAGE_FILES = ["package.json", "package-lock.json", ".npmrc", "docs.html"]


def install(web, work):
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in PACKAGE_FILES:
        shutil.copy(web / name, work / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        subprocess.run(command, cwd=work, check=True, timeout=300, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"web: {error}: building without Swagger UI and the movies", file=sys.stderr)


def contents(path):
    data = path.read_bytes()
    if path.suffix == ".json":  # without its white space
        data = json.dumps(json.loads(data), separators=(",", ":"), ensure_ascii=False).encode()
    return data


def write(work, out):
    assembly = ['    .section .rodata\n']
    externs, rows = [], []
    for number, (name, source, content_type) in enumerate(ASSETS):
        path = work / source
        if not path.exists():
            continue
        data = contents(path)
        packed = out / f"asset{number}.gz"
        packed.write_bytes(gzip.compress(data, 9, mtime=0))
        size = packed.stat().st_size
        symbol = f"millrace_asset_{number}"
        assembly.append(f'    .global {symbol}\n    .balign 16\n{symbol}:\n    .incbin "{packed}"\n')
        externs.append(f"extern const uint8_t {symbol}[];\n")
        rows.append(f'    {{"{name}", "{content_type}", {symbol}, {size}, {len(data)}}},\n')
    assembly.append('    .section .note.GNU-stack,"",%progbits\n')
    (out / "assets.S").write_text("".join(assembly))
    (out / "assets_table.c").write_text(
        "/* Made by web/embed.py. */\n#include \"serve/assets.h\"\n\n" + "".join(externs) +
        "\nconst struct asset asset_rows[] = {\n" + "".join(rows) + "};\n"
        f"const size_t asset_rows_n = {len(rows)};\n")


def main():
    web, out = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    work = out / "web"
    install(web, work)
    write(work, out)
    shutil.rmtree(work, ignore_errors=True)


main()
