/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's life: what its URL says, what it agrees on with the cluster, how far the lanes are.
 * Joining is one script on one hash, which fills it if it is not there, so that of several
 * processes that come first all see the same.
 */
#include "events/redis/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char prefix_default[] = "millrace-"; /* as of journals and tasks */

/* ---- Asking ---- */

int redis_odd(char why[EVENTS_REDIS_WHY_MAX]) {
    snprintf(why, EVENTS_REDIS_WHY_MAX, "Redis has something else where Millrace keeps its events");
    return EVENTS_REDIS_E_DOWN;
}

int redis_ask(struct events_redis *s, struct redis_command *commands, size_t n, bool durable,
              uint64_t timeout_ms, char why[EVENTS_REDIS_WHY_MAX]) {
    char sentence[REDIS_WHY_MAX] = "";
    int r = redis_cluster_run(s->cluster, commands, n, durable, timeout_ms, sentence);
    if (r <= 0)
        return error_trace(r);
    snprintf(why, EVENTS_REDIS_WHY_MAX, "%s", sentence);
    return EVENTS_REDIS_E_DOWN;
}

static bool is_reachable(struct events_redis *s) {
    struct redis_cluster_status status;
    redis_cluster_status(s->cluster, &status);
    return status.reachable;
}

uint64_t redis_write_timeout(struct events_redis *s) {
    return is_reachable(s) ? WRITE_TIMEOUT_MS : WRITE_DOWN_TIMEOUT_MS;
}

uint64_t redis_read_timeout(struct events_redis *s) {
    return is_reachable(s) ? READ_TIMEOUT_MS : READ_DOWN_TIMEOUT_MS;
}

struct redis_command redis_plain(const struct bytes *words, size_t n) {
    return (struct redis_command){.key = words[1], .arguments = words, .n = n};
}

/* ---- Life ---- */

static int refuse(char why[EVENTS_REDIS_WHY_MAX], const char *sentence) {
    snprintf(why, EVENTS_REDIS_WHY_MAX, "%s", sentence);
    return EVENTS_REDIS_E_REFUSED;
}

static int take_prefix(struct events_redis *s, const struct service_url *url,
                       char why[EVENTS_REDIS_WHY_MAX]) {
    const char *prefix = service_url_parameter(url, "prefix");
    if (!prefix)
        prefix = prefix_default;
    if (!*prefix || strlen(prefix) > PREFIX_MAX || strpbrk(prefix, "{}"))
        return refuse(why, "has a prefix that is not 1 to 64 bytes without braces");
    snprintf(s->prefix, sizeof s->prefix, "%sevents", prefix);
    return 0;
}

static int name(struct events_redis *s, const struct service_url *url) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    service_url_append_public(&text, url);
    buffer_append_u8(&text, 0);
    int r = buffer_check(&text);
    if (!r)
        snprintf(s->url, sizeof s->url, "%s", (const char *)text.data);
    return error_trace(r);
}

static int open_cluster(struct events_redis *s, const struct events_redis_options *store,
                        char why[EVENTS_REDIS_WHY_MAX]) {
    static const char *const parameters[] = {"prefix", NULL};
    const struct redis_cluster_options options = {.url = store->url,
                                                  .parameters = parameters,
                                                  .tell = store->tell,
                                                  .context = store->context};
    char sentence[REDIS_WHY_MAX] = "";
    int r = redis_cluster_open(s->os, &options, &s->cluster, sentence);
    if (r > 0)
        return refuse(why, sentence);
    return error_trace(r);
}

int events_redis_open(struct os *os, const struct events_redis_options *options,
                      struct events_redis **ret_store, char why[EVENTS_REDIS_WHY_MAX]) {
    struct events_redis *s = calloc(1, sizeof *s);
    if (!s)
        return error_origin(-ENOMEM);
    s->os = os;
    mutex_init(&s->lock, LOCK_RANK_EVENT_LANE);
    work_letters_init(&s->letters);
    redis_script_init(&s->scripts.cookies, script_cookies);
    redis_script_init(&s->scripts.minute, script_minute);
    redis_script_init(&s->scripts.join, script_join);
    redis_script_init(&s->scripts.lane, script_lane);
    redis_script_init(&s->scripts.position, script_position);
    redis_script_init(&s->scripts.id, script_id);
    redis_script_init(&s->scripts.once, script_once);
    redis_script_init(&s->scripts.claim, script_claim);
    redis_script_init(&s->scripts.keep, script_keep);
    redis_script_init(&s->scripts.forget, script_forget);
    redis_script_init(&s->scripts.number, redis_numbers_source);
    int r = take_prefix(s, options->url, why);
    if (!r)
        r = name(s, options->url);
    if (!r && options->alone)
        r = redis_make_token(os, s->owner);
    if (!r)
        r = open_cluster(s, options, why);
    if (r) {
        events_redis_close(s);
        return r > 0 ? r : error_trace(r);
    }
    *ret_store = s;
    return 0;
}

