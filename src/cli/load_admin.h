/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking a server beside the load: blocking calls over one connection, each a path, a body and an
 * answer. One thread.
 */
#ifndef MILLRACE_CLI_LOAD_ADMIN_H
#define MILLRACE_CLI_LOAD_ADMIN_H

#include "base/json.h"
#include "cli/load.h"

struct admin {
    const struct load_plan *plan;
    struct client client;
    struct json_parser *parser;
    struct buffer request;
    struct buffer copy; /* of an answer, for the parser */
    char error[512];    /* the sentence of a failure */
};

enum {
    _ADMIN_E_SUCCESS,
    ADMIN_E_FAILED, /* error says why */
};

int admin_init(struct admin *a, const struct load_plan *plan) MUST_USE;
void admin_deinit(struct admin *a);
/* Any answer is a success. */
int admin_ask(struct admin *a, const char *method, const char *path, struct bytes body,
              struct client_answer *ret_answer) MUST_USE;
/* The answer's body as JSON, valid until the next. */
int admin_parse(struct admin *a, const struct client_answer *answer,
                struct json_value *ret) MUST_USE;
/* Sets error; returns ADMIN_E_FAILED. */
int admin_fail(struct admin *a, const char *format, ...) PRINTF_LIKE(2, 3) MUST_USE;
/* The same, of an answer that was not looked for. */
int admin_unexpected(struct admin *a, const char *what,
                     const struct client_answer *answer) MUST_USE;

#endif
