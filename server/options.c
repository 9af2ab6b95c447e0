/* Owns the table of settings and the reading of one value. Refuses to know where values come from (config.c)
 * and what they do (main.c). */
#include "server/options.h"

#include <ctype.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/number.h"

#define AT(field) offsetof(struct options, field)
#define DAY (24 * 3600 * 1000LL)
#define GIB (1LL << 30)

/* clang-format off */
static const struct option table[] = {
  {"listen", "what is served", OPTION_LIST, "127.0.0.1:8080", 0, 0, "", "ADDR:PORT",
   "Addresses to answer on; [::1]:PORT for IPv6, port 0 takes any free one.", AT(listen)},
  {"model", "what is served", OPTION_LIST, "", 0, 0, "", "[ID=]PLACE",
   "Models to load: a Hugging Face folder, a llama2.c checkpoint (.bin), an ini that describes one, or a name or repository "
   "(gpt2, EleutherAI/pythia-70m) that is in the Hugging Face cache of this machine (HF_HUB_CACHE, HF_HOME or "
   "~/.cache/huggingface). Behind it: ?process folds and centres its weights as TransformerLens does, ?q8, ?bf16 or ?f16 keeps "
   "them in fewer bits, ?process+bf16 does both.",
   AT(model)},
  {"source", "what is served", OPTION_LIST, "", 0, 0, "", "MODEL/SOURCE[=PLACE]",
   "Dictionaries to load: a folder, a file, an ini that describes one, or a published name; without PLACE, Neuronpedia's "
   "name of one.", AT(source)},
  {"source_folders", "what is served", OPTION_LIST, "", 0, 0, "", "FOLDER",
   "Folders that POST /v1/sources may load dictionaries from, besides the demo's and those named by source.",
   AT(source_folders)},
  {"aliases", "what is served", OPTION_TEXT, "auto", 0, 0, "", "FILE",
   "Names of models and their repositories; auto finds the table that came with the program, empty is none.", AT(aliases)},
  {"releases", "what is served", OPTION_TEXT, "auto", 0, 0, "", "FILE",
   "Names of published dictionaries; auto finds the table that came with the program, empty is none.", AT(releases)},
  {"store", "what is served", OPTION_TEXT, "auto", 0, 0, "", "FILE",
   "SQLite file for statistics, explanations and shared results; empty keeps nothing, and so does auto, but where the demo is "
   "served (~/.cache/steerd).", AT(store)},
  {"set_aside", "what is served", OPTION_FLAG, "no", 0, 0, "", "yes|no",
   "A store that is damaged is renamed to STORE.corrupt-TIME and a new one begun; no: steerd does not start with it.", AT(set_aside)},
  {"static", "what is served", OPTION_TEXT, "auto", 0, 0, "", "FOLDER",
   "The dashboard's files; auto finds those that came with the program, empty serves none.", AT(static_folder)},

  {"device", "engine", OPTION_TEXT, "auto", 0, 0, "", "auto|cpu|cuda:N",
   "What computes: a CUDA device, counted from 0, or the processor; auto takes the first CUDA device where there is one, and the "
   "log says what was found.", AT(device)},
  {"deterministic", "engine", OPTION_FLAG, "no", 0, 0, "", "yes|no",
   "On a CUDA device too, the same request has the same bits at any load; prompts are then read more slowly. On the processor it "
   "always has.", AT(deterministic)},
  {"threads", "engine", OPTION_INT, "0", 0, 1024, "threads", "",
   "Compute threads; 0 uses every processor this process may use, within what its control groups allow.", AT(threads)},
  {"max_queue", "engine", OPTION_INT, "64", 1, 100000, "requests", "",
   "Requests that may wait for the engine; the next one gets 503 with Retry-After. Clients (keys, or addresses where there are none) "
   "take turns, and none may have more waiting than places are left: alone, half of them.", AT(max_queue)},
  {"max_sessions", "engine", OPTION_INT, "16", 1, 4096, "sequences", "",
   "Sequences that run at once.", AT(max_sessions)},
  {"max_step_rows", "engine", OPTION_INT, "256", 1, 65536, "rows", "",
   "Positions computed together at most; bounds the wait between two tokens.", AT(max_step_rows)},
  {"kv_mib", "engine", OPTION_INT, "0", 0, 1 << 20, "MiB", "",
   "Memory for keys and values of all sessions of a model; 0 takes eight contexts (64 MiB to 1 GiB) or one long one, but no more "
   "than half of what the machine, its control groups and ulimit leave. Texts that do not fit are refused.", AT(kv_mib)},
  {"prefix_cache", "engine", OPTION_FLAG, "yes", 0, 0, "", "yes|no",
   "Texts that begin as earlier ones did, under the same edits, are read from where they part: keys and values stay in kv_mib as long "
   "as nobody needs the room. No answer changes, but how soon it comes tells whether somebody asked the same.", AT(prefix_cache)},
  {"dict_budget", "engine", OPTION_INT, "0", 0, 1LL << 50, "bytes", "",
   "Memory for the prepared encoders of dictionaries; the one used longest ago is dropped and comes back when it is used. "
   "0 is no limit on the processor, a quarter of its memory on a CUDA device.",
   AT(dict_budget)},
  {"dict_dtype", "engine", OPTION_CHOICE, "file", 0, 0, "", "file|f32|f16|bf16",
   "How encoders are kept; file keeps each as its file has it.", AT(dict_dtype)},
  {"self_test", "engine", OPTION_FLAG, "yes", 0, 0, "", "yes|no",
   "Runs each dictionary over a short text once it is loaded, and warns in the log when it explains too little.",
   AT(self_test)},
  {"queue_timeout", "engine", OPTION_SECONDS, "30", 1, DAY, "seconds", "",
   "Longest wait in the queue.", AT(queue_timeout)},
  {"generation_timeout", "engine", OPTION_SECONDS, "120", 1, DAY, "seconds", "",
   "Longest generation; it then stops with what it has.", AT(generation_timeout)},
  {"stuck_timeout", "engine", OPTION_SECONDS, "600", 1, DAY, "seconds", "",
   "The engine has work and stands still for longer, within one step of some hundred positions: /health answers 503, and a service "
   "manager that keeps watch (WatchdogSec) hears no more.", AT(stuck_timeout)},

  {"max_body", "requests", OPTION_INT, "1048576", 1024, GIB, "bytes", "",
   "Request body on ordinary routes.", AT(max_body)},
  {"max_batch_body", "requests", OPTION_INT, "16777216", 1024, GIB, "bytes", "",
   "Request body on routes that take batches; at least max_body.", AT(max_batch_body)},
  {"max_store", "requests", OPTION_INT, "68719476736", 0, 1LL << 50, "bytes", "",
   "What the store may have before clients may add no more to it (uploads, registrations, explanations, vectors, lists, shared results): "
   "507. Jobs go on. 0: no limit.", AT(max_store)},
  {"max_json_depth", "requests", OPTION_INT, "64", 4, 1024, "levels", "",
   "Nesting of arrays and objects in a body.", AT(max_json_depth)},
  {"max_result", "requests", OPTION_INT, "67108864", 1024, 4 * GIB, "bytes", "",
   "Largest reply.", AT(max_result)},
  {"reply_cache", "requests", OPTION_INT, "67108864", 0, 4 * GIB, "bytes", "",
   "Memory for finished replies about features, kept until something is written; 0 keeps none.", AT(reply_cache)},
  {"max_held", "requests", OPTION_INT, "1073741824", 1 << 20, 1LL << 50, "bytes", "",
   "What large replies of all clients may hold, in memory or in temporary files, until they are read; the next one gets 503. No client may "
   "hold more than stays free: alone, half.", AT(max_held)},
  {"rate", "requests", OPTION_INT, "0", 0, 1000000, "requests a minute", "",
   "How many requests that compute (steering, generation, activations, the laboratory) a client may send in a minute: a key, or an address "
   "where there are none. They may come at once; the next gets 429 with Retry-After. 0: any number.", AT(rate)},
  {"max_features", "requests", OPTION_INT, "64", 1, 4096, "features", "",
   "Features in one steering request.", AT(max_features)},
  {"max_texts", "requests", OPTION_INT, "256", 1, 65536, "texts", "",
   "Texts in one request.", AT(max_texts)},
  {"max_new_tokens", "requests", OPTION_INT, "256", 1, 1 << 20, "tokens", "",
   "Tokens that one request may generate.", AT(max_new_tokens)},
  {"max_prompt_chars", "requests", OPTION_INT, "10000", 1, 1 << 24, "characters", "",
   "Length of a prompt or text; the model's context bounds it as well.", AT(max_prompt_chars)},

  {"http_threads", "connections", OPTION_INT, "2", 1, 64, "threads", "",
   "Threads that read requests and write replies, for each listen address.", AT(http_threads)},
  {"max_connections", "connections", OPTION_INT, "256", 1, 65536, "connections", "",
   "Open connections in all; further ones are closed at once.", AT(max_connections)},
  {"max_connections_per_address", "connections", OPTION_INT, "64", 1, 65536, "connections", "",
   "Open connections from one address.", AT(max_connections_per_address)},
  {"max_headers_bytes", "connections", OPTION_INT, "32768", 1024, 1 << 20, "bytes", "",
   "Request line and headers together.", AT(max_headers_bytes)},
  {"max_header_count", "connections", OPTION_INT, "64", 4, 1024, "fields", "",
   "Header fields of a request.", AT(max_header_count)},
  {"header_timeout", "connections", OPTION_SECONDS, "10", 1, DAY, "seconds", "",
   "Time for a request's head, from its first byte to the empty line.", AT(header_timeout)},
  {"body_timeout", "connections", OPTION_SECONDS, "30", 1, DAY, "seconds", "",
   "Time for a request's body, however slowly its bytes drip.", AT(body_timeout)},
  {"idle_timeout", "connections", OPTION_SECONDS, "60", 1, DAY, "seconds", "",
   "How long a connection may wait for its next request.", AT(idle_timeout)},
  {"stall_timeout", "connections", OPTION_SECONDS, "30", 1, DAY, "seconds", "",
   "How long a client may leave a reply unread.", AT(stall_timeout)},
  {"min_send_rate", "connections", OPTION_INT, "4096", 0, GIB, "bytes a second", "",
   "How fast a client must read a reply that is ready, counted over stall_timeout; streams of events wait for slower ones. 0: at any "
   "pace.", AT(min_send_rate)},
  {"drain_timeout", "connections", OPTION_SECONDS, "30", 0, DAY, "seconds", "",
   "How long running requests may go on after SIGTERM.", AT(drain_timeout)},

  {"hosts", "who may ask", OPTION_LIST, "", 0, 0, "", "NAME",
   "Names accepted in the Host header besides localhost and every IP address.", AT(hosts)},
  {"cors_origins", "who may ask", OPTION_LIST, "", 0, 0, "", "SCHEME://HOST[:PORT]",
   "Web origins whose pages may use the API besides those on this machine.", AT(cors_origins)},
  {"keys", "who may ask", OPTION_LIST, "", 0, 0, "", "FILE|sha256:HEX",
   "Keys that clients must send: SHA-256 digests, or files with a key or digest a line; empty asks for none.",
   AT(keys)},
  {"insecure", "who may ask", OPTION_FLAG, "no", 0, 0, "", "yes|no",
   "Allows addresses other than loopback without keys.", AT(insecure)},

  {"log_format", "log", OPTION_CHOICE, "text", 0, 0, "", "text|json",
   "Form of the lines on standard error.", AT(log_format)},
  {"log_level", "log", OPTION_CHOICE, "info", 0, 0, "", "error|warn|info|debug",
   "Least important lines that are written; requests are at info.", AT(log_level)},
  {"core_dumps", "log", OPTION_FLAG, "no", 0, 0, "", "yes|no",
   "Allows core dumps and debuggers; prompts are in memory.", AT(core_dumps)},
};
/* clang-format on */