struct events_redis *events_redis_close(struct events_redis *s) {
    if (!s)
        return NULL;
    redis_cluster_close(s->cluster);
    work_letters_deinit(&s->letters);
    for (size_t i = 0; i < EVENTS_REDIS_LANES_MAX; i++)
        free(s->lanes[i].erasures);
    mutex_deinit(&s->lock);
    free(s);
    return NULL;
}

/* ---- Joining ---- */

enum meta_field {
    META_LAYOUT,
    META_COOKIES,
    META_SHARDS,
    META_LANES,
    META_SOURCE,
    META_IDENTITY, /* the last: a store that an earlier version made gets it */
    META_FIELDS
};
static const char *const meta_names[META_FIELDS] = {"layout", "buckets", "shards",
                                                    "lanes",  "source",  "identity"};

static bool read_number(const redisReply *reply, unsigned *ret) {
    char *end;
    if (reply->type != REDIS_REPLY_STRING || reply->len == 0)
        return false;
    unsigned long number = strtoul(reply->str, &end, 10);
    *ret = (unsigned)number;
    return *end == '\0' && number <= UINT32_MAX;
}

/* source NULL: whatever it is. */
static int check_meta(const struct events_redis *s, const redisReply *reply, const char *source,
                      unsigned *lanes, char why[EVENTS_REDIS_WHY_MAX]) {
    unsigned numbers[META_SOURCE];
    bool good = reply->type == REDIS_REPLY_ARRAY && reply->elements == META_FIELDS &&
                reply->element[META_SOURCE]->type == REDIS_REPLY_STRING;
    for (size_t i = 0; good && i < META_SOURCE; i++)
        good = read_number(reply->element[i], &numbers[i]);
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer == 0) {
        snprintf(why, EVENTS_REDIS_WHY_MAX, "it has no events under the name %s", s->prefix);
        return EVENTS_REDIS_E_NONE;
    }
    if (!good)
        return redis_odd(why);
    if (numbers[META_LAYOUT] != LAYOUT_VERSION || numbers[META_COOKIES] != COOKIE_BUCKETS ||
        numbers[META_SHARDS] != MINUTE_SHARDS || numbers[META_LANES] == 0 ||
        numbers[META_LANES] > EVENTS_REDIS_LANES_MAX)
        return refuse(why, "its events were written by another version of Millrace, in another "
                           "layout; give another prefix, or run that version");
    if (source && !bytes_equal(redis_text(reply->element[META_SOURCE]), bytes_of_string(source))) {
        snprintf(why, EVENTS_REDIS_WHY_MAX,
                 "the events under the name %.50s are of another data directory or journal, not of "
                 "%.60s: give the --journal that their other processes have; or, to begin anew, "
                 "prefix=NAME in --events, one that nobody has",
                 s->prefix, source);
        return EVENTS_REDIS_E_REFUSED;
    }
    *lanes = numbers[META_LANES];
    return 0;
}

static void take_identity(struct events_redis *s, const redisReply *reply) {
    bool some = reply->type == REDIS_REPLY_STRING;
    snprintf(s->identity, sizeof s->identity, "%s", some ? reply->str : "");
}

