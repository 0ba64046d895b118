/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a cluster keeps the points: which part of Qdrant's API is asked there, and how that goes
 * together with what the journal has.
 *
 *   upsert, delete by id     logged, and sent by the lanes: the handlers of the other files
 *   collections              created and dropped there first, then in the catalog, by a record
 *   other changes            there, behind all writes before them (settle_before)
 *   aliases                  looked up before a record is made: it carries the collection
 *   reads                    there
 *
 * Records are sent again after a crash, from the persisted positions on: a change that came
 * between two records must not see the earlier one again. So before it is asked for, all records
 * before it are applied, and persisted as applied.
 *
 * With a journal that many processes share there is no catalog of ours, and no record of a create
 * or a drop. Both are changes like others then, behind all that anybody had appended: so nothing
 * that was acknowledged before comes into the collection that is made after.
 *
 *        job on a waiting thread            the loop
 *   ask the cluster ── 2xx ──http_resume──▶ append to the journal ─▶ await ─▶ its answer
 *                   └─ else ─▶ the answer as it came, or 503
 */
#include "points/api_pass.h"

#include <errno.h>
#include <stdio.h>

enum {
    SETTLE_MS = 10000,
    LOOK_NS = 1000000,
    ANSWER_MAX_BYTES = 128 << 20,
    NS_PER_MS = 1000000,
    ALIASES_MS = 5000,        /* then what was heard of aliases before holds on */
    PATIENCE_MAX_MS = 180000, /* a thread waits no longer, whatever a client asks for */
};

/* What a job and what follows it share; in the request's arena. */
struct passage {
    struct points_api *api;
    struct bytes name;
    struct bytes collection; /* that is to be learned: the name may be an alias */
    struct bytes body;
    const struct point_config *config; /* of what is to be created */
    api_render render;
    lsn_t replaced; /* what the catalog had before the cluster created; 0: none */
    struct points_collection *dropped; /* NULL: the catalog does not have it */
    http_handler handler;              /* to be tried again */
    struct qdrant_reply reply;
};

static void passage_deinit(struct passage *p) {
    qdrant_reply_deinit(&p->reply);
}

static struct passage *passage_new(struct points_api *api, struct http_request *r,
                                   const struct api_change *change) {
    struct passage *p = arena_calloc(http_arena(r), 1, sizeof *p);
    const char *name = arena_copy_string(http_arena(r), change->name);
    if (!p || !name) {
        api_fail(r, -ENOMEM, NULL);
        return NULL;
    }
    p->api = api;
    p->name = bytes_of(name, change->name.size);
    p->render = change->render;
    http_set_state(r, p);
    return p;
}

/* ---- Asking ---- */

static bool is_good(const struct qdrant_reply *reply) {
    return reply->status >= 200 && reply->status < 300;
}

void api_fail_cluster(struct http_request *r, int result, const struct qdrant_reply *reply) {
    if (result == QDRANT_E_DOWN)
        http_fail(r, HTTP_ERROR_UNREACHABLE, NULL, "%s; writes of points are taken meanwhile",
                  reply->sentence);
    else
        api_fail(r, error_fold(result), NULL);
}

static uint64_t answer_max_bytes(const struct points_api *api) {
    uint64_t half = budget_part(api->budget, BUDGET_ANSWERS) / 2;
    return half < ANSWER_MAX_BYTES ? half : ANSWER_MAX_BYTES;
}

/* With what the request says of how it is to be asked. */
static int ask(struct points_api *api, struct http_request *r, struct qdrant_question question,
               struct qdrant_reply *reply) {
    uint64_t timeout_ms = 0;
    struct api_fault ignored; /* it is the cluster's to refuse */
    if (api_get_timeout_ms(r, &timeout_ms, &ignored))
        timeout_ms = 0;
    if (timeout_ms > PATIENCE_MAX_MS)
        timeout_ms = PATIENCE_MAX_MS;
    question.content_type = http_header(r, "Content-Type");
    question.timeout_ms = timeout_ms ? timeout_ms + 1000 : 0;
    question.answer_max_bytes = answer_max_bytes(api);
    question.budget = api->budget;
    return error_trace(qdrant_ask(api->cluster, &question, reply));
}

