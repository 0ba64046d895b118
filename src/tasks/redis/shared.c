/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's life: what its URL says, what it agrees on with Redis, how a script is called, and
 * what there is to know.
 */
#include "tasks/redis/internal.h"

#include "tasks/redis.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    QUEUED_MAX = 10000000,
    DAY_MS = 24 * 60 * 60 * 1000,
    KEEP_DAYS = 7,
    FORGET_SOME = 1000, /* a script, */
    FORGET_TIMES = 8,   /* and so many of them a look */
};

/* ---- Texts ---- */

void id_digits(struct task_id id, char out[ID_DIGITS + 1]) {
    snprintf(out, ID_DIGITS + 1, "%016" PRIx64 "%016" PRIx64, id.key, id.low);
}

static bool half_of_digits(const uint8_t *digits, uint64_t *ret_half) {
    uint64_t half = 0;
    for (size_t i = 0; i < ID_DIGITS / 2; i++) {
        uint8_t d = digits[i];
        bool decimal = d >= '0' && d <= '9';
        if (!decimal && !(d >= 'a' && d <= 'f'))
            return false;
        half = half << 4 | (uint64_t)(decimal ? d - '0' : d - 'a' + 10);
    }
    *ret_half = half;
    return true;
}

bool id_of_digits(struct bytes digits, struct task_id *ret_id) {
    return digits.size == ID_DIGITS && half_of_digits(digits.data, &ret_id->key) &&
           half_of_digits(digits.data + ID_DIGITS / 2, &ret_id->low);
}

bool position_of_digits(struct bytes digits, lsn_t *ret_position) {
    lsn_t position = 0;
    if (digits.size != POSITION_DIGITS)
        return false;
    for (size_t i = 0; i < POSITION_DIGITS; i++) {
        unsigned digit = (unsigned)digits.data[i] - '0';
        if (digit > 9 || position > (UINT64_MAX - digit) / 10)
            return false;
        position = position * 10 + digit;
    }
    *ret_position = position;
    return true;
}

/* ---- Asking ---- */

static bool is_reachable(struct tasks_shared *s) {
    struct redis_cluster_status status;
    redis_cluster_status(s->cluster, &status);
    return status.reachable;
}

int tasks_odd(char why[REDIS_WHY_MAX]) {
    return redis_fail(why, TASKS_E_UNAVAILABLE,
                      "Redis has something else where Millrace keeps its tasks");
}

int tasks_ask(struct tasks_shared *s, struct redis_command *commands, size_t n, bool durable,
              uint64_t timeout_ms, char why[REDIS_WHY_MAX]) {
    uint64_t most_ms = is_reachable(s) ? timeout_ms : DOWN_TIMEOUT_MS;
    int r = redis_cluster_run(s->cluster, commands, n, durable, most_ms, why);
    return r > 0 ? TASKS_E_UNAVAILABLE : error_trace(r);
}

void call_init(struct call *c, struct tasks_shared *s, enum script script) {
    *c = (struct call){.arena = ARENA_INIT(ARENA_BYTES_MAX),
                       .command = {.script = &s->scripts[script], .n_keys = KEYS}};
    for (int i = 0; i < KEYS; i++)
        call_add(c, key_of(s, (enum key)i));
}

void call_deinit(struct call *c) {
    redis_commands_free(&c->command, 1);
    arena_deinit(&c->arena);
}

static bool grow(struct call *c) {
    size_t n_max = c->n_max ? 2 * c->n_max : 64;
    struct bytes *words = arena_calloc(&c->arena, n_max, sizeof *words);
    if (!words)
        return false;
    if (c->n)
        memcpy(words, c->words, c->n * sizeof *words);
    c->words = words;
    c->n_max = n_max;
    return true;
}

void call_add(struct call *c, struct bytes word) {
    c->failed = c->failed || (c->n == c->n_max && !grow(c));
    if (!c->failed)
        c->words[c->n++] = word;
}

void call_add_text(struct call *c, const char *word) {
    c->failed = c->failed || !word;
    if (word)
        call_add(c, bytes_of_string(word));
}

void call_add_number(struct call *c, uint64_t number) {
    call_add_text(c, arena_format(&c->arena, "%" PRIu64, number));
}

void call_add_position(struct call *c, lsn_t position) {
    call_add_text(c, arena_format(&c->arena, "%0*" PRIu64, POSITION_DIGITS, position));
}

void call_add_id(struct call *c, struct task_id id) {
    char digits[ID_DIGITS + 1];
    id_digits(id, digits);
    call_add_text(c, arena_copy_string(&c->arena, bytes_of(digits, ID_DIGITS)));
}