static int join(struct events_redis *s, struct arena *a, const char *source, bool create,
                unsigned *lanes, char why[EVENTS_REDIS_WHY_MAX]) {
    char identity[REDIS_IDENTITY_SIZE], sentence[REDIS_WHY_MAX];
    int r = redis_make_identity(s->os, s->prefix, identity);
    if (r)
        return error_trace(r);
    const struct bytes values[META_FIELDS] = {
        [META_LAYOUT] = key_format(a, "%d", LAYOUT_VERSION),
        [META_COOKIES] = key_format(a, "%d", COOKIE_BUCKETS),
        [META_SHARDS] = key_format(a, "%d", MINUTE_SHARDS),
        [META_LANES] = key_format(a, "%u", *lanes),
        [META_SOURCE] = bytes_of_string(source ? source : ""),
        [META_IDENTITY] = bytes_of_string(identity),
    };
    struct bytes arguments[2 + 2 * META_FIELDS] = {key_format(a, "%s:{meta}", s->prefix),
                                                   bytes_of_string(create ? "1" : "0")};
    for (size_t i = 0; i < META_FIELDS; i++) {
        arguments[2 + 2 * i] = bytes_of_string(meta_names[i]);
        arguments[3 + 2 * i] = values[i];
        if (!values[i].data)
            return error_origin(-ENOMEM);
    }
    if (!arguments[0].data)
        return error_origin(-ENOMEM);
    struct redis_command command = {.key = arguments[0],
                                    .script = &s->scripts.join,
                                    .n_keys = 1,
                                    .arguments = arguments,
                                    .n = ARRAY_LENGTH(arguments)};
    r = redis_ask(s, &command, 1, true, JOIN_TIMEOUT_MS, why);
    if (r == EVENTS_REDIS_E_DOWN && redis_cluster_is_refused(s->cluster, sentence))
        r = refuse(why, sentence);
    if (!r)
        r = check_meta(s, command.reply, source, lanes, why);
    if (!r)
        take_identity(s, command.reply->element[META_IDENTITY]);
    redis_commands_free(&command, 1);
    return r > 0 ? r : error_trace(r);
}

int events_redis_join(struct events_redis *s, const char *source, bool create, unsigned *lanes,
                      char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    int r = join(s, &a, source, create, lanes, why);
    if (!r)
        atomic_store(&s->n_lanes, *lanes);
    return r > 0 ? r : error_trace(r);
}

int events_redis_look(struct events_redis *s, unsigned *ret_lanes, char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    unsigned lanes = 0; /* none are to be made */
    int r = join(s, &a, NULL, false, &lanes, why);
    if (!r)
        *ret_lanes = lanes;
    return r > 0 ? r : error_trace(r);
}

unsigned events_redis_lanes(const struct events_redis *s) {
    return atomic_load(&s->n_lanes);
}

const char *events_redis_identity(const struct events_redis *s) {
    return s->identity;
}

/* ---- Positions ---- */

static int take_position(const redisReply *reply, lsn_t *ret_position) {
    *ret_position = 0;
    if (reply->type == REDIS_REPLY_NIL)
        return 0;
    bool good =
        reply->type == REDIS_REPLY_STRING && key_position_read(redis_text(reply), ret_position);
    return good ? 0 : EVENTS_REDIS_E_DOWN;
}

static int take_lane(struct lane *lane, const redisReply *reply, lsn_t *ret_low,
                     char why[EVENTS_REDIS_WHY_MAX]) {
    lsn_t high = 0;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        take_position(reply->element[0], ret_low) || take_position(reply->element[1], &high))
        return redis_odd(why);
    atomic_store(&lane->high, high > *ret_low ? high : *ret_low);
    return 0;
}

/* Of each lane its position, and for an owner its letters. */
static size_t questions_of(const struct events_redis *s) {
    return redis_is_shared(s) ? 1 : 2;
}

static int ask_positions(struct events_redis *s, struct arena *a, unsigned first, unsigned n,
                         struct redis_command *commands, char why[EVENTS_REDIS_WHY_MAX]) {
    size_t each = questions_of(s);
    int r = 0;
    for (unsigned i = 0; !r && i < n; i++) {
        struct bytes *key = arena_calloc(a, 2, sizeof *key);
        if (!key)
            return error_origin(-ENOMEM);
        key[0] = key_lane(a, s->prefix, first + i, 'p');
        key[1] = bytes_of_string(s->owner);
        if (!key[0].data)
            return error_origin(-ENOMEM);
        commands[each * i] = (struct redis_command){
            .key = *key, .script = &s->scripts.position, .n_keys = 1, .arguments = key, .n = 2};
        if (each > 1)
            r = redis_letters_ask(s, a, first + i, &commands[each * i + 1]);
    }
    return r ? error_trace(r) : redis_ask(s, commands, each * n, true, JOIN_TIMEOUT_MS, why);
}

