/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The routes of dead letters, one table for all kinds. Replaying and dropping answer once the
 * record that says so is durable and applied, so that what the store made of it can be told.
 */
#include "base/json.h"
#include "serve/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum { LIMIT_DEFAULT = 50 };

static const char no_letter[] = "there is no such dead letter";

/* ---- Parameters ---- */

static bool number_of(struct bytes text, uint64_t *ret) {
    uint64_t number = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || number > (UINT64_MAX - 9) / 10)
            return false;
        number = number * 10 + (text.data[i] - '0');
    }
    *ret = number;
    return text.size > 0;
}

/* Which of them the path says; answers when there is none. */
static bool find(struct letters_of *l, struct http_request *r, enum data_store_kind *ret_kind,
                 lsn_t *ret_number) {
    if (!letters_kind(l, http_path_parameter(r, "kind"), ret_kind)) {
        http_fail(r, HTTP_ERROR_NOT_FOUND, "kind",
                  "there are no dead letters of that kind; it is points, events or tasks");
        return false;
    }
    if (!number_of(http_path_parameter(r, "number"), ret_number)) {
        http_fail(r, HTTP_ERROR_NOT_FOUND, "number", no_letter);
        return false;
    }
    return true;
}

static void fail(struct http_request *r, int result, const char *why) {
    if (result == WORK_LETTER_E_GONE)
        http_fail(r, HTTP_ERROR_NOT_FOUND, NULL, no_letter);
    else if (result == WORK_LETTER_E_UNREACHABLE)
        http_fail(r, HTTP_ERROR_UNREACHABLE, NULL, "the dead letters cannot be reached: %s", why);
    else if (result == -ENOMEM)
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, "out of memory");
    else
        http_fail(r, HTTP_ERROR_INTERNAL, NULL, NULL);
}

/* Those that processes share are asked of an engine, on a thread that may wait. */
static void offload(struct letters_of *l, struct http_request *r, http_handler job) {
    if (letters_are_shared(l))
        http_offload_waiting(r, job, l);
    else
        http_offload(r, job, l);
}

/* ---- GET ---- */

/* A cursor: the number, and the place of the kind. */
static void append_place(struct buffer *out, const struct letters_place *place) {
    buffer_append_format(out, "\"%" PRIu64 ".%u\"", place->number, place->kind);
}

static bool place_of(struct bytes cursor, struct letters_place *ret) {
    struct letters_place place = {0};
    if (cursor.size < 3 || cursor.data[cursor.size - 2] != '.')
        return false;
    place.kind = cursor.data[cursor.size - 1] - (unsigned)'0';
    if (!number_of(bytes_of(cursor.data, cursor.size - 2), &place.number) ||
        place.kind >= DATA_STORES)
        return false;
    *ret = place;
    return true;
}

/* Answers what is wrong. */
static bool parse_query(struct letters_of *l, struct http_request *r, struct letters_query *q) {
    enum data_store_kind kind = DATA_POINTS;
    struct bytes text;
    uint64_t number = LIMIT_DEFAULT;
    *q = (struct letters_query){.kind = DATA_STORES, .show = letters_show_json, .between = "},"};
    if (http_query_parameter(r, "kind", &text)) {
        if (!letters_kind(l, text, &kind)) {
            http_fail(r, HTTP_ERROR_INVALID_FIELD, "kind",
                      "`kind` must be points, events or tasks");
            return false;
        }
        q->kind = kind;
    }
    if (http_query_parameter(r, "limit", &text) &&
        (!number_of(text, &number) || number == 0 || number > LETTERS_PAGE_MAX)) {
        http_fail(r, HTTP_ERROR_INVALID_FIELD, "limit", "`limit` must be from 1 to %d",
                  LETTERS_PAGE_MAX);
        return false;
    }
    q->limit = (size_t)number;
    if (http_query_parameter(r, "cursor", &text) && text.size && !place_of(text, &q->from)) {
        http_fail(r, HTTP_ERROR_INVALID_FIELD, "cursor",
                  "`cursor` must be the next_cursor of another page");
        return false;
    }
    return true;
}

