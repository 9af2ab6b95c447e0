/* inspect_command.c: `steerd inspect`. Prints the list of facts as text or JSON; knows none of them. */
#include "server/inspect_command.h"

#include <stdio.h>
#include <string.h>

#include "core/base/json_writer.h"
#include "core/inspect.h"
#include "server/lab_settings.h"
#include "server/place_command.h"

#define KEY_WIDTH 34

void help_inspect(void) {
  puts("steerd inspect PLACE [--json] [--quick]\n\n"
       "Says what PLACE is. A model (a folder, an ini, a llama2.c checkpoint, or a name in the Hugging Face cache, as --model\n"
       "takes it): its architecture as understood, what is done to its weights on the way in, sizes, tokenizer, points,\n"
       "memory to serve it, and what its logits lose in bf16, f16 and q8, measured on a short built-in text. A dictionary (its folder\n"
       "or file, or a published name such as gpt2-small/7-res-jb in that cache): what it is taken for, each field that was read,\n"
       "its tensors and every step between a row and its activations. An ini: the model it describes and the dictionaries of its\n"
       "sections [source ID]. Any other file of tensors (safetensors, .pth, .npz, .npy), or a folder with weights alone: the\n"
       "tensors in it. 'demo' and 'demo/2-res-demo' are the demo that comes with steerd, and a dictionary of it.\n\n"
       "  --json    one JSON object; sizes in bytes\n"
       "  --quick   without the measurement\n\n"
       "Settings such as --threads and --aliases are those of `serve`.");
}

static bool json, quick;

/* ---- printing ---- */

/* A text from a file may hold anything: what could move a terminal's cursor is shown as '?'. */
static void print_line(const char *text) {
  for (; *text; text++) putchar((unsigned char)*text < ' ' || *text == 0x7F ? '?' : *text);
  putchar('\n');
}

static void print_text(const struct inspect_facts *facts) {
  const char *section = "";
  for (size_t i = 0; i < facts->count; i++) {
    const struct inspect_fact *fact = &facts->list[i];
    if (strcmp(section, fact->section) != 0) printf("%s%s\n", i ? "\n" : "", fact->section);
    section = fact->section;
    if (fact->key)
      printf("  %-*s ", KEY_WIDTH, fact->key);
    else
      printf("  - ");
    print_line(fact->text);
  }
}

static void write_value(struct json_writer *w, const struct inspect_fact *fact) {
  if (fact->kind == INSPECT_INT)
    jw_int(w, fact->integer);
  else if (fact->kind == INSPECT_REAL)
    jw_f64(w, fact->real);
  else
    jw_text(w, fact->text);
}

/* {"model": {"id": "gpt2-small", ...}, "transformations": ["...", ...], ...} */
static int print_json(const struct inspect_facts *facts, struct error *error) {
  struct buffer out;
  struct json_writer w;
  buffer_init(&out, 0);
  jw_init(&w, &out);
  jw_open(&w, '{');
  for (size_t i = 0; i < facts->count; i++) {
    const struct inspect_fact *fact = &facts->list[i], *before = i ? fact - 1 : NULL, *after = fact + 1;
    bool first = !before || strcmp(before->section, fact->section) != 0;
    bool last = i + 1 == facts->count || strcmp(after->section, fact->section) != 0;
    if (first) jw_key(&w, fact->section);
    if (first) jw_open(&w, fact->key ? '{' : '[');
    if (fact->key) jw_key(&w, fact->key);
    write_value(&w, fact);
    if (last) jw_close(&w, fact->key ? '}' : ']');
  }
  jw_close(&w, '}');
  int failed = buffer_check(&out, error);
  if (!failed) puts(out.data);
  buffer_clear(&out);
  return failed;
}

/* ---- the verb ---- */

static int inspect(const struct place_command *command, struct options *options, struct error *error) {
  struct inspect_options inspect = {.place = lab_settings_place(options, command->place, error), .backend = lab_settings_device(options, error),
                                    .threads = (int)options->threads, .measure = !quick};
  struct inspect_facts facts;
  if (!inspect.place || !inspect.backend || lab_settings_names(options, &inspect.names, &inspect.releases, error) != 0) return -1;
  int failed = inspect_place(&inspect, &facts, error);
  if (!failed && json)
    failed = print_json(&facts, error);
  else if (!failed)
    print_text(&facts);
  inspect_clear(&facts);
  return failed;
}

int run_inspect(int argc, char **argv) {
  struct place_command command = {.verb = "inspect", .wants = "a model or a file of tensors", .help = help_inspect,
                                  .flags = {{"--json", &json}, {"--quick", &quick}}, .run = inspect};
  return place_command_main(&command, argc, argv);
}