static int take_positions(struct events_redis *s, unsigned first, unsigned n,
                          const struct redis_command *commands, lsn_t *ret_positions,
                          char why[EVENTS_REDIS_WHY_MAX]) {
    size_t each = questions_of(s);
    int r = 0;
    for (unsigned i = 0; !r && i < n; i++) {
        r = take_lane(&s->lanes[first + i], commands[each * i].reply, &ret_positions[i], why);
        if (!r && each > 1)
            r = redis_letters_take(s, commands[each * i + 1].reply);
    }
    for (unsigned i = 0; !r && i < n; i++) {
        struct lane *lane = &s->lanes[first + i];
        atomic_store(&lane->applied, ret_positions[i]);
        atomic_store(&lane->persisted, ret_positions[i]);
        atomic_store(&lane->ours, true);
    }
    return r > 0 ? r : error_trace(r);
}

int events_redis_positions(struct events_redis *s, unsigned first, unsigned n, lsn_t *ret_positions,
                           char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    size_t n_commands = questions_of(s) * n;
    struct redis_command *commands = arena_calloc(&a, n_commands + 1, sizeof *commands);
    if (!commands)
        return error_origin(-ENOMEM);
    int r = ask_positions(s, &a, first, n, commands, why);
    if (!r)
        r = take_positions(s, first, n, commands, ret_positions, why);
    redis_commands_free(commands, n_commands);
    return r > 0 ? r : error_trace(r);
}

lsn_t events_redis_persisted(const struct events_redis *s, unsigned lane) {
    return atomic_load(&s->lanes[lane].persisted);
}

lsn_t events_redis_highest(const struct events_redis *s) {
    lsn_t highest = 0;
    for (size_t i = 0; i < EVENTS_REDIS_LANES_MAX; i++) {
        lsn_t high = atomic_load(&s->lanes[i].high);
        highest = high > highest ? high : highest;
    }
    return highest;
}

/* ---- What the cluster is told of lanes ---- */

static int lane_command(struct events_redis *s, struct arena *a, unsigned lane, lsn_t low,
                        lsn_t high, struct redis_command *ret_command) {
    enum { WORDS = 5 };
    struct bytes *words = arena_calloc(a, WORDS, sizeof *words);
    if (!words)
        return error_origin(-ENOMEM);
    words[0] = key_lane(a, s->prefix, lane, 'p');
    words[1] = key_position(a, low);
    words[2] = key_position(a, high);
    words[3] = key_position(a, atomic_load(&s->lanes[lane].persisted));
    words[4] = bytes_of_string(s->owner);
    for (size_t i = 0; i < WORDS; i++)
        if (!words[i].data)
            return error_origin(-ENOMEM);
    *ret_command = (struct redis_command){
        .key = words[0], .script = &s->scripts.lane, .n_keys = 1, .arguments = words, .n = WORDS};
    return 0;
}

/* What the cluster remembers of a lane never goes back, unless it was emptied, restored from a
 * backup, or failed over to a node that had not heard of it. What it lost of the buckets is then
 * unknown: only the journal can tell, from the position that is left, at a start. */
static int check_lane(const struct redis_command *command, char why[EVENTS_REDIS_WHY_MAX]) {
    if (command->result || command->reply->type != REDIS_REPLY_INTEGER ||
        command->reply->integer > 0)
        return command->result;
    if (command->reply->integer < 0) {
        snprintf(why, EVENTS_REDIS_WHY_MAX,
                 "another process has taken these events over, with a copy of this data "
                 "directory: only one of them may go on");
        return EVENTS_REDIS_E_DOWN;
    }
    snprintf(
        why, EVENTS_REDIS_WHY_MAX,
        "the cluster has lost what it had applied: it was emptied, restored, or failed over "
        "without its newest writes; started again, Millrace goes on, or says what is to be done");
    return EVENTS_REDIS_E_DOWN;
}

/* Durable at its return. */
static int write_lane(struct events_redis *s, unsigned number, lsn_t low, lsn_t high,
                      char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    struct redis_command command;
    int r = lane_command(s, &a, number, low, high, &command);
    if (r)
        return error_trace(r);
    r = redis_ask(s, &command, 1, true, redis_write_timeout(s), why);
    if (!r)
        r = check_lane(&command, why);
    redis_commands_free(&command, 1);
    if (r)
        return r > 0 ? r : error_trace(r);
    atomic_store(&s->lanes[number].persisted, low);
    return 0;
}

int redis_announce(struct events_redis *s, unsigned number, lsn_t high,
                   char why[EVENTS_REDIS_WHY_MAX]) {
    struct lane *lane = &s->lanes[number];
    if (high <= atomic_load(&lane->high))
        return 0;
    int r = write_lane(s, number, atomic_load(&lane->applied), high, why);
    if (r)
        return r > 0 ? r : error_trace(r);
    atomic_store(&lane->high, high);
    return 0;
}