static void list_job(void *context, struct http_request *r) {
    struct letters_of *l = context;
    struct letters_query q;
    struct buffer *out = http_scratch(r);
    struct letters_place next = {0};
    char why[WORK_LETTER_WHY_MAX] = "";
    size_t n = 0;
    if (!parse_query(l, r, &q))
        return;
    buffer_append_string(out, "{\"dead_letters\":[");
    int result = letters_list(l, &q, out, &n, &next, why);
    buffer_append_string(out, n ? "}],\"next_cursor\":" : "],\"next_cursor\":");
    if (next.number)
        append_place(out, &next);
    else
        buffer_append_string(out, "null");
    buffer_append_u8(out, '}');
    if (result == 0)
        result = buffer_check(out);
    if (result)
        fail(r, result, why);
    else
        http_respond(r, 200, NULL, buffer_bytes(out));
}

/* The record, or why there is none to be shown. */
static int append_record(struct letters_of *l, const struct letter_held *held, struct buffer *out) {
    CLEANUP(buffer_deinit) struct buffer record = BUFFER_INIT;
    char sentence[WORK_LETTER_SENTENCE];
    int r = letters_append_record(l, held, &record, sentence);
    if (r == 0) {
        buffer_append_string(out, ",\"record\":");
        buffer_append_bytes(out, buffer_bytes(&record));
    } else if (r == WORK_LETTER_E_REFUSED) {
        buffer_append_string(out, ",\"record\":null,\"record_error\":");
        json_append_cstring(out, sentence);
    } else {
        return error_trace(r);
    }
    buffer_append_u8(out, '}');
    return buffer_check(out);
}

static void get_job(void *context, struct http_request *r) {
    CLEANUP(letter_held_deinit) struct letter_held held = {0};
    struct letters_of *l = context;
    struct buffer *out = http_scratch(r);
    char why[WORK_LETTER_WHY_MAX] = "";
    enum data_store_kind kind;
    lsn_t number;
    if (!find(l, r, &kind, &number))
        return;
    int result = letters_get(l, kind, number, &held, why);
    if (result == 0) {
        letters_append(l, &held, letters_show_json, out);
        result = append_record(l, &held, out);
    }
    if (result)
        fail(r, result, why);
    else
        http_respond(r, 200, NULL, buffer_bytes(out));
}

static void get_list(void *context, struct http_request *r) {
    offload(context, r, list_job);
}

static void get_one(void *context, struct http_request *r) {
    offload(context, r, get_job);
}

/* ---- POST and DELETE ---- */

static enum http_error error_of(const char *reason) {
    if (strcmp(reason, work_letter_gone) == 0)
        return HTTP_ERROR_NOT_FOUND;
    if (strcmp(reason, work_letter_changed) == 0)
        return HTTP_ERROR_CONFLICT;
    return HTTP_ERROR_INVALID_FIELD;
}

static unsigned render_lsn(struct http_request *r, enum http_write_outcome outcome,
                           struct buffer *body) {
    const lsn_t *lsn = http_state(r);
    buffer_append_format(body, "{\"lsn\":%" PRIu64 "}", *lsn);
    return outcome == HTTP_WRITE_VISIBLE ? 200 : 202;
}

static unsigned render_nothing(struct http_request *r UNUSED,
                               enum http_write_outcome outcome UNUSED, struct buffer *body UNUSED) {
    return 204;
}

static void await(struct letters_of *l, struct http_request *r, enum data_store_kind kind,
                  lsn_t first, lsn_t last, uint64_t key_hash,
                  unsigned (*render)(struct http_request *r, enum http_write_outcome outcome,
                                     struct buffer *body)) {
    struct work *work = l->data->stores[kind].work;
    const struct http_write write = {.first = first,
                                     .last = last,
                                     .lane_mask = UINT64_C(1) << work_lane_of(work, key_hash),
                                     .work = work,
                                     .wait_visible = true,
                                     .render = render,
                                     .rejected = error_of};
    http_await_write(r, &write);
}

