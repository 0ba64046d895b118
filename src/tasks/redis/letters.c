/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters: a hash by their numbers, as 20 digits, and these in an order that a page can be
 * taken from. A letter's value is
 *
 *   0  u64 wall clock, µs   8  u64 hash of the key   16  u8 kind   17  u8 flags
 *   18 u32 size of the reason, the reason   …  payload, to the end
 *
 * scripts.c reads that, too. Those of tasks that died go with the task, or when it is tried again.
 */
#include "tasks/redis/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

enum {
#ifdef MILLRACE_TINY
    REJECTED_MAX = 20,
#else
    REJECTED_MAX = 10000,
#endif
    VALUES_SOME = 16, /* read at a time */
};
static_assert(PARTITIONS_MAX <= 1 << WORK_LETTER_PARTITION_BITS,
              "every partition's letters have numbers");

/* ---- Keeping ---- */

void tasks_letter_add(struct call *c, unsigned partition, const struct journal_record *record,
                      const char *reason) {
    CLEANUP(buffer_deinit) struct buffer value = BUFFER_INIT;
    buffer_append_u64(&value, record->wall_us);
    buffer_append_u64(&value, record->key_hash);
    buffer_append_u8(&value, record->kind);
    buffer_append_u8(&value, record->flags);
    buffer_append_block(&value, bytes_of_string(reason));
    buffer_append_bytes(&value, record->payload);
    char *copy = value.failed ? NULL : arena_copy_string(&c->arena, buffer_bytes(&value));
    call_add_position(c, work_letter_number(record->lsn, partition));
    call_add(c, bytes_of(copy, value.size));
    c->failed = c->failed || !copy;
}

void tasks_letter_add_rejected(struct call *c, unsigned partition,
                               const struct journal_record *record, const char *reason) {
    tasks_letter_add(c, partition, record, reason);
    call_add_number(c, REJECTED_MAX);
}

static bool read_letter(lsn_t number, struct bytes value, struct work_letter *ret_letter) {
    struct reader r = reader_of(value);
    struct work_letter letter = {.changed = WORK_LETTER_NOBODY_KNOWS};
    letter.record.lsn = number;
    letter.record.wall_us = reader_u64(&r);
    letter.record.key_hash = reader_u64(&r);
    letter.record.kind = reader_u8(&r);
    letter.record.flags = reader_u8(&r);
    letter.reason = reader_block(&r);
    letter.record.payload = reader_bytes(&r, (size_t)(r.end - r.at));
    *ret_letter = letter;
    return !r.failed;
}

/* ---- Asking ---- */

/* A command with its words. */
struct question {
    struct arena arena;
    struct bytes *words;
    struct redis_command command;
};

static void question_deinit(struct question *q) {
    redis_commands_free(&q->command, 1);
    arena_deinit(&q->arena);
}

static int question_init(struct question *q, struct tasks_shared *s, const char *name, enum key key,
                         size_t n_words) {
    *q = (struct question){.arena = ARENA_INIT(ARENA_BYTES_MAX)};
    q->words = arena_calloc(&q->arena, n_words, sizeof *q->words);
    if (!q->words)
        return error_origin(-ENOMEM);
    q->words[0] = bytes_of_string(name);
    q->words[1] = key_of(s, key);
    q->command = (struct redis_command){.key = q->words[1], .arguments = q->words, .n = n_words};
    return 0;
}

/* The answer, which must be of the type. */
static int ask(struct question *q, struct tasks_shared *s, int type,
               char why[WORK_LETTER_WHY_MAX]) {
    char sentence[REDIS_WHY_MAX] = "";
    for (size_t i = 0; i < q->command.n; i++)
        if (!q->words[i].data)
            return error_origin(-ENOMEM);
    int r = tasks_ask(s, &q->command, 1, false, READ_TIMEOUT_MS, sentence);
    if (!r && q->command.reply->type != type)
        r = tasks_odd(sentence);
    if (r > 0)
        snprintf(why, WORK_LETTER_WHY_MAX, "%s", sentence);
    return r > 0 ? WORK_LETTER_E_UNREACHABLE : error_trace(r);
}

static struct bytes digits_of(struct arena *a, const char *edge, lsn_t number) {
    const char *text = arena_format(a, "%s%0*" PRIu64, edge, POSITION_DIGITS, number);
    return text ? bytes_of_string(text) : (struct bytes){0};
}

