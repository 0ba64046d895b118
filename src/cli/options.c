/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options from four sources. Each source fills only what no earlier one has filled, and they are
 * read in the order of their precedence:
 *
 *   flags ──▶ environment ──▶ INI file (named by one of the two) ──▶ defaults
 *
 * A value is checked by its row when it is taken; a value that a better source overrides is not.
 */
#include "cli/options.h"

#include "cli/ini.h"
#include "os/file.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

const struct option_row option_rows[OPTIONS] = {
#define OPTION(id, flag_, type_, placeholder_, fallback_, min_, max_, unit_, commands_, reload_,   \
               aliases_, prose_)                                                                   \
    [OPTION_##id] = {.flag = (flag_),                                                              \
                     .type = OPTION_TYPE_##type_,                                                  \
                     .placeholder = (placeholder_),                                                \
                     .fallback = (fallback_),                                                      \
                     .min = (min_),                                                                \
                     .max = (max_),                                                                \
                     .unit = (unit_),                                                              \
                     .commands = (commands_),                                                      \
                     .reload = (reload_),                                                          \
                     .aliases = (aliases_),                                                        \
                     .prose = (prose_)},
#include "cli/options.def"
#undef OPTION
};

const char *const option_type_names[OPTION_TYPES] = {
    [OPTION_TYPE_STRING] = "string",     [OPTION_TYPE_SECRET] = "secret",
    [OPTION_TYPE_PATH] = "path",         [OPTION_TYPE_ADDRESS] = "address",
    [OPTION_TYPE_URL] = "url",           [OPTION_TYPE_SERVICE] = "service",
    [OPTION_TYPE_INTEGER] = "integer",   [OPTION_TYPE_SIZE] = "size",
    [OPTION_TYPE_DURATION] = "duration", [OPTION_TYPE_BOOL] = "bool",
    [OPTION_TYPE_ENUM] = "enum",
};

const char *const option_command_names[OPTION_COMMANDS] = {
    "serve",   "load",    "journal", "check",      "status",
    "version", "options", "help",    "completion", "task-worker",
};
static_assert((FOR_ALL | FOR_TASK_WORKER) == (1 << OPTION_COMMANDS) - 1, "a bit a command");

enum { INI_MAX_BYTES = 1 << 20 };

static int PRINTF_LIKE(2, 3) fail(struct options *o, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(o->error, sizeof o->error, format, args);
    va_end(args);
    return OPTIONS_E_INVALID;
}

static enum option_id id_of(const struct option_row *row) {
    return (enum option_id)(row - option_rows);
}

const struct option_row *option_find(const char *flag, size_t size, unsigned commands) {
    for (size_t i = 0; i < OPTIONS; i++) {
        const struct option_row *row = &option_rows[i];
        if ((row->commands & commands) && strlen(row->flag) == size &&
            memcmp(row->flag, flag, size) == 0)
            return row;
    }
    return NULL;
}

void option_environment_name(const struct option_row *row, char out[OPTION_NAME_MAX]) {
    int size = snprintf(out, OPTION_NAME_MAX, "MILLRACE_%s", row->flag);
    assert(size > 0 && size < OPTION_NAME_MAX);
    for (char *at = out; *at; at++) {
        if (*at == '-')
            *at = '_';
        else if (*at >= 'a' && *at <= 'z')
            *at = (char)(*at - 'a' + 'A');
    }
}

/* ---- Did you mean ---- */

enum { NEAREST_WORD_MAX = 32 };

static size_t min3(size_t a, size_t b, size_t c) {
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Levenshtein's distance, one row of the matrix at a time. */
static size_t distance(const char *a, size_t a_size, const char *b, size_t b_size) {
    size_t row[NEAREST_WORD_MAX + 1];
    for (size_t j = 0; j <= b_size; j++)
        row[j] = j;
    for (size_t i = 0; i < a_size; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b_size; j++) {
            size_t above = row[j + 1];
            row[j + 1] = min3(above + 1, row[j] + 1, diagonal + (a[i] != b[j]));
            diagonal = above;
        }
    }
    return row[b_size];
}

