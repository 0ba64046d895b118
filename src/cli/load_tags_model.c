/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the server may know (everything that was sent) and must show (what was acknowledged long
 * enough ago), of the thread's own cookies and of its own origins, brands and categories.
 *
 * Bounded: of a cookie and action the TAG_KNOWN_MAX newest tags that were sent, more than a profile
 * must keep; of minutes the last TAG_MINUTES. An own tag that does not fit into the ring of what
 * ages never counts among what must show as it goes; the end counts it.
 */
#include "cli/load_tags.h"

#include <errno.h>
#include <stdlib.h>

enum { LIST_FIRST = 8 };

int tag_model_init(struct tag_model *m, const struct tag_source *source) {
    uint64_t n = (source->cookies - 1) / source->every + 1;
    *m = (struct tag_model){.source = source, .n_lists = (uint32_t)n, .newest_ms = INT64_MIN};
    m->lists = calloc(n, sizeof *m->lists);
    m->minutes = calloc(TAG_MINUTES, sizeof *m->minutes);
    m->ageing = calloc(TAG_AGEING, sizeof *m->ageing);
    if (!m->lists || !m->minutes || !m->ageing) {
        tag_model_deinit(m);
        return error_origin(-ENOMEM);
    }
    for (size_t i = 0; i < TAG_MINUTES; i++)
        m->minutes[i].minute = INT64_MIN;
    return 0;
}

void tag_model_deinit(struct tag_model *m) {
    for (uint32_t i = 0; m->lists && i < m->n_lists; i++)
        for (unsigned k = 0; k < TAG_ACTIONS; k++)
            free(m->lists[i][k].tags);
    free(m->lists);
    free(m->minutes);
    free(m->ageing);
    *m = (struct tag_model){0};
}

/* ---- Profiles ---- */

static int list_grow(struct known_list *list) {
    uint32_t capacity = list->capacity ? list->capacity * 2 : LIST_FIRST;
    struct known_tag *tags = realloc(list->tags, capacity * sizeof *tags);
    if (!tags)
        return error_origin(-ENOMEM);
    list->tags = tags;
    list->capacity = capacity;
    return 0;
}

/* Where a tag of this time and number stands or would stand. */
static uint32_t list_place(const struct known_list *list, int64_t time_ms, uint64_t number) {
    uint32_t i = list->n;
    while (i > 0 && (list->tags[i - 1].time_ms > time_ms ||
                     (list->tags[i - 1].time_ms == time_ms && list->tags[i - 1].number >= number)))
        i--;
    return i;
}

static int list_add(struct known_list *list, const struct tag *tag) {
    uint32_t at = list_place(list, tag->time_ms, tag->number);
    if (list->n == TAG_KNOWN_MAX) {
        if (at == 0)
            return 0; /* older than all */
        memmove(list->tags, list->tags + 1, (at - 1) * sizeof *list->tags);
        at--;
    } else {
        int r = list->n == list->capacity ? list_grow(list) : 0;
        if (r)
            return error_trace(r);
        memmove(list->tags + at + 1, list->tags + at, (list->n - at) * sizeof *list->tags);
        list->n++;
    }
    list->tags[at] =
        (struct known_tag){.time_ms = tag->time_ms, .number = tag->number, .known_ns = UINT64_MAX};
    return 0;
}

static void list_know(struct known_list *list, const struct tag *tag, uint64_t now_ns) {
    uint32_t at = list_place(list, tag->time_ms, tag->number);
    if (at < list->n && list->tags[at].number == tag->number)
        list->tags[at].known_ns = now_ns;
}

static struct known_list *list_of(struct tag_model *m, const struct tag *tag) {
    return &m->lists[tag->rank / m->source->every][tag->action];
}

/* ---- Aggregates ---- */

static struct tag_minute *slot_of(const struct tag_model *m, int64_t minute) {
    return &m->minutes[minute % TAG_MINUTES];
}

const struct tag_minute *tag_model_minute(const struct tag_model *m, int64_t minute) {
    const struct tag_minute *slot = slot_of(m, minute);
    return slot->minute == minute ? slot : NULL;
}

static void add(struct tag_sum *sum, const struct tag *tag) {
    sum->count++;
    sum->sum += tag->price;
}

static struct tag_cell *cell_of(struct tag_minute *slot, const struct tag *tag) {
    return &slot->cells[tag->action][tag->origin][tag->brand][tag->category];
}

static void minute_sent(struct tag_model *m, const struct tag *tag) {
    struct tag_minute *slot = slot_of(m, tag_minute(tag->time_ms));
    if (slot->minute < tag_minute(tag->time_ms))
        *slot = (struct tag_minute){.minute = tag_minute(tag->time_ms)};
    if (slot->minute > tag_minute(tag->time_ms))
        return; /* more than a day late */
    add(&slot->sent[tag->action], tag);
    if (tag->own)
        add(&cell_of(slot, tag)->sent, tag);
}

static void start_ageing(struct tag_model *m, const struct tag *tag, uint64_t now_ns) {
    if (m->ageing_end - m->ageing_first == TAG_AGEING)
        return;
    m->ageing[m->ageing_end++ % TAG_AGEING] =
        (struct ageing){.known_ns = now_ns, .number = tag->number};
}

static void minute_known(struct tag_model *m, const struct tag *tag, uint64_t now_ns) {
    struct tag_minute *slot = slot_of(m, tag_minute(tag->time_ms));
    if (slot->minute != tag_minute(tag->time_ms))
        return;
    add(&slot->known[tag->action], tag);
    if (tag->own) {
        add(&cell_of(slot, tag)->known, tag);
        start_ageing(m, tag, now_ns);
    }
}

void tag_model_age(struct tag_model *m, uint64_t now_ns) {
    for (; m->ageing_first < m->ageing_end; m->ageing_first++) {
        const struct ageing *oldest = &m->ageing[m->ageing_first % TAG_AGEING];
        struct tag tag;
        if (oldest->known_ns + m->source->visible_ns > now_ns)
            return;
        tag_draw(m->source, oldest->number, &tag);
        struct tag_minute *slot = slot_of(m, tag_minute(tag.time_ms));
        if (slot->minute == tag_minute(tag.time_ms))
            add(&cell_of(slot, &tag)->aged, &tag);
    }
}

/* ---- Both ---- */

int tag_model_sent(struct tag_model *m, const struct tag *tag) {
    if (tag->time_ms > m->newest_ms)
        m->newest_ms = tag->time_ms;
    minute_sent(m, tag);
    return tag_is_tracked(m->source, tag) ? list_add(list_of(m, tag), tag) : 0;
}

void tag_model_known(struct tag_model *m, const struct tag *tag, uint64_t now_ns) {
    minute_known(m, tag, now_ns);
    if (!tag_is_tracked(m->source, tag))
        return;
    list_know(list_of(m, tag), tag, now_ns);
    m->recent[m->n_recent++ % TAG_RECENT] =
        (struct recent){.known_ns = now_ns, .cookie = (uint32_t)(tag->rank / m->source->every)};
}
