/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of commands: see commands.h. It is read anew for each task, so that a change needs no
 * restart.
 */
#include "tasks/handlers/commands.h"

#include "base/json.h"
#include "os/file.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    FILE_MAX_BYTES = 1 << 20,
    TIME_S_MAX = 1 << 30,
    MEMORY_MB_MAX = 1 << 24,
};

#define SENTENCE(sentence, ...)                                                                    \
    ((void)snprintf((sentence), COMMAND_SENTENCE_MAX, __VA_ARGS__), COMMANDS_E_REFUSED)

void command_deinit(struct command *c) {
    for (char **at = c->arguments; *at; at++)
        free(*at);
    for (char **at = c->variables; *at; at++)
        free(*at);
    *c = (struct command){0};
}

/* A copy of head, separator and tail; a NUL inside ends it early, and is refused by the caller. */
static char *joined(struct bytes head, const char *separator, struct bytes tail) {
    size_t middle = strlen(separator);
    char *out = malloc(head.size + middle + tail.size + 1);
    if (!out)
        return NULL;
    memcpy(out, head.data, head.size);
    memcpy(out + head.size, separator, middle);
    if (tail.size)
        memcpy(out + head.size + middle, tail.data, tail.size);
    out[head.size + middle + tail.size] = '\0';
    return out;
}

static bool is_text(struct json_value value, struct bytes *ret_text) {
    return json_get_string(value, ret_text) && !memchr(ret_text->data, '\0', ret_text->size);
}

static int read_arguments(struct json_value row, struct command *c,
                          char sentence[COMMAND_SENTENCE_MAX]) {
    struct json_value list, value;
    struct bytes text;
    size_t n = 0;
    if (!json_find(row, "argv", &list) || json_type_of(list) != JSON_ARRAY || json_size(list) == 0)
        return SENTENCE(sentence, "its argv must be an array of strings");
    for (struct json_iterator it = json_iterate(list); json_next(&it, NULL, &value); n++) {
        if (n == COMMAND_ARGUMENTS_MAX || !is_text(value, &text))
            return SENTENCE(sentence, "its argv must be an array of at most %d strings",
                            COMMAND_ARGUMENTS_MAX);
        c->arguments[n] = joined(text, "", (struct bytes){0});
        if (!c->arguments[n])
            return error_origin(-ENOMEM);
    }
    if (!c->arguments[0] || c->arguments[0][0] != '/')
        return SENTENCE(sentence, "the first of its argv must be an absolute path");
    return 0;
}

static int read_variables(struct json_value row, struct command *c,
                          char sentence[COMMAND_SENTENCE_MAX]) {
    struct json_value map, value;
    struct bytes name, text;
    size_t n = 0;
    c->variables[n++] =
        joined(BYTES_LITERAL("PATH"), "=", BYTES_LITERAL("/usr/local/bin:/usr/bin:/bin"));
    c->variables[n++] =
        c->variables[0] ? joined(BYTES_LITERAL("LANG"), "=", BYTES_LITERAL("C.UTF-8")) : NULL;
    if (!c->variables[1])
        return error_origin(-ENOMEM);
    if (!json_find(row, "env", &map))
        return 0;
    if (json_type_of(map) != JSON_OBJECT)
        return SENTENCE(sentence, "its env must be an object of strings");
    for (struct json_iterator it = json_iterate(map); json_next(&it, &name, &value); n++) {
        if (n == COMMAND_VARIABLES_MAX || !is_text(value, &text) ||
            memchr(name.data, '\0', name.size))
            return SENTENCE(sentence, "its env must be an object of at most %d strings",
                            COMMAND_VARIABLES_MAX - 2);
        c->variables[n] = joined(name, "=", text);
        if (!c->variables[n])
            return error_origin(-ENOMEM);
    }
    return 0;
}