_Static_assert(sizeof table / sizeof table[0] <= OPTIONS_MOST, "raise OPTIONS_MOST");

size_t option_count(void) { return sizeof table / sizeof table[0]; }
const struct option *option_at(size_t i) { return &table[i]; }

static bool same_name(const char *a, const char *b) {
  for (; *a && *b; a++, b++)
    if (*a != *b && !(*a == '-' && *b == '_')) return false;
  return *a == *b;
}

const struct option *option_find(const char *name) {
  for (size_t i = 0; i < option_count(); i++)
    if (same_name(name, table[i].name)) return &table[i];
  return NULL;
}

/* Levenshtein distance; names here are short, longer ones count as far away. */
static size_t distance(const char *a, const char *b) {
  enum { MOST = 48 };
  size_t row[MOST + 1], n = strlen(b);
  if (strlen(a) > MOST || n > MOST) return MOST;
  for (size_t j = 0; j <= n; j++) row[j] = j;
  for (size_t i = 0; a[i]; i++) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < n; j++) {
      char c = a[i] == '-' ? '_' : a[i];
      size_t change = diagonal + (c != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = size_min(change, size_min(row[j], row[j + 1]) + 1);
    }
  }
  return row[n];
}

const char *option_nearest(const char *name) {
  static const char *const others_say[] = {"port", "host", "bind", "address"}; /* for `listen`, which no letter of them resembles */
  for (size_t i = 0; i < sizeof others_say / sizeof *others_say; i++)
    if (!strcmp(name, others_say[i])) return "listen";
  const char *best = NULL;
  size_t least = strlen(name) / 3 + 2; /* "lisen" yes, "colour" no */
  for (size_t i = 0; i < option_count(); i++) {
    size_t d = distance(name, table[i].name);
    if (d >= least) continue;
    least = d;
    best = table[i].name;
  }
  return best;
}

