/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recursive descent over the notation that schema.h describes; what it reads it appends at once.
 */
#include "http/schema.h"

#include "base/json.h"
#include "base/json_split.h"

#include <assert.h>
#include <ctype.h>
#include <string.h>

struct type {
    const char *word;
    const char *json;
    const char *example;
};
static const struct type types[] = {
    {"any", "{}", "null"},
    {"string", "{\"type\":\"string\"}", "\"text\""},
    {"integer", "{\"type\":\"integer\"}", "1"},
    {"uint", "{\"type\":\"integer\",\"minimum\":0}", "1"},
    {"number", "{\"type\":\"number\"}", "0.5"},
    {"boolean", "{\"type\":\"boolean\"}", "true"},
    {"object", "{\"type\":\"object\",\"additionalProperties\":true}", "{}"},
    {"uuid", "{\"type\":\"string\",\"format\":\"uuid\"}",
     "\"01a1fe62-4d90-7000-8000-000000000001\""},
    {"time", "{\"type\":\"string\",\"format\":\"date-time\"}", "\"2022-03-22T12:15:00.000Z\""},
};

static void append_value(struct buffer *out, const char **at);
static void append_shown(struct buffer *out, const char **at);

static char next_of(const char **at) {
    *at += strspn(*at, " ");
    return **at;
}

static bool take(const char **at, char c) {
    if (next_of(at) != c)
        return false;
    ++*at;
    return true;
}

static void expect(const char **at, char c) {
    bool there = take(at, c);
    assert(there && "a schema's notation is malformed");
    (void)there;
}

static struct bytes take_word(const char **at) {
    (void)next_of(at);
    const char *start = *at;
    while (isalnum((unsigned char)**at) || **at == '_' || **at == '-')
        ++*at;
    assert(*at > start && "a schema's notation lacks a word");
    return bytes_of(start, (size_t)(*at - start));
}

/* 'a' | 'b': what stands before the bar decides that it goes on with strings. */
static void append_strings(struct buffer *out, const char **at) {
    buffer_append_string(out, "{\"type\":\"string\",\"enum\":[");
    for (bool first = true;; first = false) {
        expect(at, '\'');
        size_t size = strcspn(*at, "'");
        if (!first)
            buffer_append_u8(out, ',');
        json_append_string(out, bytes_of(*at, size));
        *at += size;
        expect(at, '\'');
        const char *bar = *at;
        if (!take(&bar, '|') || next_of(&bar) != '\'')
            break;
        *at = bar;
    }
    buffer_append_string(out, "]}");
}

static void append_range(struct buffer *out, const char **at) {
    size_t least = strspn(*at, "0123456789");
    const char *most = *at + least + strlen("..");
    assert(strncmp(*at + least, "..", 2) == 0 && isdigit((unsigned char)*most));
    size_t size = strspn(most, "0123456789");
    buffer_append_format(out, "{\"type\":\"integer\",\"minimum\":%.*s,\"maximum\":%.*s}",
                         (int)least, *at, (int)size, most);
    *at = most + size;
}

static void append_word(struct buffer *out, const char **at) {
    struct bytes word = take_word(at);
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++)
        if (bytes_equal(word, bytes_of_string(types[i].word))) {
            buffer_append_string(out, types[i].json);
            return;
        }
    assert(isupper(word.data[0]) && "a schema's notation has an unknown type");
    buffer_append_format(out, "{\"$ref\":\"#/components/schemas/%.*s\"}", (int)word.size,
                         (const char *)word.data);
}

static struct bytes take_json(const char **at) {
    size_t size = 0;
    (void)next_of(at);
    int r = json_value_extent(bytes_of_string(*at), true, &size);
    assert(r == 0 && "a schema's example is not JSON");
    (void)r;
    *at += size;
    return bytes_of(*at - size, size);
}