int call_run(struct call *c, struct tasks_shared *s, bool durable, uint64_t timeout_ms) {
    if (c->failed)
        return error_origin(-ENOMEM);
    redis_commands_free(&c->command, 1);
    c->command.key = c->words[0];
    c->command.arguments = c->words;
    c->command.n = c->n;
    return tasks_ask(s, &c->command, 1, durable, timeout_ms, c->why);
}

/* ---- Life ---- */

static const char *prefix_of(const struct tasks_shared *s) {
    const char *prefix = service_url_parameter(s->options.url, "prefix");
    return prefix ? prefix : "millrace-";
}

static void name_keys(struct tasks_shared *s) {
    const char *prefix = prefix_of(s);
    for (size_t i = 0; i < KEYS; i++)
        snprintf(s->keys[i], KEY_TEXT_MAX, "{%stasks}:%s", prefix, script_key_names[i]);
    snprintf(s->numbers, KEY_TEXT_MAX, "{%stasks}:numbers", prefix);
}

static int name_url(struct tasks_shared *s) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    service_url_append_public(&text, s->options.url);
    buffer_append_u8(&text, 0);
    int r = buffer_check(&text);
    if (!r)
        snprintf(s->url, sizeof s->url, "%s", (const char *)text.data);
    return error_trace(r);
}

static int open_cluster(struct tasks_shared *s, char why[TASKS_SHARED_WHY_MAX]) {
    static const char *const parameters[] = {"prefix", NULL};
    const struct redis_cluster_options options = {.url = s->options.url,
                                                  .parameters = parameters,
                                                  .tell = s->options.tell,
                                                  .context = s->options.context};
    char sentence[REDIS_WHY_MAX] = "";
    int r = redis_cluster_open(s->os, &options, &s->cluster, sentence);
    snprintf(why, TASKS_SHARED_WHY_MAX, "%s", sentence);
    return r > 0 ? TASKS_E_REFUSED : error_trace(r);
}

static int set_up(struct tasks_shared *s, char why[TASKS_SHARED_WHY_MAX]) {
    uint64_t chance;
    if (!tasks_redis_check_url(s->options.url, why))
        return TASKS_E_REFUSED;
    name_keys(s);
    for (size_t i = 0; i < SCRIPTS; i++)
        redis_script_init(&s->scripts[i], script_sources[i]);
    redis_script_init(&s->number, redis_numbers_source);
    int r = task_ids_init(&s->ids, s->os);
    if (!r)
        r = os_random(s->os, &chance, sizeof chance);
    if (!r)
        r = name_url(s);
    if (r)
        return error_trace(r);
    snprintf(s->runner, sizeof s->runner, "%016" PRIx64, chance);
    r = open_cluster(s, why);
    return r ? r : watch_start(s);
}

int tasks_shared_open(struct os *os, const struct tasks_shared_options *options,
                      struct tasks_shared **ret_store, char why[TASKS_SHARED_WHY_MAX]) {
    struct tasks_shared *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    s->os = os;
    s->options = *options;
    if (!s->options.lease_ms)
        s->options.lease_ms = LEASE_MS;
    if (!s->options.queued_max)
        s->options.queued_max = QUEUED_MAX;
    if (!s->options.keep_ms)
        s->options.keep_ms = (uint64_t)KEEP_DAYS * DAY_MS;
    mutex_init(&s->lock, LOCK_RANK_TASK_STORE);
    condition_init(&s->wake);
    int r = set_up(s, why);
    if (r) {
        tasks_shared_close(s);
        return r > 0 ? r : error_trace(r);
    }
    *ret_store = s;
    return 0;
}

struct tasks_shared *tasks_shared_close(struct tasks_shared *s) {
    if (!s)
        return NULL;
    watch_stop(s);
    redis_cluster_close(s->cluster);
    buffer_deinit(&s->returned);
    condition_deinit(&s->wake);
    mutex_deinit(&s->lock);
    free(s);
    return NULL;
}

/* ---- Joining ---- */

static int refuse(char why[TASKS_SHARED_WHY_MAX], const char *sentence) {
    snprintf(why, TASKS_SHARED_WHY_MAX, "%s", sentence);
    return TASKS_E_REFUSED;
}

enum { META_LAYOUT, META_PARTITIONS, META_SOURCE, META_IDENTITY, META_FIELDS };