/* ---- one value -------------------------------------------------------------------------------------- */

static int refuse(const struct option *option, const char *value, const char *origin, const char *allowed,
                  struct error *error) {
  return error_set(error, ERROR_ARGUMENT, "%s: '%.100s' is not allowed (%s); it takes %s", option->name,
                   value, origin, allowed);
}

static int set_int(int64_t *out, const struct option *option, const char *value, const char *origin,
                   struct error *error) {
  char allowed[96];
  snprintf(allowed, sizeof allowed, "a whole number of %s from %lld to %lld", option->unit,
           (long long)option->min, (long long)option->max);
  int64_t number;
  if (!number_parse_int(value, &number) || number < option->min || number > option->max)
    return refuse(option, value, origin, allowed, error);
  *out = number;
  return 0;
}

static int set_seconds(int64_t *out, const struct option *option, const char *value, const char *origin,
                       struct error *error) {
  char allowed[96];
  snprintf(allowed, sizeof allowed, "seconds from %g to %g", (double)option->min / 1000,
           (double)option->max / 1000);
  double number;
  if (!number_parse_double(value, &number) || number * 1000 < (double)option->min ||
      number * 1000 > (double)option->max)
    return refuse(option, value, origin, allowed, error);
  *out = (int64_t)(number * 1000 + 0.5);
  return 0;
}