/* An example goes into the schema just appended, as one more member. */
static void append_example(struct buffer *out, const char **at) {
    struct bytes json = take_json(at);
    if (buffer_check(out) || out->size < 2)
        return;
    bool empty = out->data[out->size - 2] == '{';
    out->size--; /* its closing brace */
    buffer_append_format(out, "%s\"examples\":[%.*s]}", empty ? "" : ",", (int)json.size,
                         (const char *)json.data);
}

/* The names of the members that must be there: read ahead, because JSON Schema lists them apart. */
static void append_required(struct buffer *out, const char *members) {
    bool any = false;
    int depth = 0;
    for (const char *c = members; depth > 0 || *c != '}'; c++) {
        assert(*c && "a schema's object does not end");
        depth += *c == '{' || *c == '[' || *c == '<';
        depth -= *c == '}' || *c == ']' || *c == '>';
        if (depth > 0 || *c != '!')
            continue;
        const char *start = c;
        while (isalnum((unsigned char)start[-1]) || start[-1] == '_')
            start--;
        buffer_append_format(out, "%s\"%.*s\"", any ? "," : "\"required\":[", (int)(c - start),
                             start);
        any = true;
    }
    if (any)
        buffer_append_string(out, "],");
}

static void append_object(struct buffer *out, const char **at) {
    expect(at, '{');
    buffer_append_string(out, "{\"type\":\"object\",");
    append_required(out, *at);
    buffer_append_string(out, "\"properties\":{");
    for (bool first = true; !take(at, '}'); first = false) {
        if (!first) {
            expect(at, ',');
            buffer_append_u8(out, ',');
        }
        json_append_string(out, take_word(at));
        (void)take(at, '!');
        expect(at, ':');
        buffer_append_u8(out, ':');
        append_shown(out, at);
    }
    buffer_append_string(out, "}}");
}

static void append_enclosed(struct buffer *out, const char **at, const char *json, char end) {
    ++*at;
    buffer_append_string(out, json);
    append_value(out, at);
    buffer_append_u8(out, '}');
    expect(at, end);
}

static void append_one(struct buffer *out, const char **at) {
    char c = next_of(at);
    if (c == '{')
        append_object(out, at);
    else if (c == '[')
        append_enclosed(out, at, "{\"type\":\"array\",\"items\":", ']');
    else if (c == '<')
        append_enclosed(out, at, "{\"type\":\"object\",\"additionalProperties\":", '>');
    else if (c == '\'')
        append_strings(out, at);
    else if (isdigit((unsigned char)c))
        append_range(out, at);
    else
        append_word(out, at);
}

/* Puts what was appended since start, and what follows, into one list of choices. */
static void open_choice(struct buffer *out, size_t start) {
    static const char head[] = "{\"anyOf\":[";
    struct buffer rest CLEANUP(buffer_deinit) = BUFFER_INIT;
    if (buffer_check(out))
        return;
    buffer_append(&rest, out->data + start, out->size - start);
    out->size = start;
    buffer_append_string(out, head);
    buffer_append_bytes(out, buffer_bytes(&rest));
}

static void append_value(struct buffer *out, const char **at) {
    size_t start = out->size;
    bool choice = false;
    append_one(out, at);
    while (next_of(at) == '|' || **at == '?') {
        bool null = **at == '?';
        ++*at;
        if (!choice)
            open_choice(out, start);
        choice = true;
        buffer_append_u8(out, ',');
        if (null)
            buffer_append_string(out, "{\"type\":\"null\"}");
        else
            append_one(out, at);
    }
    if (choice)
        buffer_append_string(out, "]}");
}

/* A value, perhaps with its example. */
static void append_shown(struct buffer *out, const char **at) {
    append_value(out, at);
    if (take(at, '='))
        append_example(out, at);
}

void http_schema_append(struct buffer *out, const char *text) {
    append_shown(out, &text);
    assert(next_of(&text) == '\0' && "a schema's notation goes on behind its end");
}

/* ---- Examples: the same descent, which appends a value instead of its schema ---- */

enum { EXAMPLE_DEPTH_MAX = 16 };

struct example {
    struct buffer *out;
    const struct http_schema_names *names;
    int depth; /* of names in names */
};

