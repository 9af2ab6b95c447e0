/* store_command.c: `steerd store check` and `steerd store backup`. */
#include "server/store_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/archive.h"
#include "server/progress.h"
#include "server/words_command.h"

void help_store(void) {
  puts("steerd store check [FILE]\n"
       "steerd store backup [FILE] --out COPY\n\n"
       "Both read the store FILE (else the one that the settings name) as it is at this moment. A daemon that has it goes on, and\n"
       "nothing of the store is changed. Stores of earlier versions may be looked at too.\n\n"
       "check   reads every page, every index, and every row beside the checksum that was written with it; says what the store\n"
       "        holds, and names the rows that are no longer what they were. Exit status 1 when anything is damaged.\n"
       "backup  writes it to COPY, a file that is not there yet and that is a store of its own: a daemon can be started with it.\n"
       "        To go back to it, end the daemon, move FILE away with FILE-wal and FILE-shm if they are there, and put COPY in\n"
       "        its place. (Copying FILE by other means while a daemon runs misses what stands in FILE-wal.)");
}

/* ---- check ---- */

static bool tell_rows(void *context, int64_t done, int64_t total) {
  (void)context, (void)total;
  if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%" PRId64 " rows", done);
  return progress_stopped();
}

static void print_findings(const char *file, const struct store_findings *found) {
  if (isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
  printf("%s: schema %d, %" PRId64 " bytes\n", file, found->schema, found->bytes);
  for (size_t i = 0; i < found->n_tables; i++) {
    const struct store_table *table = &found->tables[i];
    if (table->rows) printf("  %-20s %12" PRId64 "%s", table->name, table->rows, table->damaged ? "" : "\n");
    if (table->damaged) printf("  (%" PRId64 " damaged)\n", table->damaged);
  }
  for (size_t i = 0; i < found->n_named; i++) printf("damaged: %s\n", found->named[i]);
  if (found->damaged > (int64_t)found->n_named) printf("damaged: %" PRId64 " more\n", found->damaged - (int64_t)found->n_named);
}

static int check(struct store *store, const char *file, struct error *error) {
  struct store_findings found;
  struct store_tell tell = {tell_rows, NULL};
  if (store_look_through(store, STORE_CHECK_FULL, &tell, &found, error) != 0) {
    if (found.rows) print_findings(file, &found);
    return -1;
  }
  print_findings(file, &found);
  if (found.damaged)
    return error_set(error, ERROR_STORE, "store '%s': %" PRId64 " of %" PRId64 " rows are not what was written, and are not served: restore the file "
                     "from a copy, or make what they held again", file, found.damaged, found.rows);
  printf("sound: every page and index, and %" PRId64 " rows as they were written\n", found.rows);
  return 0;
}

/* ---- backup ---- */

static bool tell_pages(void *context, int64_t done, int64_t total) {
  (void)context;
  if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%.0f %%", total ? 100.0 * (double)done / (double)total : 0);
  return progress_stopped();
}

static int backup(struct store *store, const char *file, const char *copy, struct error *error) {
  struct store_tell tell = {tell_pages, NULL};
  if (store_copy(store, copy, &tell, error) != 0) return -1;
  fprintf(stderr, "%sstore '%s' as it is now is in %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", file, copy);
  return 0;
}

/* ---- the verb ---- */

static int run(const struct words_command *c, struct options *options, struct error *error) {
  const char *what = c->n_words ? c->words[0] : "", *file = c->n_words > 1 ? c->words[1] : strcmp(options->store, "auto") ? options->store : "", *out = c->own_values[0];
  bool backs_up = strcmp(what, "backup") == 0;
  if (!backs_up && strcmp(what, "check") != 0)
    return error_set(error, ERROR_ARGUMENT, "store takes 'check' or 'backup'%s%.40s%s; steerd help store says more", *what ? ", found '" : "", what,
                     *what ? "'" : "");
  if (backs_up && (!out || !*out)) return error_set(error, ERROR_ARGUMENT, "store backup needs --out COPY, the name of a new file");
  if (!backs_up && out) return error_set(error, ERROR_ARGUMENT, "store check writes nothing: leave out --out");
  if (!file || !*file) return error_set(error, ERROR_ARGUMENT, "store %s needs FILE, or --store FILE: the settings name no store", what);
  struct store *store = store_open_beside(file, true, error);
  if (!store) return -1;
  int failed = backs_up ? backup(store, file, out, error) : check(store, file, error);
  store_close(store);
  return failed;
}

int run_store(int argc, char **argv) {
  struct words_command command = {.most_words = 2, .own = {"--out"}, .help = help_store, .run = run};
  return words_command_main(&command, argc, argv);
}