/* ---- What routes ask ---- */

static int box_page(void *store, lsn_t below, size_t max, lsn_t *out, size_t *ret_n,
                    char why[WORK_LETTER_WHY_MAX]) {
    enum { NAME, KEY, FROM, TO, LIMIT, OFFSET, COUNT, WORDS };
    CLEANUP(question_deinit) struct question q;
    char count[24];
    int r = question_init(&q, store, "ZREVRANGEBYLEX", KEY_NUMBERS, WORDS);
    if (r)
        return error_trace(r);
    snprintf(count, sizeof count, "%zu", max);
    q.words[FROM] = below ? digits_of(&q.arena, "(", below) : BYTES_LITERAL("+");
    q.words[TO] = BYTES_LITERAL("-");
    q.words[LIMIT] = BYTES_LITERAL("LIMIT");
    q.words[OFFSET] = BYTES_LITERAL("0");
    q.words[COUNT] = bytes_of_string(count);
    r = ask(&q, store, REDIS_REPLY_ARRAY, why);
    size_t n = 0;
    for (size_t i = 0; !r && i < q.command.reply->elements && n < max; i++)
        n += position_of_digits(reply_text(q.command.reply->element[i]), &out[n]);
    if (!r)
        *ret_n = n;
    return r;
}

static int read_some(struct tasks_shared *s, const lsn_t *numbers, size_t n,
                     void (*each)(void *context, const struct work_letter *letter), void *context,
                     char why[WORK_LETTER_WHY_MAX]) {
    CLEANUP(question_deinit) struct question q;
    int r = question_init(&q, s, "HMGET", KEY_LETTERS, 2 + n);
    for (size_t i = 0; !r && i < n; i++)
        q.words[2 + i] = digits_of(&q.arena, "", numbers[i]);
    if (!r)
        r = ask(&q, s, REDIS_REPLY_ARRAY, why);
    for (size_t i = 0; !r && i < n && i < q.command.reply->elements; i++) {
        const redisReply *value = q.command.reply->element[i];
        struct work_letter letter;
        if (value->type == REDIS_REPLY_STRING &&
            read_letter(numbers[i], reply_text(value), &letter))
            each(context, &letter);
    }
    return r;
}

static int box_read(void *store, const lsn_t *numbers, size_t n,
                    void (*each)(void *context, const struct work_letter *letter), void *context,
                    char why[WORK_LETTER_WHY_MAX]) {
    int r = 0;
    for (size_t i = 0; !r && i < n; i += VALUES_SOME)
        r = read_some(store, numbers + i, n - i < VALUES_SOME ? n - i : VALUES_SOME, each, context,
                      why);
    return r;
}

static int box_drop(void *store, lsn_t number, char why[WORK_LETTER_WHY_MAX]) {
    CLEANUP(call_deinit) struct call c;
    call_init(&c, store, SCRIPT_DROP);
    call_add_position(&c, number);
    int r = call_run(&c, store, true, WRITE_TIMEOUT_MS);
    if (r > 0)
        snprintf(why, WORK_LETTER_WHY_MAX, "%s", c.why);
    if (r)
        return r > 0 ? WORK_LETTER_E_UNREACHABLE : error_trace(r);
    return c.command.reply->type == REDIS_REPLY_INTEGER && c.command.reply->integer == 1
               ? 0
               : WORK_LETTER_E_GONE;
}

static int box_settle(void *store, lsn_t number, bool *ret_gone, char why[WORK_LETTER_WHY_MAX]) {
    CLEANUP(question_deinit) struct question q;
    int r = question_init(&q, store, "HEXISTS", KEY_LETTERS, 3);
    if (r)
        return error_trace(r);
    q.words[2] = digits_of(&q.arena, "", number);
    r = ask(&q, store, REDIS_REPLY_INTEGER, why);
    if (!r)
        *ret_gone = q.command.reply->integer == 0;
    return r;
}

struct letter_box tasks_shared_letter_box(struct tasks_shared *s) {
    static const struct letter_box_ops ops = {
        .page = box_page, .read = box_read, .drop = box_drop, .settle = box_settle};
    return (struct letter_box){.ops = &ops, .store = s};
}
