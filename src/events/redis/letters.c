/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters: a hash a lane, beside its position. A letter's field is its lsn and its key's hash,
 * so that the names alone fill the index; its value is
 *
 *   0  u64 wall clock, µs   8  u8 kind   9  u8 flags   10 u32 size of the reason   14 reason
 *   …  payload, to the end
 *
 * Keeping one again changes nothing, as its lsn is its name.
 */
#include "events/redis/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIELD_SIZE = 20 + 1 + 16, READ_SOME = 64 };

static struct bytes field_of(struct arena *a, lsn_t letter, uint64_t key_hash) {
    return key_format(a, "%020" PRIu64 ":%016" PRIx64, letter, key_hash);
}

static bool read_field(struct bytes field, lsn_t *ret_letter, uint64_t *ret_key_hash) {
    char text[FIELD_SIZE + 1], *end;
    if (field.size != FIELD_SIZE)
        return false;
    memcpy(text, field.data, FIELD_SIZE);
    text[FIELD_SIZE] = '\0';
    *ret_letter = strtoull(text, &end, 10);
    if (*end != ':')
        return false;
    *ret_key_hash = strtoull(end + 1, &end, 16);
    return *end == '\0';
}

/* ---- The index ---- */

int redis_letters_ask(struct events_redis *s, struct arena *a, unsigned lane,
                      struct redis_command *ret_command) {
    struct bytes *words = arena_calloc(a, 2, sizeof *words);
    if (!words)
        return error_origin(-ENOMEM);
    words[0] = BYTES_LITERAL("HKEYS");
    words[1] = key_lane(a, s->prefix, lane, 'l');
    if (!words[1].data)
        return error_origin(-ENOMEM);
    *ret_command = redis_plain(words, 2);
    return 0;
}

int redis_letters_take(struct events_redis *s, const redisReply *reply) {
    int r = 0;
    for (size_t i = 0; !r && reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        lsn_t letter;
        uint64_t key_hash;
        if (reply->element[i]->type == REDIS_REPLY_STRING &&
            read_field(redis_text(reply->element[i]), &letter, &key_hash))
            r = work_letters_add(&s->letters, letter, key_hash);
    }
    return error_trace(r);
}

struct work_letters *redis_letters_of(void *store) {
    return &((struct events_redis *)store)->letters;
}

/* ---- Keeping and removing ---- */

static int keep(struct events_redis *s, struct arena *a, unsigned lane,
                const struct journal_record *record, struct bytes value,
                char why[EVENTS_REDIS_WHY_MAX]) {
    const struct bytes words[] = {BYTES_LITERAL("HSET"), key_lane(a, s->prefix, lane, 'l'),
                                  field_of(a, record->lsn, record->key_hash), value};
    if (!words[1].data || !words[2].data)
        return error_origin(-ENOMEM);
    struct redis_command command = redis_plain(words, ARRAY_LENGTH(words));
    int r = redis_ask(s, &command, 1, true, redis_write_timeout(s), why);
    redis_commands_free(&command, 1);
    return r > 0 ? r : error_trace(r);
}

int redis_letters_keep(struct events_redis *s, unsigned lane, const struct journal_record *record,
                       const char *reason, char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    CLEANUP(buffer_deinit) struct buffer value = BUFFER_INIT;
    buffer_append_u64(&value, record->wall_us);
    buffer_append_u8(&value, record->kind);
    buffer_append_u8(&value, record->flags);
    buffer_append_block(&value, bytes_of_string(reason));
    buffer_append_bytes(&value, record->payload);
    int r = buffer_check(&value);
    if (!r)
        r = work_letters_add(&s->letters, record->lsn, record->key_hash);
    if (r)
        return error_trace(r);
    r = keep(s, &a, lane, record, buffer_bytes(&value), why);
    if (r)
        work_letters_remove(&s->letters, record->lsn, record->key_hash);
    return r > 0 ? r : error_trace(r);
}

