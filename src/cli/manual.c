/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manual pages, from the rows of options.def and the table of commands: millrace(1), and
 * millrace-COMMAND(1) for each. Written in troff's man macros, plain ASCII: any other character as
 * \[uXXXX], hyphens that are to be typed as \-.
 */
#include "cli/cli.h"

#include <ctype.h>

/* ---- Text ---- */

/* The code point of the UTF-8 sequence at *at, which moves behind it. The texts are our own, so
 * they are well-formed. */
static uint32_t next_code_point(const char **at) {
    const unsigned char *c = (const unsigned char *)*at;
    unsigned more = c[0] >= 0xf0 ? 3 : c[0] >= 0xe0 ? 2 : c[0] >= 0xc0 ? 1 : 0;
    uint32_t code = more ? c[0] & (0x3fu >> more) : c[0];
    for (unsigned i = 1; i <= more; i++)
        code = code << 6 | (c[i] & 0x3fu);
    *at += more + 1;
    return code;
}

/* Text to be printed as it is: nothing in it is an instruction of troff. */
static void put_text(FILE *out, const char *text, size_t size) {
    const char *end = text + size;
    if (size > 0 && (*text == '.' || *text == '\''))
        fputs("\\&", out);
    while (text < end) {
        uint32_t code = next_code_point(&text);
        if (code == '\\')
            fputs("\\e", out);
        else if (code == '-')
            fputs("\\-", out);
        else if (code == '`' || code == '\'' || code == '"' || code == '^' || code == '~')
            fprintf(out, "\\(%s",
                    code == '`'    ? "ga"
                    : code == '\'' ? "aq"
                    : code == '"'  ? "dq"
                    : code == '^'  ? "ha"
                                   : "ti");
        else if (code > 126)
            fprintf(out, "\\[u%04X]", (unsigned)code);
        else
            fputc((int)code, out);
    }
}

static void put_string(FILE *out, const char *text) {
    put_text(out, text, strlen(text));
}

static void put_bold(FILE *out, const char *before, const char *text) {
    fputs("\\fB", out);
    put_string(out, before);
    put_string(out, text);
    fputs("\\fR", out);
}

static void put_capitals(FILE *out, const char *text) {
    for (; *text; text++)
        fputc(toupper((unsigned char)*text), out);
}

/* Where the second column of "word  what it is" starts, or 0 when the line is none of these. */
static size_t second_column(const char *line, size_t size) {
    for (size_t i = 1; i + 2 < size; i++)
        if (line[i] == ' ' && line[i + 1] == ' ')
            return i + strspn(line + i, " ");
    return 0;
}

/* A line of a command's prose: a paragraph goes on, or a row of a table starts. */
static void put_prose_line(FILE *out, const char *line, size_t size) {
    size_t indent = strspn(line, " ");
    size_t column = indent ? 0 : second_column(line, size);
    if (size == 0) {
        fputs(".PP\n", out);
        return;
    }
    if (column) {
        size_t word = column;
        while (line[word - 1] == ' ')
            word--;
        fputs(".TP\n\\fB", out);
        put_text(out, line, word);
        fputs("\\fR\n", out);
        indent = column;
    }
    put_text(out, line + indent, size - indent);
    fputc('\n', out);
}

static void put_prose(FILE *out, const char *prose) {
    while (*prose) {
        size_t size = strcspn(prose, "\n");
        put_prose_line(out, prose, size);
        prose += size + (prose[size] == '\n');
    }
}

/* Lines to paste: as they are, without the indentation that --help gives them. */
static void put_examples(FILE *out, const char *examples) {
    fputs(".SH EXAMPLES\n.nf\n", out);
    while (*examples) {
        size_t size = strcspn(examples, "\n");
        size_t indent = strspn(examples, " ");
        put_text(out, examples + indent, size - indent);
        fputc('\n', out);
        examples += size + (examples[size] == '\n');
    }
    fputs(".fi\n", out);
}

/* ---- Options ---- */

static void put_flag(FILE *out, const struct option_row *row) {
    fputs(".TP\n", out);
    put_bold(out, "--", row->flag);
    if (row->placeholder[0]) {
        fputs(" \\fI", out);
        put_string(out, row->placeholder);
        fputs("\\fR", out);
    }
    fputc('\n', out);
}

static void put_option(FILE *out, const struct option_row *row, unsigned bit) {
    put_flag(out, row);
    put_string(out, row->prose);
    fputc('\n', out);
    if (row->fallback[0] && row->type != OPTION_TYPE_BOOL) {
        fputs("The default is ", out);
        put_string(out, row->fallback);
        fputs(".\n", out);
    }
    if (row->reload && bit == FOR_SERVE)
        fputs("A SIGHUP can change it.\n", out);
}

static void put_options(FILE *out, unsigned bit) {
    fputs(".SH OPTIONS\n", out);
    for (size_t i = 0; i < OPTIONS; i++)
        if (option_rows[i].commands & bit)
            put_option(out, &option_rows[i], bit);
    fputs(".TP\n\\fB\\-\\-help\\fR, \\fB\\-h\\fR\nShow the options and examples.\n", out);
}

