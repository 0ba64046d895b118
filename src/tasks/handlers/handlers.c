/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of handlers.
 */
#include "tasks/handler.h"

#define TASK_HANDLER(name) extern const struct task_handler task_handler_##name;
#include "tasks/handlers/handlers.def"
#undef TASK_HANDLER

const struct task_handler *const task_handlers[] = {
#define TASK_HANDLER(name) &task_handler_##name,
#include "tasks/handlers/handlers.def"
#undef TASK_HANDLER
};
const size_t task_handlers_n = ARRAY_LENGTH(task_handlers);

const struct task_handler *task_handler_find(struct bytes type) {
    for (size_t i = 0; i < task_handlers_n; i++)
        if (bytes_equal(bytes_of_string(task_handlers[i]->type), type))
            return task_handlers[i];
    return NULL;
}

bool task_handler_is_offered(const struct task_handler *h, const struct task_settings *settings) {
    return !(h->posts && settings && settings->no_api);
}