static int get(struct points_api *api, const char *path, struct bytes segment, uint64_t timeout_ms,
               struct qdrant_reply *reply) {
    CLEANUP(buffer_deinit) struct buffer target = BUFFER_INIT;
    buffer_append_string(&target, path);
    http_segment_append(segment, &target);
    const struct qdrant_question question = {.method = "GET",
                                             .target = buffer_bytes(&target),
                                             .reads = true,
                                             .timeout_ms = timeout_ms,
                                             .answer_max_bytes = answer_max_bytes(api),
                                             .budget = api->budget};
    int r = buffer_check(&target);
    if (!r)
        r = qdrant_ask(api->cluster, &question, reply);
    if (r || is_good(reply) || reply->status == 404)
        return error_trace(r);
    (void)snprintf(reply->sentence, sizeof reply->sentence, "Qdrant answers %u", reply->status);
    return QDRANT_E_DOWN;
}

int api_cluster_get(struct points_api *api, const char *path, struct bytes segment,
                    struct qdrant_reply *reply) {
    return error_trace(get(api, path, segment, 0, reply));
}

/* Answers as the cluster did, with its body: from here on it is counted as what it is now. */
static void answer(struct http_request *r, struct qdrant_reply *reply) {
    const char *type = reply->content_type;
    bool sound = reply->status >= 200 && reply->status < 600;
    type = *type ? arena_copy_string(http_arena(r), bytes_of_string(type)) : NULL;
    http_respond_taking(r, sound ? reply->status : 500, type, &reply->body);
}

/* ---- Behind the writes before ---- */

static uint64_t settle_deadline_ns(const struct points_api *api) {
    return os_monotonic_ns(api->os) + (uint64_t)SETTLE_MS * NS_PER_MS;
}

/* The same where other processes apply: what anybody had appended by now is applied, and none of
 * them sends it again. */
static bool settle_everywhere(struct points_api *api, struct http_request *r) {
    struct qdrant_cluster_status status;
    int result =
        follow_settle(api->follow, settle_deadline_ns(api), qdrant_cluster_stopped, api->cluster);
    if (result == 0)
        return true;
    qdrant_cluster_status(api->cluster, &status);
    if (result == JOURNAL_E_UNAVAILABLE)
        http_fail(r, HTTP_ERROR_UNREACHABLE, NULL,
                  "the journal does not say how far the workers are; nothing was changed");
    else
        http_fail(r, HTTP_ERROR_UNREACHABLE, NULL,
                  "the workers have not applied the writes before this one yet%s%s; nothing was "
                  "changed",
                  *status.reason ? ": " : "", status.reason);
    return false;
}

/* Waits until all that was appended is applied, and persists that. False: answered. */
static bool settle_before(struct points_api *api, struct http_request *r) {
    if (api->follow)
        return settle_everywhere(api, r);
    lsn_t newest = journal_newest(api->journal, JOURNAL_KIND_POINTS);
    uint64_t deadline_ns = settle_deadline_ns(api);
    struct qdrant_cluster_status status;
    qdrant_cluster_status(api->cluster, &status);
    while (status.reachable && work_visible_lsn(api->work) < newest &&
           os_monotonic_ns(api->os) < deadline_ns && !qdrant_cluster_stopped(api->cluster)) {
        os_sleep_ns(api->os, LOOK_NS);
        qdrant_cluster_status(api->cluster, &status);
    }
    if (work_visible_lsn(api->work) < newest) {
        http_fail(r, HTTP_ERROR_UNREACHABLE, NULL,
                  "writes before this one are not applied yet%s%s; nothing was changed",
                  *status.reason ? ": " : "", status.reason);
        return false;
    }
    if (points_store_checkpoint(api->store, api->journal) == 0)
        return true;
    http_fail(r, HTTP_ERROR_UNAVAILABLE, NULL,
              "the disk does not take what is applied so far; nothing was changed");
    return false;
}