static int check_meta(const redisReply *reply, const char *source, unsigned partitions,
                      char why[TASKS_SHARED_WHY_MAX]) {
    char number[16];
    bool good = reply->type == REDIS_REPLY_ARRAY && reply->elements == META_FIELDS;
    for (size_t i = 0; good && i < META_IDENTITY; i++)
        good = reply->element[i]->type == REDIS_REPLY_STRING;
    if (!good)
        return refuse(why,
                      "it has something else where Millrace keeps its tasks; give prefix=NAME");
    snprintf(number, sizeof number, "%d", LAYOUT_VERSION);
    if (!bytes_equal(reply_text(reply->element[META_LAYOUT]), bytes_of_string(number)))
        return refuse(why, "its tasks were written by another version of Millrace, in another "
                           "layout; give another prefix, or run that version");
    if (source && !bytes_equal(reply_text(reply->element[META_SOURCE]), bytes_of_string(source)))
        return redis_fail(why, TASKS_E_REFUSED,
                          "the tasks under the prefix are of another journal, not of %.60s: give "
                          "the --journal that their other processes have; or, to begin anew, "
                          "prefix=NAME in --tasks, one that nobody has",
                          source);
    snprintf(number, sizeof number, "%u", partitions);
    if (!bytes_equal(reply_text(reply->element[META_PARTITIONS]), bytes_of_string(number))) {
        const char *has = reply->element[META_PARTITIONS]->str;
        snprintf(why, TASKS_SHARED_WHY_MAX,
                 "its tasks are divided into %.8s partitions, not %u: give partitions=%.8s in "
                 "--journal; or, to begin anew, another prefix in both --tasks and --journal",
                 has, partitions, has);
        return TASKS_E_REFUSED;
    }
    return 0;
}

static void take_identity(struct tasks_shared *s, const redisReply *reply) {
    bool some = reply->type == REDIS_REPLY_STRING;
    snprintf(s->identity, sizeof s->identity, "%s", some ? reply->str : "");
}

int tasks_shared_join(struct tasks_shared *s, const char *source, bool create, unsigned partitions,
                      char why[TASKS_SHARED_WHY_MAX]) {
    CLEANUP(call_deinit) struct call c;
    char identity[REDIS_IDENTITY_SIZE];
    call_init(&c, s, SCRIPT_JOIN);
    int r = redis_make_identity(s->os, prefix_of(s), identity);
    if (r)
        return error_trace(r);
    call_add_text(&c, create ? "1" : "0");
    call_add_text(&c, "layout");
    call_add_number(&c, LAYOUT_VERSION);
    call_add_text(&c, "partitions");
    call_add_number(&c, partitions);
    call_add_text(&c, "source");
    call_add_text(&c, source ? source : "");
    call_add_text(&c, "identity");
    call_add_text(&c, identity);
    r = call_run(&c, s, true, READ_TIMEOUT_MS);
    if (r == TASKS_E_UNAVAILABLE && redis_cluster_is_refused(s->cluster, c.why))
        r = TASKS_E_REFUSED;
    if (r > 0)
        snprintf(why, TASKS_SHARED_WHY_MAX, "%s", c.why);
    if (!r && c.command.reply->type == REDIS_REPLY_INTEGER)
        return redis_fail(why, TASKS_E_NOT_FOUND, "it has no tasks under the prefix %s",
                          prefix_of(s));
    if (!r)
        r = check_meta(c.command.reply, source, partitions, why);
    if (!r)
        take_identity(s, c.command.reply->element[META_IDENTITY]);
    return r;
}

const char *tasks_shared_identity(const struct tasks_shared *s) {
    return s->identity;
}

int tasks_ask_position(struct tasks_shared *s, unsigned partition, lsn_t *ret_lsn,
                       char why[REDIS_WHY_MAX]) {
    CLEANUP(call_deinit) struct call c;
    call_init(&c, s, SCRIPT_POSITION);
    call_add_number(&c, partition);
    int r = call_run(&c, s, true, READ_TIMEOUT_MS);
    if (r > 0)
        redis_say(why, "%s", c.why);
    if (r)
        return r;
    return position_of_digits(reply_text(c.command.reply), ret_lsn) ? 0 : tasks_odd(why);
}

int tasks_shared_position(struct tasks_shared *s, unsigned partition, lsn_t *ret_lsn) {
    char why[REDIS_WHY_MAX];
    int r = tasks_ask_position(s, partition, ret_lsn, why);
    if (!r)
        atomic_store(&s->partitions[partition].applied, *ret_lsn);
    return r;
}

/* ---- Numbers ---- */

static_assert((int)REDIS_NUMBERS_MAX >= (int)GROUP_NUMBERS_MAX &&
                  (int)REDIS_NUMBERS_KEPT >= (int)GROUP_NUMBERS_KEPT,
              "what a group asks for is what is kept");

