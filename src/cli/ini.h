/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INI files, line by line:
 *
 *   # a comment, as is a line that starts with ;
 *   data-dir = /var/lib/millrace
 *   [serve]
 *   cors-origin = "quotes keep spaces"
 *
 * Works in place on text that the caller owns; views stay valid as long as it. One thread.
 */
#ifndef MILLRACE_CLI_INI_H
#define MILLRACE_CLI_INI_H

#include "base/compiler.h"

struct ini {
    char *at;            /* the rest, NUL-terminated */
    unsigned line;       /* of the last entry, from 1 */
    const char *section; /* "" before the first */
};

enum {
    _INI_E_SUCCESS,
    INI_E_END,
    INI_E_SYNTAX, /* line is neither of the above */
};

/* text must be NUL-terminated and is changed. */
void ini_init(struct ini *ini, char *text);
/* The next key and value, without the white space around them. */
int ini_next(struct ini *ini, const char **ret_key, const char **ret_value) MUST_USE;

#endif
