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

static void fail(struct http_request *r, int result) {
    if (result == LETTERS_E_NOT_FOUND)
        http_fail(r, HTTP_ERROR_NOT_FOUND, NULL, no_letter);
    else if (result == -ENOMEM)
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, "out of memory");
    else
        http_fail(r, HTTP_ERROR_INTERNAL, NULL, NULL);
}

/* With a journal that is shared the letters lie beside it: they are read anew for each request, on
 * a thread that may wait. False: answered. */
static bool refresh(const struct letters_of *l, struct http_request *r) {
    char why[GROUP_WHY_MAX] = "";
    int result = l->data->letters ? kept_letters_refresh(l->data->letters, why) : 0;
    if (result == JOURNAL_E_TOO_LARGE)
        http_fail(r, HTTP_ERROR_TOO_LARGE, NULL, "there are more dead letters than can be read");
    else if (result > 0)
        http_fail(r, HTTP_ERROR_UNREACHABLE, NULL, "the dead letters cannot be read: %s", why);
    else if (result)
        fail(r, result);
    return result == 0;
}

static void offload(struct letters_of *l, struct http_request *r, http_handler job) {
    if (l->data->letters)
        http_offload_waiting(r, job, l);
    else
        http_offload(r, job, l);
}

/* ---- GET ---- */

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
    if (http_query_parameter(r, "cursor", &text) && text.size && !number_of(text, &q->below)) {
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
    size_t n = 0;
    lsn_t next = 0;
    if (!parse_query(l, r, &q) || !refresh(l, r))
        return;
    buffer_append_string(out, "{\"dead_letters\":[");
    int result = letters_list(l, &q, out, &n, &next);
    buffer_append_string(out, n ? "}],\"next_cursor\":" : "],\"next_cursor\":");
    if (next)
        buffer_append_format(out, "\"%" PRIu64 "\"}", next);
    else
        buffer_append_string(out, "null}");
    if (result == 0)
        result = buffer_check(out);
    if (result)
        fail(r, result);
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
    enum data_store_kind kind;
    lsn_t number;
    if (!find(l, r, &kind, &number) || !refresh(l, r))
        return;
    int result = letters_get(l, kind, number, &held);
    if (result == 0) {
        letters_append(l, &held, letters_show_json, out);
        result = append_record(l, &held, out);
    }
    if (result)
        fail(r, result);
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
    struct work *work = l->data->follow ? follow_work(l->data->follow) : l->data->stores[kind].work;
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
        fail(r, -ENOMEM);
    return !wish->edited.failed;
}

static bool parse_wish(struct http_request *r, struct wish *wish) {
    struct bytes body = http_body(r);
    struct json_value root;
    int result = body.size ? json_parse(http_json_parser(r), body, &root) : 0;
    if (result < 0)
        fail(r, result);
    else if (result)
        http_fail(r, HTTP_ERROR_MALFORMED_JSON, NULL, "the body %s", json_error_text(result));
    if (result || body.size == 0)
        return result == 0;
    if (json_type_of(root) == JSON_OBJECT)
        return take_wish(r, root, wish);
    http_fail(r, HTTP_ERROR_BAD_REQUEST, NULL, "the body must be an object, or empty");
    return false;
}

static void replay_held(struct letters_of *l, struct http_request *r,
                        const struct letter_held *held, const struct wish *wish) {
    const struct bytes edited = buffer_bytes(&wish->edited);
    struct work_letter_replay replay = {.edited = edited.size ? &edited : NULL,
                                        .force = wish->force};
    lsn_t *lsn = arena_calloc(http_arena(r), 1, sizeof *lsn);
    int result = lsn ? letters_replay(l, held, &replay) : -ENOMEM;
    if (result == WORK_LETTER_E_REFUSED) {
        http_fail(r, HTTP_ERROR_INVALID_FIELD, "record", "%s", replay.sentence);
    } else if (result == WORK_LETTER_E_JOURNAL) {
        http_fail_journal(r, replay.condition);
    } else if (result) {
        fail(r, result);
    } else {
        *lsn = replay.last;
        http_set_state(r, lsn);
        await(l, r, held->kind, replay.first, replay.last, held->letter.record.key_hash,
              render_lsn);
    }
}

/* ---- Of a store that processes share ---- */

/* What a job has done, for the answer; in the request's arena. */
struct done {
    struct letters_of *letters;
    enum data_store_kind kind;
    lsn_t first;
    lsn_t last;
    uint64_t key_hash;
};

static void answer_replayed(void *context, struct http_request *r) {
    struct done *d = context;
    http_set_state(r, &d->last);
    await(d->letters, r, d->kind, d->first, d->last, d->key_hash, render_lsn);
}

/* It is gone already. */
static void answer_dropped(void *context UNUSED, struct http_request *r) {
    http_await_write(r, &(struct http_write){.render = render_nothing});
}