static bool begins_with(struct bytes text, const char *prefix) {
    size_t size = strlen(prefix);
    return text.size >= size && memcmp(text.data, prefix, size) == 0 &&
           (text.size == size || text.data[size] == '/' || text.data[size] == '?');
}

/* What comes behind /collections/{name}/ of a target. */
static struct bytes below_collection(struct bytes target) {
    static const char prefix[] = "/collections/";
    size_t size = sizeof prefix - 1;
    if (target.size < size || memcmp(target.data, prefix, size) != 0)
        return BYTES_LITERAL("");
    const uint8_t *name = target.data + size, *end = target.data + target.size;
    const uint8_t *slash = memchr(name, '/', (size_t)(end - name));
    return slash ? bytes_of(slash + 1, (size_t)(end - slash - 1)) : BYTES_LITERAL("");
}

/* Reads that are a POST. Whatever is not known to be one may change something. */
static bool reads(enum http_method method, struct bytes target) {
    static const char *const reading[] = {"points/scroll",    "points/count",   "points/search",
                                          "points/query",     "points/facet",   "facet",
                                          "points/recommend", "points/discover"};
    struct bytes rest = below_collection(target);
    if (method != HTTP_POST)
        return method == HTTP_GET;
    for (size_t i = 0; i < ARRAY_LENGTH(reading); i++)
        if (begins_with(rest, reading[i]))
            return true;
    return bytes_equal(rest, BYTES_LITERAL("points")) ||
           (rest.size > 7 && memcmp(rest.data, "points?", 7) == 0);
}

/* ---- Passing on ---- */

static void forget_aliases(struct points_api *api) {
    points_aliases_forget(qdrant_cluster_aliases(api->cluster));
}

/* False: answered. */
static bool pass_on(struct points_api *api, struct http_request *r, struct qdrant_reply *reply) {
    struct buffer *target = http_scratch(r);
    enum http_method method = http_method_of(r);
    http_target_append(r, target);
    const struct qdrant_question question = {.method = http_method_name(method),
                                             .target = buffer_bytes(target),
                                             .body = http_body(r),
                                             .reads = reads(method, buffer_bytes(target))};
    int result = buffer_check(target);
    if (!result && !question.reads && !settle_before(api, r))
        return false;
    if (!result)
        result = ask(api, r, question, reply);
    if (begins_with(question.target, "/collections/aliases"))
        forget_aliases(api); /* also where nobody knows what came of it */
    if (result)
        api_fail_cluster(r, result, reply);
    return result == 0;
}

static unsigned render_reply(struct http_request *r, enum http_write_outcome outcome,
                             struct buffer *body) {
    struct passage *p = http_state(r);
    (void)outcome; /* the cluster said what there is to say */
    buffer_append_bytes(body, p->body);
    return p->reply.status;
}

/* Keeps what is needed once the job has ended. False: answered. */
static bool keep_reply(struct passage *p, struct http_request *r) {
    struct bytes body = buffer_bytes(&p->reply.body);
    const char *copy = arena_copy_string(http_arena(r), body);
    passage_deinit(p);
    p->reply.body = BUFFER_INIT;
    if (!copy) {
        api_fail(r, -ENOMEM, NULL);
        return false;
    }
    p->body = bytes_of(copy, body.size);
    return true;
}

/* What the cluster did is answered behind whatever the journal has: a write's answer. */
static void await(struct passage *p, struct http_request *r, lsn_t lsn) {
    api_await(p->api, r, lsn, lsn, 0, false, 0, p->render ? p->render : render_reply);
}

static void passed_write(void *context, struct http_request *r) {
    await(context, r, 0);
}

/* Ends a job on a route that writes: goes_on follows, or it was answered, as it did not go well. */
static bool end_write(struct passage *p, struct http_request *r, http_handler goes_on) {
    if (!is_good(&p->reply)) {
        answer(r, &p->reply);
        passage_deinit(p);
        return false;
    }
    if (!keep_reply(p, r))
        return false;
    http_resume(r, goes_on, p);
    return true;
}