static void put_environment(FILE *out, unsigned bit) {
    fputs(".SH ENVIRONMENT\nEach variable stands for an option; a flag wins over it, and it wins\n"
          "over the file that \\fB\\-\\-config\\fR names. An empty one counts as not set.\n",
          out);
    for (size_t i = 0; i < OPTIONS; i++) {
        char name[OPTION_NAME_MAX];
        if (!(option_rows[i].commands & bit))
            continue;
        option_environment_name(&option_rows[i], name);
        fprintf(out, ".TP\n\\fB%s\\fR%s%s\n", name, option_rows[i].aliases[0] ? ", " : "",
                option_rows[i].aliases);
        put_bold(out, "--", option_rows[i].flag);
        fputc('\n', out);
    }
    fputs(".TP\n\\fBNO_COLOR\\fR\nNo colour, not even on a terminal.\n", out);
}

/* A file that is there unless an option says otherwise goes by its name, any other by its flag. */
static void put_file(FILE *out, const struct option_row *row) {
    fputs(".TP\n", out);
    if (strchr(row->fallback, '/')) {
        fputs("\\fI", out);
        put_string(out, row->fallback);
        fputs("\\fR\n", out);
    } else {
        fputs("\\fI", out);
        put_string(out, row->placeholder);
        fputs("\\fR of ", out);
        put_bold(out, "--", row->flag);
        fputc('\n', out);
    }
    put_string(out, row->prose);
    fputc('\n', out);
}

static void put_files(FILE *out, unsigned bit) {
    fputs(".SH FILES\n", out);
    for (size_t i = 0; i < OPTIONS; i++)
        if ((option_rows[i].commands & bit) && option_rows[i].type == OPTION_TYPE_PATH)
            put_file(out, &option_rows[i]);
}

/* ---- Pages ---- */

/* No date: the page is that of the version, and two builds of it are the same. */
static void put_title(FILE *out, const char *command) {
    fputs(".\\\" Made by `millrace help --man`.\n.TH MILLRACE", out);
    if (*command) {
        fputs("\\-", out);
        put_capitals(out, command);
    }
    fprintf(out, " 1 \"\" \"millrace %s\" \"Millrace\"\n", MILLRACE_VERSION);
}

static void put_exit_status(FILE *out) {
    fprintf(out,
            ".SH \"EXIT STATUS\"\n"
            ".TP\n%d\nIt is done.\n"
            ".TP\n%d\nIt was tried and did not work, or damage was found.\n"
            ".TP\n%d\nThe command line is wrong, or nothing could be looked at.\n",
            CLI_OK, CLI_FAILED, CLI_USAGE);
}

static void put_command_page(FILE *out, const struct cli_command *command) {
    put_title(out, command->name);
    fputs(".SH NAME\nmillrace\\-", out);
    fprintf(out, "%s \\- ", command->name);
    put_string(out, command->summary);
    fprintf(out, "\n.SH SYNOPSIS\n\\fBmillrace %s\\fR ", command->name);
    put_string(out, command->arguments);
    fprintf(out, "%s[\\fIOPTION\\fR]...\n.SH DESCRIPTION\n", *command->arguments ? " " : "");
    if (*command->prose)
        put_prose(out, command->prose);
    else
        fprintf(out, "%c%s.\n", toupper((unsigned char)command->summary[0]), command->summary + 1);
    put_options(out, command->bit);
    put_environment(out, command->bit);
    put_files(out, command->bit);
    put_exit_status(out);
    put_examples(out, command->examples);
    fputs(".SH \"SEE ALSO\"\n\\fBmillrace\\fR(1)\n", out);
}

static void put_commands(FILE *out, const struct cli *cli) {
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; i < cli->n_commands; i++) {
        fprintf(out, ".TP\n\\fBmillrace\\-%s\\fR(1)\n", cli->commands[i]->name);
        put_string(out, cli->commands[i]->summary);
        fputc('\n', out);
    }
}

static void put_see_also(FILE *out, const struct cli *cli) {
    fputs(".SH \"SEE ALSO\"\n", out);
    for (size_t i = 0; i < cli->n_commands; i++)
        fprintf(out, "\\fBmillrace\\-%s\\fR(1)%s\n", cli->commands[i]->name,
                i + 1 < cli->n_commands ? "," : "");
}

static void put_program_page(FILE *out, const struct cli *cli) {
    put_title(out, "");
    fputs(".SH NAME\nmillrace \\- take data in over HTTP, keep it, and answer queries\n"
          ".SH SYNOPSIS\n\\fBmillrace\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR]...\n"
          ".SH DESCRIPTION\nMillrace takes data in over HTTP, acknowledges it once it is durable,\n"
          "and applies it to stores that answer queries.\n",
          out);
    put_commands(out, cli);
    fputs(
        ".SH OPTIONS\nThe page of each command lists its own.\n"
        ".TP\n\\fB\\-\\-help\\fR, \\fB\\-h\\fR\nShow the commands.\n"
        ".TP\n\\fB\\-\\-version\\fR\nShow the version.\n"
        ".SH ENVIRONMENT\nEvery option can also be an environment variable: MILLRACE_DATA_DIR\n"
        "for \\fB\\-\\-data\\-dir\\fR.\n"
        ".SH FILES\nThe file that \\fB\\-\\-config\\fR names has lines \\fIdata\\-dir = ...\\fR;\n"
        "those below a line \\fI[serve]\\fR are for that command alone. Flags and the\n"
        "environment win over it.\n",
        out);
    put_exit_status(out);
    for (size_t i = 0; i < cli->n_commands; i++)
        if (cli->commands[i]->bit == FOR_SERVE)
            put_examples(out, cli->commands[i]->examples);
    put_see_also(out, cli);
}

void manual_print(const struct cli *cli, const struct cli_command *command, FILE *out) {
    if (command)
        put_command_page(out, command);
    else
        put_program_page(out, cli);
}
