/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters: a hash a lane, beside its position. A letter's field is its lsn and its key's hash,
 * so that the names alone fill the index; its value is
 *
 *   0  u64 wall clock, µs   8  u8 kind   9  u8 flags   10 u32 size of the reason   14 reason
 *   …  payload, to the end
 *
 * Keeping one again changes nothing, as its lsn is its name. A process that applies all lanes goes
 * by its index, and numbers letters by their lsns; where processes share the lanes there is none,
 * as any of them drops letters: each asks for the names, which a lane has a bounded number of, and
 * numbers have the lane in them.
 */
#include "events/redis/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    FIELD_SIZE = 20 + 1 + 16,
    READ_SOME = 64,
    LANES_SHARED_MAX = 1 << WORK_LETTER_PARTITION_BITS, /* as numbers have room for */
#ifdef MILLRACE_TINY
    LANE_LETTERS_MAX = 20,
#else
    LANE_LETTERS_MAX = 1000,
#endif
};

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

static int ask_lane(struct events_redis *s, struct arena *a, unsigned lane, struct bytes command,
                    struct redis_command *ret_command) {
    struct bytes *words = arena_calloc(a, 2, sizeof *words);
    if (!words)
        return error_origin(-ENOMEM);
    words[0] = command;
    words[1] = key_lane(a, s->prefix, lane, 'l');
    if (!words[1].data)
        return error_origin(-ENOMEM);
    *ret_command = redis_plain(words, 2);
    return 0;
}

