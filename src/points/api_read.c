/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every read does before and after its own work: find the collection, hold a view of it, and
 * answer with what was rendered.
 */
#include "points/api_parts.h"

enum { ARENA_MAX_BYTES = 64 << 20 };

int api_reading_open(struct api_reading *g, struct points_api *api, struct bytes name) {
    *g = (struct api_reading){.arena = ARENA_INIT(ARENA_MAX_BYTES), .out = BUFFER_INIT};
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
        api_fail_collection_qdrant(r, name);
    else if (result)
        api_fail_qdrant(r, result, NULL);
    return result == 0;
}

void api_reading_deinit(struct api_reading *g) {
    points_view_free(g->view);
    points_collection_unref(g->collection);
    arena_deinit(&g->arena);
    buffer_deinit(&g->out);
}

void api_reading_answer(struct api_reading *g, struct http_request *r, int result) {
    if (result == 0)
        result = api_check_answer(&g->out, &g->fault);
    if (result)
        api_fail_qdrant(r, result, &g->fault);
    else
        http_respond_qdrant(r, buffer_bytes(&g->out));
}
