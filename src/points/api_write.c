/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an encoded batch to the loop's promise: append as one group while there is memory for what
 * the store makes of it (invariant 6) and the collection is alive (invariant 8), then wait behind
 * durability (invariant 1).
 */
#include "points/api_parts.h"

#include <errno.h>

int api_append(struct points_api *api, struct points_collection *collection, struct api_batch *b,
               lsn_t *ret_first, lsn_t *ret_last, int *ret_condition) {
    struct journal_record *records;
    if (b->grows && api->store && points_store_letters_full(api->store))
        return API_E_LETTERS_FULL;
    if (b->grows && budget_spent(api->budget, BUDGET_POINTS)) {
        *ret_condition = JOURNAL_E_PINNED;
        return API_E_REFUSED;
    }
    int r = api_batch_records(b, &records);
    if (r)
        return error_trace(r);
    r = points_catalog_append(api->catalog, api->journal, collection, records, b->n, ret_condition);
    if (r == POINTS_E_GONE)
        return API_E_GONE;
    if (r == POINTS_E_JOURNAL)
        return API_E_REFUSED;
    if (r)
        return error_fold(r);
    *ret_first = records[0].lsn;
    *ret_last = records[b->n - 1].lsn;
    return 0;
}

void api_fail_letters(struct http_request *r) {
    http_fail(r, HTTP_ERROR_FULL, NULL,
              "too many records of points are dead letters: no points are taken until some of them "
              "are replayed or dropped; see /dead-letters");
}

void api_fail_append(struct http_request *r, const struct points_collection *collection, int result,
                     int condition) {
    if (result == API_E_GONE)
        api_fail_collection(r, bytes_of_string(collection->name));
    else if (result == API_E_REFUSED)
        http_fail_journal(r, condition);
    else if (result == API_E_LETTERS_FULL)
        api_fail_letters(r);
    else
        api_fail(r, result, NULL);
}

int api_drop(struct points_api *api, struct bytes name, lsn_t *ret_lsn, int *ret_condition) {
    return error_trace(
        points_catalog_drop(api->catalog, api->journal, api->work, name, ret_lsn, ret_condition));
}

struct api_written *api_written_new(struct http_request *r) {
    struct api_written *written = arena_calloc(http_arena(r), 1, sizeof *written);
    if (written)
        http_set_state(r, written);
    return written;
}

void api_await(struct points_api *api, struct http_request *r, lsn_t first, lsn_t last,
               uint64_t lane_mask, bool wait, uint64_t timeout_ms, api_render render) {
    const struct http_write write = {.first = first,
                                     .last = last,
                                     .lane_mask = lane_mask,
                                     .work = api->work,
                                     .wait_visible = wait,
                                     .timeout_ms = timeout_ms,
                                     .render = render};
    http_await_write(r, &write);
}

void api_write(struct points_api *api, struct http_request *r, struct points_collection *c,
               struct api_batch *b, bool wait, uint64_t timeout_ms, api_render render) {
    lsn_t first, last;
    int condition = 0;
    struct api_written *written = api_written_new(r);
    int result = written ? api_append(api, c, b, &first, &last, &condition) : error_origin(-ENOMEM);
    if (result) {
        api_fail_append(r, c, result, condition);
        return;
    }
    written->lsn = last;
    api_await(api, r, first, last, b->lane_mask, wait, timeout_ms, render);
}
