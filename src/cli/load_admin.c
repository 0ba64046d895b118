/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking requests: sent again when a kept connection was closed by the server meanwhile.
 */
#include "cli/load_admin.h"

#include <errno.h>
#include <stdarg.h>

enum { ASK_TIMEOUT_MS = 60000, PARSE_MAX_BYTES = 4 << 20, ATTEMPTS = 3 };

int admin_init(struct admin *a, const struct load_plan *plan) {
    *a = (struct admin){.plan = plan};
    client_init(&a->client, &plan->address);
    int r = json_parser_new(PARSE_MAX_BYTES, &a->parser);
    return r ? error_trace(r) : 0;
}

void admin_deinit(struct admin *a) {
    client_deinit(&a->client);
    json_parser_free(a->parser);
    buffer_deinit(&a->request);
    buffer_deinit(&a->copy);
}

int admin_fail(struct admin *a, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(a->error, sizeof a->error, format, args);
    va_end(args);
    return ADMIN_E_FAILED;
}

int admin_unexpected(struct admin *a, const char *what, const struct client_answer *answer) {
    return admin_fail(a, "%s: the server answers %u: %.*s", what, answer->status,
                      (int)(answer->body.size < 300 ? answer->body.size : 300),
                      (const char *)answer->body.data);
}

int admin_ask(struct admin *a, const char *method, const char *path, struct bytes body,
              struct client_answer *ret_answer) {
    const struct client_target *target = &a->plan->target;
    int r = CLIENT_E_CLOSED;
    buffer_clear(&a->request);
    client_append_head(
        &a->request, target,
        &(struct client_head){.method = method, .path = path, .body_size = body.size});
    buffer_append_bytes(&a->request, body);
    if (buffer_check(&a->request))
        return admin_fail(a, "out of memory");
    for (int i = 0; i < ATTEMPTS && r == CLIENT_E_CLOSED; i++)
        r = client_ask(&a->client, a->plan->os, buffer_bytes(&a->request), ASK_TIMEOUT_MS,
                       ret_answer);
    if (r)
        return admin_fail(a, "http://%s:%u: %s; is `millrace serve` running there?",
                          target->url.host, (unsigned)target->url.port, client_reason(r));
    return 0;
}

int admin_parse(struct admin *a, const struct client_answer *answer, struct json_value *ret) {
    buffer_clear(&a->copy);
    buffer_append_bytes(&a->copy, answer->body);
    if (!buffer_reserve(&a->copy, JSON_PADDING))
        return admin_fail(a, "out of memory");
    int r = json_parse(a->parser, buffer_bytes(&a->copy), ret);
    return r ? admin_fail(a, "the server's answer %s", r > 0 ? json_error_text(r) : strerror(-r))
             : 0;
}