int redis_letters_ask(struct events_redis *s, struct arena *a, unsigned lane,
                      struct redis_command *ret_command) {
    return error_trace(ask_lane(s, a, lane, BYTES_LITERAL("HKEYS"), ret_command));
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

static int index_add(struct events_redis *s, const struct journal_record *record) {
    return redis_is_shared(s) ? 0 : work_letters_add(&s->letters, record->lsn, record->key_hash);
}

static void index_remove(struct events_redis *s, lsn_t letter, uint64_t key_hash) {
    if (!redis_is_shared(s))
        work_letters_remove(&s->letters, letter, key_hash);
}

/* ---- Keeping and removing ---- */

/* A bound only where a letter can be dropped while its lane waits: of a process's own lanes that is
 * a record, which would come behind. */
static int keep(struct events_redis *s, struct arena *a, unsigned lane,
                const struct journal_record *record, struct bytes value,
                char why[EVENTS_REDIS_WHY_MAX]) {
    int most = redis_is_shared(s) ? LANE_LETTERS_MAX : INT_MAX;
    const struct bytes words[] = {key_lane(a, s->prefix, lane, 'l'),
                                  field_of(a, record->lsn, record->key_hash), value,
                                  key_format(a, "%d", most)};
    if (!words[0].data || !words[1].data || !words[3].data)
        return error_origin(-ENOMEM);
    struct redis_command command = {.key = words[0],
                                    .script = &s->scripts.keep,
                                    .n_keys = 1,
                                    .arguments = words,
                                    .n = ARRAY_LENGTH(words)};
    int r = redis_ask(s, &command, 1, true, redis_write_timeout(s), why);
    if (!r && (command.reply->type != REDIS_REPLY_INTEGER || command.reply->integer != 1))
        r = WORK_LETTER_E_FULL;
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
        r = index_add(s, record);
    if (r)
        return error_trace(r);
    r = keep(s, &a, lane, record, buffer_bytes(&value), why);
    if (r)
        index_remove(s, record->lsn, record->key_hash);
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
    index_remove(s, letter, key_hash);
    return 0;
}

int redis_letters_look(struct events_redis *s, unsigned lane, lsn_t letter, uint64_t key_hash,
                       bool *ret_there, char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    const struct bytes words[] = {BYTES_LITERAL("HEXISTS"), key_lane(&a, s->prefix, lane, 'l'),
                                  field_of(&a, letter, key_hash)};
    if (!words[1].data || !words[2].data)
        return error_origin(-ENOMEM);
    struct redis_command command = redis_plain(words, ARRAY_LENGTH(words));
    int r = redis_ask(s, &command, 1, false, redis_write_timeout(s), why);
    if (!r && command.reply->type != REDIS_REPLY_INTEGER)
        r = redis_odd(why);
    if (!r)
        *ret_there = command.reply->integer == 1;
    redis_commands_free(&command, 1);
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

/* A letter by its name. */
struct name {
    lsn_t number;
    lsn_t lsn;
    uint64_t key_hash;
    unsigned lane;
};

static int ask_for(struct events_redis *s, struct arena *a, struct letters_asked *asked,
                   const struct name *name) {
    struct bytes *words = asked->words[asked->n];
    words[0] = BYTES_LITERAL("HGET");
    words[1] = key_lane(a, s->prefix, name->lane, 'l');
    words[2] = field_of(a, name->lsn, name->key_hash);
    if (!words[1].data || !words[2].data)
        return error_origin(-ENOMEM);
    asked->letters[asked->n].record =
        (struct journal_record){.lsn = name->number, .key_hash = name->key_hash};
    asked->commands[asked->n++] = redis_plain(words, 3);
    return 0;
}

typedef void each_letter(void *context, const struct work_letter *letter);

static int read_some(struct events_redis *s, const struct name *names, size_t n, lsn_t changed,
                     each_letter *each, void *context, char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    struct letters_asked *asked = arena_calloc(&a, 1, sizeof *asked);
    int r = asked ? 0 : error_origin(-ENOMEM);
    for (size_t i = 0; !r && i < n; i++)
        r = ask_for(s, &a, asked, &names[i]);
    if (r)
        return error_trace(r);
    r = redis_ask(s, asked->commands, asked->n, false, redis_read_timeout(s), why);
    for (size_t i = 0; !r && i < asked->n; i++) {
        const redisReply *reply = asked->commands[i].reply;
        asked->letters[i].changed = changed;
        if (reply->type == REDIS_REPLY_STRING && read_letter(redis_text(reply), &asked->letters[i]))
            each(context, &asked->letters[i]);
    }
    redis_commands_free(asked->commands, asked->n);
    return r > 0 ? r : error_trace(r);
}

/* The lane is not known by a letter's lsn: its hash says which it was in. */
static size_t name_some(struct events_redis *s, const lsn_t *lsns, size_t n, struct name *out) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t key_hash;
        if (work_letters_hash_of(&s->letters, lsns[i], &key_hash))
            out[found++] = (struct name){lsns[i], lsns[i], key_hash,
                                         work_lane_of_hash(key_hash, atomic_load(&s->n_lanes))};
    }
    return found;
}

int redis_letters_read(void *store, const lsn_t *lsns, size_t n,
                       void (*each)(void *context, const struct work_letter *letter),
                       void *context) {
    char why[EVENTS_REDIS_WHY_MAX];
    struct name names[READ_SOME];
    int r = 0;
    for (size_t i = 0; !r && i < n; i += READ_SOME) {
        size_t some = name_some(store, lsns + i, n - i < READ_SOME ? n - i : READ_SOME, names);
        r = read_some(store, names, some, 0, each, context, why);
    }
    return r > 0 ? error_origin(-EIO) : error_trace(r);
}

/* ---- Those of lanes that processes share ---- */

struct names {
    struct arena arena;
    struct redis_command *commands; /* one a lane asked */
    unsigned *lanes;
    size_t n_lanes;
    struct name *all; /* by number, descending */
    size_t n;
};

static void names_deinit(struct names *names) {
    redis_commands_free(names->commands, names->n_lanes);
    arena_deinit(&names->arena);
}

static int compare_names(const void *a, const void *b) {
    const struct name *x = a, *y = b;
    return (x->number < y->number) - (x->number > y->number);
}