struct wish {
    struct buffer edited; /* empty: as it is */
    bool force;
};

static void wish_deinit(struct wish *w) {
    buffer_deinit(&w->edited);
}

/* The members of the body; answers what is wrong. */
static bool take_wish(struct http_request *r, struct json_value root, struct wish *wish) {
    struct json_value v;
    if (json_find(root, "force", &v) && json_type_of(v) != JSON_NULL &&
        !json_get_bool(v, &wish->force)) {
        http_fail(r, HTTP_ERROR_INVALID_FIELD, "force", "`force` must be true or false");
        return false;
    }
    if (!json_find(root, "record", &v) || json_type_of(v) == JSON_NULL)
        return true;
    if (json_type_of(v) != JSON_OBJECT) {
        http_fail(r, HTTP_ERROR_INVALID_FIELD, "record", "`record` must be an object");
        return false;
    }
    json_append_value(&wish->edited, v);
    if (wish->edited.failed)
        fail(r, -ENOMEM, "");
    return !wish->edited.failed;
}

static bool parse_wish(struct http_request *r, struct wish *wish) {
    struct bytes body = http_body(r);
    struct json_value root;
    int result = body.size ? json_parse(http_json_parser(r), body, &root) : 0;
    if (result < 0)
        fail(r, result, "");
    else if (result)
        http_fail(r, HTTP_ERROR_MALFORMED_JSON, NULL, "the body %s", json_error_text(result));
    if (result || body.size == 0)
        return result == 0;
    if (json_type_of(root) == JSON_OBJECT)
        return take_wish(r, root, wish);
    http_fail(r, HTTP_ERROR_BAD_REQUEST, NULL, "the body must be an object, or empty");
    return false;
}

/* Appends what the letter is written again as; answers what is wrong. */
static bool write_again(struct letters_of *l, struct http_request *r,
                        const struct letter_held *held, const struct wish *wish,
                        struct work_letter_replay *ret_replay) {
    const struct bytes edited = buffer_bytes(&wish->edited);
    *ret_replay =
        (struct work_letter_replay){.edited = edited.size ? &edited : NULL, .force = wish->force};
    int result = letters_replay(l, held, ret_replay);
    ret_replay->edited = NULL; /* it was ours */
    if (result == WORK_LETTER_E_REFUSED)
        http_fail(r, HTTP_ERROR_INVALID_FIELD, "record", "%s", ret_replay->sentence);
    else if (result == WORK_LETTER_E_JOURNAL)
        http_fail_journal(r, ret_replay->condition);
    else if (result)
        fail(r, result, "");
    return result == 0;
}

static void replay_held(struct letters_of *l, struct http_request *r,
                        const struct letter_held *held, const struct wish *wish) {
    struct work_letter_replay replay;
    lsn_t *lsn = arena_calloc(http_arena(r), 1, sizeof *lsn);
    if (!lsn) {
        fail(r, -ENOMEM, "");
        return;
    }
    if (!write_again(l, r, held, wish, &replay))
        return;
    *lsn = replay.last;
    http_set_state(r, lsn);
    await(l, r, held->kind, replay.first, replay.last, held->letter.record.key_hash, render_lsn);
}

/* ---- Of letters that processes share: on a thread that may wait ---- */

/* What a job has done, for the answer; in the request's arena. */
struct done {
    struct follow *follow; /* who knows when it is applied; NULL: `applied` says */
    lsn_t first;
    lsn_t last;
    uint64_t key_hash;
    bool applied;
};

static unsigned render_done(struct http_request *r, enum http_write_outcome outcome,
                            struct buffer *body) {
    const struct done *d = http_state(r);
    buffer_append_format(body, "{\"lsn\":%" PRIu64 "}", d->last);
    return d->applied || outcome == HTTP_WRITE_VISIBLE ? 200 : 202;
}

