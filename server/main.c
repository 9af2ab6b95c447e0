/* steerd: the command line, and the life of the daemon from its settings to its last reply. The only file
 * that may end the process. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "api/api.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/base/nearest.h"
#include "core/core.h"
#include "server/access_log.h"
#include "server/archive_command.h"
#include "server/command.h"
#include "server/config.h"
#include "server/eval_command.h"
#include "server/http.h"
#include "server/inspect_command.h"
#include "server/keys.h"
#include "server/lab_settings.h"
#include "server/listener.h"
#include "server/map_command.h"
#include "server/notify.h"
#include "server/options.h"
#include "server/place.h"
#include "server/pull_command.h"
#include "server/stats_command.h"
#include "server/store_command.h"
#include "server/train_command.h"

/* After the drain time: how long a cancelled request may take to say so to its client. */
#define FAREWELL_MS 2000
#define GLANCE_MS 10
#define DEVICE_GLANCE_MS 1000

/* ---- signals ---------------------------------------------------------------------------------------- */

static volatile sig_atomic_t serving, signals;
static int signal_pipe[2] = {-1, -1};

/* Before anything is served there is nothing to drain; the second signal means now. */
static void on_signal(int number) {
  (void)number;
  if (!serving) _exit(EXIT_DONE);
  if (++signals > 1) _exit(EXIT_FAILED);
  int saved = errno;
  if (write(signal_pipe[1], "", 1) < 0) _exit(EXIT_FAILED);
  errno = saved;
}

static int catch_signals(struct error *error) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  if (pipe2(signal_pipe, O_CLOEXEC) || sigaction(SIGTERM, &action, NULL) || sigaction(SIGINT, &action, NULL))
    return error_set(error, ERROR_IO, "cannot catch signals: %s", strerror(errno));
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, NULL);
  return 0;
}

/* ---- one daemon ------------------------------------------------------------------------------------- */

struct daemon {
  struct options options;
  struct keys *keys;
  struct doors *doors; /* NULL: no keys are asked for */
  struct rates *rates; /* NULL: no rate is set */
  struct listener *listeners;
  size_t n_listeners;
  struct lab *lab;
  struct api *api;
  struct http *http;
};

static int open_listeners(struct daemon *d, struct error *error) {
  const struct option_list *listen = &d->options.listen;
  d->listeners = arena_array(&d->options.arena, listen->count, sizeof *d->listeners, error);
  if (!d->listeners) return -1;
  for (size_t i = 0; i < listen->count; i++) {
    if (listener_open(listen->items[i], &d->listeners[i], error)) return -1;
    d->n_listeners++;
    bool open_to_all = !d->listeners[i].loopback && !keys_count(d->keys);
    if (open_to_all && !d->options.insecure)
      return error_set(error, ERROR_ARGUMENT,
                       "listen: %s can be reached from other machines; set keys, or --insecure yes",
                       listen->items[i]);
    if (open_to_all) log_warn("%s answers other machines without keys", d->listeners[i].url);
  }
  return 0;
}

static int open_lab(struct daemon *d, struct error *error) {
  struct lab_options lab;
  if (lab_settings(&d->options, &lab, error)) return -1;
  bool anywhere = strcmp(d->options.store, "auto") == 0;
  if (lab_settings_is_demo(&d->options) && anywhere && !(lab.store = lab_settings_demo_store(&d->options, error))) return -1;
  lab.holder = "serve";
  lab.run_jobs = true;
  lab.load_statistics = true;
  lab.self_test = d->options.self_test;
  d->lab = lab_open(&lab, error);
  if (!d->lab) return -1;
  if (!lab.store || !*lab.store)
    log_info("no store: statistics, explanations and shared results are not kept, and lists of them are empty; --store FILE "
             "keeps them");
  return 0;
}

/* The list again as one text, for the reception. */
static char *join(struct arena *arena, const struct option_list *list, struct error *error) {
  char *text = arena_text(arena, "", 0, error);
  for (size_t i = 0; text && i < list->count; i++)
    text = arena_printf(arena, error, "%s%s%s", text, i ? "," : "", list->items[i]);
  return text;
}

/* The dashboard's folder, NULL for none. A build or an installation without its files still serves the API. */
static int find_static(struct daemon *d, const char **folder, struct error *error) {
  const char *wanted = d->options.static_folder;
  *folder = *wanted ? wanted : NULL;
  if (strcmp(wanted, "auto") != 0) return 0;
  if (place_find("static", &d->options.arena, folder, error)) return -1;
  if (!*folder) log_warn("the dashboard's files did not come with the program; the setting 'static' names their folder");
  return 0;
}