static void take_lane(struct names *names, unsigned lane, const redisReply *reply, lsn_t below) {
    for (size_t i = 0; i < reply->elements; i++) {
        struct name name = {.lane = lane};
        if (reply->element[i]->type != REDIS_REPLY_STRING ||
            !read_field(redis_text(reply->element[i]), &name.lsn, &name.key_hash))
            continue;
        name.number = work_letter_number(name.lsn, lane);
        if (below == 0 || name.number < below)
            names->all[names->n++] = name;
    }
}

/* Of each lane what the command says, "HKEYS" or "HLEN", of its letters. */
static int ask_lanes(struct events_redis *s, struct names *names, uint64_t lanes,
                     struct bytes command, char why[EVENTS_REDIS_WHY_MAX]) {
    unsigned n = atomic_load(&s->n_lanes);
    names->commands = arena_calloc(&names->arena, n + 1, sizeof *names->commands);
    names->lanes = arena_calloc(&names->arena, n + 1, sizeof *names->lanes);
    if (!names->commands || !names->lanes)
        return error_origin(-ENOMEM);
    for (unsigned lane = 0; lane < n && lane < LANES_SHARED_MAX; lane++) {
        if (!(lanes >> lane & 1))
            continue;
        int r = ask_lane(s, &names->arena, lane, command, &names->commands[names->n_lanes]);
        if (r)
            return error_trace(r);
        names->lanes[names->n_lanes++] = lane;
    }
    return redis_ask(s, names->commands, names->n_lanes, false, redis_read_timeout(s), why);
}

/* Of the lanes of the mask, the letters below `below` (0: all). */
static int gather(struct events_redis *s, uint64_t lanes, lsn_t below, struct names *names,
                  char why[EVENTS_REDIS_WHY_MAX]) {
    size_t most = 0;
    int r = ask_lanes(s, names, lanes, BYTES_LITERAL("HKEYS"), why);
    for (size_t i = 0; !r && i < names->n_lanes; i++) {
        const redisReply *reply = names->commands[i].reply;
        most += reply->elements;
        if (reply->type != REDIS_REPLY_ARRAY)
            r = redis_odd(why);
    }
    if (r)
        return r > 0 ? WORK_LETTER_E_UNREACHABLE : error_trace(r);
    names->all = arena_calloc(&names->arena, most + 1, sizeof *names->all);
    if (!names->all)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < names->n_lanes; i++)
        take_lane(names, names->lanes[i], names->commands[i].reply, below);
    qsort(names->all, names->n, sizeof *names->all, compare_names);
    return 0;
}

static uint64_t lanes_of(const lsn_t *numbers, size_t n) {
    uint64_t lanes = 0;
    for (size_t i = 0; i < n; i++)
        lanes |= UINT64_C(1) << work_letter_partition(numbers[i]);
    return lanes;
}

/* NULL: it is not there. */
static const struct name *find(const struct names *names, lsn_t number) {
    const struct name wanted = {.number = number};
    return bsearch(&wanted, names->all, names->n, sizeof wanted, compare_names);
}

static int box_page(void *store, lsn_t below, size_t max, lsn_t *out, size_t *ret_n,
                    char why[WORK_LETTER_WHY_MAX]) {
    CLEANUP(names_deinit) struct names names = {.arena = ARENA_INIT(ARENA_BYTES_MAX)};
    int r = gather(store, UINT64_MAX, below, &names, why);
    if (r)
        return r;
    *ret_n = names.n < max ? names.n : max;
    for (size_t i = 0; i < *ret_n; i++)
        out[i] = names.all[i].number;
    return 0;
}

static int box_read(void *store, const lsn_t *numbers, size_t n, each_letter *each, void *context,
                    char why[WORK_LETTER_WHY_MAX]) {
    CLEANUP(names_deinit) struct names names = {.arena = ARENA_INIT(ARENA_BYTES_MAX)};
    int r = gather(store, lanes_of(numbers, n), 0, &names, why);
    for (size_t i = 0; !r && i < n; i += READ_SOME) {
        struct name some[READ_SOME];
        size_t asked = 0;
        for (size_t k = i; k < n && k - i < READ_SOME; k++) {
            const struct name *name = find(&names, numbers[k]);
            if (name)
                some[asked++] = *name;
        }
        r = read_some(store, some, asked, WORK_LETTER_NOBODY_KNOWS, each, context, why);
    }
    return r > 0 ? WORK_LETTER_E_UNREACHABLE : error_trace(r);
}