static void pass_write_job(void *context, struct http_request *r) {
    struct passage *p = context;
    if (pass_on(p->api, r, &p->reply))
        (void)end_write(p, r, passed_write);
    else
        passage_deinit(p);
}

void api_pass_write(void *context, struct http_request *r) {
    struct passage *p = passage_new(context, r, &(struct api_change){0});
    if (p)
        http_offload_waiting(r, pass_write_job, p);
}

/* ---- Creating ---- */

/* On Qdrant's own routes, what its query says is passed on. */
static int collection_target(struct http_request *r, struct bytes name, struct buffer *out) {
    if (http_style_of(r) == HTTP_STYLE_QDRANT) {
        http_target_append(r, out);
    } else {
        buffer_append_string(out, "/collections/");
        http_segment_append(name, out);
    }
    return error_trace(buffer_check(out));
}

static int drop_known(struct points_api *api, lsn_t incarnation, lsn_t *ret_lsn,
                      int *ret_condition) {
    int r = points_catalog_drop_incarnation(api->catalog, api->journal, api->work, incarnation,
                                            ret_lsn, ret_condition);
    return r == POINTS_E_NOT_FOUND ? 0 : error_trace(r);
}

/* Somebody else had dropped there what the catalog had before. What it has since then is this one,
 * learned by a write that came between, whose records must not lose it. */
static int enter(struct points_api *api, struct passage *p, lsn_t *ret_lsn, int *ret_condition) {
    int r = drop_known(api, p->replaced, ret_lsn, ret_condition);
    if (r || !p->config)
        return error_trace(r);
    r = points_catalog_create(api->catalog, api->journal, p->name, p->config, ret_lsn,
                              ret_condition);
    if (r != POINTS_E_EXISTS)
        return error_trace(r);
    *ret_lsn = points_catalog_lsn(api->catalog);
    return 0;
}

static void created(void *context, struct http_request *r) {
    struct passage *p = context;
    lsn_t lsn = 0;
    int condition = 0;
    int result = enter(p->api, p, &lsn, &condition);
    if (result == 0)
        await(p, r, lsn);
    else if (result == POINTS_E_JOURNAL)
        http_fail_journal(r, condition);
    else
        api_fail(r, error_fold(result), NULL);
}

/* 0: the catalog has none of that name. */
static lsn_t incarnation_of(struct points_api *api, struct bytes name) {
    CLEANUP(api_collection_unref)
    struct points_collection *c = points_catalog_find(api->catalog, name);
    return c ? c->incarnation : 0;
}

/* What is still on its way to a collection that had this name must not come into this one. False:
 * answered. */
static bool settle_sendings(struct points_api *api, struct http_request *r) {
    if (api->follow)
        return settle_everywhere(api, r);
    if (points_store_settle(api->store, settle_deadline_ns(api), qdrant_cluster_stopped,
                            api->cluster))
        return true;
    http_fail(r, HTTP_ERROR_UNREACHABLE, NULL, "Qdrant does not answer; nothing was created");
    return false;
}

static void create_job(void *context, struct http_request *r) {
    struct passage *p = context;
    struct buffer *target = http_scratch(r);
    if (!settle_sendings(p->api, r))
        return;
    p->replaced = incarnation_of(p->api, p->name);
    int result = collection_target(r, p->name, target);
    if (!result)
        result = ask(p->api, r,
                     (struct qdrant_question){
                         .method = "PUT", .target = buffer_bytes(target), .body = p->body},
                     &p->reply);
    if (p->api->follow)
        forget_aliases(p->api); /* and with them, which collections there are */
    if (result) {
        api_fail_cluster(r, result, &p->reply);
        passage_deinit(p);
        return;
    }
    (void)end_write(p, r, p->api->follow ? passed_write : created);
}