static int open_api(struct daemon *d, struct error *error) {
  struct options *o = &d->options;
  const char *folder;
  if (find_static(d, &folder, error)) return -1;
  struct api_options api = {
      .max_body = (size_t)o->max_body,
      .max_batch_body = (size_t)o->max_batch_body,
      .max_store = o->max_store,
      .max_json_depth = (size_t)o->max_json_depth,
      .max_result = (size_t)o->max_result,
      .max_kept = (size_t)o->reply_cache,
      .stuck_ms = o->stuck_timeout,
      .max_features = (int)o->max_features,
      .max_texts = (int)o->max_texts,
      .max_new_tokens = (int)o->max_new_tokens,
      .max_prompt_chars = (size_t)o->max_prompt_chars,
      .cors_origins = join(&o->arena, &o->cors_origins, error),
      .base_url = d->listeners[0].any ? NULL : d->listeners[0].url,
      .static_folder = folder,
  };
  if (!api.cors_origins) return -1;
  d->api = api_new(d->lab, &api, error);
  return d->api ? 0 : -1;
}

static int open_http(struct daemon *d, struct error *error) {
  const struct options *o = &d->options;
  struct http_options http = {
      .listeners = d->listeners,
      .n_listeners = d->n_listeners,
      .rules = {.api = d->api,
                .keys = d->keys,
                .hosts = {o->hosts.items, o->hosts.count},
                .origins = {o->cors_origins.items, o->cors_origins.count},
                .limits = {(size_t)o->max_headers_bytes, (size_t)o->max_header_count},
                .max_body = (size_t)o->max_body,
                .max_batch_body = (size_t)o->max_batch_body,
                .max_held = o->max_held,
                .rates = d->rates,
                .doors = d->doors},
      .watch = {.timeout_ms = {[PEER_HEAD] = o->header_timeout,
                               [PEER_IDLE] = o->idle_timeout,
                               [PEER_BODY] = o->body_timeout,
                               [PEER_SEND] = o->stall_timeout,
                               [PEER_FLOW] = o->stall_timeout},
                .least_rate = o->min_send_rate,
                .max_peers = (size_t)o->max_connections},
      .max_per_address = (size_t)o->max_connections_per_address,
      .threads = (unsigned)o->http_threads,
  };
  for (size_t i = 0; i < d->n_listeners; i++)
    if (listener_listen(&d->listeners[i], error)) return -1;
  d->http = http_start(&http, error);
  return d->http ? 0 : -1;
}

/* What clients are counted by, where they are. */
static int open_guards(struct daemon *d, struct error *error) {
  if (keys_count(d->keys) && !(d->doors = doors_new(error))) return -1;
  if (d->options.rate && !(d->rates = rates_new(d->options.rate, error))) return -1;
  return 0;
}

static int open_daemon(struct daemon *d, struct error *error) {
  d->keys = keys_open(d->options.keys.items, d->options.keys.count, error);
  if (!d->keys || open_guards(d, error) || open_listeners(d, error)) return -1;
  return open_lab(d, error) || open_api(d, error) || open_http(d, error) ? -1 : 0;
}

static void close_daemon(struct daemon *d) {
  http_stop(d->http);
  if (d->api) api_free(d->api);
  lab_close(d->lab);
  for (size_t i = 0; i < d->n_listeners; i++) listener_close(&d->listeners[i]);
  keys_close(d->keys);
  doors_free(d->doors);
  rates_free(d->rates);
}

static bool is_busy(const struct daemon *d) { return http_busy(d->http) > 0 || api_in_flight(d->api) > 0; }

static void wait_until_idle(const struct daemon *d, int64_t ms) {
  int64_t end = clock_ns() + ms * 1000000;
  while (is_busy(d) && clock_ns() < end) poll(NULL, 0, GLANCE_MS);
}

static void drain(struct daemon *d) {
  log_info("stopping requests=%zu", http_busy(d->http));
  notify_manager("STOPPING=1");
  http_quiesce(d->http);
  api_drain(d->api);
  lab_drain(d->lab);
  wait_until_idle(d, d->options.drain_timeout);
  if (!is_busy(d)) return;
  log_warn("cancelled after the drain time requests=%zu", http_busy(d->http));
  http_cancel(d->http);
  wait_until_idle(d, FAREWELL_MS);
}

/* Tells the manager that the worker moves, or has nothing to do. */
static void feed_watchdog(const struct daemon *d) {
  struct lab_stats stats;
  lab_stats(d->lab, &stats);
  if (stats.still_seconds * 1e3 <= (double)d->options.stuck_timeout) notify_manager("WATCHDOG=1");
}

