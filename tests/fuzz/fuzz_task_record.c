/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever decodes as a transition of a task lies inside the bytes it came from, encodes to the
 * same bytes again, and leaves a task that no record can bring beyond its bounds.
 */
#include "fuzz.h"

#include "tasks/task.h"

static void check_inside(struct bytes whole, struct bytes part) {
    if (part.size)
        FUZZ_CHECK(part.data >= whole.data && part.data + part.size <= whole.data + whole.size);
}

static void check_transition(const struct task_record *r) {
    for (enum task_status before = 0; before < TASK_STATUSES; before++) {
        struct task t = {.id = r->id, .status = before, .attempts = r->attempt};
        if (r->op == TASK_OP_START)
            t.attempts--;
        bool fitted = task_transition(&t, r, 1);
        FUZZ_CHECK(fitted || t.status == before);
        FUZZ_CHECK(t.status < TASK_STATUSES && t.attempts <= r->attempt);
        FUZZ_CHECK(t.deaths <= TASK_DEATHS_MAX && t.saved.size <= TASK_SAVED_MAX);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct bytes whole = bytes_of(data, size);
    struct task_record r;
    if (!task_record_decode(whole, &r))
        return 0;
    check_inside(whole, r.worker);
    check_inside(whole, r.text);
    check_inside(whole, r.saved);
    check_inside(whole, r.request.type);
    check_inside(whole, r.request.args);
    check_inside(whole, r.request.idempotency_key);
    task_record_encode(&out, &r);
    FUZZ_CHECK(bytes_equal(buffer_bytes(&out), whole));
    if (r.op != TASK_OP_CREATE)
        check_transition(&r);
    return 0;
}