static int read_number(struct json_value row, const char *name, uint64_t max, uint64_t *ret_number,
                       char sentence[COMMAND_SENTENCE_MAX]) {
    struct json_value value;
    uint64_t number = 0;
    if (!json_find(row, name, &value))
        return 0;
    if (!json_get_u64(value, &number) || number == 0 || number > max)
        return SENTENCE(sentence, "its %s must be a whole number above 0", name);
    *ret_number = number;
    return 0;
}

static int read_row(struct json_value row, struct command *c, char sentence[COMMAND_SENTENCE_MAX]) {
    uint64_t memory_mb = 0;
    int r = read_arguments(row, c, sentence);
    if (r == 0)
        r = read_variables(row, c, sentence);
    if (r == 0)
        r = read_number(row, "memory_mb", MEMORY_MB_MAX, &memory_mb, sentence);
    if (r == 0)
        r = read_number(row, "cpu_s", TIME_S_MAX, &c->limits.cpu_s, sentence);
    if (r == 0)
        r = read_number(row, "time_s", TIME_S_MAX, &c->time_s, sentence);
    c->limits.memory_bytes = memory_mb << 20;
    return r;
}

static bool find_row(struct json_value root, struct bytes name, struct json_value *ret_row) {
    struct json_value commands, value;
    struct bytes key;
    if (!json_find(root, "commands", &commands))
        return false;
    for (struct json_iterator it = json_iterate(commands); json_next(&it, &key, &value);) {
        if (bytes_equal(key, name)) {
            *ret_row = value;
            return true;
        }
    }
    return false;
}

static int load_row(struct json_value root, struct bytes name, struct command *c,
                    char sentence[COMMAND_SENTENCE_MAX]) {
    struct json_value row;
    if (!find_row(root, name, &row))
        return SENTENCE(sentence, "no command of that name is configured");
    int r = read_row(row, c, sentence);
    if (r)
        command_deinit(c);
    return r;
}

static int load_text(struct os *os, const char *path, struct buffer *text,
                     char sentence[COMMAND_SENTENCE_MAX]) {
    int r = os_load(os, path, FILE_MAX_BYTES, text);
    if (r)
        return SENTENCE(sentence, "the file of commands cannot be read: %s",
                        r == OS_E_NOT_FOUND ? "there is none"
                        : r == OS_E_DENIED  ? "this user may not"
                                            : "it is too large, or the disk refuses");
    return buffer_reserve(text, JSON_PADDING) ? 0 : error_origin(-ENOMEM);
}

/* The root is valid until the parser is freed and the text changes. */
static int load_root(struct os *os, const char *path, struct json_parser *parser,
                     struct buffer *text, struct json_value *ret_root,
                     char sentence[COMMAND_SENTENCE_MAX]) {
    int r = load_text(os, path, text, sentence);
    if (r)
        return error_trace(r);
    r = json_parse(parser, buffer_bytes(text), ret_root);
    if (r > 0)
        return SENTENCE(sentence, "the file of commands %s", json_error_text(r));
    return error_trace(r);
}

int task_commands_check(struct os *os, const char *path, char sentence[COMMAND_SENTENCE_MAX]) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    struct json_parser *parser;
    struct json_value root;
    int r = json_parser_new(FILE_MAX_BYTES, &parser);
    if (r)
        return error_trace(r);
    r = load_root(os, path, parser, &text, &root, sentence);
    json_parser_free(parser);
    return error_trace(r);
}

int command_load(struct os *os, const char *path, struct bytes name, struct command *ret_command,
                 char sentence[COMMAND_SENTENCE_MAX]) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    struct command command = {0};
    struct json_parser *parser;
    struct json_value root;
    if (!*path)
        return SENTENCE(sentence, "no commands are configured: see --task-commands");
    int r = json_parser_new(FILE_MAX_BYTES, &parser);
    if (r)
        return error_trace(r);
    r = load_root(os, path, parser, &text, &root, sentence);
    if (r == 0)
        r = load_row(root, name, &command, sentence);
    json_parser_free(parser);
    if (r == 0)
        *ret_command = command;
    return r;
}