/* It is durable: only who applies is still waited for. */
static void answer_replayed(void *done, struct http_request *r) {
    struct done *d = done;
    struct http_write write = {.render = render_done};
    http_set_state(r, d);
    if (d->follow) {
        write.first = d->first;
        write.last = d->last;
        write.work = follow_work(d->follow);
        write.lane_mask = UINT64_C(1) << work_lane_of(write.work, d->key_hash);
        write.wait_visible = true;
    }
    http_await_write(r, &write);
}

/* It is gone already. */
static void answer_dropped(void *context UNUSED, struct http_request *r) {
    http_await_write(r, &(struct http_write){.render = render_nothing});
}

/* A crash between the writing and the end of the letter leaves it there: whether one more replay
 * has an effect then is the store's to say (work/letters.h). */
static void replay_shared(struct letters_of *l, struct http_request *r,
                          const struct letter_held *held, const struct wish *wish) {
    char why[WORK_LETTER_WHY_MAX] = "";
    struct work_letter_replay replay;
    bool gone = false;
    struct done *d = arena_calloc(http_arena(r), 1, sizeof *d);
    if (!d) {
        fail(r, -ENOMEM, "");
        return;
    }
    if (!write_again(l, r, held, wish, &replay))
        return;
    int result = letters_settle(l, held, &replay, &gone, why);
    if (result == WORK_LETTER_E_JOURNAL) {
        http_fail(r, HTTP_ERROR_OUTCOME_UNKNOWN, NULL, NULL);
    } else if (result == WORK_LETTER_E_UNREACHABLE) {
        http_fail(r, HTTP_ERROR_UNREACHABLE, NULL,
                  "it was written again, but whether the letter is gone is not known: %s", why);
    } else if (result) {
        fail(r, result, "");
    } else {
        bool follows = held->kind == DATA_POINTS;
        *d = (struct done){follows ? l->data->follow : NULL, replay.first, replay.last,
                           held->letter.record.key_hash, gone && !follows};
        http_resume(r, answer_replayed, d);
    }
}

static void replay_job(void *context, struct http_request *r) {
    CLEANUP(letter_held_deinit) struct letter_held held = {0};
    CLEANUP(wish_deinit) struct wish wish = {0};
    char why[WORK_LETTER_WHY_MAX] = "";
    struct letters_of *l = context;
    enum data_store_kind kind;
    lsn_t number;
    if (!find(l, r, &kind, &number) || !parse_wish(r, &wish))
        return;
    int result = letters_get(l, kind, number, &held, why);
    if (result)
        fail(r, result, why);
    else if (!wish.force && letters_must_be_forced(l, kind))
        http_fail(r, HTTP_ERROR_CONFLICT, NULL, "%s", letters_unforced);
    else
        replay_shared(l, r, &held, &wish);
}

static void drop_job(void *context, struct http_request *r) {
    char why[WORK_LETTER_WHY_MAX] = "";
    struct letters_of *l = context;
    enum data_store_kind kind;
    lsn_t number;
    if (!find(l, r, &kind, &number))
        return;
    int result = letters_drop_shared(l, kind, number, why);
    if (result)
        fail(r, result, why);
    else
        http_resume(r, answer_dropped, l);
}

/* ---- Both ---- */

/* It reads one letter on the loop: these are few. */
static void post_replay(void *context, struct http_request *r) {
    CLEANUP(letter_held_deinit) struct letter_held held = {0};
    CLEANUP(wish_deinit) struct wish wish = {0};
    char why[WORK_LETTER_WHY_MAX] = "";
    struct letters_of *l = context;
    enum data_store_kind kind;
    lsn_t number;
    if (letters_are_shared(l)) {
        http_offload_waiting(r, replay_job, l);
        return;
    }
    if (!find(l, r, &kind, &number) || !parse_wish(r, &wish))
        return;
    int result = letters_get(l, kind, number, &held, why);
    if (result)
        fail(r, result, why);
    else
        replay_held(l, r, &held, &wish);
}