int redis_settle(struct events_redis *s, unsigned number, char why[EVENTS_REDIS_WHY_MAX]) {
    struct lane *lane = &s->lanes[number];
    lsn_t low = atomic_load(&lane->applied);
    if (!atomic_load(&lane->numbered) || low <= atomic_load(&lane->persisted))
        return 0;
    int r = write_lane(s, number, low, low, why);
    return r > 0 ? r : error_trace(r);
}

/* ---- Numbers ---- */

static_assert((int)REDIS_NUMBERS_MAX >= (int)GROUP_NUMBERS_MAX &&
                  (int)REDIS_NUMBERS_KEPT >= (int)GROUP_NUMBERS_KEPT,
              "what a group asks for is what is kept");

int events_redis_number(struct events_redis *s, unsigned lane, struct group_numbers *numbers) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    char why[EVENTS_REDIS_WHY_MAX];
    struct redis_numbers call;
    const struct bytes state = key_lane(&a, s->prefix, lane, 'n');
    const struct bytes known = key_lane(&a, s->prefix, lane, 'k');
    if (!state.data || !known.data)
        return error_origin(-ENOMEM);
    redis_numbers_init(&call, &s->scripts.number, state, known, numbers->session, numbers->ids,
                       numbers->n);
    int r = redis_ask(s, &call.command, 1, true, redis_write_timeout(s), why);
    int taken = r ? 0 : redis_numbers_take(&call, &numbers->session, numbers->offsets, numbers->n);
    redis_commands_free(&call.command, 1);
    if (taken)
        return taken == REDIS_E_REFUSED ? JOURNAL_E_END : JOURNAL_E_UNAVAILABLE;
    atomic_store(&s->lanes[lane].numbered, true);
    return r > 0 ? JOURNAL_E_UNAVAILABLE : error_trace(r);
}

/* Of each lane that has come further: the command, and how far. */
struct reports {
    struct redis_command commands[EVENTS_REDIS_LANES_MAX];
    struct lane *lanes[EVENTS_REDIS_LANES_MAX];
    lsn_t applied[EVENTS_REDIS_LANES_MAX];
    size_t n;
};

static int make_reports(struct events_redis *s, struct arena *a, struct reports *reports) {
    int r = 0;
    for (unsigned i = 0; !r && i < EVENTS_REDIS_LANES_MAX; i++) {
        struct lane *lane = &s->lanes[i];
        lsn_t applied = atomic_load(&lane->applied);
        if (!atomic_load(&lane->ours) || applied <= atomic_load(&lane->persisted))
            continue;
        r = lane_command(s, a, i, applied, applied, &reports->commands[reports->n]);
        reports->lanes[reports->n] = lane;
        reports->applied[reports->n++] = applied;
    }
    return error_trace(r);
}

int events_redis_checkpoint(struct events_redis *s) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    char why[EVENTS_REDIS_WHY_MAX];
    struct reports *reports = arena_calloc(&a, 1, sizeof *reports);
    int r = reports ? make_reports(s, &a, reports) : error_origin(-ENOMEM);
    if (r)
        return error_trace(r);
    r = redis_ask(s, reports->commands, reports->n, true, redis_write_timeout(s), why);
    for (size_t i = 0; i < reports->n; i++) {
        int of_lane = check_lane(&reports->commands[i], why);
        if (!of_lane)
            atomic_store(&reports->lanes[i]->persisted, reports->applied[i]);
        r = r ? r : of_lane;
    }
    redis_commands_free(reports->commands, reports->n);
    return r > 0 ? r : error_trace(r);
}

/* ---- Status ---- */

void events_redis_status(struct events_redis *s, struct events_redis_status *ret_status) {
    struct redis_cluster_status status;
    redis_cluster_status(s->cluster, &status);
    *ret_status = (struct events_redis_status){.url = s->url,
                                               .reachable = status.reachable,
                                               .masters = (unsigned)status.masters,
                                               .tags = atomic_load(&s->tags),
                                               .scripts = atomic_load(&s->scripts_run),
                                               .overtaken = atomic_load(&s->overtaken)};
    if (!status.reachable)
        snprintf(ret_status->reason, sizeof ret_status->reason, "%s", status.why);
}
