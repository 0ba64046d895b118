/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters of points: mostly a vector that does not fit its collection. The record is shown as
 * a point, {"id","vector","payload"}, with the floats that it has.
 */
#include "points/api_parts.h"
#include "points/home.h"
#include "points/shared.h"

#include <errno.h>
#include <inttypes.h>

static const char does_not_decode[] =
    "the record does not decode as a point, so it can only be dropped";

static bool decode(const struct work_letter *letter, struct point_record *ret_record) {
    struct bytes home, payload = letter->record.payload, record;
    if (!point_home_split(payload, &home, &record))
        record = payload;
    return point_record_decode(record, ret_record) &&
           (ret_record->op == POINT_UPSERT || ret_record->op == POINT_DELETE);
}

/* A record that says where it belongs is of the collection that has the name now, as far as that
 * was heard here. NULL: it is gone. */
static struct points_collection *find_collection(struct points_api *api,
                                                 const struct work_letter *letter,
                                                 const struct point_record *record) {
    struct points_collection *c =
        points_catalog_find_incarnation(api->catalog, record->incarnation);
    return c || !api->follow ? c : points_shared_collection(letter->record.payload);
}

static void append_key(void *context, const struct work_letter *letter, struct buffer *out) {
    struct points_api *api = context;
    struct point_record record;
    if (!decode(letter, &record))
        return;
    CLEANUP(api_collection_unref)
    struct points_collection *c = find_collection(api, letter, &record);
    if (c)
        buffer_append_string(out, c->name);
    else
        buffer_append_format(out, "#%" PRIu64, record.incarnation);
    buffer_append_u8(out, '/');
    point_id_append_json(out, record.id);
}

/* ---- As JSON ---- */

static void append_floats(struct buffer *out, const uint8_t *floats, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, floats + i * sizeof value, sizeof value);
        buffer_append_u8(out, i ? ',' : '[');
        json_append_float(out, value);
    }
    buffer_append_string(out, n ? "]" : "[]");
}

/* By the configuration, as far as the floats go; the last vector has all the others. */
static void append_vectors(struct buffer *out, const struct point_config *config,
                           const struct point_record *record) {
    bool named = config->n_vectors != 1 || config->vectors[0].name[0];
    size_t left = record->vectors.size / sizeof(float);
    const uint8_t *at = record->vectors.data;
    const char *comma = "{";
    for (uint32_t i = 0; i < config->n_vectors; i++) {
        bool last = i + 1 == config->n_vectors || record->vector_mask >> (i + 1) == 0;
        size_t dimension = config->vectors[i].dimension;
        size_t n = last || dimension > left ? left : dimension;
        if (!(record->vector_mask >> i & 1))
            continue;
        if (named) {
            buffer_append_string(out, comma);
            json_append_cstring(out, config->vectors[i].name);
            buffer_append_u8(out, ':');
        }
        append_floats(out, at, n);
        at += n * sizeof(float);
        left -= n;
        comma = ",";
    }
    if (named || record->vector_mask == 0)
        buffer_append_string(out, *comma == '{' ? "{}" : "}");
}

static int append_record(void *context, const struct work_letter *letter, struct buffer *out,
                         char sentence[WORK_LETTER_SENTENCE]) {
    struct points_api *api = context;
    struct point_record record;
    if (!decode(letter, &record))
        return work_letter_refuse(sentence, "%s", does_not_decode);
    if (record.op == POINT_DELETE)
        return work_letter_refuse(sentence, "it deletes the point; there is nothing to edit");
    CLEANUP(api_collection_unref)
    struct points_collection *c = find_collection(api, letter, &record);
    if (!c)
        return work_letter_refuse(sentence, "its collection is gone, so it can only be dropped");
    buffer_append_string(out, "{\"id\":");
    point_id_append_json(out, record.id);
    buffer_append_string(out, ",\"vector\":");
    append_vectors(out, &c->config, &record);
    buffer_append_string(out, ",\"payload\":");
    buffer_append_bytes(out, record.payload.size ? record.payload : BYTES_LITERAL("{}"));
    buffer_append_u8(out, '}');
    return error_trace(buffer_check(out));
}