static bool device_is_lost(const struct lab *lab) {
  struct lab_stats stats;
  lab_stats(lab, &stats);
  return stats.lost;
}

/* Or for the end of the compute device: what is in flight has failed by then, and so would all that comes. */
static void wait_for_signal(const struct daemon *d) {
  struct pollfd pipe_end = {.fd = signal_pipe[0], .events = POLLIN};
  int feed_ms = notify_watchdog_ms();
  int glance_ms = feed_ms && feed_ms < DEVICE_GLANCE_MS ? feed_ms : DEVICE_GLANCE_MS;
  do {
    if (feed_ms) feed_watchdog(d);
  } while (poll(&pipe_end, 1, glance_ms) != 1 && !device_is_lost(d->lab));
}

static void say_ready(const struct daemon *d) {
  for (size_t i = 0; i < d->n_listeners; i++) printf("ready %s\n", d->listeners[i].url);
  fflush(stdout);
}

static enum log_level level_of(const char *word) {
  return !strcmp(word, "error") ? LOG_LEVEL_ERROR
         : !strcmp(word, "warn") ? LOG_LEVEL_WARN
         : !strcmp(word, "info") ? LOG_LEVEL_INFO
                                 : LOG_LEVEL_DEBUG;
}

static void prepare_process(const struct options *o) {
  enum log_level level = level_of(o->log_level);
  log_set_level(level);
  access_log_install(!strcmp(o->log_format, "json"), level >= LOG_LEVEL_INFO);
  if (!o->core_dumps) prctl(PR_SET_DUMPABLE, 0);
  mapfile_guard_install();
}

/* Behind a device that has failed. Closing what belongs to it, and what its driver does when a process exits, may wait for it for ever.
 * The store needs no closing: what was written is there. */
static _Noreturn void leave(const struct error *error) {
  access_log_stop();
  _exit(complain(error));
}

static int run_daemon(struct daemon *d, struct error *error) {
  prepare_process(&d->options);
  if (catch_signals(error)) return -1;
  access_log_start();
  int rc = open_daemon(d, error);
  if (!rc) {
    serving = 1;
    say_ready(d);
    notify_manager("READY=1");
    wait_for_signal(d);
    if (device_is_lost(d->lab))
      rc = error_set(error, ERROR_DEVICE, "the compute device has failed; the server ends, to be started again");
    drain(d);
    if (rc) leave(error);
  }
  close_daemon(d);
  access_log_stop();
  return rc;
}

/* ---- verbs ------------------------------------------------------------------------------------------ */

static void help_serve(void) {
  puts("steerd serve [--config FILE] [--KEY VALUE ...]\n\n"
       "Serves models and their dictionaries over HTTP until SIGTERM. Prints 'ready URL' on standard output\n"
       "for each address once it answers. Without --model it serves the demo that came with it, beside its own\n"
       "dictionaries those of --source demo/NAME=PLACE, and keeps what it remembers of it in ~/.cache/steerd unless\n"
       "--store names another file.\n\n"
       "The first of these that says something wins: flag, environment (STEERD_MAX_BODY=1048576), --config "
       "FILE,\n" CONFIG_SYSTEM_FILE ", built-in default. 'steerd config' prints them as a file.");
  options_print_help(stdout);
}

static int run_serve(int argc, char **argv) {
  struct error error = ERROR_INIT;
  struct daemon d;
  bool help = false;
  memset(&d, 0, sizeof d);
  int rc = config_read(&d.options, argc, argv, CONFIG_SYSTEM_FILE, &help, &error);
  if (!rc && help) help_serve();
  else if (!rc) rc = run_daemon(&d, &error);
  options_clear(&d.options);
  return rc ? complain(&error) : EXIT_DONE;
}

static int run_routes(int argc, char **argv) {
  (void)argc, (void)argv;
  api_print_routes();
  return EXIT_DONE;
}

static int run_config(int argc, char **argv) {
  (void)argc, (void)argv;
  options_print_ini(stdout);
  return EXIT_DONE;
}

static int run_version(int argc, char **argv) {
  (void)argc, (void)argv;
  printf("steerd %s (%s)\n", STEERD_VERSION, STEERD_COMMIT);
  return EXIT_DONE;
}

static int run_help(int argc, char **argv);

