/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Help, made from the rows of options.def and the table of commands: for people, and as JSON for
 * the reference docs and the tests.
 */
#include "base/json.h"
#include "cli/cli.h"

#include <inttypes.h>

enum { HELP_WIDTH = 96, HELP_INDENT = 8 };

struct style {
    const char *bold;
    const char *dim;
    const char *off;
};

static struct style style_of(FILE *out) {
    if (cli_color(out))
        return (struct style){"\033[1m", "\033[2m", "\033[0m"};
    return (struct style){"", "", ""};
}

/* Prints text, its lines broken between words, each behind HELP_INDENT spaces. */
static void print_wrapped(FILE *out, const char *text) {
    size_t column = HELP_WIDTH;
    for (bool first = true; *text; first = false) {
        size_t size = strcspn(text, " ");
        if (column + 1 + size > HELP_WIDTH) {
            fprintf(out, "%s%*s", first ? "" : "\n", HELP_INDENT, "");
            column = HELP_INDENT;
        } else {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, size, out);
        column += size;
        text += size + (text[size] ? 1 : 0);
    }
    fputc('\n', out);
}

/* "(default 64M; MILLRACE_SEGMENT_SIZE)" */
static void print_origin(FILE *out, const struct option_row *row, unsigned command,
                         const struct style *style) {
    bool reload = row->reload && command == FOR_SERVE;
    char name[OPTION_NAME_MAX];
    option_environment_name(row, name);
    fprintf(out, "%*s%s(", HELP_INDENT, "", style->dim);
    if (row->fallback[0] && row->type != OPTION_TYPE_BOOL)
        fprintf(out, "default %s; ", row->fallback);
    fprintf(out, "%s%s%s%s)%s\n", name, row->aliases[0] ? ", " : "", row->aliases,
            reload ? "; a SIGHUP can change it" : "", style->off);
}

struct bytes option_brief(const struct option_row *row) {
    const char *end = strstr(row->prose, ". ");
    size_t size = end ? (size_t)(end - row->prose) : strlen(row->prose);
    if (size > 0 && row->prose[size - 1] == '.')
        size--;
    return bytes_of(row->prose, size);
}

static void print_row(FILE *out, const struct option_row *row, unsigned command,
                      const struct style *style) {
    fprintf(out, "    %s--%s%s%s%s\n", style->bold, row->flag, style->off,
            row->placeholder[0] ? " " : "", row->placeholder);
    print_wrapped(out, row->prose);
    print_origin(out, row, command, style);
}

static void print_heading(FILE *out, const char *heading, const struct style *style) {
    fprintf(out, "\n%s%s%s\n", style->bold, heading, style->off);
}

void help_print_command(const struct cli_command *command, FILE *out) {
    struct style style = style_of(out);
    fprintf(out, "millrace %s: %s\n", command->name, command->summary);
    print_heading(out, "Usage", &style);
    fprintf(out, "    millrace %s%s%s [OPTION…]\n", command->name, *command->arguments ? " " : "",
            command->arguments);
    if (*command->prose)
        fprintf(out, "\n%s", command->prose);
    print_heading(out, "Options", &style);
    for (size_t i = 0; i < OPTIONS; i++)
        if (option_rows[i].commands & command->bit)
            print_row(out, &option_rows[i], command->bit, &style);
    if (*command->examples) {
        print_heading(out, "Examples", &style);
        fputs(command->examples, out);
    }
}

void help_print_overview(const struct cli *cli, FILE *out) {
    struct style style = style_of(out);
    fputs("Millrace takes data in over HTTP, acknowledges it once it is durable, and applies it\n"
          "to stores that answer queries.\n",
          out);
    print_heading(out, "Usage", &style);
    fputs("    millrace COMMAND [OPTION…]\n", out);
    print_heading(out, "Commands", &style);
    for (size_t i = 0; i < cli->n_commands; i++)
        fprintf(out, "    %s%-10s%s  %s\n", style.bold, cli->commands[i]->name, style.off,
                cli->commands[i]->summary);
    fputs("\n`millrace help COMMAND` shows its options and examples. Every option can also be an\n"
          "environment variable (MILLRACE_DATA_DIR for --data-dir) or a line of the file that\n"
          "--config names (data-dir = …); a flag wins over the environment, that over the file.\n",
          out);
}

/* ---- JSON ---- */

static void append_member(struct buffer *out, const char *key, const char *text) {
    buffer_append_format(out, "\"%s\":", key);
    json_append_cstring(out, text);
    buffer_append_u8(out, ',');
}

static void append_commands(struct buffer *out, unsigned commands) {
    const char *separator = "";
    buffer_append_string(out, "\"commands\":[");
    for (unsigned i = 0; i < OPTION_COMMANDS; i++) {
        if (!(commands & (1u << i)))
            continue;
        buffer_append_format(out, "%s\"%s\"", separator, option_command_names[i]);
        separator = ",";
    }
    buffer_append_string(out, "],");
}

/* ["PORT"] from "PORT", the choices of an enumeration likewise. */
static void append_list(struct buffer *out, const char *key, const char *list, char separator) {
    const char stop[2] = {separator, '\0'};
    buffer_append_format(out, "\"%s\":[", key);
    for (const char *at = list; *at;) {
        size_t size = strcspn(at, stop);
        json_append_string(out, bytes_of(at, size));
        at += size;
        if (*at) {
            buffer_append_u8(out, ',');
            at++;
        }
    }
    buffer_append_string(out, "],");
}

static void append_row(struct buffer *out, const struct option_row *row) {
    char name[OPTION_NAME_MAX];
    option_environment_name(row, name);
    buffer_append_u8(out, '{');
    buffer_append_format(out, "\"flag\":\"--%s\",", row->flag);
    append_member(out, "environment", name);
    append_list(out, "aliases", row->aliases, ',');
    append_member(out, "ini", row->flag);
    append_member(out, "type", option_type_names[row->type]);
    append_list(out, "choices", row->type == OPTION_TYPE_ENUM ? row->placeholder : "", '|');
    append_member(out, "placeholder", row->placeholder);
    append_member(out, "default", row->fallback);
    append_member(out, "unit", row->unit);
    buffer_append_format(out, "\"min\":%" PRIu64 ",\"max\":%" PRIu64 ",", row->min, row->max);
    append_commands(out, row->commands);
    buffer_append_format(out, "\"reload\":%s,", row->reload ? "true" : "false");
    buffer_append_string(out, "\"prose\":");
    json_append_cstring(out, row->prose);
    buffer_append_u8(out, '}');
}

void help_append_json(struct buffer *out) {
    buffer_append_string(out, "{\"options\":[");
    for (size_t i = 0; i < OPTIONS; i++) {
        buffer_append_string(out, i ? ",\n" : "\n");
        append_row(out, &option_rows[i]);
    }
    buffer_append_string(out, "\n]}\n");
}