static int set_flag(bool *out, const struct option *option, const char *value, const char *origin,
                    struct error *error) {
  if (strcmp(value, "yes") && strcmp(value, "no")) return refuse(option, value, origin, "yes or no", error);
  *out = !strcmp(value, "yes");
  return 0;
}

static bool is_choice(const char *choices, const char *value) {
  size_t n = strlen(value);
  for (const char *p = choices; *p;) {
    size_t length = strcspn(p, "|");
    if (length == n && !memcmp(p, value, n)) return true;
    p += length + (p[length] == '|');
  }
  return false;
}

static int set_text(struct options *options, const char **out, const struct option *option, const char *value,
                    const char *origin, struct error *error) {
  if (option->kind == OPTION_CHOICE && !is_choice(option->choices, value))
    return refuse(option, value, origin, option->choices, error);
  char *copy = arena_text(&options->arena, value, strlen(value), error);
  if (!copy) return -1;
  *out = copy;
  return 0;
}

/* ---- lists ------------------------------------------------------------------------------------------ */

/* Cuts the next item off *rest: unescaped, trimmed, NUL-terminated in place. */
static char *next_item(char **rest) {
  char *in = *rest, *out = *rest, *item = *rest;
  while (*in && *in != ',') {
    if (in[0] == '\\' && in[1] == ',') in++;
    *out++ = *in++;
  }
  *rest = *in ? in + 1 : NULL;
  while (out > item && isspace((unsigned char)out[-1])) out--;
  *out = '\0';
  return item + strspn(item, " \t");
}

static int add_items(struct options *options, struct option_list *list, const char *value,
                     struct error *error) {
  size_t commas = 0;
  for (const char *p = value; *p; p++) commas += *p == ',';
  char *rest = arena_text(&options->arena, value, strlen(value), error);
  const char **items = arena_array(&options->arena, list->count + commas + 1, sizeof *items, error);
  if (!rest || !items) return -1;
  if (list->count) memcpy(items, list->items, list->count * sizeof *items);
  list->items = items;
  while (rest) {
    const char *item = next_item(&rest);
    if (*item) items[list->count++] = item;
  }
  return 0;
}