int redis_letters_remove(struct events_redis *s, unsigned lane, lsn_t letter, uint64_t key_hash,
                         char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    const struct bytes words[] = {key_lane(&a, s->prefix, lane, 'l'),
                                  key_lane(&a, s->prefix, lane, 'p'),
                                  field_of(&a, letter, key_hash)};
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++)
        if (!words[i].data)
            return error_origin(-ENOMEM);
    struct redis_command command = {.key = words[0],
                                    .script = &s->scripts.forget,
                                    .n_keys = 2,
                                    .arguments = words,
                                    .n = ARRAY_LENGTH(words)};
    int r = redis_ask(s, &command, 1, true, redis_write_timeout(s), why);
    redis_commands_free(&command, 1);
    if (r)
        return r > 0 ? r : error_trace(r);
    work_letters_remove(&s->letters, letter, key_hash);
    return 0;
}

int redis_letters_remove_all(struct events_redis *s, unsigned lane, uint64_t key_hash,
                             char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(buffer_deinit) struct buffer letters = BUFFER_INIT;
    work_letters_of_key(&s->letters, key_hash, &letters);
    int r = buffer_check(&letters);
    for (size_t i = 0; !r && i < letters.size; i += sizeof(lsn_t))
        r = redis_letters_remove(s, lane, load_u64(letters.data + i), key_hash, why);
    return r > 0 ? r : error_trace(r);
}

/* ---- Reading ---- */

static bool read_letter(struct bytes value, struct work_letter *letter) {
    struct reader r = reader_of(value);
    letter->record.wall_us = reader_u64(&r);
    letter->record.kind = reader_u8(&r);
    letter->record.flags = reader_u8(&r);
    letter->reason = reader_block(&r);
    letter->record.payload = reader_bytes(&r, (size_t)(r.end - r.at));
    return !r.failed;
}

struct letters_asked {
    size_t n;
    struct work_letter letters[READ_SOME];
    struct redis_command commands[READ_SOME];
    struct bytes words[READ_SOME][3];
};

/* The key of the lane is not known by a letter's name: its hash says which lane it was in. */
static int ask_for(struct events_redis *s, struct arena *a, struct letters_asked *asked,
                   lsn_t letter) {
    uint64_t key_hash;
    if (!work_letters_hash_of(&s->letters, letter, &key_hash))
        return 0;
    unsigned lane = work_lane_of_hash(key_hash, atomic_load(&s->n_lanes));
    struct bytes *words = asked->words[asked->n];
    words[0] = BYTES_LITERAL("HGET");
    words[1] = key_lane(a, s->prefix, lane, 'l');
    words[2] = field_of(a, letter, key_hash);
    if (!words[1].data || !words[2].data)
        return error_origin(-ENOMEM);
    asked->letters[asked->n].record = (struct journal_record){.lsn = letter, .key_hash = key_hash};
    asked->commands[asked->n++] = redis_plain(words, 3);
    return 0;
}

static int read_some(struct events_redis *s, const lsn_t *lsns, size_t n,
                     void (*each)(void *context, const struct work_letter *letter), void *context) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    char why[EVENTS_REDIS_WHY_MAX];
    struct letters_asked *asked = arena_calloc(&a, 1, sizeof *asked);
    int r = asked ? 0 : error_origin(-ENOMEM);
    for (size_t i = 0; !r && i < n; i++)
        r = ask_for(s, &a, asked, lsns[i]);
    if (r)
        return error_trace(r);
    r = redis_ask(s, asked->commands, asked->n, false, redis_read_timeout(s), why);
    for (size_t i = 0; !r && i < asked->n; i++) {
        const redisReply *reply = asked->commands[i].reply;
        if (reply->type == REDIS_REPLY_STRING && read_letter(redis_text(reply), &asked->letters[i]))
            each(context, &asked->letters[i]);
    }
    redis_commands_free(asked->commands, asked->n);
    return r > 0 ? error_origin(-EIO) : error_trace(r);
}

int redis_letters_read(void *store, const lsn_t *lsns, size_t n,
                       void (*each)(void *context, const struct work_letter *letter),
                       void *context) {
    int r = 0;
    for (size_t i = 0; !r && i < n; i += READ_SOME)
        r = read_some(store, lsns + i, n - i < READ_SOME ? n - i : READ_SOME, each, context);
    return error_trace(r);
}