const char *nearest_name(const char *word, const char *const *names, size_t n) {
    size_t size = strlen(word);
    size_t best = size / 3 + 2; /* further away is not a slip of the finger */
    const char *nearest = NULL;
    for (size_t i = 0; i < n && size <= NEAREST_WORD_MAX; i++) {
        size_t length = strlen(names[i]);
        size_t d = length <= NEAREST_WORD_MAX ? distance(word, size, names[i], length) : best;
        if (d < best) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}

static const char *nearest_flag(const char *word, size_t size, unsigned commands) {
    const char *names[OPTIONS];
    char copy[NEAREST_WORD_MAX + 1];
    size_t n = 0;
    if (size > NEAREST_WORD_MAX)
        return NULL;
    memcpy(copy, word, size);
    copy[size] = '\0';
    for (size_t i = 0; i < OPTIONS; i++)
        if (option_rows[i].commands & commands)
            names[n++] = option_rows[i].flag;
    return nearest_name(copy, names, n);
}

/* ---- One value ---- */

/* name: how the source calls the option, for the sentence of an error. */
static int assign(struct options *o, const struct option_row *row, const char *text,
                  enum option_source source, const char *name) {
    struct option_value *value = &o->values[id_of(row)];
    char why[OPTIONS_ERROR_MAX];
    uint64_t number = 0;
    if (value->source > source)
        return 0;
    int r = option_parse(row, text, &number, why);
    bool secret = row->type == OPTION_TYPE_SECRET || row->type == OPTION_TYPE_SERVICE;
    if (r == OPTIONS_E_INVALID && secret)
        return fail(o, "%s %s", name, why);
    if (r == OPTIONS_E_INVALID)
        return fail(o, "%s %s, not \"%.80s\"", name, why, text);
    if (r)
        return error_trace(r);
    *value = (struct option_value){.text = text, .number = number, .source = source};
    return 0;
}

/* ---- Flags ---- */

/* A flag and the value that stands behind = or in the next argument. */
struct flag {
    const char *name; /* without the dashes */
    size_t size;
    const char *value; /* behind =, or NULL */
};

static struct flag split_flag(const char *argument) {
    const char *name = argument + 2;
    size_t size = strcspn(name, "=");
    return (struct flag){.name = name, .size = size, .value = name[size] ? name + size + 1 : NULL};
}

static int unknown_flag(struct options *o, const struct flag *flag) {
    const char *nearest = nearest_flag(flag->name, flag->size, o->command);
    const struct option_row *elsewhere = option_find(flag->name, flag->size, FOR_ALL);
    if (elsewhere)
        return fail(o, "--%.*s is not an option of this command; see --help", (int)flag->size,
                    flag->name);
    if (nearest)
        return fail(o, "unknown option --%.*s; did you mean --%s?", (int)flag->size, flag->name,
                    nearest);
    return fail(o, "unknown option --%.*s; see --help", (int)flag->size, flag->name);
}

/* Takes the option at argv[*at]; moves *at to its last argument. */
static int take_flag(struct options *o, char *const *argv, size_t n, size_t *at) {
    struct flag flag = split_flag(argv[*at]);
    char name[OPTION_NAME_MAX];
    if (flag.size == 4 && memcmp(flag.name, "help", 4) == 0) {
        o->help = true;
        return 0;
    }
    const struct option_row *row = option_find(flag.name, flag.size, o->command);
    if (!row)
        return unknown_flag(o, &flag);
    snprintf(name, sizeof name, "--%s", row->flag);
    if (!flag.value && row->type == OPTION_TYPE_BOOL)
        flag.value = "true";
    if (!flag.value && *at + 1 < n)
        flag.value = argv[++*at];
    if (!flag.value)
        return fail(o, "%s needs a value: %s %s", name, name, row->placeholder);
    return assign(o, row, flag.value, OPTION_FLAG, name);
}

static int take_argument(struct options *o, const char *argument) {
    if (o->n_arguments == OPTIONS_ARGUMENTS_MAX)
        return fail(o, "too many arguments at \"%.80s\"", argument);
    o->arguments[o->n_arguments++] = argument;
    return 0;
}

static int take_flags(struct options *o, char *const *argv, size_t n) {
    bool flags = true; /* until "--" */
    for (size_t i = 0; i < n; i++) {
        int r = 0;
        if (flags && strcmp(argv[i], "--") == 0)
            flags = false;
        else if (flags && strcmp(argv[i], "-h") == 0)
            o->help = true;
        else if (flags && strncmp(argv[i], "--", 2) == 0)
            r = take_flag(o, argv, n, &i);
        else if (flags && argv[i][0] == '-' && argv[i][1])
            r = fail(o, "unknown option %.80s; options start with two dashes", argv[i]);
        else
            r = take_argument(o, argv[i]);
        if (r)
            return r;
    }
    return 0;
}

/* ---- The environment ---- */

static const char *environment_get(char *const *environment, const char *name, size_t size) {
    for (; *environment; environment++)
        if (strncmp(*environment, name, size) == 0 && (*environment)[size] == '=')
            return *environment + size + 1;
    return NULL;
}

/* An empty variable counts as not set. */
static int take_variable(struct options *o, const struct option_row *row, const char *name,
                         size_t size, char *const *environment) {
    char copy[OPTION_NAME_MAX];
    const char *text = environment_get(environment, name, size);
    if (!text || !*text || o->values[id_of(row)].source >= OPTION_ENVIRONMENT)
        return 0;
    snprintf(copy, sizeof copy, "%.*s", (int)size, name);
    return assign(o, row, text, OPTION_ENVIRONMENT, copy);
}

static int take_variables_of(struct options *o, const struct option_row *row,
                             char *const *environment) {
    char name[OPTION_NAME_MAX];
    option_environment_name(row, name);
    int r = take_variable(o, row, name, strlen(name), environment);
    for (const char *at = row->aliases; !r && *at;) {
        size_t size = strcspn(at, ",");
        r = take_variable(o, row, at, size, environment);
        at += size + (at[size] ? 1 : 0);
    }
    return r;
}

static int take_environment(struct options *o, char *const *environment) {
    int r = 0;
    for (size_t i = 0; i < OPTIONS && !r; i++)
        if (option_rows[i].commands & o->command)
            r = take_variables_of(o, &option_rows[i], environment);
    return r;
}

/* ---- The INI file ---- */

/* The commands that a section is for: all of them before the first section. 0: no such section. */
static unsigned section_commands(const char *section) {
    if (!*section)
        return FOR_ALL;
    for (unsigned i = 0; i < OPTION_COMMANDS; i++)
        if (strcmp(section, option_command_names[i]) == 0)
            return 1u << i;
    return 0;
}

static int unknown_key(struct options *o, const char *path, const struct ini *ini,
                       const char *key) {
    const char *nearest = nearest_flag(key, strlen(key), section_commands(ini->section));
    if (nearest)
        return fail(o, "%s:%u: unknown option %.80s; did you mean %s?", path, ini->line, key,
                    nearest);
    return fail(o, "%s:%u: unknown option %.80s", path, ini->line, key);
}

static int take_entry(struct options *o, const char *path, const struct ini *ini, const char *key,
                      const char *value) {
    char name[OPTIONS_ERROR_MAX / 2];
    unsigned commands = section_commands(ini->section);
    if (!commands)
        return fail(o, "%s:%u: unknown section [%.80s]", path, ini->line, ini->section);
    if (!option_find(key, strlen(key), commands))
        return unknown_key(o, path, ini, key);
    const struct option_row *row = option_find(key, strlen(key), commands & o->command);
    if (!row)
        return 0; /* for another command */
    snprintf(name, sizeof name, "%.200s:%u: %s", path, ini->line, row->flag);
    return assign(o, row, value, OPTION_INI, name);
}

static int load_ini(struct options *o, struct os *os, const char *path) {
    int r = os_load(os, path, INI_MAX_BYTES, &o->ini);
    if (r == OS_E_NOT_FOUND)
        return fail(o, "--config %.200s: there is no such file", path);
    if (r == OS_E_DENIED)
        return fail(o, "--config %.200s: this user may not read it", path);
    if (r == -ENOMEM)
        return error_trace(r);
    if (r)
        return fail(o, "--config %.200s: cannot be read", path);
    buffer_append_u8(&o->ini, 0);
    r = buffer_check(&o->ini);
    return r ? error_trace(r) : 0;
}

static int take_ini(struct options *o, struct os *os) {
    const char *path = o->values[OPTION_CONFIG].text;
    const char *key;
    const char *value;
    struct ini ini;
    if (!path)
        return 0;
    int r = load_ini(o, os, path);
    if (r)
        return r;
    ini_init(&ini, (char *)o->ini.data);
    while (!(r = ini_next(&ini, &key, &value)))
        if ((r = take_entry(o, path, &ini, key, value)))
            return r;
    if (r == INI_E_SYNTAX)
        return fail(o, "%.200s:%u: neither \"key = value\" nor a [section]", path, ini.line);
    return 0;
}

static int take_defaults(struct options *o) {
    for (size_t i = 0; i < OPTIONS; i++) {
        const struct option_row *row = &option_rows[i];
        if (!(row->commands & o->command) || !row->fallback[0] || o->values[i].source)
            continue;
        int r = assign(o, row, row->fallback, OPTION_DEFAULT, row->flag);
        if (r)
            return r;
    }
    return 0;
}

int options_load(struct options *o, struct os *os, unsigned command, char *const *argv, size_t n,
                 char *const *environment) {
    assert(command && (command & (command - 1)) == 0);
    *o = (struct options){.command = command};
    int r = take_flags(o, argv, n);
    if (!r && o->help)
        return 0; /* nothing else matters, a broken file included */
    if (!r)
        r = take_environment(o, environment);
    if (!r)
        r = take_ini(o, os);
    if (!r)
        r = take_defaults(o);
    return r;
}

void options_deinit(struct options *o) {
    if (o)
        buffer_deinit(&o->ini);
}

bool options_given(const struct options *o, enum option_id id) {
    return o->values[id].source > OPTION_DEFAULT;
}

const char *options_text(const struct options *o, enum option_id id) {
    assert(option_rows[id].commands & o->command);
    return o->values[id].text;
}

uint64_t options_number(const struct options *o, enum option_id id) {
    assert(option_rows[id].commands & o->command);
    assert(option_rows[id].type >= OPTION_TYPE_INTEGER);
    return o->values[id].number;
}

bool options_flag(const struct options *o, enum option_id id) {
    assert(option_rows[id].type == OPTION_TYPE_BOOL);
    return options_number(o, id) != 0;
}

int options_address(const struct options *o, enum option_id id,
                    struct socket_address *ret_address) {
    const struct option_row *row = &option_rows[id];
    const char *text = options_text(o, id);
    char whole[OPTIONS_ERROR_MAX];
    assert(row->type == OPTION_TYPE_ADDRESS);
    if (!strchr(text, ':')) {
        size_t host = strcspn(row->fallback, ":");
        snprintf(whole, sizeof whole, "%.*s:%.8s", (int)host, row->fallback, text);
        text = whole;
    }
    return socket_address_parse(text, ret_address);
}