static void example_value(struct example *e, const char **at);

static void example_shown(struct example *e, const char **at) {
    size_t start = e->out->size;
    example_value(e, at);
    if (!take(at, '='))
        return;
    e->out->size = start;
    buffer_append_bytes(e->out, take_json(at));
}

static void example_strings(struct example *e, const char **at) {
    struct buffer schema CLEANUP(buffer_deinit) = BUFFER_INIT;
    size_t size = strcspn(*at + 1, "'");
    json_append_string(e->out, bytes_of(*at + 1, size));
    append_strings(&schema, at); /* goes over the others */
}

static void example_range(struct example *e, const char **at) {
    struct buffer schema CLEANUP(buffer_deinit) = BUFFER_INIT;
    buffer_append(e->out, *at, strspn(*at, "0123456789"));
    append_range(&schema, at);
}

static void example_word(struct example *e, const char **at) {
    struct bytes word = take_word(at);
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++)
        if (bytes_equal(word, bytes_of_string(types[i].word))) {
            buffer_append_string(e->out, types[i].example);
            return;
        }
    const struct http_schema *schema = e->names->find(e->names->context, word);
    assert(schema && "a schema names one that is not there");
    assert(e->depth < EXAMPLE_DEPTH_MAX && "a schema contains itself");
    const char *text = schema->text;
    e->depth++;
    example_shown(e, &text);
    e->depth--;
}

static void example_object(struct example *e, const char **at) {
    expect(at, '{');
    buffer_append_u8(e->out, '{');
    for (bool first = true; !take(at, '}'); first = false) {
        if (!first) {
            expect(at, ',');
            buffer_append_u8(e->out, ',');
        }
        json_append_string(e->out, take_word(at));
        (void)take(at, '!');
        expect(at, ':');
        buffer_append_u8(e->out, ':');
        example_shown(e, at);
    }
    buffer_append_u8(e->out, '}');
}

static void example_enclosed(struct example *e, const char **at, const char *head, char end,
                             const char *tail) {
    ++*at;
    buffer_append_string(e->out, head);
    example_value(e, at);
    buffer_append_string(e->out, tail);
    expect(at, end);
}

static void example_one(struct example *e, const char **at) {
    char c = next_of(at);
    if (c == '{')
        example_object(e, at);
    else if (c == '[')
        example_enclosed(e, at, "[", ']', "]");
    else if (c == '<')
        example_enclosed(e, at, "{\"name\":", '>', "}");
    else if (c == '\'')
        example_strings(e, at);
    else if (isdigit((unsigned char)c))
        example_range(e, at);
    else
        example_word(e, at);
}

/* The first of the choices; the others are gone over. */
static void example_value(struct example *e, const char **at) {
    example_one(e, at);
    size_t end = e->out->size;
    while (next_of(at) == '|' || **at == '?') {
        bool null = **at == '?';
        ++*at;
        if (!null)
            example_one(e, at);
        e->out->size = end;
    }
}

void http_schema_example(struct buffer *out, const char *text,
                         const struct http_schema_names *names) {
    struct example e = {.out = out, .names = names};
    example_shown(&e, &text);
}

/* ---- Lists of members ---- */

const char *http_schema_next(const char *members, struct http_schema_member *ret_member) {
    const char *at = members;
    *ret_member = (struct http_schema_member){.name = take_word(&at), .text = "string"};
    ret_member->required = take(&at, '!');
    if (take(&at, ':')) {
        struct buffer schema CLEANUP(buffer_deinit) = BUFFER_INIT;
        ret_member->text = at;
        append_shown(&schema, &at);
    }
    if (next_of(&at) == ',')
        at++;
    (void)next_of(&at);
    return at;
}

void http_schema_append_member(struct buffer *out, const struct http_schema_member *member) {
    const char *at = member->text;
    append_value(out, &at);
}

void http_schema_example_member(struct buffer *out, const struct http_schema_member *member,
                                const struct http_schema_names *names) {
    http_schema_example(out, member->text, names);
}