static int box_drop(void *store, lsn_t number, char why[WORK_LETTER_WHY_MAX]) {
    CLEANUP(names_deinit) struct names names = {.arena = ARENA_INIT(ARENA_BYTES_MAX)};
    int r = gather(store, lanes_of(&number, 1), 0, &names, why);
    const struct name *name = r ? NULL : find(&names, number);
    if (!name)
        return r ? r : WORK_LETTER_E_GONE;
    r = redis_letters_remove(store, name->lane, name->lsn, name->key_hash, why);
    return r > 0 ? WORK_LETTER_E_UNREACHABLE : error_trace(r);
}

static int box_count(void *store, uint64_t *ret_n, char why[WORK_LETTER_WHY_MAX]) {
    CLEANUP(names_deinit) struct names names = {.arena = ARENA_INIT(ARENA_BYTES_MAX)};
    uint64_t n = 0;
    int r = ask_lanes(store, &names, UINT64_MAX, BYTES_LITERAL("HLEN"), why);
    for (size_t i = 0; !r && i < names.n_lanes; i++) {
        const redisReply *reply = names.commands[i].reply;
        if (reply->type == REDIS_REPLY_INTEGER && reply->integer > 0)
            n += (uint64_t)reply->integer;
    }
    if (!r)
        *ret_n = n;
    return r > 0 ? WORK_LETTER_E_UNREACHABLE : error_trace(r);
}

static int box_settle(void *store, lsn_t number, bool *ret_gone, char why[WORK_LETTER_WHY_MAX]) {
    CLEANUP(names_deinit) struct names names = {.arena = ARENA_INIT(ARENA_BYTES_MAX)};
    int r = gather(store, lanes_of(&number, 1), 0, &names, why);
    if (!r)
        *ret_gone = find(&names, number) == NULL;
    return r;
}

/* ---- Those of a key ---- */

static int remove_indexed(struct events_redis *s, unsigned lane, uint64_t key_hash,
                          char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(buffer_deinit) struct buffer letters = BUFFER_INIT;
    work_letters_of_key(&s->letters, key_hash, &letters);
    int r = buffer_check(&letters);
    for (size_t i = 0; !r && i < letters.size; i += sizeof(lsn_t))
        r = redis_letters_remove(s, lane, load_u64(letters.data + i), key_hash, why);
    return r > 0 ? r : error_trace(r);
}

static int remove_shared(struct events_redis *s, unsigned lane, uint64_t key_hash,
                         char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(names_deinit) struct names names = {.arena = ARENA_INIT(ARENA_BYTES_MAX)};
    int r = gather(s, UINT64_C(1) << lane, 0, &names, why);
    if (r > 0)
        return EVENTS_REDIS_E_DOWN;
    for (size_t i = 0; !r && i < names.n; i++)
        if (names.all[i].key_hash == key_hash)
            r = redis_letters_remove(s, lane, names.all[i].lsn, key_hash, why);
    return r > 0 ? r : error_trace(r);
}

int redis_letters_remove_all(struct events_redis *s, unsigned lane, uint64_t key_hash,
                             char why[EVENTS_REDIS_WHY_MAX]) {
    return redis_is_shared(s) ? remove_shared(s, lane, key_hash, why)
                              : remove_indexed(s, lane, key_hash, why);
}

struct letter_box events_redis_letter_box(struct events_redis *s) {
    static const struct letter_box_ops ops = {.page = box_page,
                                              .read = box_read,
                                              .drop = box_drop,
                                              .count = box_count,
                                              .settle = box_settle};
    return (struct letter_box){.ops = &ops, .store = s};
}