int tasks_shared_number(struct tasks_shared *s, unsigned partition, struct group_numbers *numbers) {
    char state[KEY_TEXT_MAX + 16], known[KEY_TEXT_MAX + 16], why[REDIS_WHY_MAX];
    struct redis_numbers call;
    snprintf(state, sizeof state, "%s:%u", s->numbers, partition);
    snprintf(known, sizeof known, "%s:%u:known", s->numbers, partition);
    redis_numbers_init(&call, &s->number, bytes_of_string(state), bytes_of_string(known),
                       numbers->session, numbers->ids, numbers->n);
    int r = tasks_ask(s, &call.command, 1, true, WRITE_TIMEOUT_MS, why);
    int taken = r ? 0 : redis_numbers_take(&call, &numbers->session, numbers->offsets, numbers->n);
    redis_commands_free(&call.command, 1);
    if (taken)
        return taken == REDIS_E_REFUSED ? JOURNAL_E_END : JOURNAL_E_UNAVAILABLE;
    return r > 0 ? JOURNAL_E_UNAVAILABLE : error_trace(r);
}

/* ---- What there is to know ---- */

enum { LOOK_OLDEST = TASK_STATUSES, LOOK_WORKERS, LOOK_BUSY, LOOK_LETTERS, LOOK_GONE, LOOK_FIELDS };

static bool read_look(const redisReply *reply, uint64_t out[LOOK_FIELDS]) {
    bool good = reply->type == REDIS_REPLY_ARRAY && reply->elements == LOOK_FIELDS;
    for (size_t i = 0; good && i < LOOK_FIELDS; i++) {
        good = reply->element[i]->type == REDIS_REPLY_INTEGER;
        out[i] = reply->element[i]->integer > 0 ? (uint64_t)reply->element[i]->integer : 0;
    }
    return good;
}

static void note_look(struct tasks_shared *s, const uint64_t seen[LOOK_FIELDS]) {
    mutex_lock(&s->lock);
    memcpy(s->seen.by_status, seen, sizeof s->seen.by_status);
    s->seen.oldest_due_us = seen[LOOK_OLDEST];
    s->seen.dead_letters = seen[LOOK_LETTERS];
    s->at_work.workers = (unsigned)seen[LOOK_WORKERS];
    s->at_work.busy = (unsigned)seen[LOOK_BUSY];
    mutex_unlock(&s->lock);
}

static int look(struct tasks_shared *s, uint64_t *ret_gone) {
    CLEANUP(call_deinit) struct call c;
    uint64_t seen[LOOK_FIELDS];
    call_init(&c, s, SCRIPT_LOOK);
    call_add_number(&c, s->options.keep_ms);
    call_add_number(&c, FORGET_SOME);
    int r = call_run(&c, s, false, READ_TIMEOUT_MS);
    if (!r && !read_look(c.command.reply, seen))
        r = tasks_odd(c.why);
    if (r)
        return r;
    note_look(s, seen);
    *ret_gone = seen[LOOK_GONE];
    return 0;
}

/* Tasks end as fast as all runners are: what is forgotten has to keep up. */
int tasks_shared_look(struct tasks_shared *s) {
    uint64_t gone = FORGET_SOME;
    int r = 0;
    for (unsigned i = 0; !r && i < FORGET_TIMES && gone == FORGET_SOME; i++)
        r = look(s, &gone);
    return r;
}

void tasks_shared_stats(struct tasks_shared *s, struct tasks_store_stats *ret_stats) {
    mutex_lock(&s->lock);
    *ret_stats = s->seen;
    mutex_unlock(&s->lock);
    for (size_t i = 0; i < TASK_STATUSES; i++)
        ret_stats->ended[i] = atomic_load(&s->ended[i]);
    ret_stats->deaths = atomic_load(&s->deaths);
}

void tasks_shared_runners(struct tasks_shared *s, struct tasks_at_work *ret_at_work) {
    mutex_lock(&s->lock);
    *ret_at_work = s->at_work;
    mutex_unlock(&s->lock);
}

void tasks_shared_status(struct tasks_shared *s, struct tasks_shared_status *ret_status) {
    struct redis_cluster_status status;
    redis_cluster_status(s->cluster, &status);
    *ret_status = (struct tasks_shared_status){
        .url = s->url, .reachable = status.reachable, .overtaken = atomic_load(&s->overtaken)};
    if (!status.reachable)
        snprintf(ret_status->reason, sizeof ret_status->reason, "%s", status.why);
}