void api_pass_create(struct points_api *api, struct http_request *r,
                     const struct api_change *change) {
    struct passage *p = passage_new(api, r, change);
    struct point_config *config = NULL;
    if (!p)
        return;
    const char *body = arena_copy_string(http_arena(r), change->body);
    if (change->config)
        config = arena_calloc(http_arena(r), 1, sizeof *config);
    if (!body || (change->config && !config)) {
        api_fail(r, -ENOMEM, NULL);
        return;
    }
    if (config)
        *config = *change->config;
    p->config = config;
    p->body = bytes_of(body, change->body.size);
    http_offload_waiting(r, create_job, p);
}

/* ---- Dropping ---- */

static void end_dropping(struct passage *p) {
    if (p->dropped)
        atomic_fetch_sub(&p->dropped->dropping, 1);
    p->dropped = points_collection_unref(p->dropped);
}

static void dropped(void *context, struct http_request *r) {
    struct passage *p = context;
    lsn_t lsn = 0;
    int condition = 0;
    int result = p->dropped ? drop_known(p->api, p->dropped->incarnation, &lsn, &condition) : 0;
    end_dropping(p); /* after the catalog says so */
    if (result == 0)
        await(p, r, lsn);
    else if (result == POINTS_E_JOURNAL)
        http_fail_journal(r, condition);
    else
        api_fail(r, error_fold(result), NULL);
}

static void drop_job(void *context, struct http_request *r) {
    struct passage *p = context;
    struct buffer *target = http_scratch(r);
    if (p->api->follow && !settle_everywhere(p->api, r))
        return;
    int result = collection_target(r, p->name, target);
    p->dropped = p->api->follow ? NULL : points_catalog_find(p->api->catalog, p->name);
    if (p->dropped)
        atomic_fetch_add(&p->dropped->dropping, 1);
    if (!result)
        result = ask(p->api, r,
                     (struct qdrant_question){.method = "DELETE", .target = buffer_bytes(target)},
                     &p->reply);
    forget_aliases(p->api); /* those of it go with it */
    if (result) {
        end_dropping(p);
        api_fail_cluster(r, result, &p->reply);
        passage_deinit(p);
        return;
    }
    if (!end_write(p, r, dropped))
        end_dropping(p);
}

void api_pass_drop(struct points_api *api, struct http_request *r,
                   const struct api_change *change) {
    struct passage *p = passage_new(api, r, change);
    if (p)
        http_offload_waiting(r, drop_job, p);
}

/* ---- Learning ---- */

/* Of GET /collections/{name}: what a request that creates it would have said. */
static int parse_info(struct json_parser *parser, struct buffer *body, struct point_config *ret,
                      struct api_fault *f) {
    struct json_value v;
    if (!buffer_reserve(body, JSON_PADDING))
        return error_origin(-ENOMEM);
    int r = json_parse(parser, buffer_bytes(body), &v);
    if (r)
        return api_fault_json(f, r, "Qdrant's answer");
    if (!json_find(v, "result", &v) || !json_find(v, "config", &v) || !json_find(v, "params", &v))
        return api_fault_set(f, API_FAULT_INPUT, NULL, "Qdrant does not say what it consists of");
    return error_trace(api_config_parse(v, ret, f));
}

/* The entry of a list of Qdrant's whose member is the name. POINTS_E_NOT_FOUND. */
static int find_listed(struct http_request *r, struct buffer *body, const char *list,
                       const char *member, struct bytes name, struct json_value *ret_entry) {
    struct json_value v;
    struct bytes text;
    if (!buffer_reserve(body, JSON_PADDING))
        return error_origin(-ENOMEM);
    int result = json_parse(http_json_parser(r), buffer_bytes(body), &v);
    if (result || !json_find(v, "result", &v) || !json_find(v, list, &v))
        return result < 0 ? error_trace(result) : POINTS_E_NOT_FOUND;
    for (struct json_iterator i = json_iterate(v); json_next(&i, NULL, &v);) {
        struct json_value named;
        if (json_find(v, member, &named) && json_get_string(named, &text) &&
            bytes_equal(text, name)) {
            *ret_entry = v;
            return 0;
        }
    }
    return POINTS_E_NOT_FOUND;
}

