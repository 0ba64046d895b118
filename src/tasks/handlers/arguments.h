/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arguments of a task's type, a row each, and the check of them. Pure; thread-safe.
 */
#ifndef MILLRACE_TASKS_HANDLERS_ARGUMENTS_H
#define MILLRACE_TASKS_HANDLERS_ARGUMENTS_H

#include "base/json.h"

struct argument_row {
    const char *name;
    enum json_type type; /* JSON_INT stands for whole numbers from min to max */
    uint64_t min;
    uint64_t max;
    bool required;
};

/* Whether args is an object with these members and no others; else sentence says what would be
 * right. */
bool arguments_check(const struct argument_row *rows, size_t n, struct json_value args,
                     char *sentence, size_t size);
/* The number of that name, or fallback. */
uint64_t argument_u64(struct json_value args, const char *name, uint64_t fallback);
/* The string of that name, or nothing. */
struct bytes argument_string(struct json_value args, const char *name);

#endif
