/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INI files; the grammar stands in ini.h.
 */
#include "cli/ini.h"

#include <stddef.h>
#include <string.h>

static const char blanks[] = " \t\r";

void ini_init(struct ini *ini, char *text) {
    *ini = (struct ini){.at = text, .section = ""};
}

/* Cuts the blanks off both ends, in place. */
static char *trim(char *text) {
    text += strspn(text, blanks);
    size_t size = strlen(text);
    while (size > 0 && strchr(blanks, text[size - 1]))
        size--;
    text[size] = '\0';
    return text;
}

/* Cuts the next line off the rest; NULL at the end. */
static char *next_line(struct ini *ini) {
    if (!*ini->at)
        return NULL;
    char *line = ini->at;
    size_t size = strcspn(line, "\n");
    ini->at = line + size + (line[size] ? 1 : 0);
    line[size] = '\0';
    ini->line++;
    return trim(line);
}

static int read_section(struct ini *ini, char *line) {
    size_t size = strlen(line);
    if (size < 3 || line[size - 1] != ']')
        return INI_E_SYNTAX;
    line[size - 1] = '\0';
    ini->section = trim(line + 1);
    return 0;
}

static char *unquote(char *value) {
    size_t size = strlen(value);
    if (size < 2 || value[0] != '"' || value[size - 1] != '"')
        return value;
    value[size - 1] = '\0';
    return value + 1;
}

static int read_entry(char *line, const char **ret_key, const char **ret_value) {
    char *equals = strchr(line, '=');
    if (!equals || equals == line)
        return INI_E_SYNTAX;
    *equals = '\0';
    *ret_key = trim(line);
    *ret_value = unquote(trim(equals + 1));
    return 0;
}

int ini_next(struct ini *ini, const char **ret_key, const char **ret_value) {
    for (char *line; (line = next_line(ini));) {
        if (!*line || *line == '#' || *line == ';')
            continue;
        if (*line != '[')
            return read_entry(line, ret_key, ret_value);
        int r = read_section(ini, line);
        if (r)
            return r;
    }
    return INI_E_END;
}