/* Sets p->collection: what the name stands for now. */
static int resolve(struct passage *p, struct http_request *r) {
    struct points_aliases *aliases = qdrant_cluster_aliases(p->api->cluster);
    struct points_alias_question q = points_aliases_ask(aliases, os_monotonic_ns(p->api->os));
    struct bytes to = BYTES_LITERAL("");
    struct json_value v;
    int result = get(p->api, "/aliases", to, ALIASES_MS, &p->reply);
    if (!result)
        result = find_listed(r, &p->reply.body, "aliases", "alias_name", p->name, &v);
    if (result && result != POINTS_E_NOT_FOUND)
        return error_trace(result);
    if (!result && (!json_find(v, "collection_name", &v) || !json_get_string(v, &to) ||
                    to.size > POINT_NAME_MAX))
        return POINTS_E_NOT_FOUND;
    points_aliases_learn(aliases, q, p->name, to);
    if (result == POINTS_E_NOT_FOUND)
        return 0;
    const char *copy = arena_copy_string(http_arena(r), to);
    p->collection = bytes_of(copy, to.size);
    return copy ? 0 : error_origin(-ENOMEM);
}

/* POINTS_E_NOT_FOUND; API_E_FAULT: it has what records cannot carry. */
static int get_config(struct passage *p, struct http_request *r, struct point_config *ret,
                      struct api_fault *f) {
    struct json_value v;
    int result = api_cluster_get(p->api, "/collections", BYTES_LITERAL(""), &p->reply);
    if (!result) /* an alias that came meanwhile has an answer below, too */
        result = find_listed(r, &p->reply.body, "collections", "name", p->collection, &v);
    if (!result)
        result = api_cluster_get(p->api, "/collections/", p->collection, &p->reply);
    if (result)
        return error_trace(result);
    if (!is_good(&p->reply))
        return POINTS_E_NOT_FOUND;
    return error_trace(parse_info(http_json_parser(r), &p->reply.body, ret, f));
}

static bool is_known(struct points_api *api, struct bytes name) {
    CLEANUP(api_collection_unref)
    struct points_collection *c = api_find_collection(api, name);
    return c != NULL;
}

static struct points_aliases *names_of(struct passage *p) {
    return qdrant_cluster_aliases(p->api->cluster);
}

/* Whether what was heard of it before holds on, as there is no answer. */
static bool keep(struct passage *p) {
    return points_aliases_keep(names_of(p), p->name, os_monotonic_ns(p->api->os)) &&
           is_known(p->api, p->name);
}

/* With a journal that is shared: what the cluster says is heard, for as long as an alias is. */
static int hear(struct passage *p, struct http_request *r, struct api_fault *f) {
    struct points_alias_question q = points_aliases_ask(names_of(p), os_monotonic_ns(p->api->os));
    struct point_config config;
    p->collection = p->name;
    int result = resolve(p, r);
    if (!result)
        result = get_config(p, r, &config, f);
    if (result == QDRANT_E_DOWN)
        return keep(p) ? 0 : result;
    if (result == 0 || result == POINTS_E_NOT_FOUND) {
        int heard = points_catalog_hear(p->api->catalog, p->collection, result ? NULL : &config);
        if (heard)
            return error_trace(heard);
    }
    if (result == 0)
        points_aliases_learn(names_of(p), q, p->name, p->collection);
    return error_trace(result);
}

/* Asks for it and enters it into the catalog. */
static int learn(struct passage *p, struct http_request *r, struct api_fault *f) {
    struct points_api *api = p->api;
    struct point_config config;
    lsn_t lsn = 0;
    int condition = 0;
    if (p->name.size == 0 || p->name.size > POINT_NAME_MAX)
        return POINTS_E_NOT_FOUND;
    if (api->follow)
        return error_trace(hear(p, r, f));
    p->collection = p->name;
    int result = resolve(p, r);
    if (result == QDRANT_E_DOWN && keep(p))
        return 0;
    if (!result && is_known(api, p->collection))
        return 0;
    if (!result)
        result = get_config(p, r, &config, f);
    if (result)
        return error_trace(result);
    result =
        points_catalog_create(api->catalog, api->journal, p->collection, &config, &lsn, &condition);
    if (result == POINTS_E_JOURNAL)
        http_fail_journal(r, condition);
    return result == POINTS_E_EXISTS ? 0 : error_trace(result);
}