static const struct verb {
  const char *name, *arguments, *text;
  int (*run)(int argc, char **argv);
  bool takes_arguments;
} verbs[] = {
    {"serve", "[--config FILE] [--KEY VALUE ...]", "the daemon (also without the word)", run_serve, true},
    {"pull", "PLACE [--list]", "a model or a dictionary from the Hugging Face hub into the cache of this machine", run_pull, true},
    {"inspect", "PLACE [--json] [--quick]", "what a model or a file of tensors is, as steerd understands it", run_inspect, true},
    {"stats", "MODEL SOURCE --corpus FILE --store FILE [--lines] ...",
     "statistics of a source's features over a text; resumes", run_stats, true},
    {"eval", "MODEL SOURCE --corpus FILE [--lines] ...", "how well a dictionary does over a text", run_eval, true},
    {"map", "MODEL SOURCE --store FILE [--seed N] [--replace] ...", "a map of a source's features, similar ones near each other", run_map, true},
    {"train", "MODEL POINT --corpus FILE --out FOLDER ...", "a sparse dictionary on a model's activations; resumes", run_train, true},
    {"import", "FOLDER --store FILE ...", "a source's statistics from Neuronpedia's batches", run_import, true},
    {"export", "MODEL SOURCE --out FOLDER --store FILE", "a source's statistics as such batches", run_export, true},
    {"store", "check|backup [FILE] ...", "looks a store through, or copies it, beside a daemon that runs", run_store, true},
    {"routes", "", "prints every route with its summary", run_routes, false},
    {"config", "", "prints every setting at its default, as an INI file", run_config, false},
    {"version", "", "prints version and commit", run_version, false},
    {"help", "[VERB]", "prints this, or more about a verb", run_help, true},
};
enum { VERBS = sizeof verbs / sizeof verbs[0] };

static const struct verb *find_verb(const char *name) {
  for (size_t i = 0; i < VERBS; i++)
    if (!strcmp(verbs[i].name, name)) return &verbs[i];
  return NULL;
}

static int unknown_verb(const char *name) {
  const char *names[VERBS];
  for (size_t i = 0; i < VERBS; i++) names[i] = verbs[i].name;
  const char *near = nearest_name(name, names, VERBS);
  fprintf(stderr, "steerd: unknown verb '%.100s'%s%s%s\n", name, near ? "; did you mean '" : "; steerd help lists them",
          near ? near : "", near ? "'?" : "");
  return EXIT_USAGE;
}

static int help_verb(const struct verb *verb) {
  if (verb->run == run_serve) help_serve();
  else if (verb->run == run_stats) help_stats();
  else if (verb->run == run_inspect) help_inspect();
  else if (verb->run == run_pull) help_pull();
  else if (verb->run == run_eval) help_eval();
  else if (verb->run == run_map) help_map();
  else if (verb->run == run_train) help_train();
  else if (verb->run == run_import) help_import();
  else if (verb->run == run_export) help_export();
  else if (verb->run == run_store) help_store();
  else printf("steerd %s%s%s\n\n%s\n", verb->name, *verb->arguments ? " " : "", verb->arguments, verb->text);
  return EXIT_DONE;
}

static int run_help(int argc, char **argv) {
  if (argc > 0) {
    const struct verb *verb = find_verb(argv[0]);
    return verb ? help_verb(verb) : unknown_verb(argv[0]);
  }
  puts("steerd: opens up a language model while it runs\n");
  for (size_t i = 0; i < VERBS; i++)
    printf("  steerd %s%s%s\n      %s\n", verbs[i].name, *verbs[i].arguments ? " " : "", verbs[i].arguments, verbs[i].text);
  puts("\nsteerd help serve lists every setting.");
  return EXIT_DONE;
}

static bool is_help(const char *word) { return !strcmp(word, "--help") || !strcmp(word, "-h"); }

int main(int argc, char **argv) {
  signal(SIGXFSZ, SIG_IGN); /* a file at its limit (ulimit -f) is an error of whoever writes it, not the end of all */
  if (argc > 1 && is_help(argv[1])) return run_help(0, NULL);
  if (argc > 1 && !strcmp(argv[1], "--version")) return run_version(0, NULL);
  if (argc < 2 || argv[1][0] == '-') return run_serve(argc - 1, argv + 1);
  const struct verb *verb = find_verb(argv[1]);
  if (!verb) return unknown_verb(argv[1]);
  if (argc > 2 && is_help(argv[2])) return help_verb(verb);
  if (argc > 2 && !verb->takes_arguments) {
    fprintf(stderr, "steerd: '%s' takes no arguments, found '%.100s'\n", verb->name, argv[2]);
    return EXIT_USAGE;
  }
  return verb->run(argc - 2, argv + 2);
}
