/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every read does before and after its own work: find the collection, hold a view of it, and
 * answer with what was rendered.
 */
#include "points/api_parts.h"

#include <errno.h>

enum {
    ARENA_MAX_BYTES = 64 << 20,
    ANSWER_MAX_BYTES = 128 << 20,
    ANSWER_STEP = 256 << 10, /* a shorter answer is not counted while it is made */
};

int api_reading_open(struct api_reading *g, struct points_api *api, struct bytes name) {
    *g = (struct api_reading){
        .arena = ARENA_INIT(ARENA_MAX_BYTES), .out = BUFFER_INIT, .budget = api->budget};
    g->collection = points_catalog_find(api->catalog, name);
    if (!g->collection)
        return POINTS_E_NOT_FOUND;
    int r = points_view_new(api->store, g->collection, &g->view);
    return r ? error_fold(r) : 0;
}

bool api_reading_init(struct api_reading *g, struct points_api *api, struct http_request *r) {
    struct bytes name = http_path_parameter(r, "name");
    int result = api_reading_open(g, api, name);
    if (result == POINTS_E_NOT_FOUND)
        api_fail_collection(r, name);
    else if (result)
        api_fail(r, result, NULL);
    return result == 0;
}

void api_reading_deinit(struct api_reading *g) {
    points_view_free(g->view);
    points_collection_unref(g->collection);
    arena_deinit(&g->arena);
    buffer_deinit(&g->out);
    budget_give(g->budget, BUDGET_ANSWERS, g->taken_bytes);
}

int api_reading_take(struct api_reading *g, uint64_t bytes) {
    if (!budget_take(g->budget, BUDGET_ANSWERS, bytes))
        return error_origin(-ENOMEM);
    g->taken_bytes += bytes;
    return 0;
}

void api_reading_give(struct api_reading *g, uint64_t bytes) {
    budget_give(g->budget, BUDGET_ANSWERS, bytes);
    g->taken_bytes -= bytes;
}

/* Half of what all answers may have: one that is allowed finds room sooner or later. */
static uint64_t answer_max_bytes(const struct api_reading *g) {
    uint64_t half = budget_part(g->budget, BUDGET_ANSWERS) / 2;
    return half < ANSWER_MAX_BYTES ? half : ANSWER_MAX_BYTES;
}

int api_check_answer(struct api_reading *g) {
    uint64_t max = answer_max_bytes(g);
    int r = buffer_check(&g->out);
    if (r)
        return error_trace(r);
    if (g->out.size > max)
        return api_fault_set(&g->fault, API_FAULT_INPUT, "limit",
                             "the answer would have more than %u MiB; ask for fewer points at a "
                             "time",
                             (unsigned)(max >> 20));
    while (g->out.size > g->out_bytes + ANSWER_STEP) {
        r = api_reading_take(g, ANSWER_STEP);
        if (r)
            return error_trace(r);
        g->out_bytes += ANSWER_STEP;
    }
    return 0;
}

void api_reading_answer(struct api_reading *g, struct http_request *r, int result) {
    if (result == 0)
        result = api_check_answer(g);
    if (result)
        api_fail(r, result, &g->fault);
    else
        http_respond_qdrant_taking(r, &g->out);
}
