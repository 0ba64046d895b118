# SPDX-License-Identifier: Apache-2.0
"""What the laws allow all the same, and why. One that nothing needs any more fails the test, so the
table only shrinks, unless a reason is found. A * stands for any text."""

EXCEPTIONS = {
    "only_os_calls_the_kernel": {
        "src/http/loop.c:<netinet/in.h>": "the type of the address libmicrohttpd is told",
        "src/cli/cli.c:getenv": "the environment, read once at the start",
        "src/cli/dead_letters.c:fread": "a record to replay, from standard input",
    },
    "library_rooms_do_not_print": {
        "src/observe/log.c:fwrite": "log lines go to standard error when no file is named",
    },
    "fallible_functions_must_be_used": {
        "src/base/error.h:error_mark_*": "marks an error the caller has; its value is known",
        "src/cli/cli.h:cli_fail": "says a sentence; the status it returns is the caller's own",
        "src/cli/cli.h:cli_unknown_command": "the same",
        "src/serve/problem.h:problem_*": "writes a sentence; its value is always SERVE_E_PROBLEM",
        "src/points/point.h:point_config_find": "an index or -1",
        "src/points/point.h:point_id_compare": "an order",
        "src/points/local/manifest.h:segment_key_compare": "an order",
        "src/points/local/topk.h:candidate_compare": "an order",
    },
    "banned_calls": {
        "src/os/test_sync.c:signal": "catches the abort of the assertion it provokes",
        "src/os/test_table.c:strncpy": "a copy into a zeroed array of its own",
        "src/http/test_server.c:strncat": "a copy into a zeroed array of its own",
    },
    "files_are_small": {
        "src/journal/core.h": "the private parts that both engines share, in one picture",
    },
    "files_say_what_they_are": {
        "src/points/local/kernel_loops.h": "included once for each instruction set: no guard",
    },
    "structs_go_by_their_name": {
        "src/points/local/kernel_portable.c": "stands in for the vector types of the CPUs",
    },
    "errors_are_tested": {
        "src/http/errors.def:internal": "for our own mistakes: no test can ask for one",
    },
    "no_mutable_data": {
        "src/base/error.c:current": "the trace of the thread's last error",
        "src/os/sync.c:held_ranks": "the ranks that the thread holds, for the assertion of order",
        "src/os/real.c:real": "os_real(): a table of functions, never written",
    },
}