static void delete_one(void *context, struct http_request *r) {
    struct letters_of *l = context;
    enum data_store_kind kind;
    lsn_t number, lsn = 0;
    uint64_t key_hash = 0;
    int condition = 0;
    if (letters_are_shared(l)) {
        http_offload_waiting(r, drop_job, l);
        return;
    }
    if (!find(l, r, &kind, &number))
        return;
    int result = letters_drop(l, kind, number, &lsn, &key_hash, &condition);
    if (result == WORK_LETTER_E_JOURNAL)
        http_fail_journal(r, condition);
    else if (result)
        fail(r, result, "");
    else
        await(l, r, kind, lsn, lsn, key_hash, render_nothing);
}

/* ---- The table ---- */

#define LETTER_FIELDS                                                                              \
    "kind!: 'points' | 'events' | 'tasks', number!: uint = 1234, key!: string = \"movies/17\", "   \
    "at!: time, reason!: string, bytes!: uint, changed!: boolean?"
#define LETTER_PATH "kind: 'points' | 'events' | 'tasks', number: uint = 1234"

static const struct http_schema schemas[] = {
    {"DeadLetter", "{" LETTER_FIELDS "}"},
    {"DeadLetterWhole", "{" LETTER_FIELDS ", record!: object?, record_error: string}"},
};

static const struct http_route routes[] = {
    {.method = HTTP_GET,
     .path = "/dead-letters",
     .handler = get_list,
     .tag = "Dead letters",
     .summary =
         "Records that a store rejected, newest first, a page at a time. A number is that of "
         "the record in the journal, with its partition if there are several; changed: its key was "
         "written since, null: nobody knows",
     .answer = "{dead_letters!: [DeadLetter], next_cursor!: string?}",
     .query = "kind: 'points' | 'events' | 'tasks', limit: 1..1000 = 50, cursor"},
    {.method = HTTP_GET,
     .path = "/dead-letters/{kind}/{number}",
     .handler = get_one,
     .tag = "Dead letters",
     .summary = "One of them, with the record as JSON: a point, a user_tag, or a task's body. "
                "Without one, record_error says why",
     .answer = "DeadLetterWhole",
     .query = LETTER_PATH},
    {.method = HTTP_POST,
     .path = "/dead-letters/{kind}/{number}/replay",
     .handler = post_replay,
     .flags = HTTP_ROUTE_WRITES,
     .tag = "Dead letters",
     .summary = "Writes it again, as it was or as `record` says, and answers when it is applied; "
                "409 when its key was written since, or is to be written over and nobody knows, "
                "unless `force`; 422 when it is rejected again",
     .request = "{record: object?, force: boolean = false}",
     .answer = "{lsn!: uint = 1300}",
     .query = LETTER_PATH},
    {.method = HTTP_DELETE,
     .path = "/dead-letters/{kind}/{number}",
     .handler = delete_one,
     .flags = HTTP_ROUTE_WRITES | HTTP_ROUTE_ANY_BODY,
     .tag = "Dead letters",
     .summary = "Drops it: 204",
     .query = LETTER_PATH},
};

/* With journals that are shared any will do: nothing of others is waited for by the loop. */
static struct journal *journal_of(const struct data *data) {
    struct journal *journal = NULL;
    for (int i = 0; i < DATA_STORES && !journal; i++)
        journal = data->stores[i].journal;
    return journal;
}

struct http_route_table letters_routes(struct letters_of *letters) {
    return (struct http_route_table){.routes = routes,
                                     .n = ARRAY_LENGTH(routes),
                                     .context = letters,
                                     .journal = journal_of(letters->data),
                                     .schemas = schemas,
                                     .n_schemas = ARRAY_LENGTH(schemas)};
}