static bool drop_kept(struct letters_of *l, struct http_request *r, lsn_t number,
                      const char *before) {
    char why[GROUP_WHY_MAX] = "";
    int result = kept_letters_drop(l->data->letters, number, why);
    if (result > 0)
        http_fail(r, HTTP_ERROR_UNREACHABLE, NULL, "%sthe letter cannot be taken away: %s", before,
                  why);
    else if (result)
        fail(r, result);
    return result == 0;
}

/* Appends it anew, and takes it away once that is durable: a crash between the two leaves the
 * letter, and one more replay changes nothing. */
static void replay_kept(struct letters_of *l, struct http_request *r,
                        const struct letter_held *held, const struct wish *wish) {
    enum { DURABLE_MS = 5000 };
    const struct bytes edited = buffer_bytes(&wish->edited);
    struct work_letter_replay replay = {.edited = edited.size ? &edited : NULL, .force = true};
    struct done *d = arena_calloc(http_arena(r), 1, sizeof *d);
    int result = d ? letters_replay(l, held, &replay) : -ENOMEM;
    if (result == WORK_LETTER_E_REFUSED)
        http_fail(r, HTTP_ERROR_INVALID_FIELD, "record", "%s", replay.sentence);
    else if (result == WORK_LETTER_E_JOURNAL)
        http_fail_journal(r, replay.condition);
    else if (result)
        fail(r, result);
    else if (journal_wait(l->data->stores[held->kind].journal, replay.last, DURABLE_MS))
        http_fail(r, HTTP_ERROR_OUTCOME_UNKNOWN, NULL, NULL);
    else if (drop_kept(l, r, held->letter.record.lsn, "it was written again, but ")) {
        *d = (struct done){l, held->kind, replay.first, replay.last, held->letter.record.key_hash};
        http_resume(r, answer_replayed, d);
    }
}

static void replay_job(void *context, struct http_request *r) {
    CLEANUP(letter_held_deinit) struct letter_held held = {0};
    CLEANUP(wish_deinit) struct wish wish = {0};
    struct letters_of *l = context;
    enum data_store_kind kind;
    lsn_t number;
    if (!find(l, r, &kind, &number) || !parse_wish(r, &wish) || !refresh(l, r))
        return;
    int result = letters_get(l, kind, number, &held);
    if (result)
        fail(r, result);
    else if (!wish.force)
        http_fail(r, HTTP_ERROR_CONFLICT, NULL,
                  "whether its key was written since is known to nobody where processes share a "
                  "journal; `force` writes it again all the same");
    else
        replay_kept(l, r, &held, &wish);
}

static void drop_job(void *context, struct http_request *r) {
    CLEANUP(letter_held_deinit) struct letter_held held = {0};
    struct letters_of *l = context;
    enum data_store_kind kind;
    lsn_t number;
    if (!find(l, r, &kind, &number) || !refresh(l, r))
        return;
    int result = letters_get(l, kind, number, &held);
    if (result)
        fail(r, result);
    else if (drop_kept(l, r, number, ""))
        http_resume(r, answer_dropped, l);
}

/* ---- Both ---- */

/* It reads one letter on the loop: these are few. */
static void post_replay(void *context, struct http_request *r) {
    CLEANUP(letter_held_deinit) struct letter_held held = {0};
    CLEANUP(wish_deinit) struct wish wish = {0};
    struct letters_of *l = context;
    enum data_store_kind kind;
    lsn_t number;
    if (l->data->letters) {
        http_offload_waiting(r, replay_job, l);
        return;
    }
    if (!find(l, r, &kind, &number) || !parse_wish(r, &wish))
        return;
    int result = letters_get(l, kind, number, &held);
    if (result)
        fail(r, result);
    else
        replay_held(l, r, &held, &wish);
}

static void delete_one(void *context, struct http_request *r) {
    struct letters_of *l = context;
    enum data_store_kind kind;
    lsn_t number, lsn = 0;
    uint64_t key_hash = 0;
    int condition = 0;
    if (l->data->letters) {
        http_offload_waiting(r, drop_job, l);
        return;
    }
    if (!find(l, r, &kind, &number))
        return;
    int result = letters_drop(l, kind, number, &lsn, &key_hash, &condition);
    if (result == WORK_LETTER_E_JOURNAL)
        http_fail_journal(r, condition);
    else if (result)
        fail(r, result);
    else
        await(l, r, kind, lsn, lsn, key_hash, render_nothing);
}

/* ---- The table ---- */

#define LETTER_FIELDS                                                                              \
    "kind!: 'points' | 'events' | 'tasks', number!: uint = 1234, key!: string = \"movies/17\", "   \
    "at!: time, reason!: string, bytes!: uint, changed!: boolean"
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
         "the record in the journal; changed: its key was written since",
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
                "409 when its key was written since, unless `force`; 422 when it is rejected again",
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

struct http_route_table letters_routes(struct letters_of *letters) {
    return (struct http_route_table){.routes = routes,
                                     .n = ARRAY_LENGTH(routes),
                                     .context = letters,
                                     .journal = letters->data->stores[DATA_POINTS].journal,
                                     .schemas = schemas,
                                     .n_schemas = ARRAY_LENGTH(schemas)};
}