/* ---- Writing it again ---- */

/* Sets *payload to the record's, or to that of its edited form, encoded in bytes. */
static int encode(struct points_api *api, const struct points_collection *c,
                  struct work_letter_replay *replay, struct buffer *bytes,
                  struct bytes *ret_payload) {
    struct journal_record record = replay->letter->record;
    if (replay->edited) {
        int r = points_encode_point(c, api->work, *replay->edited, bytes, &record, replay->sentence,
                                    sizeof replay->sentence);
        if (r)
            return r > 0 ? WORK_LETTER_E_REFUSED : error_trace(r);
    }
    if (record.key_hash != replay->letter->record.key_hash)
        return work_letter_refuse(replay->sentence, "the point must keep the id of the record");
    *ret_payload = record.payload;
    return 0;
}

/* The letter is taken away by who asked, once this is durable. */
static int append_anew(struct points_api *api, struct work_letter_replay *replay,
                       struct bytes payload) {
    struct journal_record record = {.key_hash = replay->letter->record.key_hash,
                                    .kind = JOURNAL_KIND_POINTS,
                                    .flags = replay->letter->record.flags,
                                    .payload = payload};
    int r = journal_append(api->journal, &record, 1);
    if (r > 0) {
        replay->condition = r;
        return WORK_LETTER_E_JOURNAL;
    }
    replay->first = replay->last = record.lsn;
    return error_trace(r);
}

static int append(struct points_api *api, struct points_collection *c,
                  struct work_letter_replay *replay, struct bytes payload) {
    CLEANUP(buffer_deinit) struct buffer bytes = BUFFER_INIT;
    const struct work_letter_record about = {.op = WORK_LETTER_REPLAY,
                                             .force = replay->force,
                                             .letter = replay->letter->record.lsn,
                                             .payload = payload};
    work_letter_encode(&bytes, &about);
    struct journal_record record = {.key_hash = replay->letter->record.key_hash,
                                    .kind = JOURNAL_KIND_POINTS,
                                    .flags = JOURNAL_LETTER,
                                    .payload = buffer_bytes(&bytes)};
    int r = buffer_check(&bytes);
    if (!r)
        r = points_catalog_append(api->catalog, api->journal, c, &record, 1, &replay->condition);
    if (r == POINTS_E_JOURNAL)
        return WORK_LETTER_E_JOURNAL;
    if (r == POINTS_E_GONE)
        return work_letter_refuse(replay->sentence,
                                  "its collection is gone, so it can only be dropped");
    replay->first = replay->last = record.lsn;
    return error_trace(r);
}

static int replay_letter(void *context, struct work_letter_replay *replay) {
    CLEANUP(buffer_deinit) struct buffer bytes = BUFFER_INIT;
    struct points_api *api = context;
    struct point_record record;
    struct bytes payload = {0};
    if (!decode(replay->letter, &record))
        return work_letter_refuse(replay->sentence, "%s", does_not_decode);
    if (budget_spent(api->budget, BUDGET_POINTS)) {
        replay->condition = JOURNAL_E_PINNED;
        return WORK_LETTER_E_JOURNAL;
    }
    CLEANUP(api_collection_unref)
    struct points_collection *c = find_collection(api, replay->letter, &record);
    if (!c)
        return work_letter_refuse(replay->sentence,
                                  "its collection is gone, so it can only be dropped");
    int r = encode(api, c, replay, &bytes, &payload);
    if (r)
        return error_trace(r);
    return api->follow ? append_anew(api, replay, payload) : append(api, c, replay, payload);
}

const struct work_letter_kind points_letters = {
    .append_key = append_key,
    .append_record = append_record,
    .replay = replay_letter,
};