int option_add(struct options *options, const struct option *option, const char *value, const char *origin,
               struct error *error) {
  void *field = (char *)options + option->offset;
  switch (option->kind) {
  case OPTION_INT: return set_int(field, option, value, origin, error);
  case OPTION_SECONDS: return set_seconds(field, option, value, origin, error);
  case OPTION_FLAG: return set_flag(field, option, value, origin, error);
  case OPTION_LIST: return add_items(options, field, value, error);
  default: return set_text(options, field, option, value, origin, error);
  }
}

int option_set(struct options *options, const struct option *option, const char *value, const char *origin,
               struct error *error) {
  if (option->kind == OPTION_LIST)
    memset((char *)options + option->offset, 0, sizeof(struct option_list));
  return option_add(options, option, value, origin, error);
}

int options_init(struct options *options, struct error *error) {
  memset(options, 0, sizeof *options);
  arena_init(&options->arena, 0);
  for (size_t i = 0; i < option_count(); i++)
    if (option_set(options, &table[i], table[i].fallback, "built in", error)) return -1;
  return 0;
}

void options_clear(struct options *options) { arena_clear(&options->arena); }

/* ---- for people ------------------------------------------------------------------------------------- */

/* "ADDR:PORT", "text|json", "0 to 1024 threads", "0.001 to 86400 seconds". */
static void print_allowed(const struct option *o, FILE *out) {
  if (o->kind == OPTION_INT)
    fprintf(out, "%lld to %lld %s", (long long)o->min, (long long)o->max, o->unit);
  else if (o->kind == OPTION_SECONDS)
    fprintf(out, "%g to %g %s", (double)o->min / 1000, (double)o->max / 1000, o->unit);
  else
    fprintf(out, "%s%s", o->choices, o->kind == OPTION_LIST ? " (repeatable)" : "");
}

static bool starts_group(size_t i) { return i == 0 || strcmp(table[i].group, table[i - 1].group) != 0; }

/* A text in lines of a terminal's width, each behind `margin`. Words are never cut. */
static void print_wrapped(const char *margin, const char *text, FILE *out) {
  enum { WIDTH = 100 };
  size_t at = 0;
  for (const char *word = text; *word; word += strspn(word, " ")) {
    size_t length = strcspn(word, " "), room = WIDTH - strlen(margin);
    bool breaks = at == 0 || at + 1 + length > room;
    fprintf(out, "%s%s%.*s", at && breaks ? "\n" : "", breaks ? margin : " ", (int)length, word);
    at = breaks ? length : at + 1 + length;
    word += length;
  }
  fputc('\n', out);
}

void options_print_help(FILE *out) {
  for (size_t i = 0; i < option_count(); i++) {
    const struct option *o = &table[i];
    if (starts_group(i)) fprintf(out, "\n%s:\n", o->group);
    fputs("  --", out);
    for (const char *p = o->name; *p; p++) fputc(*p == '_' ? '-' : *p, out);
    fputc(' ', out);
    print_allowed(o, out);
    char text[1024];
    snprintf(text, sizeof text, "%s%s%s%s", o->text, *o->fallback ? " Default: " : "", o->fallback, *o->fallback ? "." : "");
    fputc('\n', out);
    print_wrapped("      ", text, out);
  }
}

void options_print_ini(FILE *out) {
  fputs("; Every setting of steerd at its default. A later layer replaces an earlier one: built-in default,\n"
        "; /etc/steerd/steerd.ini, --config FILE, environment (STEERD_MAX_BODY), flag (--max-body).\n"
        "; Lists are separated by commas; \"\\,\" is a comma inside an item. Sections only group.\n",
        out);
  for (size_t i = 0; i < option_count(); i++) {
    const struct option *o = &table[i];
    if (starts_group(i)) fprintf(out, "\n[%s]\n", o->group);
    fputc('\n', out);
    print_wrapped("; ", o->text, out);
    fputs("; ", out);
    print_allowed(o, out);
    fprintf(out, "\n%s =%s%s\n", o->name, *o->fallback ? " " : "", o->fallback);
  }
}