static void try_again(void *context, struct http_request *r) {
    struct passage *p = context;
    p->handler(p->api, r);
}

static void learn_job(void *context, struct http_request *r) {
    struct passage *p = context;
    struct api_fault f;
    int result = learn(p, r, &f);
    if (result == 0) {
        http_resume(r, try_again, p);
    } else if (result == POINTS_E_NOT_FOUND) {
        api_fail_collection(r, p->name);
    } else if (result == API_E_FAULT && http_style_of(r) == HTTP_STYLE_QDRANT) {
        buffer_clear(&p->reply.body);
        pass_write_job(p, r); /* Qdrant can do what we cannot log */
        return;
    } else if (result == API_E_FAULT) {
        api_fail(r, result, &f);
    } else if (result != POINTS_E_JOURNAL) {
        api_fail_cluster(r, result, &p->reply);
    }
    passage_deinit(p);
}

struct points_collection *api_find_collection(struct points_api *api, struct bytes name) {
    char collection[POINT_NAME_MAX + 1];
    struct points_collection *c =
        api->follow ? NULL : points_catalog_find(api->catalog, name); /* it may have been heard long
                                                                          ago */
    if (c || !api->cluster ||
        !points_aliases_find(qdrant_cluster_aliases(api->cluster), name, os_monotonic_ns(api->os),
                             collection))
        return c;
    return points_catalog_find(api->catalog, bytes_of_string(collection));
}

void api_unknown_collection(struct points_api *api, struct http_request *r, struct bytes name,
                            http_handler handler) {
    if (!api->cluster) {
        api_fail_collection(r, name);
        return;
    }
    struct passage *p = passage_new(api, r, &(struct api_change){.name = name});
    if (!p)
        return;
    p->handler = handler;
    http_offload_waiting(r, learn_job, p);
}

static void pass_job(void *context, struct http_request *r) {
    struct qdrant_reply reply = {.body = BUFFER_INIT};
    if (pass_on(context, r, &reply))
        answer(r, &reply);
    qdrant_reply_deinit(&reply);
}

void api_pass(void *context, struct http_request *r) {
    http_offload_waiting(r, pass_job, context);
}

/* ---- Tables ---- */

struct http_route_table api_passing(struct points_api *api, struct http_route_table table) {
    struct http_route *rows = api->passed_rows + api->n_passed_rows;
    if (!api->cluster)
        return table;
    assert(api->n_passed_rows + table.n <= API_PASSED_ROWS_MAX);
    api->n_passed_rows += table.n;
    for (size_t i = 0; i < table.n; i++) {
        rows[i] = table.routes[i];
        if (!(rows[i].flags & HTTP_ROUTE_WRITES))
            rows[i].handler = api_pass;
    }
    table.routes = rows;
    table.area = NULL; /* api_pass_routes has one */
    return table;
}

static const struct http_route fallback = {
    .path = "(Qdrant)", .handler = api_pass, .style = HTTP_STYLE_QDRANT};

struct http_route_table api_pass_routes(struct points_api *api, size_t i) {
    static const char *const segments[API_PASSED_AREAS] = {"collections", "aliases",   "cluster",
                                                           "snapshots",   "telemetry", "issues"};
    struct http_route_table table = {.journal = api->journal};
    if (!api->cluster || i >= API_PASSED_AREAS)
        return table;
    api->passed_areas[i] = (struct http_area){.segment = segments[i],
                                              .style = HTTP_STYLE_QDRANT,
                                              .unsupported = "",
                                              .fallback = &fallback,
                                              .context = api};
    table.area = &api->passed_areas[i];
    return table;
}
